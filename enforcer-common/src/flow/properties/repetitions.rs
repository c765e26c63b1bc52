//! Parts that come more than once: cut otherwise they change nothing, and with other content they do not pass, so that a server holds what
//! was judged whichever copy it keeps.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// How far apart two beginnings of a flow are, in bytes.
const FAR: u32 = 1 << 20;

/// What a server has of one connection.
#[derive(Default)]
struct Server {
    /// Bytes by their places, if it keeps the first copy of each, and if it keeps the last one.
    copies: [Vec<Option<u8>>; 2],
    /// Whether a hello of its connection has been accepted: what comes then is no hello any more.
    served: bool,
}

impl Server {
    fn take(&mut self, at: usize, bytes: &[u8]) {
        let [first, last] = &mut self.copies;
        for (place, byte) in (at..).zip(bytes) {
            for copy in [&mut *first, &mut *last] {
                copy.resize(copy.len().max(place + 1), None);
            }
            first[place].get_or_insert(*byte);
            last[place] = Some(*byte);
        }
    }

    /// What it has read so far, as it keeps copies.
    fn read(&self) -> [Vec<u8>; 2] {
        self.copies.each_ref().map(|copy| copy.iter().map_while(|byte| *byte).collect())
    }
}

/// What a client can do.
#[derive(Clone, Debug)]
enum Move {
    /// A SYN at this beginning.
    Syn(usize),
    /// Part of a content at this beginning. One in two begins or ends where the part before did.
    Data { beginning: usize, content: Index, begin: Index, end: Index, joins: u8 },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let place = prop_oneof![3 => Just(0usize), 1 => Just(1)];
    let data = (place, any::<Index>(), any::<Index>(), any::<Index>(), 0u8..8).prop_map(
        |(beginning, content, begin, end, joins)| Move::Data { beginning, content, begin, end, joins },
    );
    vec(prop_oneof![1 => (0usize..2).prop_map(Move::Syn), 9 => data], 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Of several hellos, which differ much or little, any parts in any order at two beginnings: nothing comes together that was not judged.
    #[test]
    fn what_a_server_holds_has_been_judged(
        start in any::<u32>(),
        short in stream_of(0x0302),
        damage in (any::<Index>(), 1u8..),
        moves in moves(),
    ) {
        let old = stream(&[0x0302], 0x0303, 200, false, &[], None);
        let good = stream(&[0x0304], 0x0303, 200, false, &[], None);
        let mut damaged = good.clone();
        damaged[damage.0.index(good.len())] ^= damage.1;
        let contents = [old, good, damaged, short];
        let mut bucket = opened(start);
        let mut servers = [Server::default(), Server::default()];
        let mut known = [true, false];
        let (mut from, mut to) = (0, 0);
        for step in moves {
            let (beginning, content, begin, end) = match step {
                Move::Syn(beginning) => {
                    let next = start.wrapping_add(beginning as u32 * FAR);
                    let opening = Opening { phase: Phase::Opened, begins: true, next, value: 0 };
                    prop_assert_eq!(open(&mut bucket, &segment(next, 0, 0), &opening), Place::Found);
                    known[beginning] = true;
                    continue;
                }
                Move::Data { beginning, content, begin, end, joins } => {
                    let content = content.get(&contents);
                    let begin = match joins {
                        0 | 1 => 0,
                        2 => from,
                        3..=5 => to,
                        _ => begin.index(content.len()),
                    };
                    let end = if joins == 3 { content.len() } else { end.index(content.len() + 1) };
                    (beginning, content, begin, end)
                }
            };
            if begin >= end.min(content.len()) || !known[beginning] || servers[beginning].served {
                continue;
            }
            (from, to) = (begin, end);
            let at = start.wrapping_add(beginning as u32 * FAR);
            let followed = advance_by(&mut bucket, &segment(at, begin, end - begin), &&content[..]);
            let server = &mut servers[beginning];
            match followed.kind {
                Kind::Part | Kind::Behind | Kind::Accepted => server.take(begin, &content[begin..end]),
                Kind::Refused | Kind::Malformed | Kind::NotHello => {
                    // Of a flow with one beginning nothing passes any more.
                    if !followed.disputed {
                        return Ok(());
                    }
                    continue;
                }
                Kind::Ahead | Kind::Changed => continue,
                kind @ (Kind::Unknown | Kind::Refusal | Kind::Ended | Kind::Unfollowed | Kind::Elsewhere) => {
                    return Err(TestCaseError::fail(format!("{kind:?} while {beginning} is awaited")));
                }
            }
            server.served = followed.kind == Kind::Accepted;
            let expected = if server.served { Kind::Accepted } else { Kind::Part };
            for read in server.read() {
                prop_assert_eq!(judge(&read, 0, &[(0, read.len())]), expected, "{:02x?}", read);
            }
            if server.served && phase(&bucket, HASH) == Phase::Free {
                return Ok(());
            }
        }
    }

    /// Whoever repeats what he has sent, as often and as he likes, is never told that it is something else, and nothing is different for it.
    #[test]
    fn honest_repetitions_change_nothing(
        stream in streams(),
        start in any::<u32>(),
        parts in vec((any::<Index>(), any::<Index>()), 0..30),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let whole = judge(&stream, start, &[(0, stream.len())]);
        let mut sent: Vec<_> = parts
            .iter()
            .map(|(one, two)| (one.index(stream.len()), two.index(stream.len() + 1)))
            .map(|(one, two)| (one.min(two), one.max(two)))
            .filter(|(begin, end)| begin < end)
            .map(|(begin, end)| (begin, end - begin))
            .collect();
        sent.extend(borders(stream.len(), &cuts));
        prop_assert_eq!(judge(&stream, start, &sent), whole);
    }

    /// Whoever forges SYNs and hellos elsewhere holds nothing back: the client's own hello goes on where it was.
    #[test]
    fn forgeries_elsewhere_hold_nothing_back(
        start in any::<u32>(),
        cuts in vec(any::<Index>(), 1..5),
        forged in vec((0u32..3, 0u8..4, any::<Index>()), 0..12),
    ) {
        let old = stream(&[0x0302], 0x0303, 700, false, &[], None);
        let good = stream(&[0x0304], 0x0303, 700, false, &[], None);
        let mut bucket = opened(start);
        let mut forged = forged.into_iter();
        for (at, length) in borders(good.len(), &cuts) {
            for (place, what, cut) in forged.by_ref().take(3) {
                let next = start.wrapping_add(FAR * (place + 1));
                let head = 50 + cut.index(good.len() - 60);
                let bytes = match what {
                    0 => {
                        let opening = Opening { phase: Phase::Opened, begins: true, next, value: 0 };
                        prop_assert!(open(&mut bucket, &segment(next, 0, 0), &opening) != Place::Full);
                        continue;
                    }
                    1 => &old[..head],
                    2 => &old[..],
                    _ => &good[..],
                };
                advance_by(&mut bucket, &segment(next, 0, bytes.len()), &bytes);
            }
            let kind = advance_by(&mut bucket, &segment(start, at, length), &&*good).kind;
            let expected = if at + length < good.len() { Kind::Part } else { Kind::Accepted };
            prop_assert_eq!(kind, expected, "{} bytes from {}", length, at);
        }
    }
}

fn stream_of(version: u16) -> impl Strategy<Value = Vec<u8>> {
    (0usize..300, any::<bool>())
        .prop_map(move |(key_share, first)| stream(&[version], 0x0303, key_share, first, &[], None))
}
