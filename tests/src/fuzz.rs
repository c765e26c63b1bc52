//! What is fuzzed: an input's bytes as frames for the whole decision, as a stream for the automaton of ClientHellos, as an access token,
//! as a message whose signature base is built, as an encrypted body, or as what a device sends to show that it is genuine, and what must hold for each.
//!
//! The fuzz targets of `tests/fuzz` call [`decide`], [`automaton`], [`token::judge`], [`base::judge`], [`sealed::judge`] and the functions of [`apple`]. The tests replay the corpus that is kept there: in plain memory, and
//! through the kernel.

pub mod apple;
pub mod base;
pub mod corpus;
pub mod google;
pub mod sealed;
pub mod token;

use std::sync::LazyLock;

use enforcer::{
    agreement::TlsStack,
    config::{Fingerprint, Hellos, ServerName},
};
use enforcer_common::{
    feature::Feature,
    settings::{Limit, flag},
    verdict::{self, Verdict},
};

use crate::{judges, memory::carry_out, tables::State};

/// Frames of one input at most.
const FRAMES: usize = 16;
/// Places at which a stream is cut at most.
const PLACES: usize = 16;
/// Bytes of a stream in one frame at most, for the kernel's test runs.
const SEGMENT: usize = 1_000;
/// When the frames come, in nanoseconds.
const NOW: u64 = 1_000_000_000_000;

/// Bits of the first two bytes of an input for [`decide`].
mod bit {
    pub(super) const TLS_13: u16 = 1 << 0;
    pub(super) const STRICT: u16 = 1 << 1;
    pub(super) const NOT_IP: u16 = 1 << 2;
    pub(super) const CHECKSUMS: u16 = 1 << 3;
    /// Two bits: how hellos are refused.
    pub(super) const REFUSAL: u16 = 4;
    /// Four bits, one for each limit: one event an hour.
    pub(super) const LIMITS: u16 = 6;
    pub(super) const CROWDED: u16 = 1 << 10;
    pub(super) const DRY: u16 = 1 << 11;
    pub(super) const TOLERANT: u16 = 1 << 12;
    pub(super) const LISTS: u16 = 1 << 13;
}

/// Judges the frames of an input; what became of each.
pub fn decide(input: &[u8]) -> Vec<Verdict> {
    let Some((state, frames)) = frames(input) else { return Vec::new() };
    let tables = state.tables(NOW);
    let judge = |frame: &Vec<u8>| {
        let verdict = verdict::decide(&&**frame, &tables);
        carry_out(frame, verdict, &tables.take_answer());
        verdict
    };
    frames.iter().map(judge).collect()
}

/// Compares the core with rustls on the stream of an input; what both said of it, under each minimum.
#[allow(clippy::panic, reason = "a fuzz target reports by it")]
pub fn automaton(input: &[u8]) -> Vec<(judges::Core, enforcer::agreement::Opinion)> {
    static STACK: LazyLock<Option<TlsStack>> = LazyLock::new(|| TlsStack::new().ok());
    let (Some((places, stream)), Some(stack)) = (stream(input), STACK.as_ref()) else { return Vec::new() };
    match judges::judge(stack, stream, &places) {
        Ok(found) => found.into_iter().map(|(core, opinion, _)| (core, opinion)).collect(),
        Err(error) => panic!("{error}: cut at {places:?}: {stream:02x?}"),
    }
}

/// The tables and the frames of an input for [`decide`]: two bytes of bits, then frames behind their lengths.
pub fn frames(input: &[u8]) -> Option<(State, Vec<Vec<u8>>)> {
    let (bits, mut rest) = input.split_first_chunk::<2>()?;
    let mut frames = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (frame, behind) = behind.split_at(behind.len().min(u16::from_le_bytes(*length).into()));
        frames.push(frame.to_vec());
        rest = behind;
        if frames.len() == FRAMES {
            break;
        }
    }
    Some((state(u16::from_le_bytes(*bits)), frames))
}

fn state(bits: u16) -> State {
    let state = State::default().set(|settings| {
        for (bit, flag) in [
            (bit::STRICT, flag::STRICT_CONNECTIONS),
            (bit::NOT_IP, flag::DROP_NOT_IP),
            (bit::CHECKSUMS, flag::VERIFY_CHECKSUMS),
        ] {
            settings.flags |= if bits & bit == 0 { 0 } else { flag };
        }
        settings.minimum_tls = if bits & bit::TLS_13 == 0 { 0x0303 } else { 0x0304 };
        settings.refusal = (bits >> bit::REFUSAL) as u8 & 3;
        settings.dry_run = if bits & bit::DRY == 0 { 0 } else { Feature::Tls.reasons() };
        settings.tolerated = if bits & bit::TOLERANT == 0 { 0 } else { Feature::Parsing.reasons() };
    });
    let limits =
        Limit::ALL.into_iter().take(4).filter(|limit| bits >> (bit::LIMITS + *limit as u16) & 1 != 0);
    let state = limits.fold(state, State::limited);
    let state = if bits & bit::LISTS == 0 { state } else { state.listing_hellos(&lists()) };
    if bits & bit::CROWDED == 0 { state } else { state.crowded() }
}

/// Lists that name one thing of each kind.
fn lists() -> Hellos {
    let name = |name: &str, below| ServerName { name: name.to_owned(), below };
    Hellos {
        refuse_names: vec![name("www.example.com", false)],
        only_names: vec![name("example.com", true)],
        refuse_fingerprints: vec![Fingerprint(0)],
    }
}

/// Settings that seeds are made for: none, limits, a full table, checksums, other policies, another refusal, a dry run, TLS 1.3.
pub const SETTINGS: [u16; 8] = [
    0,
    0xf << bit::LIMITS,
    bit::CROWDED | bit::STRICT,
    bit::CHECKSUMS,
    bit::NOT_IP | bit::TOLERANT,
    2 << bit::REFUSAL,
    bit::DRY,
    bit::TLS_13,
];

/// An input for [`decide`] with these bits.
pub fn input_of_frames(bits: u16, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut input = bits.to_le_bytes().to_vec();
    for frame in frames.iter().take(FRAMES) {
        input.extend((frame.len() as u16).to_le_bytes());
        input.extend(frame);
    }
    input
}

/// The places and the stream of an input for [`automaton`]: how many places there are, the places, the stream.
pub fn stream(input: &[u8]) -> Option<(Vec<usize>, &[u8])> {
    let (count, rest) = input.split_first()?;
    let (places, stream) = rest.split_at_checked(usize::from(*count) % (PLACES + 1) * 2)?;
    let places = places.as_chunks::<2>().0.iter().map(|place| u16::from_le_bytes(*place).into());
    Some((places.collect(), stream))
}

/// The opposite of [`stream`].
pub fn input_of_stream(places: &[u16], stream: &[u8]) -> Vec<u8> {
    let places = places.get(..PLACES).unwrap_or(places);
    let mut input = vec![places.len() as u8];
    input.extend(places.iter().flat_map(|place| place.to_le_bytes()));
    input.extend(stream);
    input
}

/// The frames of an input for [`automaton`], short enough for the kernel's test runs.
pub fn frames_of_stream(input: &[u8]) -> Vec<Vec<u8>> {
    let Some((mut places, stream)) = stream(input) else { return Vec::new() };
    places.extend((0..stream.len()).step_by(SEGMENT));
    judges::frames(stream, &judges::cut(stream.len(), &places))
}
