//! A map from prefixes that answers both questions of containment: who covers me, and whom do I cover.
//!
//! The ledger keeps bans and allowances in it. It knows nothing of time or of the kernel.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::prefix::Prefix;

/// Prefix lengths of IPv6, zero included.
const LENGTHS: usize = 129;

/// Words of a set of lengths.
const WORDS: usize = LENGTHS.div_ceil(u64::BITS as usize);

/// Prefixes, each with a value.
#[derive(Debug)]
pub struct PrefixMap<V> {
    entries: BTreeMap<Prefix, V>,
    /// How many entries have which length, by family.
    counts: [[u32; LENGTHS]; 2],
    /// The lengths that any entry has, by family: others need no look-up.
    lengths: [[u64; WORDS]; 2],
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), counts: [[0; LENGTHS]; 2], lengths: [[0; WORDS]; 2] }
    }
}

impl<V> PrefixMap<V> {
    /// Sets the value of `prefix` and returns the old one.
    pub fn insert(&mut self, prefix: Prefix, value: V) -> Option<V> {
        let old = self.entries.insert(prefix, value);
        if old.is_none() {
            let (family, length) = (family(&prefix), length(&prefix));
            self.counts[family][length] += 1;
            self.lengths[family][length / 64] |= 1 << (length % 64);
        }
        old
    }

    /// Takes `prefix` out.
    pub fn remove(&mut self, prefix: &Prefix) -> Option<V> {
        let old = self.entries.remove(prefix);
        if old.is_some() {
            let (family, length) = (family(prefix), length(prefix));
            self.counts[family][length] -= 1;
            if self.counts[family][length] == 0 {
                self.lengths[family][length / 64] &= !(1 << (length % 64));
            }
        }
        old
    }

    /// The value of exactly `prefix`.
    pub fn get(&self, prefix: &Prefix) -> Option<&V> {
        self.entries.get(prefix)
    }

    /// The value of exactly `prefix`, to change.
    pub fn get_mut(&mut self, prefix: &Prefix) -> Option<&mut V> {
        self.entries.get_mut(prefix)
    }

    /// Entries that `prefix` lies in, itself included, the longest first.
    pub fn covering<'a>(&'a self, prefix: &Prefix) -> impl Iterator<Item = (Prefix, &'a V)> + use<'a, V> {
        let prefix = *prefix;
        descending(self.lengths[family(&prefix)], length(&prefix)).filter_map(move |bits| {
            let wider = prefix.widened(bits);
            self.entries.get(&wider).map(|value| (wider, value))
        })
    }

    /// Entries that lie in `prefix`, itself included, in the order of addresses.
    pub fn covered<'a>(&'a self, prefix: &Prefix) -> impl Iterator<Item = (Prefix, &'a V)> + use<'a, V> {
        // Without host bits, whatever begins inside a prefix and is not shorter also ends inside.
        self.entries.range(*prefix..=prefix.last_inside()).map(|(inner, value)| (*inner, value))
    }

    /// All entries in the order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&Prefix, &V)> {
        self.entries.iter()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The members of a set of lengths that are at most `longest`, the longest first.
fn descending(mut lengths: [u64; WORDS], longest: usize) -> impl Iterator<Item = u8> {
    lengths[longest / 64] &= u64::MAX >> (63 - longest % 64);
    let mut word = longest / 64;
    std::iter::from_fn(move || {
        while lengths[word] == 0 {
            word = word.checked_sub(1)?;
        }
        let bit = lengths[word].ilog2();
        lengths[word] &= !(1 << bit);
        u8::try_from(word * 64 + bit as usize).ok()
    })
}

const fn family(prefix: &Prefix) -> usize {
    match prefix.net() {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

fn length(prefix: &Prefix) -> usize {
    usize::from(prefix.net().prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix() -> impl Strategy<Value = Prefix> {
        let v4 = (0u8..4, 0u8..=255, 0u8..=32).prop_map(|(c, d, bits)| {
            Prefix::host(std::net::Ipv4Addr::new(198, 18, c, d).into()).widened(bits)
        });
        let v6 = (0u16..4, 0u16..4, 0u8..=128).prop_map(|(g, h, bits)| {
            Prefix::host(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, g, h, 0, 0, h).into()).widened(bits)
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn containment_is_what_comparing_all_says(
            entries in proptest::collection::vec(prefix(), 0..40), removed in proptest::collection::vec(prefix(), 0..10),
            asked in prefix(),
        ) {
            let mut map = PrefixMap::default();
            for entry in &entries { map.insert(*entry, ()); }
            for entry in &removed { map.remove(entry); }
            let all: Vec<Prefix> = map.iter().map(|(prefix, ())| *prefix).collect();
            let mut covering: Vec<Prefix> = all.iter().copied().filter(|entry| entry.covers(&asked)).collect();
            covering.sort_by_key(|entry| std::cmp::Reverse(entry.net().prefix_len()));
            prop_assert_eq!(map.covering(&asked).map(|(p, ())| p).collect::<Vec<_>>(), covering);
            let covered: Vec<Prefix> = all.iter().copied().filter(|entry| asked.covers(entry)).collect();
            prop_assert_eq!(map.covered(&asked).map(|(p, ())| p).collect::<Vec<_>>(), covered);
            prop_assert_eq!(map.len(), all.len());
        }
    }
}
