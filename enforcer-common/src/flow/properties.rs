//! However a hello is cut, ordered, repeated or overlapped on its way: the same verdict as on the whole.

use std::{cell::Cell, collections::HashMap};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

#[derive(Default)]
struct Plain {
    words: Cell<RawBucket>,
    entries: [Entry; SLOTS],
    kept: HashMap<u64, Kept>,
}

impl Bucket for Plain {
    fn word(&self, slot: usize) -> u64 {
        self.words.get()[slot]
    }

    fn swap(&self, slot: usize, old: u64, new: u64) -> bool {
        let mut words = self.words.get();
        let same = words[slot] == old;
        if same {
            words[slot] = new;
            self.words.set(words);
        }
        same
    }

    fn entry(&mut self, slot: usize) -> Option<&mut Entry> {
        self.entries.get_mut(slot)
    }

    fn kept(&mut self, key: u64, anew: bool) -> Option<&mut Kept> {
        if anew {
            self.kept.insert(key, Kept::NONE);
        }
        self.kept.get_mut(&key)
    }

    fn forget(&mut self, key: u64, _: bool) {
        self.kept.remove(&key);
    }
}

const MINIMUM: u16 = 0x0303;
const HASH: u64 = 0x1234_5678_0000_0000;

/// A segment of the stream, which begins at `start`, as a flow sees it.
fn segment(start: u32, at: usize, length: usize) -> Segment {
    Segment {
        hash: HASH,
        now: 1,
        sequence: start.wrapping_add(at as u32),
        offset: at as u32,
        end: (at + length) as u32,
        minimum: MINIMUM,
        ..Segment::default()
    }
}

fn opened(start: u32) -> Plain {
    let mut bucket = Plain::default();
    let opening = Opening { phase: Phase::Opened, begins: true, next: start, value: 0 };
    assert_eq!(open(&mut bucket, &segment(start, 0, 0), &opening), Place::Found);
    bucket
}

fn advance_by<P: Packet>(bucket: &mut Plain, segment: &Segment, packet: &P) -> Followed {
    let mut marks = Marks::NONE;
    follow(bucket, segment, packet, &mut marks)
}

/// What comes of segments in this order; a hello that goes on to the end is a part.
fn judge(stream: &[u8], start: u32, segments: &[(usize, usize)]) -> Kind {
    let mut bucket = opened(start);
    for (at, length) in segments {
        let followed = advance_by(&mut bucket, &segment(start, *at, *length), &stream);
        if !matches!(followed.kind, Kind::Part | Kind::Behind | Kind::Ahead) {
            return followed.kind;
        }
    }
    Kind::Part
}

/// A hello over records of these lengths, with a byte damaged if there is one.
fn stream(
    versions: &[u16],
    legacy: u16,
    key_share: usize,
    first: bool,
    records: &[usize],
    damage: Option<(Index, u8)>,
) -> Vec<u8> {
    let mut extensions = vec![(51u16, vec![7; key_share])];
    if !versions.is_empty() {
        let mut list = vec![(versions.len() * 2) as u8];
        list.extend(versions.iter().flat_map(|version| version.to_be_bytes()));
        extensions.insert(if first { 0 } else { 1 }, (43, list));
    }
    let block: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, content)| {
            [&kind.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat()
        })
        .collect();
    let mut body = Vec::from(legacy.to_be_bytes());
    body.extend([0x5a; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((block.len() as u16).to_be_bytes());
    body.extend(block);
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    let mut stream = in_records(&message, records);
    if let Some((at, byte)) = damage {
        let at = at.index(stream.len());
        stream[at] = byte;
    }
    stream
}

/// A message in records of these lengths, and one of what is left.
fn in_records(message: &[u8], records: &[usize]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut rest = message;
    for length in records.iter().chain([&usize::MAX]) {
        let (record, after) = rest.split_at((*length).min(rest.len()));
        if !record.is_empty() {
            stream.extend([0x16, 3, 1]);
            stream.extend((record.len() as u16).to_be_bytes());
            stream.extend(record);
        }
        rest = after;
    }
    stream
}

/// Borders that cut `length` bytes into segments.
fn borders(length: usize, cuts: &[Index]) -> Vec<(usize, usize)> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).chain([0, length]).collect();
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|pair| (pair[0], pair[1] - pair[0])).collect()
}

fn streams() -> impl Strategy<Value = Vec<u8>> {
    let versions = vec(prop_oneof![0x0300u16..0x0306, Just(0x7a7a)], 0..6);
    let damage = prop_oneof![3 => Just(None), 1 => any::<(Index, u8)>().prop_map(Some)];
    (versions, 0x0300u16..0x0305, 0usize..1500, any::<bool>(), vec(1usize..300, 0..6), damage).prop_map(
        |(versions, legacy, key_share, first, records, damage)| {
            stream(&versions, legacy, key_share, first, &records, damage)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn cuts_do_not_matter(stream in streams(), start in any::<u32>(), cuts in vec(any::<Index>(), 0..12)) {
        let whole = judge(&stream, start, &[(0, stream.len())]);
        prop_assert_eq!(judge(&stream, start, &borders(stream.len(), &cuts)), whole);
    }

    /// Every segment comes in a random order, some more than once; whoever is dropped as ahead repeats itself.
    #[test]
    fn order_and_repetition_do_not_matter(
        stream in streams(),
        start in any::<u32>(),
        cuts in vec(any::<Index>(), 0..8),
        order in vec(any::<Index>(), 0..20),
    ) {
        let whole = judge(&stream, start, &[(0, stream.len())]);
        let parts = borders(stream.len(), &cuts);
        let mut sent: Vec<_> = order.iter().map(|index| *index.get(&parts)).collect();
        sent.extend(&parts);
        prop_assert_eq!(judge(&stream, start, &sent), whole);
    }

    /// Segments begin earlier than where the one before ended.
    #[test]
    fn overlap_does_not_matter(
        stream in streams(),
        start in any::<u32>(),
        cuts in vec(any::<Index>(), 0..8),
        back in vec(0usize..200, 10),
    ) {
        let whole = judge(&stream, start, &[(0, stream.len())]);
        let overlapping: Vec<_> = borders(stream.len(), &cuts)
            .into_iter()
            .zip(back)
            .map(|((at, length), back)| (at - back.min(at), length + back.min(at)))
            .collect();
        prop_assert_eq!(judge(&stream, start, &overlapping), whole);
    }

    /// Whatever SYNs and good hellos elsewhere come in between: who gets all of a hello through to the server has had it judged.
    #[test]
    fn other_beginnings_hide_nothing(
        start in any::<u32>(),
        cut in 60usize..1_000,
        far in 70_000u32..1 << 31,
        moves in vec(0u8..8, 1..24),
    ) {
        let bad = stream(&[0x0302], 0x0303, 1_000, false, &[], None);
        let good = stream(&[0x0304], 0x0303, 1_000, false, &[], None);
        let mut bucket = opened(start);
        let (mut head, mut tail) = (false, false);
        for step in moves {
            let at = start.wrapping_add(far.wrapping_mul(1 + step as u32 / 4));
            let (place, range, bytes) = match step {
                0 | 4 => {
                    let opening = Opening { phase: Phase::Opened, begins: true, next: at, value: 0 };
                    prop_assert!(open(&mut bucket, &segment(at, 0, 0), &opening) != Place::Full);
                    continue;
                }
                1 | 5 => (at, (0, good.len()), &good),
                6 => (at, (0, cut), &good),
                2 => (start, (0, cut), &bad),
                3 => (start, (cut, bad.len() - cut), &bad),
                _ => (at, (cut, good.len() - cut), &good),
            };
            let followed = advance_by(&mut bucket, &segment(place, range.0, range.1), &&bytes[..]);
            // What is not of a flow passes only if it is no part of a hello.
            let begins = range.0 == 0;
            let passes = matches!(followed.kind, Kind::Part | Kind::Behind | Kind::Accepted | Kind::Unknown)
                || (followed.kind == Kind::Elsewhere && !begins);
            head |= step == 2 && passes;
            tail |= step == 3 && passes;
            if step == 3 && followed.kind == Kind::Refused {
                return Ok(());
            }
        }
        prop_assert!(!(head && tail));
    }

    #[test]
    fn any_bytes_have_an_end(bytes in vec(any::<u8>(), 0..600), cuts in vec(any::<Index>(), 0..5)) {
        judge(&bytes, 7, &borders(bytes.len(), &cuts));
    }

    /// What is generated is judged by its versions, so that the tests above say something.
    #[test]
    fn the_versions_decide(versions in vec(0x0300u16..0x0306, 1..6), key_share in 0usize..1500) {
        let stream = stream(&versions, 0x0303, key_share, false, &[], None);
        let good = versions.iter().any(|version| (MINIMUM..=0x0304).contains(version));
        let expected = if good { Kind::Accepted } else { Kind::Refused };
        prop_assert_eq!(judge(&stream, 0, &[(0, stream.len())]), expected);
    }
}

/// Whoever repeats the beginning of his hello, and a byte more each time, has each byte read once.
#[test]
fn a_beginning_that_is_repeated_is_not_read_again() {
    let whole = stream(&[0x0304], 0x0303, 1_500, false, &[], None);
    let mut bucket = opened(0);
    for length in 100..whole.len() {
        assert_eq!(advance_by(&mut bucket, &segment(0, 0, length), &&*whole).kind, Kind::Part, "{length}");
    }
    assert_eq!(advance_by(&mut bucket, &segment(0, 0, whole.len()), &&*whole).kind, Kind::Accepted);
}

/// What has had to give way cannot be compared: it does not pass, and what goes on where it ended does.
#[test]
fn what_is_not_kept_does_not_pass_again() {
    let stream = stream(&[0x0304], 0x0303, 900, false, &[], None);
    let mut bucket = opened(0);
    assert_eq!(advance_by(&mut bucket, &segment(0, 0, 500), &&*stream).kind, Kind::Part);
    bucket.kept.clear();
    assert_eq!(advance_by(&mut bucket, &segment(0, 0, 500), &&*stream).kind, Kind::Changed);
    assert_eq!(advance_by(&mut bucket, &segment(0, 499, 2), &&*stream).kind, Kind::Changed);
    assert_eq!(advance_by(&mut bucket, &segment(0, 500, 100), &&*stream).kind, Kind::Part);
    assert_eq!(advance_by(&mut bucket, &segment(0, 500, 100), &&*stream).kind, Kind::Changed);
    let rest = segment(0, 600, stream.len() - 600);
    assert_eq!(advance_by(&mut bucket, &rest, &&*stream).kind, Kind::Accepted);
    assert!(bucket.kept.is_empty(), "nothing is kept of a hello that has come to its end");
}

/// Two CPUs at one flow: who finds it claimed drops, and nothing is lost.
#[test]
fn a_claimed_flow_is_left_alone() {
    let stream = stream(&[0x0304], 0x0303, 100, true, &[], None);
    let mut bucket = opened(0);
    let word = bucket.word(0);
    assert!(bucket.swap(0, word, slot::claimed(word)));
    assert_eq!(advance_by(&mut bucket, &segment(0, 0, stream.len()), &&*stream).kind, Kind::Ahead);
    close(&mut bucket, HASH);
    let opening = Opening { phase: Phase::Opened, begins: true, next: 9, value: 0 };
    assert_eq!(open(&mut bucket, &segment(0, 0, 0), &opening), Place::Disputed);
    assert!(bucket.swap(0, slot::claimed(word), word));
    assert_eq!(advance_by(&mut bucket, &segment(0, 0, stream.len()), &&*stream).kind, Kind::Accepted);
    assert_eq!(phase(&bucket, HASH), Phase::Passed);
}

mod beginnings;
mod crowds;
mod ignored;
mod repetitions;
mod whole;
