//! Rules for the prefixes that `[kernel]` names: who is allowed, who manages the machine, and which tier a source is in.

use std::{collections::BTreeMap, ops::Range};

use enforcer_common::{port::door, settings::TIERS};

use super::{Rules, entries, limits};
use crate::{
    config::{
        AllowedPort, DEFAULT_TIER, LimitSet, MAX_ALLOW, Tier,
        file::{AllowEntry, AllowedPortSection, KernelSection},
        load::find_in_table,
    },
    prefix::Prefix,
};

/// Prefixes that packets are judged by.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) allow: Vec<Prefix>,
    pub(super) allow_ports: Vec<AllowedPort>,
    pub(super) management_from: Vec<Prefix>,
}

pub(super) fn lists(section: &KernelSection, rules: &mut Rules<'_, '_>) -> Lists {
    let mut lists = Lists::default();
    for entry in entries(&section.allow) {
        match entry.get_ref() {
            AllowEntry::Source(prefix) => lists.allow.push(*prefix),
            AllowEntry::Port(pair) => lists.allow_ports.extend(allowed_port(pair, entry.span(), rules)),
        }
    }
    let mut ports: Vec<u16> = lists.allow_ports.iter().map(|entry| entry.port).collect();
    ports.sort_unstable();
    ports.dedup();
    if let Some(list) = section.allow.as_ref().filter(|_| ports.len() > door::OTHERS) {
        let problem = format!("names {} ports", ports.len());
        let remedy =
            format!("name {} at most, for however many sources; or allow sources whole", door::OTHERS);
        rules.refuse(list.span(), "allow", problem, remedy);
    }
    if section.management_from.is_some() {
        let remedy = "list the prefixes that manage the machine, or leave the key out: then everybody may";
        rules.not_empty("management_from", &section.management_from, remedy);
        lists.management_from = entries(&section.management_from).map(|entry| entry.get_ref().0).collect();
    }
    let named = [
        ("allow", section.allow.as_ref().map(|list| (list.span(), list.get_ref().len()))),
        ("management_from", section.management_from.as_ref().map(|list| (list.span(), list.get_ref().len()))),
    ];
    let named = named.into_iter().filter_map(|(key, list)| Some((key.to_owned(), list?)));
    let tiers = section.tier.iter().filter_map(|(name, tier)| {
        let list = tier.get_ref().prefixes.as_ref()?;
        Some((format!("tier.{}.prefixes", super::quote(name)), (list.span(), list.get_ref().len())))
    });
    refuse_many(named.chain(tiers).collect(), rules);
    lists
}

/// All lists share the room in the kernel's tables; the longest one is told.
fn refuse_many(lists: Vec<(String, (Range<usize>, usize))>, rules: &mut Rules<'_, '_>) {
    let sum: usize = lists.iter().map(|(_, (_, length))| length).sum();
    let longest = lists.into_iter().max_by_key(|(_, (_, length))| *length);
    let Some((key, (span, length))) = longest.filter(|_| sum > MAX_ALLOW) else { return };
    let all = if length == sum { String::new() } else { format!(" of {sum} prefixes in [kernel]") };
    let remedy = format!("list {MAX_ALLOW} at most; a wider prefix stands for many");
    rules.refuse(span, &key, format!("{length} entries{all}"), remedy);
}

fn allowed_port(
    pair: &AllowedPortSection,
    span: Range<usize>,
    rules: &mut Rules<'_, '_>,
) -> Option<AllowedPort> {
    let place = find_in_table(rules.table, &span).unwrap_or_else(|| rules.path("allow"));
    let mut missing = |key: &str, remedy: &str| {
        if !rules.errors.knows(&format!("{place}.{key}")) {
            rules.refuse_entry(span.clone(), "allow", format!("`{key}` is missing"), remedy);
        }
    };
    if pair.source.is_none() {
        missing("source", "write the prefix that is let through, like source = \"192.0.2.0/24\"");
    }
    if pair.port.is_none() {
        missing(
            "port",
            "write the port of this machine, like port = 443; a source alone is written as a string",
        );
    }
    let (source, port) = (pair.source.as_ref()?, pair.port.as_ref()?);
    match u16::try_from(port.get_ref().0) {
        Ok(number) if number > 0 => Some(AllowedPort { source: source.get_ref().0, port: number }),
        _ => {
            let problem = format!("{} is no port", port.get_ref().0);
            rules.refuse_entry(port.span(), "allow", problem, "write 1 to 65535");
            None
        }
    }
}

/// Budgets of their own; what a tier does not say is as in `general`.
pub(super) fn tiers(
    section: &KernelSection,
    general: LimitSet,
    ipv6_prefix: u8,
    rules: &mut Rules<'_, '_>,
) -> BTreeMap<String, Tier> {
    let mut tiers = BTreeMap::new();
    let mut named: BTreeMap<Prefix, &str> = BTreeMap::new();
    for (number, (name, tier)) in section.tier.iter().enumerate() {
        let mut rules = rules.within(rules.path(&format!("tier.{}", super::quote(name))), tier.span());
        rules.name(name);
        if name == DEFAULT_TIER {
            let remedy = "choose another one; what holds for everybody else stands in [kernel.limits]";
            rules.refuse(tier.span(), "", "this name is for those that are in no other tier", remedy);
        }
        if number >= TIERS - 1 {
            let remedy = format!("at most {} tiers can be told apart; remove one", TIERS - 1);
            rules.refuse(tier.span(), "", "one tier too many", remedy);
        }
        for entry in entries(&tier.get_ref().prefixes) {
            let prefix = entry.get_ref().0;
            if let Some(source) = part_of_source(prefix, ipv6_prefix) {
                let problem = format!("{prefix} is only a part of the source {source}, which has one budget");
                rules.refuse_entry(entry.span(), "prefixes", problem, format!("write {source}"));
            }
            if let Some(other) = named.insert(prefix, name) {
                let problem = format!("{prefix} is in the tier `{other}` already");
                rules.refuse_entry(entry.span(), "prefixes", problem, "name it once");
            }
        }
        let prefixes = entries(&tier.get_ref().prefixes).map(|prefix| prefix.get_ref().0).collect();
        let limits = limits::set(tier.get_ref().keys(), general, &mut rules);
        tiers.insert(name.clone(), Tier { prefixes, limits });
    }
    tiers
}

/// The source that `prefix` is only a part of.
fn part_of_source(prefix: Prefix, ipv6_prefix: u8) -> Option<Prefix> {
    let source = Prefix::of_source(prefix.net().addr(), ipv6_prefix);
    (source != prefix && source.covers(&prefix)).then_some(source)
}
