//! How much is revoked, as metrics, read at each scrape.

use anyhow::Result;
use prometheus::{
    IntCounter, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::policy::SharedPolicy;

/// Registers `enforcer_revocations{origin}` (`change`: operators and the authorization server; `file`), `enforcer_revocations_bytes` and
/// `enforcer_revocations_refused_total`.
pub fn register(registry: &Registry, policy: SharedPolicy) -> Result<()> {
    registry.register(Box::new(Revocations { policy, descriptions: families()? }))?;
    Ok(())
}

type Families = (IntGaugeVec, IntGauge, IntCounter);

struct Revocations {
    policy: SharedPolicy,
    descriptions: Families,
}

impl Collector for Revocations {
    fn desc(&self) -> Vec<&Desc> {
        let (entries, bytes, refused) = &self.descriptions;
        [entries.desc(), bytes.desc(), refused.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok((entries, bytes, refused)) = families() else { return Vec::new() };
        let look = self.policy.load().revoked().look();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        entries.with_label_values(&["change"]).set(number(look.entries));
        entries.with_label_values(&["file"]).set(number(look.listed));
        bytes.set(number(look.bytes));
        refused.inc_by(look.refused);
        [entries.collect(), bytes.collect(), refused.collect()].concat()
    }
}

fn families() -> Result<Families> {
    Ok((
        IntGaugeVec::new(Opts::new("enforcer_revocations", "What tokens are refused by"), &["origin"])?,
        IntGauge::new("enforcer_revocations_bytes", "Memory of what tokens are refused by")?,
        IntCounter::new(
            "enforcer_revocations_refused_total",
            "Revocations that are NOT in force: there was no room for them",
        )?,
    ))
}
