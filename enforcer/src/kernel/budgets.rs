//! What is left of the budgets that a packet would be charged to, for people. Called by the view; reads the maps and charges nobody.

use aya::maps::MapError;
use enforcer_common::{
    budget::{Scope, shared},
    gcra::Rate,
    limiter::{self, Charge},
    settings::{GROUPS, Limit, Settings, TIERS},
    source::SourceKey,
};

use super::{
    LimitState, Practice,
    tables::{BucketCopy, LiveMaps},
};
use crate::{clock::KernelTime, prefix::Prefix};

/// Whose budgets are asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) settings: &'a Settings,
    /// Names of tiers and groups.
    pub(super) practice: &'a Practice,
    pub(super) source: SourceKey,
    pub(super) tier: u8,
    /// The group of the port.
    pub(super) group: u32,
    pub(super) now: KernelTime,
}

impl Asked<'_> {
    /// Every limit of the source, and what else is limited.
    pub(super) fn look(&self, maps: &LiveMaps) -> Result<Vec<LimitState>, MapError> {
        let Self { settings, source, tier, .. } = *self;
        let mut states = Vec::new();
        for limit in Limit::ALL {
            let (rate, label) = (settings.limit(limit, tier), limit.label().to_owned());
            if rate.is_limited() {
                let bucket = maps.bucket(limit, source, settings)?;
                states.push(self.state(label, limit, rate, &bucket, source.get()));
            } else {
                states.push(LimitState { limit: label, limited: false, remaining: 0, burst: 0, wait_ns: 0 });
            }
        }
        for limit in Limit::ALL {
            for (scope, whose, rate) in self.further(limit) {
                if rate.is_limited() {
                    let key = scope.key(limit, self.group, source, settings.seed);
                    let label = format!("{} {whose}", limit.label());
                    states.push(self.state(label, limit, rate, &maps.budget(key, settings)?, key));
                }
            }
            let rate = settings.everybody[limit as usize];
            if rate.is_limited() {
                let bucket = maps.shared(shared::everybody(limit))?;
                let label = format!("{} of everybody", limit.label());
                states.push(self.state(label, limit, rate, &bucket, limiter::SHARED));
            }
        }
        Ok(states)
    }

    /// The budgets besides the source's own.
    fn further(&self, limit: Limit) -> Vec<(Scope, String, Rate)> {
        let Self { settings, source, tier, group, .. } = *self;
        let tier = usize::from(tier) & (TIERS - 1);
        let mut further = Vec::new();
        for (scope, length) in Scope::NETWORKS.into_iter().filter(|_| !source.is_v4()) {
            let network = Prefix::host(source.address()).widened(length);
            let rate = settings.networks[scope as usize][tier][limit as usize];
            further.push((scope, format!("of {network}"), rate));
        }
        let rate = settings.groups[group as usize & (GROUPS - 1)][limit as usize];
        further.push((Scope::Group, format!("to the group {}", self.practice.group(group)), rate));
        further.push((Scope::Share, "as its share".to_owned(), settings.shares[limit as usize]));
        further
    }

    fn state(&self, label: String, limit: Limit, rate: Rate, bucket: &BucketCopy, key: u64) -> LimitState {
        let charge = limiter::peek(bucket, key, self.now.0, rate);
        let tat = limiter::find(bucket, key).unwrap_or(0);
        limit_state(label, limit.unit(), rate, charge, tat, self.now)
    }
}

/// What is left of a burst of which `tat` has been used, in what the limit counts: an event of the rate is `unit` of these.
fn limit_state(
    limit: String,
    unit: u64,
    rate: Rate,
    charge: Charge,
    tat: u64,
    now: KernelTime,
) -> LimitState {
    let debt = tat.saturating_sub(now.0);
    let counted = |nanos: u64| (u128::from(nanos) * u128::from(unit) / u128::from(rate.increment)) as u64;
    let (remaining, wait_ns) = match charge {
        Charge::Within => (counted(rate.tolerance.saturating_sub(debt)), 0),
        Charge::Exceeded(wait) => (0, wait),
        // When a slot becomes free depends on other sources; after one increment it is worth another look.
        Charge::Full => (0, rate.increment),
        // Its slot holds the ban, so nothing is known of its packets; its limit is whole again when the ban has ended.
        Charge::Banned(until) => (0, until.saturating_sub(now.0)),
    };
    LimitState { limit, limited: true, remaining, burst: counted(rate.tolerance), wait_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_shrinks_with_the_debt() {
        let rate = Rate::per_second(10, 5);
        let now = KernelTime(1_000_000_000);
        let state = |charge, tat| limit_state("packets".into(), 1, rate, charge, tat, now);
        assert_eq!((state(Charge::Within, 0).remaining, state(Charge::Within, 0).burst), (5, 5));
        assert_eq!(state(Charge::Within, now.0 + 200_000_000).remaining, 3);
        let exhausted = state(Charge::Exceeded(7), now.0 + 500_000_000);
        assert_eq!((exhausted.remaining, exhausted.wait_ns), (0, 7));
        let rate = Rate::bytes_per_second(1 << 20, 4 << 20);
        let bytes = limit_state("bytes".into(), Limit::Bytes.unit(), rate, Charge::Within, 0, now);
        assert_eq!((bytes.remaining, bytes.burst), (4 << 20, 4 << 20));
    }
}
