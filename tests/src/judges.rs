//! Two judges of a ClientHello: the core of the program, which sees segments, and rustls, which sees a stream. Where the core has
//! decided it has to agree with rustls, or the difference has a name and a reason here.
//!
//! The differential test and the fuzz target of the automaton call it.

use enforcer::{
    agreement::{Opinion, TlsStack},
    config::TlsVersion,
};
use enforcer_common::{
    reason::{DropReason, PassReason},
    settings::flag,
    verdict::{Verdict, decide},
};

use crate::{
    packets::{DATA, SOURCE_V4, SYN, tcp_at},
    tables::{PROTECTED, State},
};

/// Sequence number of the SYN: the stream passes the end of the numbers.
const START: u32 = u32::MAX - 700;
/// The longest segment that a frame of these tests carries, in bytes: IPv4's length has 16 bits.
const LONGEST: usize = 60_000;

/// What the core makes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Core {
    /// A hello that offers the minimum.
    Accepted,
    /// One that does not.
    TooOld,
    /// One that contradicts itself.
    Malformed,
    /// No hello.
    NotHello,
    /// All of it passed, and the rest of the hello is awaited.
    Unfinished,
}

/// Frames of a connection that sends `stream` in these segments: places at which they begin and end.
pub fn frames(stream: &[u8], segments: &[(usize, usize)]) -> Vec<Vec<u8>> {
    let data = segments.iter().map(|(begin, end)| {
        let sequence = START.wrapping_add(1).wrapping_add(*begin as u32);
        let data = stream.get(*begin..*end).unwrap_or_default();
        tcp_at(SOURCE_V4.into(), PROTECTED, sequence, DATA, data)
    });
    std::iter::once(syn_with(&[])).chain(data).collect()
}

/// The SYN of that connection, with data.
pub fn syn_with(data: &[u8]) -> Vec<u8> {
    tcp_at(SOURCE_V4.into(), PROTECTED, START, SYN, data)
}

/// The stream cut at these places.
pub fn cut(length: usize, places: &[usize]) -> Vec<(usize, usize)> {
    let mut borders: Vec<usize> = places.iter().copied().filter(|place| *place < length).collect();
    borders.extend((0..length).step_by(LONGEST));
    borders.push(length);
    borders.sort_unstable();
    borders.dedup();
    borders.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// What the core says of a stream that comes in these segments.
pub fn core(stream: &[u8], minimum: TlsVersion, segments: &[(usize, usize)]) -> Core {
    core_of(&frames(stream, segments), minimum)
}

/// What it says of these frames.
pub fn core_of(frames: &[Vec<u8>], minimum: TlsVersion) -> Core {
    core_reading(frames, minimum, false)
}

/// What it says of them; `whole`: while something is listed that nothing meets, so that hellos are read to their end.
fn core_reading(frames: &[Vec<u8>], minimum: TlsVersion, whole: bool) -> Core {
    let state = State::default().set(|settings| {
        settings.minimum_tls = minimum.number();
        settings.flags |= if whole { flag::HELLO_LISTS } else { 0 };
    });
    let tables = state.tables(1);
    for frame in frames {
        match decide(&&**frame, &tables) {
            Verdict::Pass(PassReason::HelloAccepted) => return Core::Accepted,
            Verdict::Drop(DropReason::TlsVersion) => return Core::TooOld,
            Verdict::Drop(DropReason::MalformedHello) => return Core::Malformed,
            Verdict::Drop(DropReason::NotHello) => return Core::NotHello,
            // A SYN, part of a hello, or what is ahead of it and will be repeated.
            Verdict::Pass(PassReason::Clean | PassReason::HelloIncomplete)
            | Verdict::Drop(DropReason::HelloAhead) => {}
            Verdict::Pass(_) | Verdict::Drop(_) => return Core::Malformed,
        }
    }
    Core::Unfinished
}

/// A difference that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meant {
    /// A hello in thousands of records takes more steps than the program makes for a connection; no client sends such.
    TooManySteps,
}

impl Meant {
    /// Every one.
    pub const ALL: [Self; 1] = [Self::TooManySteps];
}

/// How the two compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// They agree, or one of them waits for what cannot change the other's mind.
    Agree,
    /// They do not, and this is why.
    Meant(Meant),
    /// They do not.
    Differ,
}

/// Compares what the core said of a stream with what rustls says of it.
pub fn compare(core: Core, opinion: Opinion, stream: &[u8]) -> Comparison {
    let agree = match core {
        // rustls may find something else wrong, or wait for the end of a hello that has shown a good version.
        Core::Accepted => opinion != Opinion::TooOld,
        // No rest of the hello can make it newer.
        Core::TooOld | Core::Malformed | Core::NotHello => opinion != Opinion::Taken,
        Core::Unfinished => matches!(opinion, Opinion::Unfinished | Opinion::Refused),
    };
    // One step for each header, and at least one for what is in the record.
    let records = stream.len() / 6;
    if agree {
        Comparison::Agree
    } else if core == Core::Malformed && records > 2_000 {
        Comparison::Meant(Meant::TooManySteps)
    } else {
        Comparison::Differ
    }
}

/// Compares both on one stream, under both minima, however it is cut, and read as far as need be or to its end.
pub fn judge(
    stack: &TlsStack,
    stream: &[u8],
    places: &[usize],
) -> Result<Vec<(Core, Opinion, Comparison)>, String> {
    let mut found = Vec::new();
    let ways = [TlsVersion::Tls12, TlsVersion::Tls13].map(|minimum| [(minimum, false), (minimum, true)]);
    for (minimum, end) in ways.into_iter().flatten() {
        let whole = core_reading(&frames(stream, &cut(stream.len(), &[])), minimum, end);
        let parts = core_reading(&frames(stream, &cut(stream.len(), places)), minimum, end);
        let opinion = stack.opinion(stream, minimum);
        let comparison = compare(whole, opinion, stream);
        if parts != whole {
            return Err(format!(
                "{whole:?} as a whole, {parts:?} cut at {places:?}, {minimum:?} required, to its end: {end}"
            ));
        }
        if comparison == Comparison::Differ {
            return Err(format!(
                "the core says {whole:?}, rustls {opinion:?}, {minimum:?} required, to its end: {end}"
            ));
        }
        found.push((whole, opinion, comparison));
    }
    Ok(found)
}
