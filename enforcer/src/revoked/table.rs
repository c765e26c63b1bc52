//! A table of marks that is read without locks: open addressing over atomics, written by one at a time.
//!
//! A slot gets its mark once and keeps it; its terms may change. The first half of a mark is written last, so whoever sees it
//! sees the rest. What has ended goes when a new table is made, which readers then find in the old one's place.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::mark::Mark;

/// Until it is taken back.
pub const FOREVER: u32 = u32::MAX;
/// Whenever a token was issued.
pub const WHENEVER: u32 = u32::MAX;

/// Which tokens an entry means, and until when; seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The first second at which it no longer holds; [`FOREVER`].
    pub until: u32,
    /// It means tokens that were issued before this second; [`WHENEVER`].
    pub before: u32,
}

impl Terms {
    /// Whether it still means anything.
    pub fn holds(self, now: u64) -> bool {
        self.until == FOREVER || now < u64::from(self.until)
    }

    /// Whether it means a token that was issued then. One that does not say when may have been issued at any time.
    pub fn covers(self, issued: Option<u64>, now: u64) -> bool {
        let early = self.before == WHENEVER || issued.is_none_or(|issued| issued < u64::from(self.before));
        early && self.holds(now)
    }

    /// What both of them say: the longer and the wider of each.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { until: self.until.max(other.until), before: self.before.max(other.before) }
    }

    /// As one number; 0 is none.
    pub(super) const fn packed(self) -> u64 {
        ((self.until as u64) << 32) | self.before as u64
    }

    /// The opposite.
    pub(super) const fn unpacked(packed: u64) -> Option<Self> {
        let (until, before) = ((packed >> 32) as u32, packed as u32);
        if until == 0 { None } else { Some(Self { until, before }) }
    }
}

#[derive(Debug, Default)]
struct Slot {
    first: AtomicU64,
    second: AtomicU64,
    terms: AtomicU64,
}

/// Bytes of one slot.
pub(super) const SLOT: usize = size_of::<Slot>();

/// The table.
#[derive(Debug)]
pub struct Table(Box<[Slot]>);

/// What became of an entry that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It took a slot.
    New,
    /// Its mark was there.
    Known,
    /// There is no slot.
    NoSlot,
}

impl Table {
    /// With so many slots.
    pub(super) fn new(slots: usize) -> Self {
        Self((0..slots.max(1)).map(|_| Slot::default()).collect())
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.0.len()
    }

    /// The terms of a mark.
    pub(super) fn find(&self, mark: Mark) -> Option<Terms> {
        let slot = self.way(mark).map_while(|slot| match slot.first.load(Acquire) {
            0 => None,
            first => Some((slot, first)),
        });
        let mut found = slot.filter(|(slot, first)| Mark([*first, slot.second.load(Relaxed)]) == mark);
        Terms::unpacked(found.next()?.0.terms.load(Acquire))
    }

    /// Sets the terms of a mark: one writer at a time.
    pub(super) fn put(&self, mark: Mark, terms: Terms) -> Put {
        for slot in self.way(mark) {
            match slot.first.load(Relaxed) {
                0 => {
                    slot.second.store(mark.0[1], Relaxed);
                    slot.terms.store(terms.packed(), Relaxed);
                    slot.first.store(mark.0[0], Release);
                    return Put::New;
                }
                first if Mark([first, slot.second.load(Relaxed)]) == mark => {
                    slot.terms.store(terms.packed(), Release);
                    return Put::Known;
                }
                _ => {}
            }
        }
        Put::NoSlot
    }

    /// Takes the terms of a mark away; which they were.
    pub(super) fn end(&self, mark: Mark) -> Option<Terms> {
        let terms = self.find(mark)?;
        for slot in self.way(mark) {
            match slot.first.load(Relaxed) {
                0 => break,
                first if Mark([first, slot.second.load(Relaxed)]) == mark => {
                    slot.terms.store(0, Release);
                    return Some(terms);
                }
                _ => {}
            }
        }
        None
    }

    /// Everything that is there, ended or not.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Mark, Terms)> {
        let taken = self.0.iter().filter(|slot| slot.first.load(Acquire) != 0);
        taken.filter_map(|slot| {
            let mark = Mark([slot.first.load(Relaxed), slot.second.load(Relaxed)]);
            Some((mark, Terms::unpacked(slot.terms.load(Acquire))?))
        })
    }

    /// The slots in which a mark may lie, in order.
    fn way(&self, mark: Mark) -> impl Iterator<Item = &Slot> {
        // The second half is spread over all slots, however many they are.
        let at = (u128::from(mark.0[1]) * self.0.len() as u128) >> 64;
        let (behind, from) = self.0.split_at_checked(at as usize).unwrap_or((&[], &self.0));
        from.iter().chain(behind)
    }
}
