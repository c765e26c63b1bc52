//! What a server may ignore for reasons that nobody sees from outside, an acknowledgement, a timestamp, no cookie of TCP Fast Open: in its
//! place comes the same again, or another good hello, and nothing else.

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    settings::{Limit, refusal},
    verdict::Verdict::{Drop, Pass},
};

use super::{TLS10, TLS13, at_flags, dated, flow, modern, other, part};
use crate::{
    cases::{Case, sequence},
    packets::*,
    tables::{PROTECTED, State, UNHEARD},
};

const DATA_RECORD: &[u8] = &[0x17, 3, 3, 0, 9, 1, 2];

pub(super) fn cases() -> Vec<Case> {
    [decoys(), repetitions()].concat()
}

/// A frame whose acknowledgement or timestamp no server takes: nothing here looks at either.
fn decoy(at: i64, acknowledgement: u32, data: &[u8]) -> Vec<u8> {
    let mut frame = part(at, data);
    frame[42..46].copy_from_slice(&acknowledgement.to_be_bytes());
    frame
}

fn decoys() -> Vec<Case> {
    let (good, bad) = (modern(), dated());
    let incomplete = Pass(HelloIncomplete);
    let accepted = Pass(HelloAccepted);
    let behind = good.len() as i64;
    vec![
        flow(
            "a good hello with a wrong acknowledgement, then an old one whole, in parts, and in parts in another order",
            vec![
                (decoy(0, 0x7fff_ffff, &good), accepted),
                (part(0, &bad), Drop(HelloChanged)),
                (part(900, &bad[900..]), Drop(HelloAhead)),
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(HelloChanged)),
                (part(0, &Hello::legacy(TLS10).bytes()), Drop(HelloChanged)),
                (part(0, b"GET / HTTP/1.1\r\n\r\n"), Drop(HelloChanged)),
                (part(behind, DATA_RECORD), Pass(Clean)),
            ],
        ),
        flow(
            "a good hello with a wrong acknowledgement, then one that goes on where it ended",
            vec![
                (decoy(0, 0x7fff_ffff, &Hello::offering(&[TLS13]).bytes()), accepted),
                (part(900, &bad[900..]), Pass(Clean)),
                (part(0, &bad[..900]), Drop(HelloChanged)),
                (part(0, &bad), Drop(HelloChanged)),
            ],
        ),
        flow(
            "the second segment of a good hello with a wrong acknowledgement, then that of an old one",
            vec![
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..bad.len() - 1]), incomplete),
                (part(0, &good[..900]), Drop(HelloChanged)),
                (part(bad.len() as i64 - 1, &bad[bad.len() - 1..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "both segments of a good hello, then either with another byte",
            vec![
                (part(0, &good[..900]), incomplete),
                (decoy(900, 0x7fff_ffff, &good[900..]), accepted),
                (part(900, &other(&good, 1_000)[900..]), Drop(HelloChanged)),
                (part(0, &other(&good, 10)[..900]), Drop(HelloChanged)),
                (part(0, &bad), Drop(HelloChanged)),
                (part(0, &good), Pass(Clean)),
                (part(behind, DATA_RECORD), Pass(Clean)),
            ],
        ),
        sequence(
            "a good hello in a SYN that the server does not take, then an old one",
            vec![
                (at_flags(-1, SYN, &good), accepted),
                (part(900, &bad[900..]), Drop(HelloAhead)),
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(HelloChanged)),
                (part(0, &bad), Drop(HelloChanged)),
            ],
        ),
        sequence(
            "a good hello in a SYN that the server does not take, and again",
            vec![
                (at_flags(-1, SYN, &good), accepted),
                (at_flags(-1, SYN, &[]), Pass(Clean)),
                (part(0, &good[..700]), incomplete),
                (part(700, &good[700..]), accepted),
                (part(behind, DATA_RECORD), Pass(Clean)),
            ],
        ),
        flow(
            "poison: a decoy, then the old hello in another order",
            vec![
                (decoy(0, 0x7fff_ffff, &Hello::legacy(TLS10).bytes()), Pass(HelloPoisoned)),
                (part(900, &bad[900..]), Drop(HelloAhead)),
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        )
        .with(State::default().set(|settings| settings.refusal = refusal::POISON)),
        flow(
            "an urgent segment without data after a good hello, then the hello",
            vec![
                (decoy(0, 0x7fff_ffff, &good), accepted),
                (at_flags(0, ACK | 0x20, &[]), Drop(HelloUnusual)),
                (at_flags(0, 0x08, &good), Drop(HelloUnusual)),
                (part(0, &good), accepted),
            ],
        ),
        flow(
            "a second SYN after a good hello, then an old one at the first",
            vec![
                (decoy(0, 0x7fff_ffff, &good), accepted),
                (at_flags(1 << 20, SYN, &[]), Pass(Clean)),
                (part(900, &bad[900..]), Drop(HelloAhead)),
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(HelloChanged)),
                (part(1 + (1 << 20), &good), accepted),
                (part(0, &bad), Drop(HelloChanged)),
                (at_flags(2 << 20, SYN, &[]), Drop(SynDisputed)),
                (part(behind, DATA_RECORD), Pass(Clean)),
                (part(1 + (1 << 20) + behind, DATA_RECORD), Pass(Clean)),
            ],
        ),
    ]
}

fn repetitions() -> Vec<Case> {
    let good = modern();
    let incomplete = Pass(HelloIncomplete);
    let accepted = Pass(HelloAccepted);
    let long = Hello::legacy(0x0303).with(51, &[7; 6_000]).with(43, &version_list(&[TLS13])).bytes();
    let again = [&good[..], &long[..1_000]].concat();
    let behind = good.len() as i64;
    vec![
        flow(
            "an accepted hello again, whole and cut, costs nothing more",
            vec![
                (part(0, &good), accepted),
                (part(0, &good), accepted),
                (part(0, &good[..500]), incomplete),
                (part(200, &good[200..800]), incomplete),
                (part(800, &good[800..]), accepted),
                (part(0, &good), Pass(Clean)),
                (tcp_at(SOURCE_V4.into(), UNHEARD, 7, SYN, &[]), Pass(Clean)),
                (tcp_at(SOURCE_V4.into(), UNHEARD, 8, DATA, &good), Drop(HelloLimit)),
            ],
        )
        .with(State::default().limited(Limit::Hellos)),
        flow(
            "a hello with early data in its segment, then cut between them",
            vec![
                (part(0, &[&good[..], DATA_RECORD].concat()), accepted),
                (part(0, &good), accepted),
                (part(behind, DATA_RECORD), Pass(Clean)),
            ],
        ),
        flow(
            "a second hello, as HelloRetryRequest asks for it, in two segments",
            vec![
                (part(0, &good), accepted),
                (part(behind, &again[behind as usize..][..600]), Pass(Clean)),
                (part(behind + 600, &again[behind as usize + 600..]), Pass(Clean)),
            ],
        ),
        flow(
            "a hello of 6 KB whose segments are lost and come again, cut elsewhere",
            vec![
                (part(0, &long[..1_400]), incomplete),
                (part(2_800, &long[2_800..4_200]), Drop(HelloAhead)),
                (part(1_400, &long[1_400..2_800]), incomplete),
                (part(2_800, &long[2_800..4_200]), incomplete),
                (part(1_400, &long[1_400..1_936]), Pass(Clean)),
                (part(1_936, &long[1_936..3_872]), Pass(Clean)),
                (part(3_872, &long[3_872..5_000]), incomplete),
                (part(2_500, &long[2_500..5_500]), incomplete),
                (part(5_500, &long[5_500..]), accepted),
                (part(4_000, &long[4_000..]), Pass(Clean)),
                (part(0, &long), Pass(Clean)),
                (part(5_500, &other(&long, 5_600)[5_500..]), Drop(HelloChanged)),
                (part(long.len() as i64, DATA_RECORD), Pass(Clean)),
            ],
        ),
        flow(
            "data far beyond an accepted hello, and in front of it",
            vec![
                (part(0, &good), accepted),
                (part(1 << 30, DATA_RECORD), Pass(Clean)),
                (part(-5_000, DATA_RECORD), Pass(Clean)),
                (part(-2, &[0x17; 9]), Drop(HelloAhead)),
                (tcp_at(SOURCE_V4.into(), PROTECTED, super::INITIAL, ACK, &[]), Pass(Clean)),
            ],
        ),
    ]
}
