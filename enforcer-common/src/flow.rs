//! Which flows await a ClientHello, how far each one's has been inspected, and which were refused.
//!
//! Called by [`crate::verdict`] for TCP segments to protected ports. A flow is in the table from its SYN on, and stays there for a while when
//! its hello has been accepted, as long as nobody else needs the room. Segments of established connections look at one cache line of
//! words, and as long as their flow is there at one of its entry. What is kept is the position in the sequence and the parser's state, and beside them, in [`kept`], what has passed of a
//! hello that goes on.
//!
//! What has passed at a beginning stands: who repeats a part of it, cut in whatever way, has to repeat it as it was, or his
//! segment does not pass. So whichever copy a server keeps, what it holds is what was judged, as far as it takes what passes.
//!
//! A bucket is a cache line of [`slot`] words and beside it an [`Entry`] per slot. Whoever works on an entry has claimed its word by
//! compare-and-set; whoever finds it claimed drops his segment, and its sender repeats it.
//!
//! Of a second SYN with another number nobody can tell whether it is the server's connection, the sender's trick or a third
//! party's forgery. So a flow has up to two beginnings: data that begins at either is followed from there, what lies behind the
//! other one is held back until it is, and a hello that was accepted at one leaves the other standing.
//!
//! What a server does with a segment cannot be told from outside: it may ignore it for a timestamp that is too old, for an acknowledgement of
//! what was never sent, or as data in a SYN that it does not take (TCP Fast Open without a cookie). So a flow is not forgotten with its
//! hello: what decided about that is remembered, and whatever comes in its place again has to say the same, or, where it was whole in one
//! segment and nothing was kept of it, to be a good hello once more that is decided no later. So whichever of all that passed a server
//! takes, what it reads up to there has been judged as one hello. What lies beyond passes: a server reads it behind that.

mod entry;
pub mod kept;
mod opening;
mod segment;
pub mod slot;

pub use self::entry::Entry;
use self::entry::{place, weighed};
pub use self::opening::{Place, choose, close, confirm, open};
pub use self::segment::{Ends, Opening, Segment};
use self::{kept::Kept, slot::Phase};
use crate::{
    hello::{
        Hello,
        automaton::{self, Progress},
        marks::Marks,
    },
    packet::Packet,
};

/// Slots in a bucket: 8 words of 8 bytes fill a cache line.
pub const SLOTS: usize = 8;

/// Distance in sequence numbers beyond which a segment belongs to another connection than the flow, in bytes: no first flight is
/// longer than a window without scale (RFC 7323 section 2.2). Who forges a SYN without having seen the connection hits it with odds
/// of 1 in 32,768. The acknowledgement is not compared: servers take data under old ones (RFC 9293 section 3.10.7.4), so
/// that a client could send the rest of its hello under another.
const WINDOW: u32 = 1 << 16;

/// The words of a bucket as they lie in memory.
pub type RawBucket = [u64; SLOTS];

/// Shared access to one bucket. Words are atomic and sequentially consistent; an entry is touched by whoever has
/// claimed its word.
pub trait Bucket {
    /// The word of a slot.
    fn word(&self, slot: usize) -> u64;
    /// Compare-and-set of a word; whether it was made.
    fn swap(&self, slot: usize, old: u64, new: u64) -> bool;
    /// The entry of a slot; `None` never happens, but the verifier cannot know.
    fn entry(&mut self, slot: usize) -> Option<&mut Entry>;
    /// [`slot::worth`].
    fn worth(&self, word: u64, now: u64) -> u32 {
        slot::worth(word, now)
    }
    /// [`choose`] in the bucket of a hash.
    fn choose(&self, _hash: u64, now: u64) -> usize
    where
        Self: Sized,
    {
        choose(self, now)
    }
    /// [`Entry::meet`] on a slot.
    fn meet(&mut self, slot: usize, sequence: u32, length: u32) -> u32 {
        self.entry(slot).map_or(0, |entry| entry.meet(sequence, length))
    }
    /// [`Entry::has_passed`] on a slot.
    fn has_passed(&mut self, slot: usize, sequence: u32, length: u32, urgent: bool) -> bool {
        self.entry(slot).is_some_and(|entry| entry.has_passed(sequence, length, urgent))
    }
    /// [`Entry::take_up`] on a slot.
    fn take_up(&mut self, slot: usize, segment: &Segment, opening: &Opening, word: u64) -> u32 {
        self.entry(slot).map_or(0, |entry| entry.take_up(segment, opening, word))
    }
    /// [`Entry::place`] on a slot.
    fn place(&mut self, slot: usize, sequence: u32, length: u32, how: u32) -> u32 {
        self.entry(slot).map_or(0, |entry| entry.place(sequence, length, how))
    }
    /// [`Entry::weigh`] on a slot.
    fn weigh(&mut self, slot: usize, how: u32, decided: u32) -> u32 {
        self.entry(slot).map_or(0, |entry| entry.weigh(how, decided))
    }
    /// [`Entry::settle`] on a slot.
    fn settle(&mut self, slot: usize, how: u32) -> u32 {
        self.entry(slot).map_or(0, |entry| entry.settle(how))
    }
    /// What has passed under a key of [`kept::key`], for whom there is room if `anew`: then nothing yet.
    fn kept(&mut self, key: u64, anew: bool) -> Option<&mut Kept>;
    /// Forgets it; `loose`: of a flow whose SYN was not seen.
    fn forget(&mut self, key: u64, loose: bool);
    /// Whether what a segment repeats of what has passed of a slot's hello is as it was. What cannot be compared is not.
    fn same<P: Packet>(&mut self, slot: usize, segment: &Segment, packet: &P) -> bool {
        let Some(entry) = self.entry(slot).copied() else { return false };
        kept::same(&entry, self.kept(kept::key(segment.hash, entry.start), false), segment, packet)
    }
    /// Notes what a segment adds to that.
    fn keep<P: Packet>(&mut self, slot: usize, segment: &Segment, packet: &P) {
        let Some(entry) = self.entry(slot) else { return };
        let (stretch, key, anew) =
            (entry.added(segment), kept::key(segment.hash, entry.start), entry.passed == 0);
        entry.pass(stretch);
        if let Some(kept) = self.kept(key, anew) {
            kept::keep(kept, stretch, packet);
        }
    }
    /// Brings a slot's parser to where what has passed ends, if that is known.
    fn replay(&mut self, slot: usize, segment: &Segment) {
        let Some(mut entry) = self.entry(slot).copied() else { return };
        if let Some(kept) = self.kept(kept::key(segment.hash, entry.start), false) {
            kept::replay(&mut entry, kept, segment);
        }
        if let Some(place) = self.entry(slot) {
            *place = entry;
        }
    }
    /// [`automaton::run`] on a slot's parser.
    fn run<P: Packet>(&mut self, slot: usize, packet: &P) {
        if let Some(entry) = self.entry(slot) {
            automaton::run(&mut entry.parser, packet);
        }
    }
}

/// What a segment means to its flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// No such flow: nothing is known of the segment.
    #[default]
    Unknown = 0,
    /// Nothing to inspect: no data, only what has been inspected, or what lies beyond a hello that has been accepted.
    Behind = 1,
    /// Ahead of what has been inspected, or another CPU is at work on the flow: the sender has to repeat it.
    Ahead = 2,
    /// Part of a hello whose rest is awaited.
    Part = 3,
    /// A hello that offers the minimum.
    Accepted = 4,
    /// A hello that does not; the flow is forgotten, `value` is what the server expects next.
    Refused = 5,
    /// As above: a hello that contradicts itself.
    Malformed = 6,
    /// As above: no hello.
    NotHello = 7,
    /// The first segment of a refused flow: `value` is what the server expects next. The flow has ended with it.
    Refusal = 8,
    /// A later one: `value` is the sequence number behind the answer that the client was given.
    Ended = 9,
    /// Part of a hello that cannot be followed: the table has no room.
    Unfollowed = 10,
    /// Not of this connection, whose hello is awaited or refused: as [`Kind::Unknown`], but the flow stays as it is, or any
    /// segment that the server ignores would make it forgotten.
    Elsewhere = 11,
    /// Repeats part of a hello with other content, or comes with one that is not good in place of one that was.
    Changed = 12,
}

impl Kind {
    /// The one with this number.
    #[inline(always)]
    const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Behind,
            2 => Self::Ahead,
            8 => Self::Refusal,
            9 => Self::Ended,
            11 => Self::Elsewhere,
            12 => Self::Changed,
            // Nobody asks for the others.
            _ => Self::Unknown,
        }
    }
}

/// What came of following a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// What the segment means.
    pub kind: Kind,
    /// Whether it was the first with data, and no hello has been accepted before.
    pub first: bool,
    /// Whether the flow is known from its SYN; else anybody may have forged the segment.
    pub begins: bool,
    /// Whether another SYN has been seen that the segment does not fit: one of the two may be forged.
    pub disputed: bool,
    /// Whether a list of versions stands in place of the hello's legacy version.
    pub listed: bool,
    /// Whether an accepted hello was read to its end.
    pub whole: bool,
    /// Whether it was, and what has passed of it may be repeated once it has been compared, see [`confirm`].
    pub kept: bool,
    /// The hello's legacy version, if it was read; else 0.
    pub version: u16,
    /// See [`Kind`].
    pub value: u32,
}

impl Followed {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self::only(Kind::Unknown);

    const fn only(kind: Kind) -> Self {
        Self {
            kind,
            first: false,
            begins: false,
            disputed: false,
            listed: false,
            whole: false,
            kept: false,
            version: 0,
            value: 0,
        }
    }
}

/// The phase of a flow; [`Phase::Free`] if it is not in its bucket. Of 2^32 flows one is taken for another that is.
#[inline(always)]
pub fn phase<B: Bucket>(bucket: &B, hash: u64) -> Phase {
    let slot = find(bucket, hash);
    if slot < SLOTS { slot::phase(bucket.word(slot)) } else { Phase::Free }
}

/// Whether data of a flow whose hello was accepted lies beyond that, and nothing else is known of it. Nobody has to claim the slot for it:
/// `false` says nothing.
#[inline(always)]
pub fn has_passed<B: Bucket>(bucket: &mut B, hash: u64, sequence: u32, length: u32, urgent: bool) -> bool {
    let slot = find(bucket, hash);
    if slot == SLOTS {
        return false;
    }
    let word = bucket.word(slot);
    // Whoever changes the entry meanwhile changes the word before.
    slot::phase(word) == Phase::Passed
        && !slot::is_claimed(word)
        && bucket.has_passed(slot, sequence, length, urgent)
        && bucket.word(slot) == word
}

/// The slot with a flow's tag; [`SLOTS`] if there is none.
#[inline(always)]
fn find<B: Bucket>(bucket: &B, hash: u64) -> usize {
    let mut slot = 0;
    while slot < SLOTS {
        if slot::is(bucket.word(slot), hash) {
            break;
        }
        slot += 1;
    }
    slot
}

/// Follows a flow through one segment; `marks` are those of a hello that has been read to its end.
#[inline(always)]
pub fn follow<B: Bucket, P: Packet>(
    bucket: &mut B,
    segment: &Segment,
    packet: &P,
    marks: &mut Marks,
) -> Followed {
    let slot = find(bucket, segment.hash);
    if slot == SLOTS {
        return Followed::UNKNOWN;
    }
    let word = bucket.word(slot);
    if slot::is_claimed(word)
        || !slot::is(word, segment.hash)
        || !bucket.swap(slot, word, slot::claimed(word))
    {
        return Followed::only(Kind::Ahead);
    }
    let (followed, next) = advance(bucket, slot, word, segment, packet, marks);
    // Nobody changes a claimed word.
    let _ = bucket.swap(slot, slot::claimed(word), next);
    followed
}

/// What a segment means to the flow in a claimed slot, and the slot's next word.
#[inline(always)]
fn advance<B: Bucket, P: Packet>(
    bucket: &mut B,
    slot: usize,
    word: u64,
    segment: &Segment,
    packet: &P,
    marks: &mut Marks,
) -> (Followed, u64) {
    let Some(entry) = bucket.entry(slot) else { return (Followed::UNKNOWN, 0) };
    if !entry.ends.are(&segment.ends) {
        return (Followed::UNKNOWN, word);
    }
    if slot::is_forgotten(word, segment.now) {
        return (Followed::UNKNOWN, 0);
    }
    let mut phase = slot::phase(word);
    let mut how = ((phase == Phase::Refused) as u32 * place::REFUSED)
        | ((phase == Phase::Ended) as u32 * place::ENDED)
        | ((segment.opens != 0) as u32 * place::OPENS);
    let length = segment.end.wrapping_sub(segment.offset);
    if !phase.is_refused() {
        let found = bucket.meet(slot, segment.sequence, length);
        how |= found & place::REACHES;
        let Some(entry) = bucket.entry(slot) else { return (Followed::UNKNOWN, 0) };
        if found & Entry::TURNED != 0 {
            phase = entry.phase();
        }
        if entry.passed != 0 && entry.next == entry.start && !entry.is_whole() {
            bucket.replay(slot, segment);
        }
    }
    let word = slot::with_phase(word, phase);
    let placed = bucket.place(slot, segment.sequence, length, how);
    let Some(entry) = bucket.entry(slot) else { return (Followed::UNKNOWN, 0) };
    let inspected = entry.next.wrapping_sub(segment.sequence);
    let (next, start, loose) = (entry.next, entry.start, entry.loose != 0);
    let first = entry.passed == 0;
    let reaches = how & place::REACHES != 0;
    if placed & place::GOES_ON == 0 {
        let kind = Kind::from_number(placed);
        if kind == Kind::Refusal {
            let followed = Followed { value: next, ..Followed::only(kind) };
            return (followed, slot::word(segment.hash, Phase::Ended, segment.now));
        }
        let followed = Followed { value: entry.value, ..Followed::only(kind) };
        return (followed, if kind == Kind::Unknown { 0 } else { word });
    }
    if !first && !bucket.same(slot, segment, packet) {
        // Another connection's data after all, or no data that the server shall have.
        return if loose { (Followed::UNKNOWN, 0) } else { (Followed::only(Kind::Changed), word) };
    }
    if placed & place::KNOWN != 0 {
        return (Followed::only(if reaches { Kind::Ahead } else { Kind::Behind }), word);
    }
    let from = segment.offset.wrapping_add(inspected);
    let mut progress = Progress::More;
    let mut version = 0;
    let mut listed = false;
    let mut whole = false;
    // Where what has been read of the hello ends.
    let mut decided = 0;
    // What is to be read to its end takes the longer way at once.
    let gathers = segment.whole != 0;
    if first && !gathers {
        let seen = packet.inspect_hello(from as usize, segment.end as usize, segment.minimum);
        version = seen.version;
        listed = seen.listed;
        decided = seen.offset.wrapping_sub(from);
        match seen.hello {
            Hello::Accepted => progress = Progress::Accepted,
            Hello::Refused => progress = Progress::Refused,
            Hello::Absent | Hello::Incomplete | Hello::Malformed => {}
        }
    }
    if progress == Progress::More {
        let Some(entry) = bucket.entry(slot) else { return (Followed::UNKNOWN, 0) };
        if first {
            entry.parser.reset();
            if gathers {
                entry.parser.begin_marks(segment.key);
            }
        }
        entry.parser.offset = from;
        entry.parser.end = segment.end;
        entry.parser.minimum = segment.minimum;
        bucket.run(slot, packet);
        let Some(entry) = bucket.entry(slot) else { return (Followed::UNKNOWN, 0) };
        progress = entry.parser.progress();
        version = entry.parser.legacy;
        listed = entry.parser.listed != 0;
        decided = next.wrapping_sub(start).wrapping_add(entry.parser.offset.wrapping_sub(from));
        if progress == Progress::Accepted && entry.parser.whole != 0 {
            whole = true;
            *marks = entry.parser.marks;
        }
        if !loose || progress == Progress::More {
            entry.next = segment.sequence.wrapping_add(length);
        }
    }
    if loose && matches!(progress, Progress::Malformed | Progress::NotHello) && version >> 8 != 3 {
        // Bytes from the middle of a stream that looked like the beginning of a hello.
        return (Followed::UNKNOWN, 0);
    }
    let kind = match progress {
        Progress::More => Kind::Part,
        Progress::Accepted => Kind::Accepted,
        Progress::Refused => Kind::Refused,
        Progress::Malformed => Kind::Malformed,
        Progress::NotHello => Kind::NotHello,
    };
    let how = kind as u32 | (first as u32) << 8 | (reaches as u32) << 9 | (whole as u32) << 10;
    let found = bucket.weigh(slot, how, decided);
    if found & weighed::KEPT != 0 {
        bucket.keep(slot, segment, packet);
    } else if found & weighed::FORGOTTEN != 0 {
        bucket.forget(kept::key(segment.hash, start), loose);
    }
    let phase = bucket.settle(slot, found);
    let after = if found & weighed::STAYS != 0 {
        slot::with_phase(word, Phase::from_number(phase as u8))
    } else if found & weighed::FOLLOWED != 0 {
        slot::word(segment.hash, Phase::from_number(phase as u8), segment.now)
    } else {
        0
    };
    if found & weighed::CHANGED != 0 {
        return (Followed::only(Kind::Changed), after);
    }
    if found & weighed::BACK != 0 {
        return (Followed::only(Kind::Ahead), after);
    }
    let followed = Followed {
        kind,
        first: found & weighed::FIRST != 0,
        begins: !loose,
        disputed: found & weighed::DISPUTED != 0,
        listed,
        whole,
        kept: whole && !first,
        version,
        value: next,
    };
    (followed, after)
}

#[cfg(test)]
mod properties;
