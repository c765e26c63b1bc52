//! How a flow is taken up and forgotten: whose slot it gets, and what another SYN makes of one that is there. Called by [`crate::verdict`].

use super::{
    Bucket, Opening, SLOTS, Segment,
    entry::{DISPUTED, FORGET},
    find, kept,
    slot::{self, Phase},
};

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
        chosen = bucket.choose(segment.hash, segment.now);
    }
    if chosen == SLOTS {
        return Place::Full;
    }
    let word = bucket.word(chosen);
    let known = slot::is(word, segment.hash);
    let taken = if known { Place::Disputed } else { Place::Full };
    // Between the search and here somebody may have come first.
    if slot::is_claimed(word) || (!known && bucket.worth(word, segment.now) == 0) {
        return taken;
    }
    let opened = slot::word(segment.hash, opening.phase, segment.now);
    if !bucket.swap(chosen, word, slot::claimed(opened)) {
        return taken;
    }
    if known && opening.begins && slot::phase(word) as u32 == Phase::Loose as u32 {
        // Of what was made up before the connection began nothing stays.
        let start = bucket.entry(chosen).map_or(0, |entry| entry.start);
        bucket.forget(kept::key(segment.hash, start), true);
    }
    let taken = bucket.take_up(chosen, segment, opening, if known { word } else { 0 });
    if taken & FORGET != 0 {
        bucket.forget(kept::key(segment.hash, opening.next), false);
    }
    let disputed = taken & DISPUTED != 0;
    let next = if disputed { word } else { slot::with_phase(opened, Phase::from_number(taken as u8)) };
    // Nobody changes a claimed word.
    if bucket.swap(chosen, slot::claimed(opened), next) && !disputed { Place::Found } else { Place::Disputed }
}

/// The slot that is given most gladly to another flow; [`SLOTS`] if none is.
#[inline(always)]
pub fn choose<B: Bucket>(bucket: &B, now: u64) -> usize {
    let (mut best, mut chosen, mut slot) = (0, SLOTS, 0);
    while slot < SLOTS {
        let worth = bucket.worth(bucket.word(slot), now);
        if worth > best {
            best = worth;
            chosen = slot;
        }
        slot += 1;
    }
    chosen
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

/// The lists let a hello pass that was accepted, and whose last part came with this number. If another CPU is at work on the flow, what is
/// repeated of the hello does not pass.
#[inline(always)]
pub fn confirm<B: Bucket>(bucket: &mut B, hash: u64, sequence: u32) {
    let slot = find(bucket, hash);
    if slot < SLOTS {
        let word = bucket.word(slot);
        if slot::is(word, hash) && !slot::is_claimed(word) && bucket.swap(slot, word, slot::claimed(word)) {
            if let Some(entry) = bucket.entry(slot) {
                entry.confirm(sequence);
            }
            // Nobody changes a claimed word.
            let _ = bucket.swap(slot, slot::claimed(word), word);
        }
    }
}
