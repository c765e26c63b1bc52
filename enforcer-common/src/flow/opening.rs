//! How a flow is taken up and forgotten: whose slot it gets, and what another SYN makes of one that is there. Called by [`crate::verdict`].

use super::{Bucket, Opening, SLOTS, Segment, find, kept, slot};

/// What came of taking a flow up.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// There is no room.
    Full = 0,
    /// It is followed.
    Found = 1,
    /// It is there, and stays as it is: another CPU is at work on it, or two other beginnings of it are remembered.
    Disputed = 2,
}

impl Place {
    /// The one with this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Full,
            1 => Self::Found,
            _ => Self::Disputed,
        }
    }
}

/// Takes a flow up.
///
/// Takes over what has expired, else the oldest flow without a SYN, else the oldest whose hello has been accepted, else the oldest that has
/// shown only its SYN: such flows cost their sender nothing, and their hellos are still inspected when they come. Of those that await the rest of a hello, or are refused, the oldest, and none
/// of the last 2 s.
#[inline(always)]
pub fn open<B: Bucket>(bucket: &mut B, segment: &Segment, opening: &Opening) -> Place {
    let mut chosen = find(bucket, segment.hash);
    if chosen == SLOTS {
        let mut best = 0;
        let mut slot = 0;
        while slot < SLOTS {
            let worth = slot::worth(bucket.word(slot), segment.now);
            if worth > best {
                best = worth;
                chosen = slot;
            }
            slot += 1;
        }
    }
    if chosen == SLOTS {
        return Place::Full;
    }
    let word = bucket.word(chosen);
    let known = slot::is(word, segment.hash);
    let taken = if known { Place::Disputed } else { Place::Full };
    // Between the search and here somebody may have come first.
    if slot::is_claimed(word) || (!known && slot::worth(word, segment.now) == 0) {
        return taken;
    }
    let opened = slot::word(segment.hash, opening.phase, segment.now);
    if !bucket.swap(chosen, word, slot::claimed(opened)) {
        return taken;
    }
    let Some(entry) = bucket.entry(chosen) else { return Place::Full };
    let mut kept = opened;
    let mut place = Place::Found;
    let live =
        known && opening.begins && !slot::is_forgotten(word, segment.now) && entry.ends.are(&segment.ends);
    let fresh = opening.value == Opening::FRESH && slot::is_settled(word, segment.now);
    if live && slot::phase(word).is_refused() {
        entry.outlive(opening.next);
    } else if live && opening.value == Opening::ANEW {
        entry.undo(opening.next);
        kept = slot::with_phase(opened, entry.phase());
        // Nothing had passed before.
        let loose = entry.loose != 0;
        bucket.forget(kept::key(segment.hash, opening.next), loose);
    } else if live && entry.knows(opening.next) {
        // The SYN again: what has been inspected since stays inspected, or the rest would seem to be ahead. It may begin now, so it counts as
        // new.
        kept = slot::with_phase(opened, slot::phase(word));
    } else if live && !fresh {
        // Another beginning: which one the server took is not known. A third one could not be told from either.
        if entry.begins_at(opening.next) {
            kept = slot::with_phase(opened, entry.phase());
        } else {
            kept = word;
            place = Place::Disputed;
        }
    } else {
        entry.ends = segment.ends;
        entry.value = opening.value;
        entry.loose = !opening.begins as u16;
        entry.others = 0;
        entry.accepted = 0;
        entry.begin(opening.next, 0);
    }
    // Nobody changes a claimed word.
    if bucket.swap(chosen, slot::claimed(opened), kept) { place } else { Place::Disputed }
}

/// Forgets a flow.
#[inline(always)]
pub fn close<B: Bucket>(bucket: &mut B, hash: u64) {
    let slot = find(bucket, hash);
    if slot < SLOTS {
        let word = bucket.word(slot);
        // Whoever came in between knows better.
        if slot::is(word, hash) && !slot::is_claimed(word) && bucket.swap(slot, word, slot::claimed(word)) {
            if let Some(entry) = bucket.entry(slot) {
                let (key, loose) = (kept::key(hash, entry.start), entry.loose != 0);
                bucket.forget(key, loose);
            }
            // Nobody changes a claimed word.
            let _ = bucket.swap(slot, slot::claimed(word), 0);
        }
    }
}
