//! How sets of pins are, as metrics, read from the policy in force at each scrape.

use anyhow::Result;
use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{
    clock,
    pins::guard::Verdict,
    policy::{SharedPolicy, pins::Set},
};

/// Registers the gauges of [`families`], all by `set`.
pub fn register(registry: &Registry, policy: SharedPolicy) -> Result<()> {
    registry.register(Box::new(Sets { policy, descriptions: families()? }))?;
    Ok(())
}

struct Sets {
    policy: SharedPolicy,
    descriptions: [IntGaugeVec; 7],
}

impl Collector for Sets {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = families() else { return Vec::new() };
        let now = clock::unix_now();
        for set in &self.policy.load().pins().sets {
            show(set, &families, now);
        }
        families.iter().flat_map(Collector::collect).collect()
    }
}

fn show(set: &Set, families: &[IntGaugeVec; 7], now: u64) {
    let [expiry, published, overlap, spares, backup, switched, forced] =
        families.each_ref().map(|family| family.with_label_values(&[&set.name]));
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    expiry.set(set.served.iter().map(|served| served.ends).min().unwrap_or(0));
    let of = |pin| set.pins.iter().find(|published| published.pin == pin).map_or(now, |one| one.at);
    let since = set.served.iter().map(|served| of(served.pin)).max().unwrap_or(now);
    published.set(number(since));
    overlap.set(number(set.min_overlap));
    spares.set(number(set.spares(now) as u64));
    backup.set(match &set.backup {
        Some(backup) => backup.state.as_ref().map_or(0, |state| state.ends),
        None => 0,
    });
    switched.set(set.is_switched.into());
    let is_forced = |pin| matches!(set.rules().judge(pin, now), Verdict::Forced(_));
    forced.set(set.served.iter().any(|served| is_forced(served.pin)).into());
}

/// Made anew for each scrape: a set that is no longer configured is not shown.
fn families() -> Result<[IntGaugeVec; 7]> {
    let gauge = |name, help: &str| IntGaugeVec::new(Opts::new(name, help), &["set"]);
    Ok([
        gauge(
            "enforcer_pins_certificate_expiry_timestamp_seconds",
            "When the first certificate ends that is served to those who pin",
        )?,
        gauge(
            "enforcer_pins_published_timestamp_seconds",
            "Since when apps can know the served key; the scrape if its pin is not published",
        )?,
        gauge("enforcer_pins_min_overlap_seconds", "How long a pin has to be out before its key is served")?,
        gauge("enforcer_pins_spare", "Other pins whose keys could be served at once; 0: no backup")?,
        gauge(
            "enforcer_pins_backup_expiry_timestamp_seconds",
            "When the backup certificate ends; 0: there is none that could be used",
        )?,
        gauge("enforcer_pins_switched", "1: the backup is served")?,
        gauge(
            "enforcer_pins_forced",
            "1: the served key is outside the guard's rules, and named in `force`",
        )?,
    ])
}
