//! Who is banned now, for whoever judges connections and requests: clients behind a load balancer or a proxy of the operator's
//! come in its packets, which the program must let through, and without the program nothing else knows of bans.
//!
//! A projection of the ledger like the kernel's tables, with their order of look-ups: the longest prefix says whether an address is
//! allowed, then the table of sources is asked, then the prefix's own ban counts. The ban task writes, nobody waits: readers load
//! one part of the table, a writer puts a changed copy of that part in its place.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use enforcer_common::{
    ban::{Listing, class},
    source::SourceKey,
};
use foldhash::fast::RandomState;

use super::projection::{Place, Write};
use crate::{clock::KernelTime, prefix::Prefix};

/// Parts of the table of sources: with a million bans each has some 250.
const PARTS: usize = 4_096;

/// Keys and ends of bans, by key.
type Part = Vec<(u64, u64)>;

/// Every ban that holds.
pub struct Banned {
    parts: Box<[ArcSwap<Part>]>,
    /// How many sources there are in all parts.
    count: AtomicUsize,
    prefixes: ArcSwap<Prefixes>,
    /// Odd; so that nobody can choose addresses that are all in one part.
    seed: u64,
}

impl fmt::Debug for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Banned").field("sources", &self.count).finish_non_exhaustive()
    }
}

/// What tries hold in the kernel.
#[derive(Clone, Default)]
struct Prefixes {
    listed: HashMap<Prefix, Listing, RandomState>,
    /// The lengths that there are, the longest first: of IPv4 and of IPv6.
    lengths: [Vec<u8>; 2],
}

impl Prefixes {
    fn put(&mut self, prefix: Prefix, listing: Option<Listing>) {
        match listing {
            Some(listing) => self.listed.insert(prefix, listing),
            None => self.listed.remove(&prefix),
        };
    }

    fn measure(&mut self) {
        for (lengths, is_v4) in self.lengths.iter_mut().zip([true, false]) {
            let of_family = self.listed.keys().map(Prefix::net).filter(|net| net.addr().is_ipv4() == is_v4);
            *lengths = of_family.map(|net| net.prefix_len()).collect();
            lengths.sort_unstable_by(|one, other| other.cmp(one));
            lengths.dedup();
        }
    }

    fn find(&self, address: IpAddr) -> Listing {
        if self.listed.is_empty() {
            return Listing::NONE;
        }
        let host = Prefix::host(address);
        let [v4, v6] = &self.lengths;
        let lengths = if host.net().addr().is_ipv4() { v4 } else { v6 };
        lengths
            .iter()
            .find_map(|length| self.listed.get(&host.widened(*length)))
            .copied()
            .unwrap_or(Listing::NONE)
    }
}

impl Default for Banned {
    fn default() -> Self {
        let mut seed = [0; 8];
        // Without randomness there is no TLS either; it spreads addresses all the same.
        let _ = aws_lc_rs::rand::fill(&mut seed);
        Self {
            parts: (0..PARTS).map(|_| ArcSwap::default()).collect(),
            count: AtomicUsize::new(0),
            prefixes: ArcSwap::default(),
            seed: u64::from_ne_bytes(seed) | 1,
        }
    }
}

impl Banned {
    /// Whether an address is banned; `v6_mask` is what makes an IPv6 source.
    pub fn holds(&self, address: IpAddr, v6_mask: u64, now: KernelTime) -> bool {
        let listing = self.prefixes.load().find(address);
        match listing.class {
            class::ALLOW => return false,
            class::BAN if now.0 < listing.until => return true,
            _ => {}
        }
        if self.count.load(Relaxed) == 0 {
            return false;
        }
        let key = SourceKey::of(address, v6_mask).get();
        let Some(part) = self.parts.get(self.part_of(key)).map(ArcSwap::load) else { return false };
        let found = part.binary_search_by_key(&key, |(key, _)| *key);
        found.is_ok_and(|index| part.get(index).is_some_and(|(_, until)| now.0 < *until))
    }

    /// Whether an address is allowed whatever it sends.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.prefixes.load().find(address).class == class::ALLOW
    }

    /// Forgets everything and holds this. For the ban task alone, like [`Banned::apply`].
    pub fn replace(&self, listed: impl Iterator<Item = (Place, Listing)>) {
        for part in &self.parts {
            part.store(Default::default());
        }
        self.count.store(0, Relaxed);
        self.prefixes.store(Default::default());
        let writes: Vec<Write> =
            listed.map(|(place, listing)| Write { place, listing: Some(listing) }).collect();
        self.apply(&writes);
    }

    /// Takes over changes of the kernel's tables.
    pub fn apply(&self, writes: &[Write]) {
        let mut sources = Vec::new();
        let mut prefixes: Option<Prefixes> = None;
        for write in writes {
            match write.place {
                Place::Prefix(prefix) => {
                    let changed = prefixes.get_or_insert_with(|| (**self.prefixes.load()).clone());
                    changed.put(prefix, write.listing);
                }
                Place::Source(key) => {
                    let key = key.get();
                    sources.push((self.part_of(key), key, write.listing.map(|listing| listing.until)));
                }
            }
        }
        if let Some(mut changed) = prefixes {
            changed.measure();
            self.prefixes.store(changed.into());
        }
        // Stable: of two changes of one source the later one counts.
        sources.sort_by_key(|(part, ..)| *part);
        for changes in sources.chunk_by(|(one, ..), (other, ..)| one == other) {
            let Some(part) = changes.first().and_then(|(part, ..)| self.parts.get(*part)) else { continue };
            let old = part.load();
            let mut new = Part::with_capacity(old.len() + changes.len());
            new.extend_from_slice(&old);
            for (_, key, until) in changes {
                match (new.binary_search_by_key(key, |(key, _)| *key), until) {
                    (Ok(index), Some(until)) => new[index].1 = *until,
                    (Ok(index), None) => drop(new.remove(index)),
                    (Err(index), Some(until)) => new.insert(index, (*key, *until)),
                    (Err(_), None) => {}
                }
            }
            new.shrink_to_fit();
            self.count.fetch_add(new.len(), Relaxed);
            self.count.fetch_sub(old.len(), Relaxed);
            part.store(new.into());
        }
    }

    fn part_of(&self, key: u64) -> usize {
        (key.wrapping_mul(self.seed) >> (64 - PARTS.ilog2())) as usize
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
        let longest = banned.parts.iter().map(|part| part.load().len()).max();
        assert_eq!(longest, Some(1));
        banned.replace(std::iter::empty());
        assert!(!holds(&banned, "10.0.195.79", 0));
    }
}
