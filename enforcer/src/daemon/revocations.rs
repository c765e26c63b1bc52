//! What was revoked before this start.

use std::sync::Arc;

use anyhow::{Result, bail};
use tracing::{error, info};

use crate::{
    config::Config,
    metrics::Metrics,
    revoked::{Kind, Revoked, Terms, keeping},
    store::Gauges,
};

/// Opens the store, if there is one, and reads it. Where nobody knows any more what was revoked, every token is that has been issued so
/// far: it is refused until the last of them has expired (closed).
pub(super) fn begin(config: &Config, metrics: &Metrics, now: u64) -> Result<Arc<Revoked>> {
    let most = config.revocation.max_entries as usize;
    let Some(path) = &config.revocation.store else { return Revoked::new(most) };
    let gauges = Gauges {
        pending: metrics.revocation_store_pending.clone(),
        errors: metrics.revocation_store_errors.clone(),
    };
    let keeping::Kept { revoked, without_room, is_lost } = keeping::begin(path, most, gauges, now)?;
    let entries = revoked.look().entries;
    if entries > 0 {
        info!(entries, "what was revoked is so still");
    }
    if without_room > 0 {
        bail!(
            "revocation.max_entries has no room for {without_room} of the revocations in {}: raise it, or tokens that were revoked would be good again",
            path.display()
        );
    }
    if is_lost {
        let longest =
            config.tokens.values().map(|token| (token.max_lifetime + 2 * token.leeway).as_secs()).max();
        let until = now.saturating_add(longest.unwrap_or(86_400)).saturating_add(1);
        let terms = Terms { until: u32::try_from(until).unwrap_or(u32::MAX - 1), before: second(now + 1) };
        let mark = revoked.marker().mark(Kind::Every, b"");
        if revoked.revoke(mark, terms, now).is_err() {
            bail!("revocation.max_entries has no room for an entry: raise it");
        }
        error!(
            "it is not known what was revoked: EVERY TOKEN THAT WAS ISSUED BEFORE NOW IS REFUSED; `enforcer token restore --every` takes that back"
        );
    }
    Ok(revoked)
}

fn second(unix: u64) -> u32 {
    u32::try_from(unix).unwrap_or(u32::MAX - 1)
}
