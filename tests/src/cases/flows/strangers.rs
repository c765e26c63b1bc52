//! Flows whose SYN was not seen, what a hello costs however it comes, and segments that the server would ignore.

use std::net::IpAddr;

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    settings::{Limit, flag},
    source::SourceKey,
    verdict::Verdict::{Drop, Pass},
};

use super::{INITIAL, at_flags, dated, flow, modern, other, part};
use crate::{
    cases::{Case, case, sequence},
    packets::*,
    tables::{PROTECTED, State, UNHEARD},
};

pub(super) fn cases() -> Vec<Case> {
    [strangers(), budgets(), checksums(), unusual()].concat()
}

/// Flows whose SYN was not seen.
fn strangers() -> Vec<Case> {
    let bad = dated();
    let incomplete = Pass(HelloIncomplete);
    let crowded = |strict: u32| State::default().crowded().set(|settings| settings.flags |= strict);
    vec![
        sequence(
            "an old hello in two segments without a SYN",
            vec![(part(0, &bad[..900]), incomplete), (part(900, &bad[900..]), Drop(TlsVersion))],
        ),
        sequence(
            "an old hello's second segment first, after a cookie: the server judges",
            vec![
                (at_flags(0, ACK, &[]), Pass(Clean)),
                (part(900, &bad[900..]), Pass(Clean)),
                (part(0, &bad[..900]), incomplete),
            ],
        ),
        sequence(
            "an old hello in two segments after a cookie",
            vec![
                (at_flags(-1, SYN, &[]), Drop(SynCookie)),
                (at_flags(0, ACK, &[]), Pass(Clean)),
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        )
        .with(State::default().syns_spent()),
        sequence(
            "a port that is used again after a hello without a SYN broke off, with a cookie",
            vec![
                (part(0, &modern()[..900]), incomplete),
                (at_flags(1 << 20, SYN, &[]), Drop(SynCookie)),
                (part(1 + (1 << 20), &modern()[..900]), incomplete),
                (part(901 + (1 << 20), &modern()[900..]), Pass(HelloAccepted)),
            ],
        )
        .with(State::default().syns_spent()),
        sequence(
            "a beginning that is made up in front of its SYN, then the hello, last segment first",
            vec![
                (part(0, &bad[..900]), incomplete),
                (at_flags(-1, SYN, &[]), Pass(Clean)),
                (at_flags(0, ACK, &[]), Pass(Clean)),
                (part(900, &bad[900..]), Drop(HelloAhead)),
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        sequence(
            "a beginning that is made up far from the SYN that follows, and changed behind it",
            vec![
                (part(0, &modern()[..900]), incomplete),
                (at_flags(1 << 20, SYN, &[]), Pass(Clean)),
                (part(0, &other(&modern(), 100)[..900]), Drop(HelloAhead)),
                (part(20, &[0x99; 40]), Pass(Clean)),
                (part(901 + (1 << 20), &bad[900..]), Drop(HelloAhead)),
                (part(1 + (1 << 20), &bad[..900]), incomplete),
                (part(901 + (1 << 20), &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        sequence(
            "another hello in place of the beginning of one, without a SYN: each is judged by itself",
            vec![
                (part(0, &modern()[..900]), incomplete),
                (part(0, &bad), Drop(TlsVersion)),
                (part(0, &[0x99; 900]), Pass(Clean)),
            ],
        ),
        sequence(
            "one byte of ciphertext that looks like a hello, then more of it",
            vec![
                (part(0, &[0x16]), incomplete),
                (part(1, &[0x99; 40]), Pass(Clean)),
                (part(41, &[0x99; 40]), Pass(Clean)),
            ],
        ),
        sequence(
            "three bytes of ciphertext that look like a hello, then more of it",
            vec![(part(0, &[0x16, 3, 3]), incomplete), (part(3, &[0x99; 40]), Pass(Clean))],
        ),
        sequence(
            "ciphertext that looks like a hello, then data ahead of it",
            vec![(part(0, &[0x16]), incomplete), (part(10, &[0x99; 40]), Pass(Clean))],
        ),
        case("a SYN where the flow table has no room", at_flags(-1, SYN, &[]), Pass(HelloUnfollowed))
            .with(crowded(0)),
        case(
            "a SYN where the flow table has no room, strict",
            at_flags(-1, SYN, &[]),
            Drop(UnknownConnection),
        )
        .with(crowded(flag::STRICT_CONNECTIONS)),
        case("a whole old hello where the flow table has no room", part(0, &bad), Drop(TlsVersion))
            .with(crowded(0)),
        case("part of a hello where the flow table has no room", part(0, &bad[..900]), Pass(HelloUnfollowed))
            .with(crowded(0)),
        case(
            "part of a hello where the flow table has no room, strict",
            part(0, &bad[..900]),
            Drop(UnknownConnection),
        )
        .with(crowded(flag::STRICT_CONNECTIONS)),
        case(
            "a good hello where the flow table has no room, strict",
            part(0, &modern()),
            Pass(HelloAccepted),
        )
        .with(crowded(flag::STRICT_CONNECTIONS)),
        case("data of an established connection, strict", part(0, &[0x17, 3, 3, 0, 9]), Pass(Clean))
            .with(State::default().set(|settings| settings.flags |= flag::STRICT_CONNECTIONS)),
    ]
}

/// A hello without cipher suites.
fn wrong() -> Vec<u8> {
    Hello { suites: 0, ..Hello::legacy(0x0303) }.bytes()
}

/// What a hello costs, in however many segments it comes.
fn budgets() -> Vec<Case> {
    let good = modern();
    let key = SourceKey::of(IpAddr::from(SOURCE_V4), u64::MAX);
    let once = || State::default().limited(Limit::Hellos);
    vec![
        flow(
            "a hello in three segments is one hello",
            vec![
                (part(0, &good[..300]), Pass(HelloIncomplete)),
                (part(300, &good[300..900]), Pass(HelloIncomplete)),
                (part(900, &good[900..]), Pass(HelloAccepted)),
            ],
        )
        .with(once()),
        flow(
            "a second hello is one too many",
            vec![
                (part(0, &good), Pass(HelloAccepted)),
                (tcp_at(SOURCE_V4.into(), UNHEARD, 7, SYN, &[]), Pass(Clean)),
                (tcp_at(SOURCE_V4.into(), UNHEARD, 8, DATA, &good), Drop(HelloLimit)),
                (tcp_at(SOURCE_V4.into(), UNHEARD, 8, DATA, &good), Drop(HelloLimit)),
                (part(0, &good), Pass(HelloAccepted)),
            ],
        )
        .with(once()),
        flow(
            "the first part over the limit, and again",
            vec![(part(0, &good[..300]), Drop(HelloLimit)), (part(0, &good[..300]), Drop(HelloLimit))],
        )
        .with(State::default().exhausted(Limit::Hellos, key)),
        flow(
            "the first part over the limit, and the rest of it",
            vec![
                (part(0, &good[..300]), Drop(HelloLimit)),
                (part(300, &good[300..]), Drop(HelloAhead)),
                (part(0, &good), Drop(HelloLimit)),
                (part(300, &good[300..]), Drop(HelloAhead)),
            ],
        )
        .with(State::default().exhausted(Limit::Hellos, key)),
        flow(
            "a hello that contradicts itself is a hello",
            vec![
                (part(0, &wrong()), Drop(MalformedHello)),
                (tcp_at(SOURCE_V4.into(), UNHEARD, 7, SYN, &[]), Pass(Clean)),
                (tcp_at(SOURCE_V4.into(), UNHEARD, 8, DATA, &good), Drop(HelloLimit)),
            ],
        )
        .with(once()),
        flow("one that contradicts itself, over the limit", vec![(part(0, &wrong()), Drop(HelloLimit))])
            .with(State::default().exhausted(Limit::Hellos, key)),
        flow("no hello costs none", vec![(part(0, b"GET /"), Drop(NotHello))])
            .with(State::default().exhausted(Limit::Hellos, key)),
    ]
}

/// Segments that the server would ignore.
fn checksums() -> Vec<Case> {
    let verified = || State::default().set(|settings| settings.flags |= flag::VERIFY_CHECKSUMS);
    let right =
        |source: IpAddr, data: &[u8]| with_checksum(tcp_at(source, PROTECTED, INITIAL + 1, DATA, data));
    let sources = [IpAddr::from(SOURCE_V4), IpAddr::from(SOURCE_V6)];
    let (good, bad) = (modern(), dated());
    let mut cases = vec![
        flow(
            "a decoy with a wrong checksum, then the old hello",
            vec![(part(0, &good), Drop(BadChecksum)), (with_checksum(part(0, &bad)), Drop(TlsVersion))],
        )
        .with(verified()),
        flow(
            "a decoy with a wrong checksum of its IPv4 header, then the old hello",
            vec![
                (with_byte(with_checksum(part(0, &good)), 25), Drop(BadChecksum)),
                (with_checksum(part(0, &bad)), Drop(TlsVersion)),
            ],
        )
        .with(verified()),
        case("data of an established connection with a wrong checksum", part(0, &[0x17; 30]), Pass(Clean))
            .with(verified()),
    ];
    // A test run has no interface of the configuration, so it counts as one that shares the last slot.
    let shared = |verified| {
        State::default().set(|settings| {
            settings.flags |= flag::VERIFY_CHECKSUMS;
            settings.verified = verified;
        })
    };
    for (where_to, verified, verdict) in
        [("this one", 1 << 7, Drop(BadChecksum)), ("all but this one", !(1 << 7), Pass(HelloAccepted))]
    {
        let name = format!("a wrong checksum where {where_to} of the interfaces brings right ones");
        cases.push(flow(&name, vec![(part(0, &good), verdict)]).with(shared(verified)));
    }
    for source in sources {
        for length in [1, 2, 3, 4, 511, 512, 513, 900, 1_024, good.len()] {
            let verdict = if length == good.len() { Pass(HelloAccepted) } else { Pass(HelloIncomplete) };
            let name = |what: &str| format!("{length} bytes from {source} with a {what} checksum");
            let frame = right(source, &good[..length]);
            let mut wrong = frame.clone();
            let last = wrong.len() - 1;
            wrong[last] ^= 1;
            cases.push(case(&name("right"), frame, verdict).with(verified()));
            if length > 10 {
                cases.push(case(&name("wrong"), wrong, Drop(BadChecksum)).with(verified()));
            }
        }
    }
    cases
}

/// The frame with another byte in this place.
fn with_byte(mut frame: Vec<u8>, at: usize) -> Vec<u8> {
    frame[at] ^= 1;
    frame
}

/// What servers ignore for its form, or read otherwise: a good hello of that kind is no decoy for an old one.
fn unusual() -> Vec<Case> {
    const URG: u8 = 0x20;
    let (good, bad) = (modern(), dated());
    let at = |mut segment: Vec<u8>, sequence: u32| {
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        segment
    };
    let hello = |options: &[u8]| at(tcp_with(PROTECTED, DATA, options, &good), INITIAL + 1);
    let v6 = |next, payload: &[u8]| ethernet(IPV6, &ipv6(next, payload));
    let signed = [1, 1, 19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let authenticated = [1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 29, 4, 0, 0, 0];
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    let v4_decoys = [
        ("without an acknowledgement", at_flags(0, 0x08, &good)),
        ("with SYN and ACK", at_flags(-1, SYN | ACK, &good)),
        ("with urgent data", at_flags(0, DATA | URG, &good)),
        ("signed by MD5", ethernet(IPV4, &ipv4(TCP, &hello(&signed)))),
        ("authenticated", ethernet(IPV4, &ipv4(TCP, &hello(&authenticated)))),
        ("behind IPv4 options", ethernet(IPV4, &ipv4_with(SOURCE_V4, TCP, 0x4000, &[1; 4], &hello(&[])))),
    ];
    let mut cases: Vec<Case> = v4_decoys
        .into_iter()
        .map(|(name, decoy)| {
            flow(
                &format!("a decoy {name}, then the old hello"),
                vec![
                    (decoy, Drop(HelloUnusual)),
                    (part(900, &bad[900..]), Drop(HelloAhead)),
                    (part(0, &bad[..900]), Pass(HelloIncomplete)),
                    (part(900, &bad[900..]), Drop(TlsVersion)),
                ],
            )
        })
        .collect();
    for (name, frame) in [
        ("a hop-by-hop option", v6(0, &extension(TCP, 0, &hello(&[])))),
        ("destination options", v6(60, &extension(TCP, 0, &hello(&[])))),
    ] {
        cases.push(case(&format!("a hello behind {name}"), frame, Drop(HelloUnusual)));
    }
    cases.extend([
        flow(
            "a reset with a good hello, then the old one",
            vec![
                (at_flags(0, RST | DATA, &good), Pass(Clean)),
                (part(900, &bad[900..]), Drop(HelloAhead)),
                (part(0, &bad), Drop(TlsVersion)),
            ],
        ),
        flow(
            "an urgent segment without data, while a hello is awaited",
            vec![(at_flags(0, ACK | URG, &[]), Drop(HelloUnusual)), (at_flags(0, ACK, &[]), Pass(Clean))],
        ),
        flow(
            "urgent data in front of a hello that was accepted, which points into it",
            vec![
                (part(0, &good), Pass(HelloAccepted)),
                (at_flags(-1, DATA | URG, &[0x17]), Drop(HelloUnusual)),
                (at_flags(-9, DATA | URG, &[0x17; 9]), Drop(HelloUnusual)),
                (at_flags(-65_000, DATA | URG, &[0x17; 9]), Drop(HelloUnusual)),
                (at_flags(-1, DATA | URG, &[0x16]), Drop(HelloUnusual)),
                (part(-1, &[0x17]), Pass(Clean)),
                (part(0, &good), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "urgent data behind a hello",
            vec![
                (part(0, &good), Pass(HelloAccepted)),
                (at_flags(9_000, DATA | URG, &[0x17; 9]), Pass(Clean)),
            ],
        ),
        case("a hello with timestamps", ethernet(IPV4, &ipv4(TCP, &hello(&timestamps))), Pass(HelloAccepted)),
    ]);
    cases
}
