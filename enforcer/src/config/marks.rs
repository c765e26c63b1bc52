//! What prefixes are marked with, besides being allowed or banned: the tier of their budgets, and the ports at which nothing stops
//! them. Pure; the ledger lists the marks, and the program's settings and ports are numbered by the same functions.

use std::collections::BTreeMap;

use enforcer_common::port::door;

use super::Kernel;
use crate::prefix::Prefix;

/// The name of the tier that everybody is in who is in no other.
pub const DEFAULT_TIER: &str = "default";

/// What a prefix is marked with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The tier, by number; `None`: that of the next wider prefix that has one.
    pub tier: Option<u8>,
    /// As [`enforcer_common::ban::Listing::doors`].
    pub doors: u16,
}

impl Mark {
    /// What holds inside, where a wider prefix has the mark `wider`.
    #[must_use]
    pub const fn within(self, wider: Self) -> Self {
        let tier = if self.tier.is_some() { self.tier } else { wider.tier };
        Self { tier, doors: self.doors | wider.doors }
    }
}

impl Kernel {
    /// Every marked prefix.
    pub fn marks(&self) -> BTreeMap<Prefix, Mark> {
        let mut marks: BTreeMap<Prefix, Mark> = BTreeMap::new();
        for (number, tier) in (1..).zip(self.tiers.values()) {
            for prefix in &tier.prefixes {
                marks.entry(*prefix).or_default().tier = Some(number);
            }
        }
        for prefix in &self.management_from {
            marks.entry(*prefix).or_default().doors |= door::MANAGEMENT;
        }
        let doors = self.doors();
        for entry in &self.allow_ports {
            let door = doors.get(&entry.port).copied().unwrap_or_default();
            marks.entry(entry.source).or_default().doors |= door;
        }
        marks
    }

    /// The doors of the ports in [`Kernel::allow_ports`]. A reload that changes which ports there are numbers them anew; until both
    /// tables have the new numbers, which takes some milliseconds, a source may be let through to another of these ports.
    pub fn doors(&self) -> BTreeMap<u16, u16> {
        let mut ports: Vec<u16> = self.allow_ports.iter().map(|entry| entry.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.into_iter().enumerate().map(|(number, port)| (port, door::other(number))).collect()
    }

    /// The number of a tier; `None` if there is none of that name.
    pub fn tier(&self, name: &str) -> Option<u8> {
        if name == DEFAULT_TIER {
            return Some(0);
        }
        (1..).zip(self.tiers.keys()).find(|(_, other)| *other == name).map(|(number, _)| number)
    }

    /// The name of a tier.
    pub fn tier_name(&self, number: u8) -> &str {
        let named = usize::from(number).checked_sub(1).and_then(|at| self.tiers.keys().nth(at));
        named.map_or(DEFAULT_TIER, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_prefix_says_the_tier_and_doors_add_up() {
        let mark = |tier, doors| Mark { tier, doors };
        assert_eq!(mark(None, 1).within(mark(Some(2), 4)), mark(Some(2), 5));
        assert_eq!(mark(Some(0), 0).within(mark(Some(2), 4)), mark(Some(0), 4));
    }
}
