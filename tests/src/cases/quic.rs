//! Datagrams to a port where QUIC is served (RFC 8999, RFC 9000 section 17, RFC 9369).

use enforcer_common::{
    ban::FOREVER,
    quic::{VERSION_1, VERSION_2},
    reason::{DropReason::*, PassReason::*},
    settings::Limit,
    source::SourceKey,
    verdict::Verdict::{Drop, Pass},
};

use super::{Case, case};
use crate::{
    packets::*,
    tables::{QUIC, State},
};

/// A datagram of `length` bytes with a long header.
fn long(first: u8, version: u32, connection: u8, length: usize) -> Vec<u8> {
    let mut datagram = vec![first];
    datagram.extend(version.to_be_bytes());
    datagram.push(connection);
    datagram.resize(length, 0x5a);
    datagram
}

pub(super) fn cases() -> Vec<Case> {
    let v4 = |data: &[u8]| ethernet(IPV4, &ipv4(UDP, &udp(QUIC, data)));
    let v6 = |data: &[u8]| ethernet(IPV6, &ipv6(UDP, &udp(QUIC, data)));
    let initial = || v4(&long(0xc3, VERSION_1, 8, 1200));
    let source = SourceKey::v4(SOURCE_V4.octets());
    let serving = |versions| State::default().set(|settings| settings.quic_versions = versions);
    [forms(&v4), versions(&v4)]
        .concat()
        .into_iter()
        .chain([
            case("QUIC Initial", initial(), Pass(QuicInitial)),
            case("IPv6: QUIC Initial", v6(&long(0xc3, VERSION_1, 8, 1200)), Pass(QuicInitial)),
            case(
                "IPv6: QUIC Initial behind options",
                ethernet(IPV6, &ipv6(60, &extension(UDP, 0, &udp(QUIC, &long(0xc0, VERSION_1, 20, 1300))))),
                Pass(QuicInitial),
            ),
            case("QUIC Initial of 1199 bytes", v4(&long(0xc3, VERSION_1, 8, 1199)), Drop(QuicShort)),
            case("IPv6: QUIC Initial of 40 bytes", v6(&long(0xc3, VERSION_1, 8, 40)), Drop(QuicShort)),
            case(
                "QUIC Initial whose datagram ends before the packet",
                {
                    let mut frame = initial();
                    frame[38..40].copy_from_slice(&(8u16 + 1100).to_be_bytes());
                    frame
                },
                Drop(QuicShort),
            ),
            case("QUIC Initial of version 2", v4(&long(0xd3, VERSION_2, 8, 1200)), Pass(QuicInitial)),
            case("QUIC Initial of version 2, short", v4(&long(0xd3, VERSION_2, 8, 900)), Drop(QuicShort)),
            case("QUIC Initial above the source's limit", initial(), Drop(QuicLimit))
                .with(State::default().exhausted(Limit::Quic, source)),
            case("QUIC 0-RTT above the source's limit", v4(&long(0xd3, VERSION_1, 8, 1200)), Drop(QuicLimit))
                .with(State::default().exhausted(Limit::Quic, source)),
            case(
                "QUIC Handshake above the source's limit",
                v4(&long(0xe3, VERSION_1, 8, 60)),
                Drop(QuicLimit),
            )
            .with(State::default().exhausted(Limit::Quic, source)),
            case(
                "QUIC Initial behind a Handshake packet, above the source's limit",
                v4(&[long(0xe3, VERSION_1, 8, 40), long(0xc3, VERSION_1, 8, 1200)].concat()),
                Drop(QuicLimit),
            )
            .with(State::default().exhausted(Limit::Quic, source)),
            case(
                "QUIC version 2: Initial behind 0-RTT, above the source's limit",
                v4(&[long(0xe3, VERSION_2, 8, 40), long(0xd3, VERSION_2, 8, 1200)].concat()),
                Drop(QuicLimit),
            )
            .with(State::default().exhausted(Limit::Quic, source)),
            case("QUIC Handshake within the source's limit", v4(&long(0xe3, VERSION_1, 8, 60)), Pass(Clean))
                .with(State::default().limited(Limit::Quic)),
            case("QUIC Initial within the source's limit", initial(), Pass(QuicInitial))
                .with(State::default().limited(Limit::Quic)),
            case("QUIC Initial, no slot left", initial(), Pass(QuicInitial))
                .with(State::default().full(Limit::Quic)),
            case("QUIC Initial, no slot left and none passed on", initial(), Drop(LimiterFull)).with(
                State::default()
                    .full(Limit::Quic)
                    .set(|settings| settings.flags |= enforcer_common::settings::flag::DROP_WHEN_FULL),
            ),
            case("short header above the limit of Initials", v4(&[0x40; 60]), Pass(Clean))
                .with(State::default().exhausted(Limit::Quic, source)),
            case("QUIC Initial above the limit, only rehearsed", initial(), Pass(QuicInitial)).with(
                State::default()
                    .exhausted(Limit::Quic, source)
                    .set(|settings| settings.dry_run = QuicLimit.bit()),
            ),
            case("short QUIC Initial, only rehearsed", v4(&long(0xc3, VERSION_1, 8, 300)), Pass(QuicInitial))
                .with(State::default().set(|settings| settings.dry_run = QuicShort.bit())),
            case("banned source's QUIC Initial", initial(), Drop(Banned))
                .with(State::default().banned(source, FOREVER)),
            case(
                "QUIC Initial of a version of one's own",
                v4(&long(0xc3, 0xfeed_0001, 8, 1200)),
                Pass(QuicInitial),
            )
            .with(serving([VERSION_1, 0xfeed_0001, 0, 0])),
            case("QUIC Initial of version 1, which is not served", initial(), Drop(QuicVersion))
                .with(serving([VERSION_2, 0, 0, 0])),
            case(
                "QUIC Initial in fragments",
                ethernet(
                    IPV4,
                    &ipv4_fragment(UDP, 0, true, &udp(QUIC, &long(0xc3, VERSION_1, 8, 1200))[..800]),
                ),
                Drop(NotQuic),
            ),
            case(
                "UDP to a port where no QUIC is served",
                ethernet(IPV4, &ipv4(UDP, &udp(53, b"query"))),
                Pass(Clean),
            ),
            case(
                "TCP to the QUIC port's number",
                tcp_frame(SOURCE_V4.into(), QUIC, ACK, b"data"),
                Pass(Clean),
            ),
            case("QUIC behind two tags", tagged(&[VLAN, VLAN], IPV4, &initial()[14..]), Pass(QuicInitial)),
        ])
        .collect()
}

fn forms(v4: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<Case> {
    let of = |name: &str, first, expected| case(name, v4(&long(first, VERSION_1, 8, 1200)), expected);
    let of2 = |name: &str, first, expected| case(name, v4(&long(first, VERSION_2, 8, 1200)), expected);
    vec![
        of("QUIC 0-RTT", 0xd3, Pass(Clean)),
        of("QUIC Handshake", 0xe3, Pass(Clean)),
        of("QUIC Retry, which only servers send", 0xf0, Drop(NotQuic)),
        of("QUIC long header without the fixed bit", 0x83, Drop(NotQuic)),
        of2("QUIC version 2: 0-RTT", 0xe3, Pass(Clean)),
        of2("QUIC version 2: Handshake", 0xf3, Pass(Clean)),
        of2("QUIC version 2: Retry, which only servers send", 0xc0, Drop(NotQuic)),
        case("QUIC Handshake of 60 bytes", v4(&long(0xe3, VERSION_1, 8, 60)), Pass(Clean)),
        case("QUIC short header", v4(&[0x41; 60]), Pass(Clean)),
        case("QUIC short header of 21 bytes", v4(&[0x41; 21]), Pass(Clean)),
        case("QUIC short header of 20 bytes", v4(&[0x41; 20]), Drop(NotQuic)),
        case("QUIC short header without the fixed bit", v4(&[0x3f; 60]), Drop(NotQuic)),
        case("text to a QUIC port", v4(b" GET / HTTP/1.1 and so on"), Drop(NotQuic)),
        case("nothing to a QUIC port", v4(&[]), Drop(NotQuic)),
        case("QUIC long header cut in its version", v4(&[0xc3, 0, 0, 0]), Drop(NotQuic)),
        case("QUIC connection id of 20 bytes", v4(&long(0xc3, VERSION_1, 20, 1200)), Pass(QuicInitial)),
        case("QUIC connection id of 21 bytes", v4(&long(0xc3, VERSION_1, 21, 1200)), Drop(NotQuic)),
        case("QUIC connection id of 0 bytes", v4(&long(0xc3, VERSION_1, 0, 1200)), Pass(QuicInitial)),
        case("text to a QUIC port, only rehearsed", v4(b" GET / HTTP/1.1 and so on"), Pass(Clean))
            .with(State::default().set(|settings| settings.dry_run = NotQuic.bit())),
    ]
}

fn versions(v4: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<Case> {
    let of = |name: &str, version| case(name, v4(&long(0xc3, version, 8, 1200)), Drop(QuicVersion));
    vec![
        of("QUIC version negotiation, which only servers send", 0),
        of("QUIC version that asks for negotiation", 0x1a2a_3a4a),
        of("QUIC draft 29", 0xff00_001d),
        of("QUIC version 1 with its bytes swapped", 0x0100_0000),
        of("gQUIC Q050", 0x5130_3530),
        case("unknown QUIC version, only rehearsed", v4(&long(0xc3, 9, 8, 1200)), Pass(Clean))
            .with(State::default().set(|settings| settings.dry_run = QuicVersion.bit())),
    ]
}
