//! SYNs at several numbers, near each other, far away, and after a refusal: whichever of those that got through a server took, it reads
//! no hello that was not judged.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// What a client can do, or another one in its name.
#[derive(Clone, Debug)]
enum Move {
    /// A SYN at this place.
    Syn(usize),
    /// Part of a content at this place; one in two begins or ends where the part before did, and some begin in front of it.
    Data { place: usize, content: Index, begin: Index, end: Index, joins: u8 },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let data = (0usize..4, any::<Index>(), any::<Index>(), any::<Index>(), 0u8..9)
        .prop_map(|(place, content, begin, end, joins)| Move::Data { place, content, begin, end, joins });
    vec(prop_oneof![1 => (0usize..4).prop_map(Move::Syn), 3 => data], 2..40)
}

/// An old hello with a good one inside, and how far behind its beginning that lies.
fn nested(first: bool, before: usize) -> (Vec<u8>, usize) {
    let inside = stream(&[0x0304], 0x0303, 30, false, &[], None);
    let room = before + inside.len() + 40;
    let mut outside = stream(&[0x0302], 0x0303, room, first, &[], None);
    // The list of one version takes 7 bytes, behind the key share or in front of it.
    let at = outside.len() - room - if first { 0 } else { 7 } + before;
    outside[at..at + inside.len()].copy_from_slice(&inside);
    (outside, at)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn whichever_beginning_a_server_took(
        start in any::<u32>(),
        first in any::<bool>(),
        before in 0usize..300,
        near in 0usize..2_000,
        moves in moves(),
    ) {
        let (outside, at) = nested(first, before);
        let contents = [
            outside,
            stream(&[0x0304], 0x0303, 30, false, &[], None),
            stream(&[0x0302], 0x0303, 200, first, &[], None),
            stream(&[0x0304], 0x0303, 200, false, &[], None),
        ];
        let places = [0, at, near, 1 << 20];
        let mut bucket = opened(start);
        // The beginnings that got through, how much had passed by then, and whether a hello has been accepted at them by a server that keeps
        // the first copy of each byte, or the last one.
        let mut begun = vec![(0, 0, [false; 2])];
        let mut passed: Vec<(i64, Vec<u8>)> = Vec::new();
        let (mut from, mut to) = (0, 0);
        for step in moves {
            let (place, content, begin, end, front) = match step {
                Move::Syn(place) => {
                    let next = start.wrapping_add(places[place] as u32);
                    let opening = Opening { phase: Phase::Opened, begins: true, next, value: 0 };
                    let found = open(&mut bucket, &segment(next, 0, 0), &opening) == Place::Found;
                    if found && begun.iter().all(|(at, ..)| *at != places[place]) {
                        begun.push((places[place], passed.len(), [false; 2]));
                    }
                    continue;
                }
                Move::Data { place, content, begin, end, joins } => {
                    let content = content.get(&contents);
                    let begin = match joins {
                        0 | 1 | 8 => 0,
                        2 => from,
                        3..=5 => to,
                        _ => begin.index(content.len()),
                    };
                    let end = if joins == 3 { content.len() } else { end.index(content.len() + 1) };
                    (places[place], content, begin, end, if joins == 8 { 3 } else { 0 })
                }
            };
            if begin >= end.min(content.len()) {
                continue;
            }
            (from, to) = (begin, end);
            let bytes = [&vec![0; front][..], &content[begin..end]].concat();
            let sequence = start.wrapping_add((place + begin) as u32).wrapping_sub(front as u32);
            let mut seen = segment(sequence, 0, bytes.len());
            seen.now = 1;
            let followed = advance_by(&mut bucket, &seen, &&bytes[..]);
            let passes = match followed.kind {
                Kind::Part | Kind::Behind | Kind::Accepted => true,
                Kind::Elsewhere | Kind::Unknown => {
                    matches!((&&bytes[..]).inspect_hello(0, bytes.len(), MINIMUM).hello, Hello::Absent | Hello::Accepted)
                }
                // The server's socket is reset.
                Kind::Refusal => return Ok(()),
                Kind::Refused | Kind::Malformed | Kind::NotHello => {
                    if !followed.disputed {
                        let opening = Opening { phase: Phase::Refused, begins: false, next: followed.value, value: 0 };
                        open(&mut bucket, &seen, &opening);
                    }
                    false
                }
                Kind::Ahead | Kind::Ended | Kind::Unfollowed | Kind::Changed => false,
            };
            if passes {
                passed.push(((place + begin) as i64 - front as i64, bytes));
            }
            for (server, since, served) in &mut begun {
                for last in [false, true] {
                    if served[last as usize] {
                        continue;
                    }
                    let read = read(&passed[*since..], *server as i64, last);
                    if read.is_empty() {
                        continue;
                    }
                    let kind = judge(&read, 0, &[(0, read.len())]);
                    served[last as usize] = kind == Kind::Accepted;
                    prop_assert!(matches!(kind, Kind::Accepted | Kind::Part), "{:?} at {}: {:02x?}", kind, server, read);
                }
            }
            if phase(&bucket, HASH) == Phase::Free {
                prop_assert!(begun.iter().all(|(.., served)| *served == [true; 2]), "forgotten: {:?}", begun);
                return Ok(());
            }
        }
    }
}

/// What a server that began there has, without a gap, if it keeps the first copy of each byte or the last one.
fn read(passed: &[(i64, Vec<u8>)], server: i64, last: bool) -> Vec<u8> {
    let mut bytes: Vec<Option<u8>> = Vec::new();
    for (at, data) in passed {
        for (place, byte) in (at - server..).zip(data) {
            let Ok(place) = usize::try_from(place) else { continue };
            if place >= 1 << 15 {
                continue;
            }
            bytes.resize(bytes.len().max(place + 1), None);
            if last || bytes[place].is_none() {
                bytes[place] = Some(*byte);
            }
        }
    }
    bytes.into_iter().map_while(|byte| byte).collect()
}
