//! Reads the live data plane for people and for metrics. Changes nothing: explaining a packet charges nobody.

use std::{fs, net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use enforcer_common::{
    gcra::Rate,
    limiter::{self, Charge},
    maps::Counter,
    reason,
    settings::{Limit, SHARED_SLOT, Settings},
    source::SourceKey,
    verdict::{Verdict, decide},
};

use super::{
    Attachment, Count, Counters, EventCounts, Explanation, LimitState, OTHER_INTERFACES, Practice, Protocol,
    Reason, View, probe,
    rule::{Grounds, rule},
    slots::Slots,
    tables::{LiveMaps, SettingsMap, SharedSettings, Snapshot},
};
use crate::{clock::KernelTime, prefix::Prefix};

/// The view of a loaded program.
#[derive(Clone)]
pub(super) struct MapView {
    maps: Arc<LiveMaps>,
    settings: SharedSettings,
    attachments: Arc<ArcSwap<Vec<Attachment>>>,
    slots: Arc<ArcSwap<Slots>>,
    practice: Arc<ArcSwap<Practice>>,
}

impl MapView {
    pub(super) fn new(
        maps: LiveMaps,
        settings: SharedSettings,
        attachments: Arc<ArcSwap<Vec<Attachment>>>,
        slots: Arc<ArcSwap<Slots>>,
        practice: Arc<ArcSwap<Practice>>,
    ) -> Self {
        Self { maps: Arc::new(maps), settings, attachments, slots, practice }
    }
}

impl View for MapView {
    fn attachments(&self) -> Vec<Attachment> {
        self.attachments.load().to_vec()
    }

    fn practice(&self) -> Practice {
        let setting = fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies").unwrap_or_default();
        Practice { tcp_syncookies: setting.trim().to_owned(), ..Practice::clone(&self.practice.load()) }
    }

    fn counters(&self) -> Result<Counters> {
        let mut counters = Vec::new();
        let slots = self.slots.load();
        for (slot, interface) in slots.taken().chain([(SHARED_SLOT, OTHER_INTERFACES)]) {
            for (reason, number) in Reason::all() {
                let index = reason::counter(slot, number);
                let per_cpu = self.maps.counters.get(&index, 0).context("reading the counter map")?;
                let counter = per_cpu.iter().fold(Counter::default(), |sum, counter| Counter {
                    packets: sum.packets.wrapping_add(counter.packets),
                    bytes: sum.bytes.wrapping_add(counter.bytes),
                });
                // Of what is counted together nobody expects a row before there is something.
                if interface != OTHER_INTERFACES || counter.packets > 0 {
                    counters.push(Count { interface: interface.to_owned(), reason, counter });
                }
            }
        }
        Ok(counters)
    }

    fn event_counts(&self) -> Result<Option<EventCounts>> {
        let per_cpu = self.maps.event_budget.get(&0, 0).context("reading the budget of events")?;
        Ok(Some(per_cpu.iter().fold(EventCounts::default(), |sum, budget| EventCounts {
            sampled: sum.sampled.wrapping_add(budget.sampled),
            over_budget: sum.over_budget.wrapping_add(budget.over),
            ring_full: sum.ring_full.wrapping_add(budget.full),
        })))
    }

    fn explain(
        &self,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
        now: KernelTime,
    ) -> Result<Explanation> {
        let settings = SettingsMap::current(&self.settings);
        let snapshot = Snapshot::new(&self.maps, settings, now);
        let verdict = decide(&&*probe::packet(address, port, protocol), &snapshot);
        let would_drop = snapshot.rehearsed();
        if let Some(error) = snapshot.failure() {
            return Err(error).context("reading the maps");
        }
        let source = SourceKey::of(address, settings.v6_mask);
        let limits = Limit::ALL
            .iter()
            .map(|limit| self.limit(*limit, source, &settings, now))
            .collect::<Result<_>>()?;
        let mut explanation = explanation(verdict, address, settings.v6_mask, limits);
        // The ledger knows the entries by name and tells them beside this.
        let grounds = Grounds { settings: &settings, port: Some(port), entry: None };
        explanation.rule = rule(Reason::from(verdict), grounds);
        explanation.would_drop = would_drop.iter().map(|reason| reason.label().to_owned()).collect();
        Ok(explanation)
    }
}

impl MapView {
    fn limit(
        &self,
        limit: Limit,
        source: SourceKey,
        settings: &Settings,
        now: KernelTime,
    ) -> Result<LimitState> {
        let rate = settings.limit(limit, 0);
        if !rate.is_limited() {
            return Ok(LimitState {
                limit: limit.label().to_owned(),
                limited: false,
                remaining: 0,
                burst: 0,
                wait_ns: 0,
            });
        }
        let bucket = self.maps.bucket(limit, source, settings).context("reading a limiter map")?;
        let charge = limiter::peek(&bucket, source.get(), now.0, rate);
        let tat = limiter::find(&bucket, source.get()).unwrap_or(0);
        Ok(limit_state(limit, rate, charge, tat, now))
    }
}

/// What is left of a burst of which `tat` has been used.
fn limit_state(limit: Limit, rate: Rate, charge: Charge, tat: u64, now: KernelTime) -> LimitState {
    let debt = tat.saturating_sub(now.0);
    let (remaining, wait_ns) = match charge {
        Charge::Within => (rate.tolerance.saturating_sub(debt) / rate.increment, 0),
        Charge::Exceeded(wait) => (0, wait),
        // When a slot becomes free depends on other sources; after one increment it is worth another look.
        Charge::Full => (0, rate.increment),
        // Its slot holds the ban, so nothing is known of its packets; its limit is whole again when the ban has ended.
        Charge::Banned(until) => (0, until.saturating_sub(now.0)),
    };
    LimitState {
        limit: limit.label().to_owned(),
        limited: true,
        remaining,
        burst: rate.tolerance / rate.increment,
        wait_ns,
    }
}

/// A verdict in words.
pub(super) fn explanation(
    verdict: Verdict,
    address: IpAddr,
    v6_mask: u64,
    limits: Vec<LimitState>,
) -> Explanation {
    let reason = Reason::from(verdict);
    Explanation {
        verdict: reason.action().to_owned(),
        reason: reason.label().to_owned(),
        description: reason.description().to_owned(),
        rule: String::new(),
        would_drop: Vec::new(),
        source: Prefix::of_source(address, v6_mask.leading_ones() as u8).to_string(),
        limits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_shrinks_with_the_debt() {
        let rate = Rate::per_second(10, 5);
        let now = KernelTime(1_000_000_000);
        let state = |charge, tat| limit_state(Limit::Packets, rate, charge, tat, now);
        assert_eq!((state(Charge::Within, 0).remaining, state(Charge::Within, 0).burst), (5, 5));
        assert_eq!(state(Charge::Within, now.0 + 200_000_000).remaining, 3);
        let exhausted = state(Charge::Exceeded(7), now.0 + 500_000_000);
        assert_eq!((exhausted.remaining, exhausted.wait_ns), (0, 7));
    }
}
