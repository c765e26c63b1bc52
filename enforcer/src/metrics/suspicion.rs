//! What was made of connections that may have somebody in their middle, as metrics, read at each scrape.

use anyhow::Result;
use prometheus::{
    IntCounterVec, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::policy::{SharedPolicy, suspicion::Suspicion};

/// Registers `enforcer_suspicion_requests_total{route, result}` (`clean`, `suspected`, `would_refuse`, `refused`),
/// `enforcer_suspicion_signals_total{signal}`, `enforcer_pin_reports_total{set, key}` (`ours`, `other`, `unknown`),
/// `enforcer_pin_reports_dropped_total{why}` (`foreign`, `full`) and `enforcer_pin_report_sources`. Without `[suspicion]` they show nothing.
pub fn register(registry: &Registry, policy: SharedPolicy) -> Result<()> {
    registry.register(Box::new(Shown { policy, descriptions: Families::new()? }))?;
    Ok(())
}

struct Shown {
    policy: SharedPolicy,
    descriptions: Families,
}

struct Families {
    counters: [IntCounterVec; 4],
    sources: IntGauge,
}

impl Families {
    fn new() -> Result<Self> {
        let counter = |name, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        Ok(Self {
            counters: [
                counter(
                    "enforcer_suspicion_requests_total",
                    "Requests of routes that look for somebody in the middle, by what they came to",
                    &["route", "result"],
                )?,
                counter(
                    "enforcer_suspicion_signals_total",
                    "Requests that a signal spoke against",
                    &["signal"],
                )?,
                counter(
                    "enforcer_pin_reports_total",
                    "Reports of apps whose pins did not fit, by the key that they were shown",
                    &["set", "key"],
                )?,
                counter(
                    "enforcer_pin_reports_dropped_total",
                    "Such reports about a host that is not served, or of a source for which there was no room",
                    &["why"],
                )?,
            ],
            sources: IntGauge::new(
                "enforcer_pin_report_sources",
                "Pairs of a source and a host with a report that are remembered",
            )?,
        })
    }

    fn show(&self, suspicion: &Suspicion) {
        let [requests, signals, reports, dropped] = &self.counters;
        for (route, results) in suspicion.routes() {
            for (result, count) in results.iter() {
                requests.with_label_values(&[&*route, result]).inc_by(count);
            }
        }
        for (signal, count) in suspicion.signals() {
            signals.with_label_values(&[signal]).inc_by(count);
        }
        let Some(taken) = &suspicion.reports else { return };
        for (set, key, count) in taken.counts() {
            reports.with_label_values(&[&*set, key]).inc_by(count);
        }
        for (why, count) in taken.dropped() {
            dropped.with_label_values(&[why]).inc_by(count);
        }
        self.sources.set(i64::try_from(taken.remembered()).unwrap_or(i64::MAX));
    }
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        let Families { counters, sources } = &self.descriptions;
        counters.iter().flat_map(Collector::desc).chain(sources.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let policy = self.policy.load();
        let Some(suspicion) = policy.suspicion() else { return Vec::new() };
        // Made anew for each scrape.
        let Ok(families) = Families::new() else { return Vec::new() };
        families.show(suspicion);
        families.counters.iter().flat_map(Collector::collect).chain(families.sources.collect()).collect()
    }
}
