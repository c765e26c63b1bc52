//! What has passed of a hello, byte for byte.
//!
//! A part that is repeated has to say what it said before, however it is cut this time: else the server might hold a hello that nobody has
//! judged. What has passed also brings the parser back to where it was, when the flow has been followed from another beginning
//! meanwhile. Called by [`crate::flow`]. Hellos that are whole in one segment leave nothing here.
//!
//! One value for each beginning of a flow, by [`key`], in a table of its own: groups of values, and a word of [`super::slot`]'s for each.
//! In a full group whatever was begun longest ago gives way, but nothing of the last half second. Flows whose SYN was not seen, which
//! anybody may make up, have groups of their own, and a hello that is above its sender's limit gives its value back. What has given way,
//! found no room, or lies behind [`BYTES`], cannot be compared, and does not pass a second time.

use super::{Entry, SLOTS, Segment, slot};
use crate::{hello::automaton, packet::Packet};

/// Bytes of a hello that are kept, a power of two: several times what browsers send, with post-quantum key shares.
pub const BYTES: usize = 1 << 13;
/// Groups of values of flows that are known from their SYN, a power of two.
const KNOWN: u32 = 1 << 8;
/// The same of others.
const LOOSE: u32 = 1 << 5;
/// Groups in the table.
pub const GROUPS: usize = (KNOWN + LOOSE) as usize;
/// Values in the table, in some 19 MiB.
pub const VALUES: usize = GROUPS * SLOTS;
/// Bytes that are taken up at once at most.
pub const STRETCH: usize = 256;
/// Stretches that are taken up from a segment at most.
pub const STRETCHES: u32 = (BYTES / STRETCH) as u32;
/// Bytes that are compared at once.
const WORD: u32 = 8;
/// Steps of a comparison at most: words, and the bytes behind the last one.
pub const STEPS: u32 = BYTES as u32 / WORD + WORD;

/// Under which key the table has what passed at a beginning. The hash has been made with the settings' seed.
#[inline(always)]
pub const fn key(hash: u64, start: u32) -> u64 {
    hash ^ (start as u64) << 32
}

/// The group of a key, by what its flow is.
#[inline(always)]
pub const fn group(key: u64, loose: bool) -> u32 {
    if loose { KNOWN + (key as u32 & (LOOSE - 1)) } else { key as u32 & (KNOWN - 1) }
}

/// The value with a key in a group; [`SLOTS`] if there is none.
#[inline(always)]
pub fn find(word: impl Fn(usize) -> u64, key: u64) -> usize {
    let mut at = 0;
    while at < SLOTS {
        if slot::is(word(at), key) {
            break;
        }
        at += 1;
    }
    at
}

/// The value in a group that is given to a key that has none; [`SLOTS`] if there is no room.
#[inline(always)]
pub fn choose(word: impl Fn(usize) -> u64, now: u64) -> usize {
    let (mut best, mut chosen, mut at) = (0, SLOTS, 0);
    while at < SLOTS {
        let worth = slot::age_of_settled(word(at), now);
        if worth > best {
            best = worth;
            chosen = at;
        }
        at += 1;
    }
    chosen
}

/// What has passed, and a stretch of it that is being taken up or compared. Lies in map memory, like the parser: so the verifier knows
/// nothing of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Bytes that are there.
    pub length: u32,
    /// Where in the frame the next byte of the stretch lies.
    pub offset: u32,
    /// Which byte of the hello that is.
    pub at: u32,
    /// Bytes of the stretch that are still to come.
    pub left: u32,
    /// Whether a byte differs.
    differs: u32,
    reserved: u32,
    /// Longer than what it holds, so that a masked index and the longest access stay inside.
    bytes: [u8; BYTES + STRETCH],
}

const _: () = assert!(size_of::<Kept>() == 24 + BYTES + STRETCH && BYTES.is_power_of_two());

impl Kept {
    /// Nothing has passed.
    pub const NONE: Self =
        Self { length: 0, offset: 0, at: 0, left: 0, differs: 0, reserved: 0, bytes: [0; BYTES + STRETCH] };

    /// Where the bytes begin in the value.
    pub const FIRST: usize = core::mem::offset_of!(Self, bytes);

    /// Begins to compare a stretch; `false`: of that nothing is known.
    #[inline(always)]
    pub fn begin(&mut self, stretch: Stretch) -> bool {
        self.offset = stretch.offset;
        self.at = stretch.at;
        self.left = stretch.length;
        self.differs = 0;
        stretch.at <= BYTES as u32
            && stretch.length <= BYTES as u32
            && stretch.at + stretch.length <= self.length
    }

    /// Compares a few bytes; `true`: there are no more, or they differ.
    #[inline(always)]
    pub fn step<P: Packet>(&mut self, packet: &P) -> bool {
        if self.left == 0 {
            return true;
        }
        let (offset, at) = (self.offset as usize, self.at as usize);
        let mut width = WORD;
        let same = if self.left < WORD {
            width = 1;
            packet.data::<1>(offset) == self.bytes::<1>(at)
        } else {
            packet.data(offset).map(u64::from_ne_bytes) == self.bytes(at).map(u64::from_ne_bytes)
        };
        self.offset += width;
        self.at += width;
        self.left -= width;
        self.differs = !same as u32;
        !same
    }

    /// Whether the stretch is what it was.
    #[inline(always)]
    pub const fn is_same(&self) -> bool {
        self.differs == 0 && self.left == 0
    }

    /// Begins to take up a stretch; what there is no room for is left out.
    #[inline(always)]
    pub fn append(&mut self, stretch: Stretch) {
        self.left = 0;
        if stretch.at > BYTES as u32 || stretch.at > self.length {
            return;
        }
        self.offset = stretch.offset;
        self.at = stretch.at;
        self.left = stretch.length;
        if self.left > BYTES as u32 - stretch.at {
            self.left = BYTES as u32 - stretch.at;
        }
        self.length = stretch.at + self.left;
    }

    /// Takes one byte up, in plain memory.
    fn take<P: Packet>(&mut self, packet: &P) {
        if let (Some(byte), Some(place)) =
            (packet.data::<1>(self.offset as usize), self.bytes.get_mut(self.at as usize))
        {
            *place = byte[0];
        }
        self.offset += 1;
        self.at += 1;
        self.left -= 1;
    }
}

/// As far as [`Kept::length`]: nobody asks for what lies behind.
impl Packet for Kept {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length as usize
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let offset = offset & (BYTES - 1);
        self.bytes.get(offset..offset + N)?.try_into().ok()
    }

    #[inline(always)]
    fn first<const N: usize>(&self) -> Option<&[u8; N]> {
        self.bytes.first_chunk()
    }
}

/// A stretch of a hello in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where in the frame it begins.
    pub offset: u32,
    /// Which byte of the hello that is.
    pub at: u32,
    /// Its length in bytes.
    pub length: u32,
}

impl Entry {
    /// What a segment repeats of what has passed.
    #[inline(always)]
    pub const fn repeated(&self, segment: &Segment) -> Stretch {
        let stretch = self.stretch_of(segment);
        if stretch.at >= self.passed {
            return Stretch { length: 0, ..stretch };
        }
        let left = self.passed - stretch.at;
        if stretch.length < left { stretch } else { Stretch { length: left, ..stretch } }
    }

    /// What a segment adds to what has passed, which it does not leave a gap behind.
    #[inline(always)]
    pub const fn added(&self, segment: &Segment) -> Stretch {
        let stretch = self.stretch_of(segment);
        let known = self.passed.wrapping_sub(stretch.at);
        if known >= stretch.length {
            return Stretch { length: 0, ..stretch };
        }
        Stretch { offset: stretch.offset + known, at: self.passed, length: stretch.length - known }
    }

    /// The segment from the beginning of the hello on.
    #[inline(always)]
    const fn stretch_of(&self, segment: &Segment) -> Stretch {
        let at = segment.sequence.wrapping_sub(self.start);
        let length = segment.end.wrapping_sub(segment.offset);
        if (at as i32) >= 0 {
            return Stretch { offset: segment.offset, at, length };
        }
        let before = at.wrapping_neg();
        if before >= length {
            return Stretch { offset: segment.offset, at: 0, length: 0 };
        }
        Stretch { offset: segment.offset + before, at: 0, length: length - before }
    }

    /// The parser is to be brought to where what has passed ends; `false`: that cannot be told.
    #[inline(always)]
    pub fn rewind(&mut self, kept: &Kept, segment: &Segment) -> bool {
        self.parser.reset();
        if segment.whole != 0 {
            self.parser.begin_marks(segment.key);
        }
        self.parser.minimum = segment.minimum;
        self.parser.offset = 0;
        self.parser.end = self.passed;
        self.passed <= BYTES as u32 && self.passed <= kept.length
    }

    /// It has been.
    #[inline(always)]
    pub fn resume(&mut self) {
        self.next = self.start.wrapping_add(self.passed);
    }

    /// Bytes that have passed.
    #[inline(always)]
    pub const fn passed(&self) -> u32 {
        self.passed
    }

    /// Notes that a stretch has passed.
    #[inline(always)]
    pub fn pass(&mut self, stretch: Stretch) {
        self.passed += stretch.length;
    }
}

/// Whether what a segment repeats is what passed before, in plain memory.
pub(super) fn same<P: Packet>(entry: &Entry, kept: Option<&mut Kept>, segment: &Segment, packet: &P) -> bool {
    let stretch = entry.repeated(segment);
    if stretch.length == 0 {
        return true;
    }
    let Some(kept) = kept else { return false };
    if !kept.begin(stretch) {
        return false;
    }
    while !kept.step(packet) {}
    kept.is_same()
}

/// Takes up what a segment adds, in plain memory.
pub(super) fn keep<P: Packet>(kept: &mut Kept, stretch: Stretch, packet: &P) {
    kept.append(stretch);
    while kept.left != 0 {
        kept.take(packet);
    }
}

/// Brings the parser back, in plain memory.
pub(super) fn replay(entry: &mut Entry, kept: &Kept, segment: &Segment) {
    if entry.rewind(kept, segment) {
        automaton::run(&mut entry.parser, kept);
        entry.resume();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::slot::Phase, *};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_was_begun_longest_ago_gives_way_and_nothing_of_just_now() {
        let now = 1_000 * SECOND;
        let word = |key: u64, ago| slot::word(key << 32, Phase::Opened, now - ago * SECOND);
        let mut words: [u64; SLOTS] = core::array::from_fn(|at| word(at as u64 + 1, 1 + at as u64 % 5));
        assert_eq!(choose(|at| words[at], now), 4);
        words[6] = 0;
        assert_eq!(choose(|at| words[at], now), 6);
        assert_eq!(find(|at| words[at], 3 << 32 | 0x77), 2);
        assert_eq!(find(|at| words[at], 99 << 32), SLOTS);
        words = core::array::from_fn(|at| word(at as u64 + 1, 0));
        assert_eq!(choose(|at| words[at], now), SLOTS);
    }

    #[test]
    fn strangers_have_groups_of_their_own() {
        for hash in [0, 0x1234_5678_9abc_def0, u64::MAX] {
            let key = key(hash, 77);
            assert!(group(key, false) < KNOWN);
            assert!((KNOWN..GROUPS as u32).contains(&group(key, true)));
        }
    }
}
