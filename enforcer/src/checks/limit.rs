//! Whether a source has requests left on a route.

use enforcer_common::{limiter::Charge, source::SourceKey};

use super::{Refusal, facts::ClientAddr};
use crate::{
    clock::KernelTime,
    denial::Denial,
    policy::{Policy, route::Route},
};

/// Charges one request; routes without a limit cost nothing.
pub(super) fn check(
    policy: &Policy,
    route: &Route,
    source: ClientAddr,
    now: KernelTime,
) -> Result<(), Refusal> {
    let Some(limiter) = &route.limiter else { return Ok(()) };
    let key = SourceKey::of(source.get(), policy.v6_mask);
    match limiter.charge(key, now) {
        Charge::Within => Ok(()),
        Charge::Exceeded(nanoseconds) => Err(Refusal {
            // Whole seconds, rounded up: an answer of 0 would invite a retry that fails again.
            retry_after: Some(nanoseconds.div_ceil(1_000_000_000).max(1)),
            ..Refusal::plain(Denial::RateLimited)
        }),
        // Nobody bans in a route's own table.
        Charge::Full | Charge::Banned(_) => {
            Err(Refusal { retry_after: Some(1), ..Refusal::plain(Denial::LimiterFull) })
        }
    }
}
