//! Flows from their SYN to the end of their hello: what is cut, repeated, out of order, overlapping or refused.

mod forgeries;
mod ignored;
mod refused;
mod strangers;

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    settings::refusal,
    verdict::Verdict::{self, Drop, Pass},
};

use super::{Case, case, sequence};
use crate::{
    packets::*,
    tables::{PROTECTED, State},
};

/// The client's initial sequence number: the hello begins one behind.
const INITIAL: u32 = 1_000;

const TLS10: u16 = 0x0301;
const TLS11: u16 = 0x0302;
const TLS12: u16 = 0x0303;
const TLS13: u16 = 0x0304;

pub(super) fn cases() -> Vec<Case> {
    [
        cuts(),
        orders(),
        records(),
        refusals(),
        first_bytes(),
        refused::cases(),
        strangers::cases(),
        forgeries::cases(),
        ignored::cases(),
    ]
    .concat()
}

/// A segment of the client's; `at` counts from the first byte of its hello.
fn part(at: i64, data: &[u8]) -> Vec<u8> {
    at_flags(at, DATA, data)
}

fn at_flags(at: i64, flags: u8, data: &[u8]) -> Vec<u8> {
    tcp_at(SOURCE_V4.into(), PROTECTED, (i64::from(INITIAL) + 1 + at) as u32, flags, data)
}

fn syn() -> (Vec<u8>, Verdict) {
    (at_flags(-1, SYN, &[]), Pass(Clean))
}

/// A flow from its SYN on.
fn flow(name: &str, frames: Vec<(Vec<u8>, Verdict)>) -> Case {
    sequence(name, [vec![syn()], frames].concat())
}

/// A hello with a post-quantum key share, its versions last: what browsers send, at its worst.
fn modern() -> Vec<u8> {
    Hello::legacy(TLS12).with(51, &[7; 1263]).with(43, &version_list(&[0x7a7a, TLS13, TLS12])).bytes()
}

/// The same with old versions alone.
fn dated() -> Vec<u8> {
    Hello::legacy(TLS12).with(51, &[7; 1263]).with(43, &version_list(&[TLS11, TLS10])).bytes()
}

/// Whole hellos in segments of one length each.
fn cuts() -> Vec<Case> {
    let hellos = [
        ("TLS 1.3", modern(), Pass(HelloAccepted)),
        ("TLS 1.1", dated(), Drop(TlsVersion)),
        ("TLS 1.0", Hello::legacy(TLS10).bytes(), Drop(TlsVersion)),
        ("TLS 1.2", Hello::legacy(TLS12).bytes(), Pass(HelloAccepted)),
    ];
    let split = |(name, hello, verdict): &(&str, Vec<u8>, Verdict), length: usize| {
        let mut frames: Vec<_> = hello
            .chunks(length)
            .enumerate()
            .map(|(at, data)| (part((at * length) as i64, data), Pass(HelloIncomplete)))
            .collect();
        // The verdict is there as soon as what decides is: the last extension's header, or the first good version.
        let decides = hello.len() - decided_by(*verdict, hello);
        let last = decides / length;
        frames.truncate(last + 1);
        frames[last].1 = *verdict;
        flow(&format!("{name} in segments of {length}"), frames)
    };
    let lengths = [1, 2, 3, 5, 7, 16, 61, 300, 1000, 1460];
    hellos.iter().flat_map(|hello| lengths.map(|length| split(hello, length))).collect()
}

/// How many bytes from its end a hello is decided.
fn decided_by(verdict: Verdict, hello: &[u8]) -> usize {
    let modern = hello.len() > 1_000;
    match verdict {
        // Behind the second of three listed versions.
        Pass(_) if modern => 3,
        Drop(_) if modern => 1,
        // With the header of the last extension, whose four bytes follow.
        Pass(_) | Drop(_) => 5,
    }
}

/// The bytes with another one in this place.
fn other(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

/// What the network makes of a sequence of segments.
fn orders() -> Vec<Case> {
    let (good, bad) = (modern(), dated());
    let long = Hello::legacy(TLS12).with(51, &[7; 9_000]).with(43, &version_list(&[TLS13])).bytes();
    let incomplete = Pass(HelloIncomplete);
    let wrapped = |at: u32, data: &[u8]| {
        tcp_at(SOURCE_V4.into(), PROTECTED, 0xffff_fff0u32.wrapping_add(at), DATA, data)
    };
    vec![
        flow(
            "second segment first, then both",
            vec![
                (part(900, &good[900..]), Drop(HelloAhead)),
                (part(0, &good[..900]), incomplete),
                (part(900, &good[900..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "second segment of an old hello first, then both",
            vec![
                (part(900, &bad[900..]), Drop(HelloAhead)),
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "first segment twice",
            vec![
                (part(0, &good[..900]), incomplete),
                (part(0, &good[..900]), Pass(Clean)),
                (part(900, &good[900..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "middle segment twice",
            vec![
                (part(0, &good[..500]), incomplete),
                (part(500, &good[500..900]), incomplete),
                (part(500, &good[500..900]), Pass(Clean)),
                (part(900, &good[900..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "a later segment that overlaps",
            vec![(part(0, &bad[..900]), incomplete), (part(500, &bad[500..]), Drop(TlsVersion))],
        ),
        flow(
            "a later segment that overlaps with other bytes",
            vec![
                (part(0, &bad[..900]), incomplete),
                (part(500, &[&[0xff; 400][..], &bad[900..]].concat()), Drop(HelloChanged)),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "a later segment that overlaps in its first byte with another",
            vec![
                (part(0, &good[..900]), incomplete),
                (part(899, &[&[!good[899]][..], &good[900..]].concat()), Drop(HelloChanged)),
                (part(899, &good[899..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "first segment again and longer",
            vec![(part(0, &bad[..900]), incomplete), (part(0, &bad), Drop(TlsVersion))],
        ),
        flow(
            "first segment again, another hello",
            vec![
                (part(0, &good[..900]), incomplete),
                (part(0, &Hello::legacy(TLS10).bytes()), Drop(HelloChanged)),
                (part(900, &good[900..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "the beginning of an old hello, a whole good one in its place, the rest of the old one",
            vec![
                (part(0, &bad[..900]), incomplete),
                (part(0, &Hello::offering(&[TLS13]).bytes()), Drop(HelloChanged)),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "first segment again, shorter, cut elsewhere, and longer",
            vec![
                (part(0, &bad[..900]), incomplete),
                (part(0, &bad[..333]), Pass(Clean)),
                (part(333, &bad[333..800]), Pass(Clean)),
                (part(801, &bad[801..900]), Pass(Clean)),
                (part(0, &bad[..1_000]), incomplete),
                (part(850, &bad[850..1_100]), incomplete),
                (part(7, &bad[7..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "the same with one other byte each time",
            vec![
                (part(0, &bad[..900]), incomplete),
                (part(0, &other(&bad, 0)[..333]), Drop(HelloChanged)),
                (part(333, &other(&bad, 799)[333..800]), Drop(HelloChanged)),
                (part(801, &other(&bad, 850)[801..900]), Drop(HelloChanged)),
                (part(899, &other(&bad, 899)[899..900]), Drop(HelloChanged)),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "data in front of the hello with a part of it",
            vec![
                (part(-4, &[&[0; 4], &bad[..9]].concat()), Drop(HelloAhead)),
                (part(-4, &[&[0; 4], &good[..]].concat()), Drop(HelloAhead)),
                (part(0, &bad[..900]), incomplete),
                (part(-4, &[&[0; 4], &bad[..9]].concat()), Drop(HelloAhead)),
                (part(-4, &[0; 4]), Pass(Clean)),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "first segment again, another beginning that goes on",
            vec![
                (part(0, &good[..100]), incomplete),
                (part(0, &bad[..900]), Drop(HelloChanged)),
                (part(900, &bad[900..]), Drop(HelloAhead)),
                (part(100, &good[100..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "a hello longer than what is kept of it, its segments again",
            vec![
                (part(0, &long[..7_000]), incomplete),
                (part(0, &long[..7_000]), Pass(Clean)),
                (part(7_000, &long[7_000..8_400]), incomplete),
                (part(7_000, &long[7_000..8_192]), Pass(Clean)),
                (part(7_000, &long[7_000..8_193]), Drop(HelloChanged)),
                (part(8_400, &long[8_400..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "the SYN again in between",
            vec![
                (part(0, &good[..900]), incomplete),
                (at_flags(-1, SYN, &[]), Pass(Clean)),
                (part(900, &good[900..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "another SYN in between",
            vec![
                (part(0, &good[..900]), incomplete),
                (at_flags(5_000, SYN, &[]), Pass(Clean)),
                (part(5_001, &bad), Drop(TlsVersion)),
            ],
        ),
        flow(
            "keep-alives with a byte that is none of the connection's",
            vec![
                (part(-1, &[0]), Pass(Clean)),
                (part(-1, &[0x16]), Pass(Clean)),
                (part(0, &good[..900]), incomplete),
                (part(-1, &[0x16]), Pass(Clean)),
                (part(899, &good[899..900]), Pass(Clean)),
                (part(899, &[!good[899]]), Drop(HelloChanged)),
                (part(900, &good[900..]), Pass(HelloAccepted)),
                (part(good.len() as i64 - 1, &[0]), Pass(Clean)),
                (part(good.len() as i64, &[0x17, 3, 3, 0, 9]), Pass(Clean)),
            ],
        ),
        flow(
            "acknowledgements in between",
            vec![
                (at_flags(0, ACK, &[]), Pass(Clean)),
                (part(0, &bad[..900]), incomplete),
                (at_flags(900, ACK, &[]), Pass(Clean)),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow("data far away from what the SYN announced", vec![(part(1 << 24, &bad), Drop(TlsVersion))]),
        flow(
            "a good hello far away from what the SYN announced",
            vec![(part(1 << 24, &good), Pass(HelloAccepted))],
        ),
        flow("an end without a hello", vec![(at_flags(0, FIN | ACK, &[]), Pass(Clean))]),
        flow(
            "an end with the last segment",
            vec![
                (part(0, &bad[..900]), incomplete),
                (at_flags(900, FIN | DATA, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "data behind an accepted hello",
            vec![
                (part(0, &good), Pass(HelloAccepted)),
                (part(good.len() as i64, &[0x17, 3, 3, 0, 9]), Pass(Clean)),
            ],
        ),
        flow(
            "an accepted hello's first segment again, then data",
            vec![
                (part(0, &good[..900]), incomplete),
                (part(900, &good[900..]), Pass(HelloAccepted)),
                (part(0, &good[..900]), Pass(Clean)),
                (part(good.len() as i64, &[0x17, 3, 3, 0, 9]), Pass(Clean)),
                (part(good.len() as i64 + 5, &[0x17, 3, 3, 0, 9]), Pass(Clean)),
            ],
        ),
        sequence(
            "sequence numbers that wrap around",
            vec![
                (wrapped(u32::MAX, &[]), Pass(Clean)),
                (tcp_at(SOURCE_V4.into(), PROTECTED, 0xffff_ffef, SYN, &[]), Pass(Clean)),
                (wrapped(900, &bad[900..]), Drop(HelloAhead)),
                (wrapped(0, &bad[..900]), incomplete),
                (wrapped(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        sequence(
            "an old hello begun in a SYN (fast open)",
            vec![(at_flags(-1, SYN, &bad[..900]), incomplete), (part(900, &bad[900..]), Drop(TlsVersion))],
        ),
        sequence(
            "a hello in a SYN that the server did not take",
            vec![
                (at_flags(-1, SYN, &good[..900]), incomplete),
                (part(0, &good[..1_200]), incomplete),
                (part(1_200, &good[1_200..]), Pass(HelloAccepted)),
            ],
        ),
        sequence(
            "the beginning of a good hello in a SYN, then an old one",
            vec![
                (at_flags(-1, SYN, &good[..900]), incomplete),
                (part(0, &bad), Drop(HelloChanged)),
                (at_flags(-1, SYN, &bad[..900]), Drop(HelloChanged)),
                (at_flags(-1, SYN, &good[..900]), Pass(Clean)),
                (part(900, &good[900..]), Pass(HelloAccepted)),
            ],
        ),
        sequence(
            "a good hello in a SYN",
            vec![(at_flags(-1, SYN, &good), Pass(HelloAccepted)), (at_flags(0, ACK, &[]), Pass(Clean))],
        ),
    ]
}

/// Hellos in several records, in one segment and across segments.
fn records() -> Vec<Case> {
    let message = Hello::legacy(TLS12).with(51, &[7; 300]).with(43, &version_list(&[TLS11])).message();
    let split = |length: usize| -> Vec<u8> {
        message.chunks(length).flat_map(|chunk| record(TLS10, chunk)).collect()
    };
    let foreign = [record(TLS12, &message[..50]), vec![0x14, 3, 3, 0, 1, 1]].concat();
    let empty = [record(TLS12, &message[..50]), record(TLS12, &[])].concat();
    let mut cases = vec![
        flow("another record inside the hello", vec![(part(0, &foreign), Drop(MalformedHello))]),
        flow("an empty record inside the hello", vec![(part(0, &empty), Drop(MalformedHello))]),
        flow(
            "a hello in thousands of records",
            vec![(
                part(
                    0,
                    &[1, 0, 255, 255]
                        .iter()
                        .chain(&[3; 40_000])
                        .flat_map(|byte| record(TLS12, &[*byte]))
                        .take(30_000)
                        .collect::<Vec<_>>(),
                ),
                Drop(MalformedHello),
            )],
        ),
    ];
    for length in [1, 2, 4, 5, 60, 200] {
        let bytes = split(length);
        let middle = bytes.len() / 2;
        cases.push(flow(&format!("records of {length}"), vec![(part(0, &bytes), Drop(TlsVersion))]));
        cases.push(flow(
            &format!("records of {length} in two segments"),
            vec![
                (part(0, &bytes[..middle]), Pass(HelloIncomplete)),
                (part(middle as i64, &bytes[middle..]), Drop(TlsVersion)),
            ],
        ));
    }
    cases
}

/// What becomes of a connection whose hello was refused.
fn refusals() -> Vec<Case> {
    let bad = || Hello::legacy(TLS10).bytes();
    let length = bad().len() as i64;
    let mode = |mode| State::default().set(|settings| settings.refusal = mode);
    let refused = || (part(0, &bad()), Drop(TlsVersion));
    vec![
        flow(
            "alert: the next packet ends the server's socket",
            vec![refused(), (at_flags(length, ACK, &[]), Pass(ServerReset))],
        ),
        flow(
            "alert: later packets end",
            vec![
                refused(),
                (at_flags(length, ACK, &[]), Pass(ServerReset)),
                (part(length, b"more"), Drop(RefusedConnection)),
                (at_flags(length, FIN | ACK, &[]), Drop(RefusedConnection)),
                (at_flags(length, RST, &[]), Drop(RefusedConnection)),
            ],
        ),
        flow(
            "reset: the server's socket first, then the client's",
            vec![refused(), (part(0, &bad()), Drop(RefusedConnection))],
        )
        .with(mode(refusal::RESET)),
        flow(
            "drop: the next packet ends the server's socket",
            vec![refused(), (part(0, &bad()), Pass(ServerReset))],
        )
        .with(mode(refusal::DROP)),
        flow("poison: the server refuses by itself", vec![(part(0, &bad()), Pass(HelloPoisoned))])
            .with(mode(refusal::POISON)),
        flow(
            "poison: a list of versions cannot be poisoned",
            vec![(part(0, &dated()), Drop(TlsVersion)), (part(0, &dated()), Drop(RefusedConnection))],
        )
        .with(mode(refusal::POISON)),
        flow(
            "poison: a hello whose beginning has passed cannot be poisoned",
            vec![(part(0, &bad()[..20]), Pass(HelloIncomplete)), (part(20, &bad()[20..]), Drop(TlsVersion))],
        )
        .with(mode(refusal::POISON)),
        flow(
            "dry run: an old hello passes, and its connection is forgotten",
            vec![(part(0, &bad()), Pass(HelloAccepted)), (part(length, b"more"), Pass(Clean))],
        )
        .with(State::default().set(|settings| settings.dry_run = TlsVersion.bit())),
        flow(
            "dry run: a segment ahead passes, and nothing behind it is held back",
            vec![
                (part(900, &modern()[900..]), Pass(HelloUnfollowed)),
                (part(0, &modern()[..900]), Pass(HelloIncomplete)),
            ],
        )
        .with(State::default().set(|settings| settings.dry_run = HelloAhead.bit())),
        flow(
            "dry run: a part with other content passes, and its connection is forgotten",
            vec![
                (part(0, &modern()[..900]), Pass(HelloIncomplete)),
                (part(0, &bad()), Pass(HelloUnfollowed)),
                (part(900, &modern()[900..]), Pass(Clean)),
            ],
        )
        .with(State::default().set(|settings| settings.dry_run = HelloChanged.bit())),
        case("a refused flow that was not known", part(0, &bad()), Drop(TlsVersion)),
        sequence(
            "the hello of a flow that was not known is dropped each time, and nothing else",
            vec![refused(), refused(), (at_flags(length, ACK, &[]), Pass(Clean))],
        ),
    ]
}

/// What a connection begins with when it is known to begin.
fn first_bytes() -> Vec<Case> {
    let first = |name: &str, data: &[u8], verdict| flow(name, vec![(part(0, data), verdict)]);
    let with = |at: usize, byte: u8| {
        let mut hello = Hello::offering(&[TLS13]).bytes();
        hello[at] = byte;
        hello
    };
    vec![
        first("plain HTTP in a new connection", b"GET / HTTP/1.1\r\n\r\n", Drop(NotHello)),
        first("SSL 2 in a new connection", &[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10], Drop(NotHello)),
        first("application data in a new connection", &[0x17, 3, 3, 0, 9, 1, 2], Drop(NotHello)),
        first("an alert in a new connection", &[0x15, 3, 3, 0, 2, 1, 0], Drop(NotHello)),
        first("another handshake message in a new connection", &with(5, 16), Drop(NotHello)),
        first("a record of major version 2 in a new connection", &with(1, 2), Drop(NotHello)),
        first("one byte of something else", &[0], Drop(NotHello)),
        first("an empty record in a new connection", &record(TLS12, &[]), Drop(MalformedHello)),
        first("a hello of 64 KiB in a new connection", &with(6, 1), Drop(MalformedHello)),
        first("a record of version 3.9 in a new connection", &with(2, 9), Pass(HelloAccepted)),
        first("legacy version 2.0, but 1.3 is listed", &with(9, 2), Pass(HelloAccepted)),
        first("the first byte of a hello", &[0x16], Pass(HelloIncomplete)),
        flow(
            "the first byte of a hello, then something else",
            vec![(part(0, &[0x16]), Pass(HelloIncomplete)), (part(1, b"hello"), Drop(NotHello))],
        ),
    ]
}
