//! Frames that the program writes itself, byte for byte, on plain memory. That the kernel makes the very same ones is for
//! the packet cases to show.
#![allow(clippy::unwrap_used, reason = "a broken assumption fails the test")]

use std::net::{Ipv4Addr, Ipv6Addr};

use enforcer_common::{
    answer::{Answer, Kind, alert, write},
    headers::{Headers, Link},
    packet::Packet as _,
};
use enforcer_tests::{memory::Memory, packets::*};
use proptest::prelude::*;

const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 1);
/// What [`tcp`] sends from and to.
const CLIENT_PORT: u16 = 50_000;

/// A frame as a wire has it: stations that differ.
fn wire(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    frame
}

/// The same, on its way back.
fn back(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame
}

fn read(frame: &[u8]) -> Headers {
    let mut headers = Headers::UNREAD;
    headers.read_link(&frame).unwrap();
    if headers.link == Link::Ipv6 {
        headers.read_ipv6(&frame).unwrap();
    } else {
        headers.read_ipv4(&frame).unwrap();
    }
    headers.read_transport(&frame).unwrap();
    headers
}

/// The frame with which `frame` is answered.
fn answered(frame: &[u8], change: impl FnOnce(&mut Answer, &Headers)) -> Vec<u8> {
    let headers = read(frame);
    let mut answer = Answer::to(&headers, Kind::None);
    change(&mut answer, &headers);
    let mut memory = Memory(frame.to_vec());
    write(&mut memory, &answer).unwrap();
    memory.0
}

/// RFC 1071, over bytes in pairs. 0: right.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The sum over the pseudo header and the segment of a frame; 0: right (RFC 9293 section 3.1, RFC 8200 section 8.1).
fn transport_sum(frame: &[u8]) -> u16 {
    let headers = read(frame);
    let addresses = match headers.link {
        Link::Ipv6 => headers.network + 8..headers.network + 40,
        Link::Ipv4 | Link::Control | Link::Other => headers.network + 12..headers.network + 20,
    };
    let segment = &frame[headers.segment..headers.end];
    let length = (segment.len() as u32).to_be_bytes();
    sum(&[&frame[addresses], &length, &[0, 0, 0, TCP], segment].concat())
}

/// Puts the right checksums into a frame whose checksums are 0.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    let headers = read(&frame);
    if headers.link == Link::Ipv4 {
        let header = sum(&frame[headers.network..headers.network + 20]);
        frame[headers.network + 10..][..2].copy_from_slice(&header.to_be_bytes());
    }
    let transport = transport_sum(&frame);
    frame[headers.segment + 16..][..2].copy_from_slice(&transport.to_be_bytes());
    frame
}

/// A segment, built without a thought for the code under test.
fn segment(ports: (u16, u16), numbers: (u32, u32), flags: u8, window: u16, rest: (&[u8], &[u8])) -> Vec<u8> {
    let (options, data) = rest;
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend([numbers.0.to_be_bytes(), numbers.1.to_be_bytes()].concat());
    segment.extend([((20 + options.len()) / 4 * 16) as u8, flags]);
    segment.extend(window.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.extend(data);
    segment
}

fn v4(tags: &[u16], from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((20 + segment.len()) as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(segment);
    tagged(tags, IPV4, &packet)
}

fn v6(tags: &[u16], from: Ipv6Addr, to: Ipv6Addr, segment: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((segment.len() as u16).to_be_bytes());
    packet.extend([6, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(segment);
    tagged(tags, IPV6, &packet)
}

/// An Ethernet frame has 60 bytes at least.
fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

const STAMPS: [u8; 12] = [1, 1, 8, 10, 0xaa, 0xbb, 0xcc, 0xdd, 0x11, 0x22, 0x33, 0x44];
const MIRRORED: [u8; 12] = [1, 1, 8, 10, 0x11, 0x22, 0x33, 0x44, 0xaa, 0xbb, 0xcc, 0xdd];

fn protocol_version(answer: &mut Answer, headers: &Headers) {
    answer.kind = Kind::Alert;
    answer.sequence = headers.acknowledgement;
    answer.acknowledgement = headers.sequence + (headers.end - headers.offset) as u32;
    answer.detail = 0x0301;
    answer.alert = alert::PROTOCOL_VERSION;
}

#[test]
fn an_alert_byte_for_byte() {
    let hello = [0x16; 105];
    let frame = wire(ethernet(IPV4, &ipv4(TCP, &tcp(443, DATA, &hello))));
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00,
        0x45, 0, 0, 47, 0, 0, 0x40, 0, 64, 6, 0xae, 0x9b, 198, 19, 0, 1, 198, 18, 0, 7,
        0x01, 0xbb, 0xc3, 0x50, 0, 0, 0, 1, 0, 0, 0, 106, 0x50, 0x19, 0x72, 0x10, 0x8e, 0x0a, 0, 0,
        0x15, 3, 1, 0, 2, 2, 70,
    ];
    assert_eq!((sum(&expected[14..34]), transport_sum(&expected)), (0, 0), "the expectation itself");
    assert_eq!(answered(&frame, protocol_version), expected);
}

#[test]
fn an_alert_on_every_way_that_a_packet_may_come() {
    let data = Hello::legacy(0x0301).bytes();
    let end = 1 + data.len() as u32;
    let alert: &[u8] = &[0x15, 3, 1, 0, 2, 2, 70];
    for tags in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]] {
        for (options, mirrored) in [
            (&[][..], &[][..]),
            (&STAMPS, &MIRRORED),
            // Behind another option and its padding; behind selective acknowledgements; in front of the end.
            (&[&[2, 4, 5, 0xb4][..], &STAMPS].concat(), &MIRRORED),
            (&[&[5, 10, 1, 2, 3, 4, 5, 6, 7, 8][..], &STAMPS[2..]].concat(), &MIRRORED),
            (&[&STAMPS[2..], &[0, 0]].concat(), &MIRRORED),
            // None: cut by the header's end, behind the end of the list, of another length, behind a length of 1.
            (&[1, 1, 1, 1, 1, 1, 8, 10], &[]),
            (&[&[0, 1][..], &STAMPS[2..]].concat(), &[]),
            (&[8, 8, 1, 2, 3, 4, 5, 6], &[]),
            (&[&[3, 1][..], &STAMPS[2..]].concat(), &[]),
        ] {
            let segment_in = tcp_with(443, DATA, options, &data);
            let out = segment((443, CLIENT_PORT), (1, end), 0x19, 29_200, (mirrored, alert));
            let expected4 = summed(back(v4(tags, SERVER_V4, SOURCE_V4, &out)));
            let expected6 = summed(back(v6(tags, SERVER_V6, SOURCE_V6, &out)));
            let frames4 = [
                ipv4(TCP, &segment_in),
                ipv4_with(SOURCE_V4, TCP, 0x4000, &[1; 4], &segment_in),
                ipv4_with(SOURCE_V4, TCP, 0x4000, &[1; 40], &segment_in),
            ];
            for packet in frames4 {
                for padding in [&[][..], &[0xee; 9]] {
                    let frame = wire([tagged(tags, IPV4, &packet), padding.to_vec()].concat());
                    assert_eq!(answered(&frame, protocol_version), expected4, "{tags:?} {options:?}");
                }
            }
            let frames6 = [
                ipv6(TCP, &segment_in),
                ipv6(0, &extension(TCP, 0, &segment_in)),
                ipv6(0, &extension(60, 2, &authentication(TCP, &segment_in)).to_vec()),
            ];
            for (index, packet) in frames6.into_iter().enumerate() {
                let mut packet = packet;
                if index == 2 {
                    // Hop-by-hop options, then the authentication header.
                    packet[40] = 51;
                }
                let frame = wire(tagged(tags, IPV6, &packet));
                assert_eq!(answered(&frame, protocol_version), expected6, "{tags:?} {options:?}");
            }
        }
    }
}

#[test]
fn resets_and_acknowledgements() {
    let numbers = |answer: &mut Answer| {
        answer.sequence = 0xffff_fff0;
        answer.acknowledgement = 0x8000_0001;
    };
    let frame4 = wire(ethernet(IPV4, &ipv4(TCP, &tcp_with(443, DATA, &STAMPS, &[7; 300]))));
    let frame6 = wire(ethernet(IPV6, &ipv6(TCP, &tcp_with(443, DATA, &STAMPS, &[7; 300]))));
    let there = (443, CLIENT_PORT);
    let both = (0xffff_fff0, 0x8000_0001);
    for (kind, flags, window) in [(Kind::ResetClient, 0x14, 0), (Kind::AcknowledgeFin, 0x10, 29_200)] {
        let change = |answer: &mut Answer, _: &Headers| {
            numbers(answer);
            answer.kind = kind;
        };
        let out = segment(there, both, flags, window, (&MIRRORED, &[]));
        let expected = padded(summed(back(v4(&[], SERVER_V4, SOURCE_V4, &out))));
        assert_eq!(answered(&frame4, change), expected, "{kind:?}");
        let expected = padded(summed(back(v6(&[], SERVER_V6, SOURCE_V6, &out))));
        assert_eq!(answered(&frame6, change), expected, "{kind:?}");
        // Without timestamps a frame would be shorter than any may be.
        let plain = wire(ethernet(IPV4, &ipv4(TCP, &tcp(443, DATA, &[7; 300]))));
        let out = segment(there, both, flags, window, (&[], &[]));
        let expected = padded(summed(back(v4(&[], SERVER_V4, SOURCE_V4, &out))));
        assert_eq!((answered(&plain, change), expected.len()), (expected.clone(), 60), "{kind:?}");
    }
    // The server's own stack gets it as if the client had sent it, with the number that it expects and nothing else.
    let change = |answer: &mut Answer, _: &Headers| {
        numbers(answer);
        answer.kind = Kind::ResetServer;
    };
    let out = segment((CLIENT_PORT, 443), (0xffff_fff0, 0), 0x04, 0, (&[], &[]));
    let expected = summed(wire(v4(&[], SOURCE_V4, SERVER_V4, &out)));
    assert_eq!(answered(&frame4, change), expected);
    let expected = summed(wire(v6(&[], SOURCE_V6, SERVER_V6, &out)));
    assert_eq!(answered(&frame6, change), expected);
}

#[test]
fn a_cookie_carries_the_largest_segment_and_no_other_option() {
    let options = [&[2, 4, 5, 0xb4, 4, 2][..], &STAMPS[2..], &[1, 3, 3, 7]].concat();
    let change = |answer: &mut Answer, headers: &Headers| {
        answer.kind = Kind::SynCookie;
        answer.sequence = 0xc00c_1e00;
        answer.acknowledgement = headers.sequence.wrapping_add(1);
        answer.detail = 1440;
    };
    let out = segment((443, CLIENT_PORT), (0xc00c_1e00, 2), 0x12, 29_200, (&[2, 4, 5, 0xa0], &[]));
    for options in [&options[..], &[]] {
        let syn = tcp_with(443, SYN, options, &[]);
        let found = answered(&wire(tagged(&[VLAN], IPV4, &ipv4(TCP, &syn))), change);
        assert_eq!(found, padded(summed(back(v4(&[VLAN], SERVER_V4, SOURCE_V4, &out)))));
        let found = answered(&wire(ethernet(IPV6, &ipv6(TCP, &syn))), change);
        assert_eq!(found, summed(back(v6(&[], SERVER_V6, SOURCE_V6, &out))));
    }
}

/// A poisoned hello has the sum that it had, whether that was right or only the pseudo header's.
#[test]
fn poison_changes_the_version_and_no_sum() {
    for length in [0, 1] {
        for whole in [true, false] {
            let data = [&vec![0; length][..], &Hello::legacy(0x0301).bytes()].concat();
            let frame = wire(ethernet(IPV6, &ipv6(TCP, &tcp(443, DATA, &data))));
            let frame = if whole { summed(frame) } else { frame };
            let headers = read(&frame);
            let at = headers.offset + length + 9;
            assert_eq!(frame.as_slice().u16(at), Some(0x0301));
            let found = answered(&frame, |answer, _| {
                answer.kind = Kind::Poison;
                answer.detail = at as u32;
            });
            assert_eq!(found.as_slice().u16(at), Some(0x0200));
            assert_eq!(transport_sum(&found), transport_sum(&frame));
            assert_eq!(sum(&found), sum(&frame), "over the whole frame, as a device counts");
            let urgent = headers.segment + 18;
            let same = |i: usize| (urgent..urgent + 2).contains(&i) || (at..at + 2).contains(&i);
            assert!((0..frame.len()).all(|i| same(i) || frame[i] == found[i]));
        }
    }
}

/// The urgent pointer of urgent data cannot be spared: such a hello is not passed on.
#[test]
fn a_hello_with_urgent_data_is_not_poisoned() {
    let frame = wire(ethernet(IPV4, &ipv4(TCP, &tcp(443, DATA | 0x20, &Hello::legacy(0x0301).bytes()))));
    let headers = read(&frame);
    let answer = Answer { detail: headers.offset as u32 + 9, ..Answer::to(&headers, Kind::Poison) };
    assert_eq!(write(&mut Memory(frame), &answer), None);
}

proptest! {
    /// Whatever numbers come together, what is sent has right sums, says what was asked for and reads as one segment.
    #[test]
    fn any_answer_has_right_sums(
        kind in 1u32..7,
        sequence: u32,
        acknowledgement: u32,
        detail: u32,
        description: u8,
        options in proptest::collection::vec(any::<u8>(), 0..10),
        source: u128,
        six: bool,
        data in 0usize..64,
    ) {
        let kind = Kind::from_number(kind);
        prop_assume!(kind != Kind::Poison);
        let options: Vec<u8> = options.iter().flat_map(|byte| [*byte, 1, 8, 10]).collect();
        let segment = tcp_with(443, DATA, &options, &vec![0x16; data]);
        let frame = wire(if six {
            ethernet(IPV6, &ipv6_from(Ipv6Addr::from_bits(source), TCP, 64, &segment))
        } else {
            ethernet(IPV4, &ipv4_from(Ipv4Addr::from_bits(source as u32), TCP, &segment))
        });
        let found = answered(&frame, |answer, _| {
            let places = (answer.network, answer.segment);
            *answer = Answer { kind, sequence, acknowledgement, detail, alert: description, ..*answer };
            assert_eq!(places, (answer.network, answer.segment));
        });
        let headers = read(&found);
        prop_assert_eq!(transport_sum(&found), 0);
        if !six {
            prop_assert_eq!(sum(&found[14..34]), 0);
        }
        prop_assert_eq!(headers.sequence, sequence);
        let acknowledges = kind != Kind::ResetServer;
        prop_assert_eq!(headers.acknowledgement, if acknowledges { acknowledgement } else { 0 });
        let expected = if kind == Kind::Alert { 7 } else { 0 };
        prop_assert_eq!(headers.end - headers.offset, expected);
        prop_assert!(kind.goes_on() || found.len() >= 60);
        prop_assert!(found[headers.end..].iter().all(|byte| *byte == 0));
    }
}
