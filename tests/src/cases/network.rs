//! IPv4, IPv6, extension headers, fragments, neighbour discovery.

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    verdict::Verdict::{Drop, Pass},
};

use super::{Case, case};
use crate::{packets::*, tables::PROTECTED};

/// Extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

pub(super) fn cases() -> Vec<Case> {
    [version4(), version6(), huge(), fragments(), discovery()].concat()
}

/// A frame whose byte at `offset` has been replaced.
fn patched(mut frame: Vec<u8>, offset: usize, byte: u8) -> Vec<u8> {
    frame[offset] = byte;
    frame
}

fn version4() -> Vec<Case> {
    let frame = || ethernet(IPV4, &ipv4(TCP, &tcp(80, ACK, b"data")));
    let options = |count| ipv4_with(SOURCE_V4, TCP, 0, &vec![1; count], &tcp(80, ACK, b"data"));
    vec![
        case("IPv4 with 4 bytes of options", ethernet(IPV4, &options(4)), Pass(Clean)),
        case("IPv4 with 40 bytes of options", ethernet(IPV4, &options(40)), Pass(Clean)),
        case("IPv4 behind which the frame is padded", [frame(), vec![0; 6]].concat(), Pass(Clean)),
        case("IPv4 header cut after 19 bytes", frame()[..33].to_vec(), Drop(Truncated)),
        case("IPv4 type without a header", ethernet(IPV4, &[]), Drop(Truncated)),
        case("IPv4 of version 5", patched(frame(), 14, 0x55), Drop(MalformedIpv4)),
        case("IPv4 header length of 4 words", patched(frame(), 14, 0x44), Drop(MalformedIpv4)),
        case("IPv4 total length below the header's", patched(frame(), 17, 19), Drop(MalformedIpv4)),
        case("IPv4 total length beyond the frame", patched(frame(), 17, 45), Drop(MalformedIpv4)),
        case("IPv4 total length of 0", patched(frame(), 17, 0), Drop(MalformedIpv4)),
        case("IPv4 options beyond the packet", patched(frame(), 14, 0x4f), Drop(MalformedIpv4)),
        case("IPv4 and ICMP", ethernet(IPV4, &ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 1])), Pass(Clean)),
        case("IPv4 without payload", ethernet(IPV4, &ipv4(59, &[])), Pass(Clean)),
    ]
}

fn version6() -> Vec<Case> {
    let segment = || tcp(80, ACK, b"data");
    let frame = || ethernet(IPV6, &ipv6(TCP, &segment()));
    let chain = |count: usize, kind: u8| {
        let inner = (1..count).fold(extension(TCP, 0, &segment()), |inner, _| extension(kind, 0, &inner));
        ethernet(IPV6, &ipv6(kind, &inner))
    };
    let hello = || tcp(PROTECTED, DATA, &Hello::legacy(0x0301).bytes());
    let full = extension(
        DESTINATION,
        1,
        &extension(
            ROUTING,
            2,
            &extension(AUTHENTICATION, 0, &authentication(DESTINATION, &extension(TCP, 0, &segment()))),
        ),
    );
    vec![
        case("IPv6 behind which the frame is padded", [frame(), vec![0; 6]].concat(), Pass(Clean)),
        case("IPv6 header cut after 39 bytes", frame()[..53].to_vec(), Drop(Truncated)),
        case("IPv6 type without a header", ethernet(IPV6, &[]), Drop(Truncated)),
        case("IPv6 of version 4", patched(frame(), 14, 0x45), Drop(MalformedIpv6)),
        case("IPv6 payload beyond the frame", patched(frame(), 19, 25), Drop(MalformedIpv6)),
        case("IPv6 payload shorter than TCP", patched(frame(), 19, 19), Drop(MalformedTcp)),
        case("IPv6 with nothing inside", ethernet(IPV6, &ipv6(59, &[])), Pass(Clean)),
        case("IPv6 and ESP", ethernet(IPV6, &ipv6(50, &[0; 32])), Pass(Clean)),
        case(
            "hop-by-hop options",
            ethernet(IPV6, &ipv6(HOP_BY_HOP, &extension(TCP, 3, &segment()))),
            Pass(Clean),
        ),
        case("five kinds of extension headers", ethernet(IPV6, &ipv6(HOP_BY_HOP, &full)), Pass(Clean)),
        case("eight extension headers", chain(8, DESTINATION), Pass(Clean)),
        case("nine extension headers", chain(9, DESTINATION), Drop(ExtensionDepth)),
        case("hop-by-hop options twice", chain(2, HOP_BY_HOP), Drop(MalformedIpv6)),
        case(
            "extension header cut by the packet",
            ethernet(IPV6, &ipv6(ROUTING, &[TCP, 0, 0, 0])),
            Drop(MalformedIpv6),
        ),
        case(
            "extension header longer than the packet",
            ethernet(IPV6, &ipv6(DESTINATION, &extension(TCP, 0, &segment())[..]).to_vec())
                .into_iter()
                .enumerate()
                .map(|(at, byte)| if at == 55 { 200 } else { byte })
                .collect(),
            Drop(MalformedIpv6),
        ),
        case(
            "authentication header that counts in words of 4",
            ethernet(IPV6, &ipv6(AUTHENTICATION, &authentication(TCP, &tcp(PROTECTED, ACK, &[])))),
            Pass(Clean),
        ),
        case(
            "a hello behind a routing header",
            ethernet(IPV6, &ipv6(ROUTING, &extension(TCP, 2, &hello()))),
            Drop(HelloUnusual),
        ),
        case(
            "a hello behind an authentication header",
            ethernet(IPV6, &ipv6(AUTHENTICATION, &authentication(TCP, &hello()))),
            Drop(HelloUnusual),
        ),
        case(
            "a hello behind extension headers",
            ethernet(
                IPV6,
                &ipv6(DESTINATION, &extension(TCP, 2, &tcp(PROTECTED, DATA, &Hello::legacy(0x0301).bytes()))),
            ),
            Drop(HelloUnusual),
        ),
    ]
}

/// More than a length field can say: as the network stack puts segments together, with a field of 0.
fn huge() -> Vec<Case> {
    let data = |bytes: &[u8]| [bytes, &[0; 65_600]].concat();
    let v4 = |segment: &[u8]| {
        let frame = ethernet(IPV4, &ipv4(TCP, segment));
        patched(patched(frame, 16, 0), 17, 0)
    };
    let v6 = |next, payload: &[u8]| patched(patched(ethernet(IPV6, &ipv6(next, payload)), 18, 0), 19, 0);
    let hello = || data(&Hello::legacy(0x0301).bytes());
    // With a jumbo payload option, as Linux did until it left that out.
    let jumbo = |segment: &[u8]| v6(HOP_BY_HOP, &extension(TCP, 0, segment));
    vec![
        case("IPv4 of more than 64 KiB", v4(&tcp(80, ACK, &data(&[]))), Pass(Clean)),
        case("IPv6 of more than 64 KiB", v6(TCP, &tcp(80, ACK, &data(&[]))), Pass(Clean)),
        case("IPv6 of more than 64 KiB with an option", jumbo(&tcp(80, ACK, &data(&[]))), Pass(Clean)),
        case(
            "an old hello in IPv4 of more than 64 KiB",
            v4(&tcp(PROTECTED, DATA, &hello())),
            Drop(TlsVersion),
        ),
        case(
            "an old hello in IPv6 of more than 64 KiB",
            jumbo(&tcp(PROTECTED, DATA, &hello())),
            Drop(TlsVersion),
        ),
        case("IPv6 whose length of 0 is wrong", v6(TCP, &tcp(80, ACK, b"data")), Drop(MalformedTcp)),
    ]
}

fn fragments() -> Vec<Case> {
    let first = |port| tcp(port, DATA, &[0x17; 100]);
    let v4 = |protocol, offset, more, payload: &[u8]| {
        ethernet(IPV4, &ipv4_fragment(protocol, offset, more, payload))
    };
    let v6 = |next, offset, more, payload: &[u8]| {
        ethernet(IPV6, &ipv6(FRAGMENT, &ipv6_fragment(next, offset, more, payload)))
    };
    vec![
        case("first TCP fragment, open port", v4(TCP, 0, true, &first(80)), Pass(Clean)),
        case("first TCP fragment, protected port", v4(TCP, 0, true, &first(PROTECTED)), Drop(TcpFragment)),
        case(
            "first TCP fragment without the whole header",
            v4(TCP, 0, true, &first(80)[..16]),
            Drop(TcpFragment),
        ),
        case("later TCP fragment at 8", v4(TCP, 8, false, &[0; 64]), Drop(TcpFragment)),
        case("later TCP fragment at 56", v4(TCP, 56, true, &[0; 64]), Drop(TcpFragment)),
        case("later TCP fragment at 64", v4(TCP, 64, true, &[0; 64]), Pass(Fragment)),
        case("last TCP fragment at 1480", v4(TCP, 1480, false, &[0; 5]), Pass(Fragment)),
        case("first UDP fragment", v4(UDP, 0, true, &udp(53, &[0; 3000])[..1400]), Pass(Clean)),
        case("later UDP fragment at 8", v4(UDP, 8, false, &[0; 8]), Pass(Fragment)),
        case("IPv6: first TCP fragment, open port", v6(TCP, 0, true, &first(80)), Pass(Clean)),
        case(
            "IPv6: first TCP fragment, protected port",
            v6(TCP, 0, true, &first(PROTECTED)),
            Drop(TcpFragment),
        ),
        case("IPv6: later TCP fragment at 8", v6(TCP, 8, false, &[0; 64]), Drop(TcpFragment)),
        case("IPv6: later TCP fragment at 1448", v6(TCP, 1448, false, &[0; 64]), Pass(Fragment)),
        case("IPv6: a fragment that is the whole packet", v6(TCP, 0, false, &first(PROTECTED)), Pass(Clean)),
        case(
            "IPv6: first fragment that ends in its chain",
            v6(DESTINATION, 0, true, &[6, 9, 0, 0, 0, 0, 0, 0]),
            Drop(MalformedIpv6),
        ),
        case("IPv6: later fragment of options at 8", v6(DESTINATION, 8, false, &[0; 64]), Drop(TcpFragment)),
        case("IPv6: later fragment of options at 56", v6(DESTINATION, 56, true, &[0; 64]), Drop(TcpFragment)),
        case("IPv6: later fragment of routing at 8", v6(ROUTING, 8, false, &[0; 64]), Drop(TcpFragment)),
        case("IPv6: later fragment of options at 64", v6(DESTINATION, 64, false, &[0; 64]), Pass(Fragment)),
        case("IPv6: later UDP fragment at 8", v6(UDP, 8, false, &[0; 8]), Pass(Fragment)),
        case("IPv4: later fragment of protocol 60 at 8", v4(DESTINATION, 8, false, &[0; 64]), Pass(Fragment)),
        case(
            "IPv6: first fragment of a fragment",
            v6(FRAGMENT, 0, true, &ipv6_fragment(TCP, 0, true, &first(80))),
            Drop(MalformedIpv6),
        ),
        case(
            "IPv6: later fragment inside a whole one",
            v6(FRAGMENT, 0, false, &ipv6_fragment(TCP, 1448, false, &first(80))),
            Drop(MalformedIpv6),
        ),
        case("IPv6: later fragment of a fragment", v6(FRAGMENT, 1448, false, &[0; 64]), Drop(MalformedIpv6)),
        case(
            "IPv6: fragment headers around options",
            v6(DESTINATION, 0, false, &extension(FRAGMENT, 0, &ipv6_fragment(TCP, 0, false, &first(80)))),
            Drop(MalformedIpv6),
        ),
    ]
}

fn discovery() -> Vec<Case> {
    let message = |kind: u8, hop_limit| {
        ethernet(IPV6, &ipv6_from(SOURCE_V6, ICMPV6, hop_limit, &[kind, 0, 0, 0, 0, 0, 0, 0]))
    };
    let solicitation =
        ethernet(IPV6, &ipv6_from("::".parse().unwrap_or(SOURCE_V6), ICMPV6, 255, &[135, 0, 0, 0]));
    vec![
        case("router solicitation", message(133, 255), Pass(NeighbourDiscovery)),
        case("redirect", message(137, 255), Pass(NeighbourDiscovery)),
        case("neighbour solicitation from the unspecified address", solicitation, Pass(NeighbourDiscovery)),
        case("neighbour solicitation that was routed", message(135, 254), Pass(Clean)),
        case("echo request with hop limit 255", message(128, 255), Pass(Clean)),
        case("ICMPv6 without a type", ethernet(IPV6, &ipv6_from(SOURCE_V6, ICMPV6, 255, &[])), Pass(Clean)),
    ]
}
