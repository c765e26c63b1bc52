//! TCP and UDP headers.

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    verdict::Verdict::{Drop, Pass},
};

use super::{Case, case};
use crate::{packets::*, tables::PROTECTED};

pub(super) fn cases() -> Vec<Case> {
    let v4 = |protocol, payload: &[u8]| ethernet(IPV4, &ipv4(protocol, payload));
    let v6 = |protocol, payload: &[u8]| ethernet(IPV6, &ipv6(protocol, payload));
    let offset = |words: u8| {
        let mut segment = tcp(80, ACK, &[0; 8]);
        segment[12] = words << 4;
        segment
    };
    let length = |bytes: u8| {
        let mut datagram = udp(53, b"query");
        datagram[5] = bytes;
        datagram
    };
    let old = Hello::legacy(0x0301).bytes();
    let offsets = (5..=15u8).map(|words| {
        let segment = tcp_with(PROTECTED, DATA, &vec![1; usize::from(words - 5) * 4], &old);
        case(&format!("a hello at the TCP data offset of {words} words"), v4(TCP, &segment), Drop(TlsVersion))
    });
    let mut cases: Vec<Case> = offsets.collect();
    cases.extend(vec![
        case("SYN to a protected port", v4(TCP, &tcp(PROTECTED, SYN, &[])), Pass(Clean)),
        case("IPv6: SYN to a protected port", v6(TCP, &tcp(PROTECTED, SYN, &[])), Pass(Clean)),
        case("acknowledgement without data", v4(TCP, &tcp(PROTECTED, ACK, &[])), Pass(Clean)),
        case("TCP with 40 bytes of options", v4(TCP, &tcp_with(80, ACK, &[1; 40], b"data")), Pass(Clean)),
        case("TCP header cut by the packet", v4(TCP, &tcp(80, ACK, &[])[..19]), Drop(MalformedTcp)),
        case("TCP without a header", v6(TCP, &[]), Drop(MalformedTcp)),
        case("TCP data offset of 4 words", v4(TCP, &offset(4)), Drop(MalformedTcp)),
        case("TCP data offset of 0", v6(TCP, &offset(0)), Drop(MalformedTcp)),
        case("TCP data offset at the packet's end", v4(TCP, &offset(7)), Pass(Clean)),
        case("TCP data offset beyond the packet", v4(TCP, &offset(8)), Drop(MalformedTcp)),
        case("UDP", v4(UDP, &udp(53, b"query")), Pass(Clean)),
        case("IPv6: UDP", v6(UDP, &udp(53, b"query")), Pass(Clean)),
        case("UDP without data", v4(UDP, &udp(53, &[])), Pass(Clean)),
        case("UDP shorter than its packet", v4(UDP, &length(10)), Pass(Clean)),
        case("UDP header cut by the packet", v4(UDP, &udp(53, &[])[..7]), Drop(MalformedUdp)),
        case("UDP length below the header's", v4(UDP, &length(7)), Drop(MalformedUdp)),
        case("UDP length of 0", v6(UDP, &length(0)), Drop(MalformedUdp)),
        case("UDP length beyond the packet", v6(UDP, &length(14)), Drop(MalformedUdp)),
    ]);
    cases
}
