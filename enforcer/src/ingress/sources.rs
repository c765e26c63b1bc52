//! How many connections a source has open, over all workers: a few counters, whoever comes.
//!
//! `worker` asks for a [`Place`] before it serves a connection. Nothing locks and nothing grows: a source is counted in one
//! slot of each row, and is refused only where both are full, so a stranger suffers from another's connections only if
//! it meets full slots twice. The keys of the hashes are drawn at the start, so nobody can aim.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::prefix::Prefix;

/// Slots of a row: several times the connections that are usually allowed, for 256 KiB in all.
const SLOTS: usize = 1 << 15;

/// The counters.
#[derive(Debug)]
pub(super) struct Sources {
    rows: [Row; 2],
    most: u32,
    v6_length: u8,
}

#[derive(Debug)]
struct Row {
    keys: RandomState,
    slots: Box<[AtomicU32]>,
}

/// One connection of a source; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    sources: Arc<Sources>,
    slots: [usize; 2],
}

impl Sources {
    /// At most `most` connections per source, 0: as many as come; `v6_length` bits of an IPv6 address make a source.
    pub(super) fn new(most: u32, v6_length: u8) -> Self {
        let slots = if most == 0 { 0 } else { SLOTS };
        let row = || Row { keys: RandomState::new(), slots: (0..slots).map(|_| AtomicU32::new(0)).collect() };
        Self { rows: [row(), row()], most, v6_length }
    }

    /// A place for one more connection; `None`: the source has all that it may have.
    pub(super) fn take(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let prefix = Prefix::of_source(source, self.v6_length);
        let slots = self.rows.each_ref().map(|row| row.keys.hash_one(prefix) as usize % SLOTS);
        let place = Place { sources: Arc::clone(self), slots };
        let mut full = self.most > 0;
        for (row, slot) in self.rows.iter().zip(slots) {
            let before = row.slots.get(slot).map_or(0, |slot| slot.fetch_add(1, Relaxed));
            full &= before >= self.most;
        }
        (!full).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for (row, slot) in self.sources.rows.iter().zip(self.slots) {
            if let Some(slot) = row.slots.get(slot) {
                slot.fetch_sub(1, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_places_and_nobody_elses() {
        let sources = Arc::new(Sources::new(2, 64));
        let take = |address: &str| sources.take(address.parse().unwrap());
        let first = take("198.18.0.1").unwrap();
        let _second = take("198.18.0.1").unwrap();
        assert!(take("198.18.0.1").is_none() && take("198.18.0.1").is_none());
        let _other = take("198.18.0.2").unwrap();
        drop(first);
        let _third = take("198.18.0.1").unwrap();
        let _two = [take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap()];
        assert!(take("2001:db8::3").is_none(), "one prefix is one source");
        let _neighbour = take("2001:db8:0:1::1").unwrap();
    }

    #[test]
    fn without_a_cap_everybody_gets_in() {
        let sources = Arc::new(Sources::new(0, 64));
        let places: Vec<_> = (0..100).map(|_| sources.take("198.18.0.1".parse().unwrap())).collect();
        assert!(places.iter().all(Option::is_some));
    }
}
