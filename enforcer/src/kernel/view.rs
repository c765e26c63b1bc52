//! Reads the live data plane for people and for metrics. Changes nothing: explaining a packet charges nobody.

use std::{fs, net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use enforcer_common::{
    maps::Counter,
    reason,
    settings::{SHARED_SLOT, TIERS},
    source::SourceKey,
    verdict::{Tables as _, Verdict, decide},
};

use super::{
    Attachment, Count, Counters, EventCounts, Explanation, LimitState, OTHER_INTERFACES, Practice, Protocol,
    Reason, View,
    budgets::Asked,
    probe,
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
        let tier = snapshot.listing(address).tier & (TIERS as u8 - 1);
        let group = snapshot.port(port).group();
        if let Some(error) = snapshot.failure() {
            return Err(error).context("reading the maps");
        }
        let source = SourceKey::of(address, settings.v6_mask);
        let practice = self.practice.load();
        let asked = Asked { settings: &settings, practice: &practice, source, tier, group, now };
        let limits = asked.look(&self.maps).context("reading a limiter map")?;
        let mut explanation = explanation(verdict, address, settings.v6_mask, limits);
        // The ledger knows the entries by name and tells them beside this.
        let name = practice.tier(tier);
        let group = practice.group(group);
        let grounds =
            Grounds { settings: &settings, port: Some(port), entry: None, tier: (tier, name), group };
        explanation.tier = name.to_owned();
        explanation.rule = rule(Reason::from(verdict), grounds);
        explanation.would_drop = would_drop.iter().map(|reason| reason.label().to_owned()).collect();
        Ok(explanation)
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
        tier: String::new(),
        limits,
    }
}
