//! Rules for the budgets of `[kernel]`: those of a source, of a tier, of a group of ports, and of everybody together.

use std::{collections::BTreeMap, time::Duration};

use enforcer_common::settings::GROUPS;
use toml::Spanned;

use super::{LimitRules, Rules, kernel::ports, quote};
use crate::config::{
    ByteLimit, Everybody, Group, KernelLimits, LimitSet, RateLimit, WhenFull,
    file::{BytesSection, GlobalSection, GroupSection, Key, LimitSection, LimitsSection, SetKeys},
    value::ByteRate,
};

/// What a source may send unless the file says otherwise.
const PACKETS: RateLimit = RateLimit::per_second(50_000, 100_000);
const HANDSHAKES: RateLimit = RateLimit::per_second(200, 1_000);

/// The largest frame that the program sees: of IPv4 and IPv6 without jumbograms, as it is merged on receipt. A smaller burst would
/// never let it through.
const LARGEST_FRAME: u64 = 64 << 10;
/// Rates of bytes, per second: below, the arithmetic would have to count for hours.
const BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=100 << 30;
const MOST_BURST_BYTES: u64 = 1 << 40;

pub(super) fn limits(section: &LimitsSection, ipv6_prefix: u8, rules: &mut Rules<'_, '_>) -> KernelLimits {
    let mut rules = rules.section("limits");
    let limit = |default| LimitRules { default, may_be_off: true, least_burst: 1 };
    let multiple = |rules: &mut Rules<'_, '_>, key: &str, value, length: u8| {
        let factor = rules.number(key, value, 0, 0..=1 << (64 - length));
        if let Some(value) = value.as_ref().filter(|_| factor > 0 && ipv6_prefix <= length) {
            let problem =
                format!("kernel.ipv6_prefix is {ipv6_prefix}: a /{length} is no more than a source");
            rules.refuse(value.span(), key, problem, "remove it");
        }
        factor
    };
    KernelLimits {
        packets: rules.limit("packets", &section.packets, limit(PACKETS)),
        connections: rules.limit("connections", &section.connections, limit(HANDSHAKES)),
        hellos: rules.limit("hellos", &section.hellos, limit(HANDSHAKES)),
        quic: rules.limit("quic", &section.quic, limit(HANDSHAKES)),
        bytes: bytes(&section.bytes, None, &mut rules),
        ipv6_56: multiple(&mut rules, "ipv6_56", &section.ipv6_56, 56),
        ipv6_48: multiple(&mut rules, "ipv6_48", &section.ipv6_48, 48),
        when_full: section.when_full.as_ref().map_or(WhenFull::Share, |choice| *choice.get_ref()),
        max_sources: rules.slots(&section.max_sources, 262_144),
    }
}

/// Limits of which those that are not written are as in `general`.
pub(super) fn set(keys: SetKeys<'_>, general: LimitSet, rules: &mut Rules<'_, '_>) -> LimitSet {
    let mut limit = |key: &str, value: &Key<LimitSection>, general: Option<RateLimit>| {
        let Some(written) = value else { return general };
        let Some(default) = general.or_else(|| rate_of(written)) else {
            let place = format!("{key}.rate");
            if !rules.errors.knows(&rules.path(&place)) {
                rules.refuse(written.span(), &place, "missing", "write a rate like \"5/s\"");
            }
            return None;
        };
        rules.limit(key, value, LimitRules { default, may_be_off: true, least_burst: 1 })
    };
    LimitSet {
        packets: limit("packets", keys.packets, general.packets),
        connections: limit("connections", keys.connections, general.connections),
        hellos: limit("hellos", keys.hellos, general.hellos),
        quic: limit("quic", keys.quic, general.quic),
        bytes: bytes(keys.bytes, general.bytes, rules),
    }
}

/// Any limit, where a rate is written: that then takes its place.
fn rate_of(written: &Spanned<LimitSection>) -> Option<RateLimit> {
    written.get_ref().rate.as_ref().map(|_| RateLimit { events: 1, period: Duration::from_secs(1), burst: 1 })
}

fn bytes(
    value: &Key<BytesSection>,
    general: Option<ByteLimit>,
    rules: &mut Rules<'_, '_>,
) -> Option<ByteLimit> {
    let Some(value) = value else { return general };
    let section = value.get_ref();
    let mut limit = match &section.rate {
        Some(rate) => match rate.get_ref().0 {
            ByteRate::Off => return None,
            ByteRate::PerSecond(bytes) => {
                let spell = |bytes: &u64| format!("{bytes} bytes/s");
                let rate = rules.in_range(rate.span(), "bytes.rate", bytes, &BYTES, spell);
                ByteLimit { rate, burst: rate.max(LARGEST_FRAME) }
            }
        },
        None => match general {
            Some(general) => general,
            None => {
                if !rules.errors.knows(&rules.path("bytes.rate")) {
                    rules.refuse(value.span(), "bytes.rate", "missing", "write a rate like \"10MiB/s\"");
                }
                return None;
            }
        },
    };
    limit.burst = rules.size("bytes.burst", &section.burst, limit.burst, LARGEST_FRAME..=MOST_BURST_BYTES);
    Some(limit)
}

/// Groups of ports, by name.
pub(super) fn groups(
    sections: &BTreeMap<String, Spanned<GroupSection>>,
    rules: &mut Rules<'_, '_>,
) -> BTreeMap<String, Group> {
    let mut groups = BTreeMap::new();
    let mut taken: BTreeMap<u16, &str> = BTreeMap::new();
    for (number, (name, group)) in sections.iter().enumerate() {
        let section = group.get_ref();
        let mut rules = rules.within(rules.path(&format!("group.{}", quote(name))), group.span());
        rules.name(name);
        if number >= GROUPS - 1 {
            let remedy = format!("at most {} groups can be told apart; remove one", GROUPS - 1);
            rules.refuse(group.span(), "", "one group too many", remedy);
        }
        rules.not_empty(
            "ports",
            &section.ports,
            "list the ports of this machine that share a budget, like [53]",
        );
        let named = ports("ports", &section.ports, &mut rules);
        for port in &named {
            if let Some(other) = taken.insert(*port, name).filter(|other| other != name) {
                let span = section.ports.as_ref().map_or(group.span(), Spanned::span);
                let problem = format!("{port} is in the group `{other}` already");
                rules.refuse(span, "ports", problem, "name it once");
            }
        }
        let limits = set(section.keys(), LimitSet::OFF, &mut rules);
        let knows = ["packets", "connections", "hellos", "quic", "bytes"].iter().any(|key| {
            rules.errors.knows(&rules.path(key)) || rules.errors.knows(&rules.path(&format!("{key}.rate")))
        });
        if limits == LimitSet::OFF && !knows {
            let remedy = "write one, like packets = { rate = \"100/s\" }, or remove the group";
            rules.refuse(group.span(), "", "no limit", remedy);
        }
        groups.insert(name.clone(), Group { ports: named, limits });
    }
    groups
}

/// Budgets of everybody together.
pub(super) fn everybody(section: &GlobalSection, rules: &mut Rules<'_, '_>) -> Everybody {
    let mut rules = rules.section("global");
    Everybody {
        limits: set(section.keys(), LimitSet::OFF, &mut rules),
        shares: rules.number("shares", &section.shares, 100, 1..=10_000),
    }
}
