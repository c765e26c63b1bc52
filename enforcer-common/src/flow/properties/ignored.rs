//! Servers that ignore what they please of all that passes: whatever they take, they read no hello that was not judged, and no hello in
//! parts of several.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

const MILLISECOND: u64 = 1_000_000;

/// What a client can do, or another one in its name. One segment in two is ignored by the server, for whatever reason: its acknowledgement, its
/// timestamp, data in a SYN that it does not take.
#[derive(Clone, Debug)]
enum Move {
    /// A SYN at this place, and whether the server, if it has no connection, begins one.
    Syn { place: usize, taken: bool },
    /// Part of a content at this place; one in two begins or ends where the part before did.
    Data { place: usize, content: Index, begin: Index, end: Index, joins: u8, taken: bool },
    /// The server's connection is reset.
    Reset,
    /// Time passes.
    Wait,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let data = (0usize..4, any::<Index>(), any::<Index>(), any::<Index>(), 0u8..9, any::<bool>()).prop_map(
        |(place, content, begin, end, joins, taken)| Move::Data { place, content, begin, end, joins, taken },
    );
    let syn = (0usize..4, any::<bool>()).prop_map(|(place, taken)| Move::Syn { place, taken });
    vec(prop_oneof![2 => syn, 9 => data, 1 => Just(Move::Reset), 1 => Just(Move::Wait)], 2..50)
}

/// The server's connection.
struct Connection {
    start: i64,
    since: u64,
    /// What was read in order.
    read: Vec<u8>,
    /// What came out of order.
    waiting: Vec<(i64, Vec<u8>)>,
    served: bool,
}

impl Connection {
    /// Takes data in order, then whatever waits for it: of what comes twice the copy that waited first, or the one that came last.
    fn take(&mut self, at: i64, bytes: &[u8], last: bool) {
        self.waiting.push((at, bytes.to_vec()));
        loop {
            let next = self.start + self.read.len() as i64;
            let fits = |(at, bytes): &&(i64, Vec<u8>)| *at <= next && *at + bytes.len() as i64 > next;
            let found =
                if last { self.waiting.iter().rev().find(fits) } else { self.waiting.iter().find(fits) };
            let Some((at, bytes)) = found else { break };
            let byte = bytes[(next - at) as usize];
            self.read.push(byte);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn whatever_a_server_ignores(
        start in any::<u32>(),
        shared in 0usize..300,
        near in 1usize..2_000,
        last in any::<bool>(),
        moves in moves(),
    ) {
        let good = stream(&[0x0304], 0x0303, shared, false, &[], None);
        let old = stream(&[0x0302], 0x0303, shared, false, &[], None);
        // The same up to the list, and longer in front of it; and in records.
        let contents = [
            good.clone(),
            old.clone(),
            stream(&[0x0302], 0x0303, shared + 60, false, &[], None),
            stream(&[0x0304], 0x0303, shared + 90, true, &[40, 7], None),
            stream(&[0x0302, 0x0304], 0x0303, shared, true, &[], None),
        ];
        let places = [0, near, 1 << 20, 3 << 20];
        let mut bucket = opened(start);
        let mut now = 1_000_000 * MILLISECOND;
        for slot in 0..SLOTS {
            let word = bucket.word(slot);
            if word != 0 {
                assert!(bucket.swap(slot, word, slot::word(HASH, Phase::Opened, now)));
            }
        }
        let begun = |start: usize, since| Connection {
            start: start as i64, since, read: vec![], waiting: vec![], served: false,
        };
        let mut server = Some(begun(0, now));
        let (mut from, mut to) = (0, 0);
        for step in moves {
            let (place, content, begin, end, taken) = match step {
                Move::Wait => {
                    now += 700 * MILLISECOND;
                    continue;
                }
                Move::Reset => {
                    server = None;
                    continue;
                }
                Move::Syn { place, taken } => {
                    let next = start.wrapping_add(places[place] as u32);
                    let mut seen = segment(next, 0, 0);
                    (seen.now, seen.opens) = (now, 1);
                    if phase(&bucket, HASH) == Phase::Refused {
                        let followed = advance_by(&mut bucket, &seen, &&[][..]);
                        prop_assert_eq!(followed.kind, Kind::Refusal);
                        server = server.filter(|server| start.wrapping_add(server.start as u32 + server.read.len() as u32) != followed.value);
                        continue;
                    }
                    let opening = Opening { phase: Phase::Opened, begins: true, next, value: 0 };
                    let mut found = open(&mut bucket, &seen, &opening);
                    // What has just passed the server may not have seen yet.
                    let free = server.as_ref().is_none_or(|server| now - server.since < 500 * MILLISECOND);
                    if found == Place::Disputed && free {
                        found = open(&mut bucket, &seen, &Opening { value: Opening::FRESH, ..opening });
                    }
                    if found == Place::Found && taken && server.is_none() {
                        server = Some(begun(places[place], now));
                    }
                    continue;
                }
                Move::Data { place, content, begin, end, joins, taken } => {
                    let content = content.get(&contents);
                    let begin = match joins {
                        0 | 1 | 8 => 0,
                        2 => from,
                        3..=5 => to,
                        _ => begin.index(content.len()),
                    };
                    let end = if matches!(joins, 1 | 3) { content.len() } else { end.index(content.len() + 1) };
                    (places[place], content, begin, end, taken)
                }
            };
            if begin >= end.min(content.len()) {
                continue;
            }
            (from, to) = (begin, end);
            let bytes = &content[begin..end];
            let sequence = start.wrapping_add((place + begin) as u32);
            let mut seen = segment(sequence, 0, bytes.len());
            seen.now = now;
            let followed = advance_by(&mut bucket, &seen, &bytes);
            let passes = match followed.kind {
                Kind::Part | Kind::Behind | Kind::Accepted => true,
                Kind::Elsewhere | Kind::Unknown => {
                    matches!(bytes.inspect_hello(0, bytes.len(), MINIMUM).hello, Hello::Absent | Hello::Accepted)
                }
                Kind::Refusal => {
                    let at = |server: &Connection| start.wrapping_add(server.start as u32 + server.read.len() as u32);
                    server = server.filter(|server| at(server) != followed.value);
                    false
                }
                Kind::Refused | Kind::Malformed | Kind::NotHello => {
                    if !followed.disputed {
                        let opening = Opening { phase: Phase::Refused, begins: false, next: followed.value, value: 0 };
                        open(&mut bucket, &seen, &opening);
                    }
                    false
                }
                Kind::Ahead | Kind::Ended | Kind::Unfollowed | Kind::Changed => false,
            };
            let Some(server) = server.as_mut().filter(|server| passes && taken && !server.served) else { continue };
            server.take((place + begin) as i64, bytes, last);
            let kind = judge(&server.read, 0, &[(0, server.read.len())]);
            server.served = kind == Kind::Accepted;
            prop_assert!(
                server.read.is_empty() || matches!(kind, Kind::Accepted | Kind::Part),
                "{:?} at {}: {:02x?}", kind, server.start, server.read
            );
        }
    }
}

/// A hello that was accepted comes again, whole and cut in any way; nothing else comes in its place.
#[test]
fn in_place_of_an_accepted_hello_comes_the_same() {
    let good = stream(&[0x0304], 0x0303, 700, false, &[], None);
    let old = stream(&[0x0302], 0x0303, 700, false, &[], None);
    let mut bucket = opened(7);
    let mut send = |content: &[u8], at: usize, length: usize| {
        let followed = advance_by(&mut bucket, &segment(7, at, length), &content);
        (followed.kind, followed.first)
    };
    let whole = good.len();
    assert_eq!(send(&good, 0, whole), (Kind::Accepted, true));
    assert_eq!(send(&good, 0, whole), (Kind::Accepted, false));
    assert_eq!(send(&old, 0, whole).0, Kind::Changed);
    assert_eq!(send(&old, 300, whole - 300).0, Kind::Ahead);
    assert_eq!(send(&good, 0, 300), (Kind::Part, false));
    assert_eq!(send(&old, 0, whole).0, Kind::Changed);
    assert_eq!(send(&old, 300, whole - 300).0, Kind::Changed);
    assert_eq!(send(&good, 200, 300), (Kind::Part, false));
    assert_eq!(send(&good, 500, whole - 500), (Kind::Accepted, false));
    assert_eq!(send(&good, 250, 400).0, Kind::Behind);
    assert_eq!(send(&old, 250, 400).0, Kind::Behind, "they are the same up to there");
    assert_eq!(send(&old, 250, whole - 250).0, Kind::Changed);
    assert_eq!(send(&good, whole - 1, 1).0, Kind::Behind);
}

/// What comes in its place may not be decided later, or what lies beyond would have passed unseen.
#[test]
fn in_place_of_an_accepted_hello_comes_none_that_goes_on() {
    let short = stream(&[0x0304], 0x0303, 10, false, &[], None);
    let long = stream(&[0x0304], 0x0303, 300, false, &[], None);
    let mut bucket = opened(7);
    let mut send = |content: &[u8], at: usize, length: usize| {
        advance_by(&mut bucket, &segment(7, at, length), &content).kind
    };
    assert_eq!(send(&short, 0, short.len()), Kind::Accepted);
    assert_eq!(send(&long, short.len(), 200), Kind::Behind);
    assert_eq!(send(&long, 0, short.len()), Kind::Changed);
    assert_eq!(send(&long, 0, long.len()), Kind::Changed);
    assert_eq!(send(&long, 0, 60), Kind::Part);
    assert_eq!(send(&long, 60, short.len()), Kind::Changed);
    assert_eq!(send(&short, 60, short.len() - 60), Kind::Changed, "another length in its header");
}

/// Neither a flow that is forgotten nor a beginning that was above its sender's limit holds room for what it said.
#[test]
fn what_is_forgotten_leaves_nothing() {
    let good = stream(&[0x0304], 0x0303, 700, false, &[], None);
    let mut bucket = opened(7);
    let part = |bucket: &mut Plain| advance_by(bucket, &segment(7, 0, 300), &&good[..]).kind;
    assert_eq!(part(&mut bucket), Kind::Part);
    assert_eq!(bucket.kept.len(), 1);
    let anew = Opening { phase: Phase::Opened, begins: true, next: 7, value: Opening::ANEW };
    assert_eq!(open(&mut bucket, &segment(7, 0, 300), &anew), Place::Found);
    assert!(bucket.kept.is_empty());
    assert_eq!(advance_by(&mut bucket, &segment(7, 300, 9), &&good[..]).kind, Kind::Ahead);
    assert_eq!(part(&mut bucket), Kind::Part);
    close(&mut bucket, HASH);
    assert!(bucket.kept.is_empty());
    assert_eq!(phase(&bucket, HASH), Phase::Free);
}

/// What its sender's limit has refused is charged again, also where another SYN has been seen.
#[test]
fn a_hello_that_did_not_pass_was_not_accepted() {
    let good = stream(&[0x0304], 0x0303, 100, false, &[], None);
    for other in [None, Some(1 << 20)] {
        let mut bucket = opened(7);
        if let Some(next) = other {
            let opening = Opening { phase: Phase::Opened, begins: true, next, value: 0 };
            assert_eq!(open(&mut bucket, &segment(next, 0, 0), &opening), Place::Found);
        }
        for _ in 0..2 {
            let followed = advance_by(&mut bucket, &segment(7, 0, good.len()), &&good[..]);
            assert_eq!((followed.kind, followed.first, followed.value), (Kind::Accepted, true, 7));
            let anew = Opening { phase: Phase::Opened, begins: true, next: 7, value: Opening::ANEW };
            assert_eq!(open(&mut bucket, &segment(7, 0, good.len()), &anew), Place::Found);
            assert_eq!(advance_by(&mut bucket, &segment(7, 300, 9), &&good[..]).kind, Kind::Ahead);
        }
    }
}
