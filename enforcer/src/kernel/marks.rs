//! Keeps the bits right that say whether the prefix tries need asking, see [`enforcer_common::listed`].
//!
//! `lists` owns the only one, and tells it of a prefix after the trie has it, and after it has gone.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
    ops::RangeInclusive,
};

use anyhow::Result;
use aya::maps::Map;
use enforcer_common::{listed, maps};
use ipnet::{IpNet, Ipv4Net};

use super::memory::Words;
use crate::prefix::Prefix;

/// The bits, and what they stand for.
pub(super) struct Marks {
    bits_v4: Words,
    bits_v6: Words,
    /// Listed prefixes: first address and length.
    v4: BTreeSet<(u32, u8)>,
    v6: HashSet<Prefix>,
    /// How many IPv6 prefixes have a bit.
    counts: HashMap<u32, u32>,
}

impl Marks {
    /// Over the maps of a program; the caller adds what its tries hold.
    pub(super) fn open(map: &dyn Fn(&str) -> Result<Map>) -> Result<Self> {
        let words = |name| Words::of(&map(name)?, name);
        Ok(Self {
            bits_v4: words(maps::LISTED_BITS_V4)?,
            bits_v6: words(maps::LISTED_BITS_V6)?,
            v4: BTreeSet::new(),
            v6: HashSet::new(),
            counts: HashMap::new(),
        })
    }

    /// A prefix is listed now, perhaps not for the first time.
    pub(super) fn add(&mut self, prefix: Prefix) {
        match prefix.net() {
            IpNet::V4(net) => {
                self.v4.insert((u32::from(net.addr()), net.prefix_len()));
                for (word, mask) in masks(blocks(net)) {
                    self.bits_v4.set_bits(word, mask);
                }
            }
            IpNet::V6(net) => {
                if self.v6.insert(prefix) {
                    let bit = bit_v6(net.addr().to_bits(), net.prefix_len());
                    *self.counts.entry(bit).or_default() += 1;
                    let (word, mask) = listed::place(bit);
                    self.bits_v6.set_bits(word as usize, mask);
                }
            }
        }
    }

    /// A prefix is no longer listed.
    pub(super) fn remove(&mut self, prefix: Prefix) {
        match prefix.net() {
            IpNet::V4(net) => {
                if self.v4.remove(&(u32::from(net.addr()), net.prefix_len())) {
                    for (word, mask) in unmarked(&self.v4, net) {
                        self.bits_v4.clear_bits(word, mask);
                    }
                }
            }
            IpNet::V6(net) => {
                let bit = bit_v6(net.addr().to_bits(), net.prefix_len());
                if self.v6.remove(&prefix)
                    && let Some(count) = self.counts.get_mut(&bit)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.counts.remove(&bit);
                        let (word, mask) = listed::place(bit);
                        self.bits_v6.clear_bits(word as usize, mask);
                    }
                }
            }
        }
    }
}

fn bit_v6(address: u128, length: u8) -> u32 {
    listed::v6_of_prefix((address >> 64) as u64, length)
}

/// The bits of a prefix.
fn blocks(net: Ipv4Net) -> RangeInclusive<u32> {
    listed::v4(net.network().octets())..=listed::v4(net.broadcast().octets())
}

/// The words that hold these bits, and the bits in each.
fn masks(bits: RangeInclusive<u32>) -> impl Iterator<Item = (usize, u64)> {
    let (first, last) = (*bits.start(), *bits.end());
    (first / 64..=last / 64).map(move |word| {
        let from = if word == first / 64 { u64::MAX << (first % 64) } else { u64::MAX };
        let to = if word == last / 64 { u64::MAX >> (63 - last % 64) } else { u64::MAX };
        (word as usize, from & to)
    })
}

/// Of the bits of a prefix that was listed, those that no prefix of `left` touches.
fn unmarked(left: &BTreeSet<(u32, u8)>, net: Ipv4Net) -> Vec<(usize, u64)> {
    let bits = blocks(net);
    let (first, last) = (bits.start() << 8, bits.end() << 8 | 0xff);
    let length = net.prefix_len().min(24);
    let covered = (0..=length).any(|length| {
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        left.contains(&(first & mask, length))
    });
    if covered {
        return Vec::new();
    }
    let mut words: Vec<(usize, u64)> = masks(bits).collect();
    let Some((offset, _)) = words.first().copied() else { return words };
    for (address, length) in left.range((first, 0)..=(last, 32)) {
        let Ok(inner) = Ipv4Net::new(Ipv4Addr::from(*address), *length) else { continue };
        for (word, mask) in masks(blocks(inner)) {
            if let Some((_, unmarked)) = words.get_mut(word - offset) {
                *unmarked &= !mask;
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefixes() -> impl Strategy<Value = Vec<Ipv4Net>> {
        let one = (0u8..3, 0u8..3, any::<u8>(), 4u8..=32).prop_map(|(b, c, d, length)| {
            Ipv4Net::new_assert(Ipv4Addr::new(198, 16 + b, c * 80, d), length).trunc()
        });
        proptest::collection::vec(one, 1..20)
    }

    fn marked(nets: &[Ipv4Net]) -> HashMap<usize, u64> {
        let mut words = HashMap::new();
        for (word, mask) in nets.iter().flat_map(|net| masks(blocks(*net))) {
            *words.entry(word).or_default() |= mask;
        }
        words
    }

    proptest! {
        /// What is cleared for a prefix that goes is what marking the others anew would not set.
        #[test]
        fn what_remains_marked_is_what_the_others_mark(mut nets in prefixes()) {
            nets.sort();
            nets.dedup();
            let mut words = marked(&nets);
            while let Some(gone) = nets.pop() {
                let left = nets.iter().map(|net| (u32::from(net.addr()), net.prefix_len())).collect();
                for (word, mask) in unmarked(&left, gone) {
                    *words.entry(word).or_default() &= !mask;
                }
                words.retain(|_, word| *word != 0);
                prop_assert_eq!(&words, &marked(&nets), "without {}", gone);
            }
        }
    }
}
