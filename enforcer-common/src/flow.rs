//! Which flows await a ClientHello, how far each one's has been inspected, and which were refused.
//!
//! Called by [`crate::verdict`] for TCP segments to protected ports. A flow is in the table from its SYN until its hello has
//! been accepted, so it is small, and the segments of established connections look at one cache line that stays in the
//! processor's. What is kept is the position in the sequence and the parser's state, never payload.
//!
//! A bucket is a cache line of [`slot`] words and beside it an [`Entry`] per slot. Whoever works on an entry has claimed its word by
//! compare-and-set; whoever finds it claimed drops his segment, and its sender repeats it.
//!
//! What cannot be told from outside: a segment that the server ignores for another reason than its checksum (a timestamp that
//! is too old, an acknowledgement of what was never sent) is taken for part of the hello. Who hides an old version that
//! way meets the server's own TLS stack, which is compared with this judgement and counted.

pub mod slot;

use self::slot::Phase;
use crate::{
    headers::{Headers, Link},
    hello::{
        Hello,
        automaton::{self, Parser, Progress},
        marks::Marks,
    },
    limiter::mix,
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

/// The two ends of a connection, host order; of an IPv4 address the first half.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The client's address.
    pub source: [u64; 2],
    /// The server's address.
    pub destination: [u64; 2],
    /// The client's port in the upper half, the server's in the lower.
    pub ports: u32,
    /// 4 or 6.
    pub family: u32,
}

impl Ends {
    /// Those that the headers of a TCP segment name.
    #[inline(always)]
    pub const fn of(headers: &Headers) -> Self {
        Self {
            source: headers.source,
            destination: headers.destination,
            ports: (headers.source_port as u32) << 16 | headers.port as u32,
            family: if matches!(headers.link, Link::Ipv4) { 4 } else { 6 },
        }
    }

    /// Equality, word by word: of a comparison of arrays LLVM would make a call.
    #[inline(always)]
    const fn are(&self, other: &Self) -> bool {
        self.source[0] == other.source[0]
            && self.source[1] == other.source[1]
            && self.destination[0] == other.destination[0]
            && self.destination[1] == other.destination[1]
            && self.ports == other.ports
            && self.family == other.family
    }

    /// Where a flow lies: its bucket in the lower half, its tag in the upper.
    #[inline(always)]
    pub const fn hash(&self, seed: u64) -> u64 {
        let ports = (self.family as u64) << 32 | self.ports as u64;
        let mut hash = mix(self.source[0] ^ seed);
        hash = mix(hash ^ self.destination[0].rotate_left(32) ^ ports.rotate_left(16));
        if self.family == 6 {
            hash = mix(hash ^ self.source[1]);
            hash = mix(hash ^ self.destination[1]);
        }
        hash
    }
}

/// A segment, as far as a flow is concerned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Whose it is.
    pub ends: Ends,
    /// See [`Ends::hash`].
    pub hash: u64,
    /// Instant of `CLOCK_MONOTONIC`, in nanoseconds.
    pub now: u64,
    /// Sequence number of its first byte of data; a SYN stands one in front of it.
    pub sequence: u32,
    /// Where in the frame its data begins.
    pub offset: u32,
    /// Where in the frame its data ends.
    pub end: u32,
    /// Lowest acceptable version as on the wire.
    pub minimum: u16,
    /// Whether a hello that begins here is to be read to its end; else 0.
    pub whole: u16,
    /// The key of names, see [`Marks`].
    pub key: u64,
}

impl Segment {
    /// None yet.
    pub const NONE: Self = Self {
        ends: Ends { source: [0; 2], destination: [0; 2], ports: 0, family: 0 },
        hash: 0,
        now: 0,
        sequence: 0,
        offset: 0,
        end: 0,
        minimum: 0,
        whole: 0,
        key: 0,
    };
}

/// How a flow is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// How far it is.
    pub phase: Phase,
    /// Whether it begins here for sure, since this is its SYN.
    pub begins: bool,
    /// The next sequence number that is to be inspected; of a refused flow, the one that the server expects.
    pub next: u32,
    /// Of a refused flow: the sequence number behind the answer that the client is given.
    pub value: u32,
}

impl Opening {
    /// As numbers, for a function that the verifier checks by itself.
    #[inline(always)]
    pub const fn pack(&self) -> (u32, u64) {
        let phase = self.phase as u32 | (self.begins as u32) << 8;
        (phase, (self.next as u64) << 32 | self.value as u64)
    }

    /// The opposite of [`Opening::pack`].
    #[inline(always)]
    pub const fn unpack(phase: u32, numbers: u64) -> Self {
        Self {
            phase: Phase::from_number(phase as u8),
            begins: phase & 0x100 != 0,
            next: (numbers >> 32) as u32,
            value: numbers as u32,
        }
    }
}

/// What is known of one flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub ends: Ends,
    /// The first sequence number that has not been inspected; of a refused flow, the one that the server expects.
    pub next: u32,
    /// Where the hello begins.
    pub start: u32,
    /// Of a refused flow: the sequence number behind the answer that the client was given.
    pub value: u32,
    /// Whether the flow's SYN was not seen, so that nothing says that it begins where it seems to.
    loose: u32,
    /// The parser between two segments.
    pub parser: Parser,
    reserved: [u64; 3],
}

const _: () = assert!(size_of::<Entry>() == 256);

/// Shared access to one bucket. Words are atomic and sequentially consistent; an entry is touched by whoever has
/// claimed its word.
pub trait Bucket {
    /// The word of a slot.
    fn word(&self, slot: usize) -> u64;
    /// Compare-and-set of a word; whether it was made.
    fn swap(&self, slot: usize, old: u64, new: u64) -> bool;
    /// The entry of a slot; `None` never happens, but the verifier cannot know.
    fn entry(&mut self, slot: usize) -> Option<&mut Entry>;
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
    /// Nothing to inspect: no data, or only what has been inspected.
    Behind = 1,
    /// Ahead of what has been inspected, or another CPU is at work on the flow: the sender has to repeat it.
    Ahead = 2,
    /// Part of a hello whose rest is awaited.
    Part = 3,
    /// A hello that offers the minimum; the flow is forgotten.
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
}

/// What came of following a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// What the segment means.
    pub kind: Kind,
    /// Whether it was the first with data.
    pub first: bool,
    /// Whether the flow is known from its SYN; else anybody may have forged the segment.
    pub begins: bool,
    /// Whether a list of versions stands in place of the hello's legacy version.
    pub listed: bool,
    /// Whether an accepted hello was read to its end.
    pub whole: bool,
    /// The hello's legacy version, if it was read; else 0.
    pub version: u16,
    /// See [`Kind`].
    pub value: u32,
}

impl Followed {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self::only(Kind::Unknown);

    const fn only(kind: Kind) -> Self {
        Self { kind, first: false, begins: false, listed: false, whole: false, version: 0, value: 0 }
    }
}

/// The phase of a flow; [`Phase::Free`] if it is not in its bucket. Of 2^32 flows one is taken for another that is.
#[inline(always)]
pub fn phase<B: Bucket>(bucket: &B, hash: u64) -> Phase {
    let slot = find(bucket, hash);
    if slot < SLOTS { slot::phase(bucket.word(slot)) } else { Phase::Free }
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

/// Takes a flow up; `false`: there is no room, or another CPU is at work on the flow.
///
/// Takes over what has expired, else the oldest flow that has shown only its SYN: such flows cost their sender nothing,
/// and their hellos are still inspected when they come. Never one that awaits the rest of a hello, or is refused.
#[inline(always)]
pub fn open<B: Bucket>(bucket: &mut B, segment: &Segment, opening: &Opening) -> bool {
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
        return false;
    }
    let word = bucket.word(chosen);
    let known = slot::is(word, segment.hash);
    // Between the search and here somebody may have come first.
    if slot::is_claimed(word) || (!known && slot::worth(word, segment.now) == 0) {
        return false;
    }
    let opened = slot::word(segment.hash, opening.phase, segment.now);
    if !bucket.swap(chosen, word, slot::claimed(opened)) {
        return false;
    }
    let Some(entry) = bucket.entry(chosen) else { return false };
    let mut kept = opened;
    if known
        && opening.begins
        && slot::phase(word).awaits()
        && entry.start == opening.next
        && entry.ends.are(&segment.ends)
    {
        // The SYN again: what has been inspected since stays inspected, or the rest would seem to be ahead.
        kept = word;
    } else {
        entry.ends = segment.ends;
        entry.next = opening.next;
        entry.start = opening.next;
        entry.value = opening.value;
        entry.loose = !opening.begins as u32;
        entry.parser.reset();
    }
    // Nobody changes a claimed word.
    bucket.swap(chosen, slot::claimed(opened), kept)
}

/// Forgets a flow.
#[inline(always)]
pub fn close<B: Bucket>(bucket: &B, hash: u64) {
    let slot = find(bucket, hash);
    if slot < SLOTS {
        let word = bucket.word(slot);
        if slot::is(word, hash) && !slot::is_claimed(word) {
            // Whoever came in between knows better.
            let _ = bucket.swap(slot, word, 0);
        }
    }
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
    let phase = slot::phase(word);
    let length = segment.end.wrapping_sub(segment.offset);
    let inspected = entry.next.wrapping_sub(segment.sequence);
    let (next, start, loose) = (entry.next, entry.start, entry.loose != 0);
    let ahead = (inspected as i32) < 0;
    let far = inspected.wrapping_add(WINDOW) > 2 * WINDOW;
    if !phase.awaits() {
        if far {
            // The connection may be alive, and its hello another's forgery: the daemon must not end the server's socket.
            return (Followed::only(Kind::Elsewhere), slot::with_phase(word, Phase::Ended));
        }
        if phase == Phase::Refused {
            let followed = Followed { value: next, ..Followed::only(Kind::Refusal) };
            return (followed, slot::word(segment.hash, Phase::Ended, segment.now));
        }
        return (Followed { value: entry.value, ..Followed::only(Kind::Ended) }, word);
    }
    if ahead && !loose && !far {
        return (Followed::only(Kind::Ahead), word);
    }
    if ahead && loose && !far {
        // The hello may begin elsewhere: nobody is held back on a guess.
        return (Followed::UNKNOWN, 0);
    }
    if phase == Phase::Opened && (far || inspected >= length) {
        // Another SYN, even a forged one, may have moved the beginning: what seems to lie in front of it may be the hello.
        return (Followed::UNKNOWN, word);
    }
    if far {
        return (Followed::only(Kind::Elsewhere), word);
    }
    let first = phase == Phase::Opened;
    let again = !first && segment.sequence == start;
    if !again && inspected >= length {
        return (Followed::only(Kind::Behind), word);
    }
    let mut skipped = inspected;
    if again {
        // Repeats the hello from its beginning: the server may take this one and not the earlier one.
        skipped = 0;
    }
    let from = segment.offset.wrapping_add(skipped);
    let mut progress = Progress::More;
    let mut version = 0;
    let mut listed = false;
    let mut whole = false;
    // What is to be read to its end takes the longer way at once, but for a repeated beginning: that one may be judged anew only if all
    // of it is here, since what came behind its first segment has passed.
    let gathers = segment.whole != 0;
    let mut complete = false;
    if (first && !gathers) || again {
        let seen = packet.inspect_hello(from as usize, segment.end as usize, segment.minimum);
        version = seen.version;
        listed = seen.listed;
        match seen.hello {
            Hello::Accepted if gathers => complete = seen.complete,
            Hello::Accepted => progress = Progress::Accepted,
            Hello::Refused => progress = Progress::Refused,
            Hello::Absent | Hello::Incomplete | Hello::Malformed => {}
        }
    }
    if progress == Progress::More {
        if again && inspected >= length && !complete {
            return (Followed::only(Kind::Behind), word);
        }
        let Some(entry) = bucket.entry(slot) else { return (Followed::UNKNOWN, 0) };
        if again {
            entry.parser.restart();
        }
        if gathers && (first || again) {
            entry.parser.begin_marks(segment.key);
        }
        entry.parser.offset = from;
        entry.parser.end = segment.end;
        entry.parser.minimum = segment.minimum;
        bucket.run(slot, packet);
        let Some(entry) = bucket.entry(slot) else { return (Followed::UNKNOWN, 0) };
        progress = entry.parser.progress();
        version = entry.parser.legacy;
        listed = entry.parser.listed != 0;
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
    // Of a flow without its SYN no refusal is stored: its parser stays where it ended, and says the same of what is repeated. A hello that
    // was read to its end may yet be refused.
    let keep = kind == Kind::Part || (loose && (kind != Kind::Accepted || whole));
    let after = if keep { slot::word(segment.hash, Phase::Awaiting, segment.now) } else { 0 };
    (Followed { kind, first, begins: !loose, listed, whole, version, value: next }, after)
}

#[cfg(test)]
mod properties;
