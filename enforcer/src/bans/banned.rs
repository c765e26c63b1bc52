//! Who is banned now, for whoever judges connections and requests: clients behind a load balancer or a proxy of the operator's
//! come in its packets, which the program must let through, and without the program nothing else knows of bans.
//!
//! A projection of the ledger like the kernel's tables, with their order of look-ups: the longest prefix says whether an address is
//! allowed, then the table of sources is asked, then the prefix's own ban counts. The ban task writes, nobody waits: readers load
//! one part of the table, a writer puts a changed copy of that part in its place.

use std::{
    fmt,
    net::IpAddr,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use enforcer_common::{
    ban::{Listing, class},
    source::SourceKey,
};
use ipnet::IpNet;

use super::projection::{Place, Write};
use crate::{clock::KernelTime, prefix::Prefix};

/// Parts of the table of sources: with a million bans each has some 250.
const PARTS: usize = 4_096;

/// Parts of the prefixes: with a hundred thousand of them each has some 100.
const PREFIX_PARTS: usize = 1_024;

/// Prefix lengths of IPv6, zero included.
const LENGTHS: usize = 129;

/// What is listed, by key; few enough to be copied for each change.
type Part<K, V> = Vec<(K, V)>;

/// Every ban that holds.
pub struct Banned {
    /// Ends of bans.
    sources: Box<[ArcSwap<Part<u64, u64>>]>,
    /// How many sources there are in all parts.
    count: AtomicUsize,
    /// What tries hold in the kernel.
    prefixes: Box<[ArcSwap<Part<Prefix, Listing>>]>,
    /// How many prefixes have which length, of IPv4 and of IPv6.
    lengths: [[AtomicU32; LENGTHS]; 2],
    /// Odd; so that nobody can choose addresses that are all in one part.
    seed: u64,
}

impl fmt::Debug for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Banned").field("sources", &self.count).finish_non_exhaustive()
    }
}

impl Default for Banned {
    fn default() -> Self {
        let mut seed = [0; 8];
        // Without randomness there is no TLS either; it spreads addresses all the same.
        let _ = aws_lc_rs::rand::fill(&mut seed);
        Self {
            sources: (0..PARTS).map(|_| ArcSwap::default()).collect(),
            count: AtomicUsize::new(0),
            prefixes: (0..PREFIX_PARTS).map(|_| ArcSwap::default()).collect(),
            lengths: [const { [const { AtomicU32::new(0) }; LENGTHS] }; 2],
            seed: u64::from_ne_bytes(seed) | 1,
        }
    }
}

impl Banned {
    /// Whether an address is banned; `v6_mask` is what makes an IPv6 source.
    pub fn holds(&self, address: IpAddr, v6_mask: u64, now: KernelTime) -> bool {
        let listing = self.listing(address);
        match listing.class {
            class::ALLOW => return false,
            class::BAN if now.0 < listing.until => return true,
            _ => {}
        }
        if self.count.load(Relaxed) == 0 {
            return false;
        }
        let key = SourceKey::of(address, v6_mask).get();
        let Some(part) = self.sources.get(self.part_of(key)).map(ArcSwap::load) else { return false };
        found(&part, &key).is_some_and(|until| now.0 < until)
    }

    /// What the longest prefix around an address says.
    fn listing(&self, address: IpAddr) -> Listing {
        let host = Prefix::host(address);
        let lengths = &self.lengths[family(&host)][..=usize::from(host.net().prefix_len())];
        let taken = lengths.iter().enumerate().rev().filter(|(_, count)| count.load(Relaxed) > 0);
        let listed = taken.filter_map(|(length, _)| {
            let prefix = host.widened(u8::try_from(length).ok()?);
            found(&self.prefixes.get(self.prefix_part_of(&prefix))?.load(), &prefix)
        });
        listed.into_iter().next().unwrap_or(Listing::NONE)
    }

    /// Whether an address is allowed whatever it sends.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.listing(address).class == class::ALLOW
    }

    /// Forgets everything and holds this. For the ban task alone, like [`Banned::apply`].
    pub fn replace(&self, listed: impl Iterator<Item = (Place, Listing)>) {
        for part in &self.sources {
            part.store(Default::default());
        }
        self.count.store(0, Relaxed);
        for part in &self.prefixes {
            part.store(Default::default());
        }
        for count in self.lengths.iter().flatten() {
            count.store(0, Relaxed);
        }
        let writes: Vec<Write> =
            listed.map(|(place, listing)| Write { place, listing: Some(listing) }).collect();
        self.apply(&writes);
    }

    /// Takes over changes of the kernel's tables.
    pub fn apply(&self, writes: &[Write]) {
        let (mut sources, mut prefixes) = (Vec::new(), Vec::new());
        for write in writes {
            match write.place {
                Place::Prefix(prefix) => {
                    prefixes.push((self.prefix_part_of(&prefix), prefix, write.listing));
                }
                Place::Source(key) => {
                    let key = key.get();
                    sources.push((self.part_of(key), key, write.listing.map(|listing| listing.until)));
                }
            }
        }
        change(&self.prefixes, prefixes, |prefix, is_new| {
            let count = &self.lengths[family(prefix)][usize::from(prefix.net().prefix_len())];
            let _ = if is_new { count.fetch_add(1, Relaxed) } else { count.fetch_sub(1, Relaxed) };
        });
        change(&self.sources, sources, |_, is_new| {
            let _ = if is_new { self.count.fetch_add(1, Relaxed) } else { self.count.fetch_sub(1, Relaxed) };
        });
    }

    fn part_of(&self, key: u64) -> usize {
        (key.wrapping_mul(self.seed) >> (64 - PARTS.ilog2())) as usize
    }

    fn prefix_part_of(&self, prefix: &Prefix) -> usize {
        let bits = match prefix.net() {
            IpNet::V4(net) => u64::from(net.addr().to_bits()),
            IpNet::V6(net) => {
                let bits = net.addr().to_bits();
                (bits >> 64) as u64 ^ (bits as u64).wrapping_mul(self.seed)
            }
        };
        let key = bits.wrapping_add(u64::from(prefix.net().prefix_len()) << 32);
        (key.wrapping_mul(self.seed) >> (64 - PREFIX_PARTS.ilog2())) as usize
    }
}

const fn family(prefix: &Prefix) -> usize {
    match prefix.net() {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

fn found<K: Ord, V: Copy>(part: &Part<K, V>, key: &K) -> Option<V> {
    let index = part.binary_search_by(|(own, _)| own.cmp(key)).ok()?;
    part.get(index).map(|(_, value)| *value)
}

/// Puts changed copies of parts in their places; `counted` hears of keys that come in, and of those that go.
fn change<K: Copy + Ord, V: Copy>(
    parts: &[ArcSwap<Part<K, V>>],
    mut changes: Vec<(usize, K, Option<V>)>,
    counted: impl Fn(&K, bool),
) {
    // Stable: of two changes of one key the later one counts.
    changes.sort_by_key(|(part, ..)| *part);
    for changes in changes.chunk_by(|(one, ..), (other, ..)| one == other) {
        let Some(part) = changes.first().and_then(|(part, ..)| parts.get(*part)) else { continue };
        let old = part.load();
        let mut new = Part::with_capacity(old.len() + changes.len());
        new.extend_from_slice(&old);
        let mut gone = Vec::new();
        for (_, key, value) in changes {
            match (new.binary_search_by(|(own, _)| own.cmp(key)), value) {
                (Ok(index), Some(value)) => new[index].1 = *value,
                (Ok(index), None) => {
                    new.remove(index);
                    gone.push(key);
                }
                (Err(index), Some(value)) => {
                    new.insert(index, (*key, *value));
                    // Before it can be found, because nobody looks for what is not counted.
                    counted(key, true);
                }
                (Err(_), None) => {}
            }
        }
        new.shrink_to_fit();
        part.store(new.into());
        gone.into_iter().for_each(|key| counted(key, false));
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::{ban::FOREVER, source::v6_mask};

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn put(text: &str, listing: Option<Listing>) -> Write {
        Write { place: Place::Prefix(prefix(text)), listing }
    }

    fn ban(text: &str, until: Option<u64>) -> Write {
        let key = prefix(text).source_key(64).unwrap();
        Write { place: Place::Source(key), listing: until.map(Listing::banned) }
    }

    fn holds(banned: &Banned, address: &str, now: u64) -> bool {
        banned.holds(address.parse().unwrap(), v6_mask(64), KernelTime(now))
    }

    #[test]
    fn sources_are_banned_until_their_end() {
        let banned = Banned::default();
        assert!(!holds(&banned, "192.0.2.7", 0));
        banned.apply(&[ban("192.0.2.7", Some(100)), ban("2001:db8:0:1::/64", Some(FOREVER))]);
        assert!(holds(&banned, "192.0.2.7", 99) && !holds(&banned, "192.0.2.7", 100));
        assert!(holds(&banned, "::ffff:192.0.2.7", 99), "an address has one spelling");
        assert!(holds(&banned, "2001:db8:0:1:2::3", 1 << 60) && !holds(&banned, "2001:db8:0:2::3", 0));
        banned.apply(&[ban("192.0.2.7", Some(200))]);
        assert!(holds(&banned, "192.0.2.7", 199));
        banned.apply(&[ban("192.0.2.7", None), ban("192.0.2.8", None), ban("2001:db8:0:1::/64", None)]);
        assert!(!holds(&banned, "192.0.2.7", 0));
        assert_eq!(banned.count.load(Relaxed), 0);
    }

    #[test]
    fn the_longest_prefix_decides_as_in_the_kernel() {
        let banned = Banned::default();
        banned.apply(&[
            put("198.18.0.0/16", Some(Listing::banned(100))),
            put("198.18.5.0/24", Some(Listing::ALLOWED)),
            ban("198.18.5.9", Some(FOREVER)),
            put("198.18.6.0/24", Some(Listing { tier: 1, ..Listing::NONE })),
            ban("198.18.6.9", Some(FOREVER)),
            put("2001:db8::/32", Some(Listing::banned(100))),
        ]);
        assert!(holds(&banned, "198.18.1.1", 99) && !holds(&banned, "198.18.1.1", 100));
        assert!(!holds(&banned, "198.18.5.9", 0), "an allowance is above every ban");
        let allowed =
            ["198.18.5.1", "198.18.5.9", "198.18.6.1"].map(|one| banned.allows(one.parse().unwrap()));
        assert_eq!(allowed, [true, true, false]);
        assert!(!holds(&banned, "198.18.6.1", 0) && holds(&banned, "198.18.6.9", 0));
        assert!(holds(&banned, "2001:db8::1", 0) && !holds(&banned, "2001:db9::1", 0));
        banned.apply(&[put("198.18.0.0/16", None), put("198.18.5.0/24", None)]);
        assert!(!holds(&banned, "198.18.1.1", 0) && holds(&banned, "198.18.5.9", 0));
    }

    #[test]
    fn many_come_and_go_at_once() {
        let banned = Banned::default();
        let places = |range: std::ops::Range<u32>| {
            range.map(|number| Place::Source(SourceKey::v4((0x0a00_0000 + number).to_be_bytes())))
        };
        banned.replace(places(0..50_000).map(|place| (place, Listing::banned(9))));
        assert_eq!(banned.count.load(Relaxed), 50_000);
        let writes: Vec<Write> = places(0..49_999).map(|place| Write { place, listing: None }).collect();
        banned.apply(&writes);
        assert_eq!(banned.count.load(Relaxed), 1);
        assert!(holds(&banned, "10.0.195.79", 0) && !holds(&banned, "10.0.195.78", 0));
        let longest = banned.sources.iter().map(|part| part.load().len()).max();
        assert_eq!(longest, Some(1));
        banned.replace(std::iter::empty());
        assert!(!holds(&banned, "10.0.195.79", 0));
    }
}
