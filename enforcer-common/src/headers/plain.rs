//! The headers of nearly all frames, read with one check of the length and few loads.
//!
//! Called by [`crate::verdict::glance`]. What is not read here is not wrong: [`Headers`]' other functions say what it is.

use super::{
    ETHERNET_LENGTH, Headers, IPV4_LENGTH, IPV6_LENGTH, Link, TCP_LENGTH, Transport, ethertype, protocol,
};
use crate::packet::Packet;

/// Where the headers behind Ethernet begin.
const NETWORK: usize = ETHERNET_LENGTH;
const TCP_OVER_V4: usize = NETWORK + IPV4_LENGTH;
const TCP_OVER_V6: usize = NETWORK + IPV6_LENGTH;
/// What they take, in bytes.
const V4: usize = TCP_OVER_V4 + TCP_LENGTH;
const V6: usize = TCP_OVER_V6 + TCP_LENGTH;

/// The shortest Ethernet frame, in bytes (IEEE 802.3 section 3.2.7): padding and what a device leaves behind a frame are shorter.
const SHORTEST: usize = 64;

impl Headers {
    /// Reads TCP over IPv4 without options or IPv6 without extension headers, whole and in no VLAN. `false`: the frame is something else,
    /// or contradicts itself; what has been read of it then means nothing.
    #[inline(always)]
    pub fn read_plain<P: Packet>(&mut self, packet: &P) -> bool {
        *self = Self::UNREAD;
        let Some(frame) = packet.first::<V4>() else { return false };
        let kind = u16_at(frame, NETWORK - 2);
        if kind == ethertype::IPV4 {
            // Version 4 with a header of 5 words; neither "more fragments" nor an offset (RFC 791 section 3.1).
            if frame[NETWORK] != 0x45
                || u16_at(frame, NETWORK + 6) & 0x3fff != 0
                || frame[NETWORK + 9] != protocol::TCP
            {
                return false;
            }
            self.link = Link::Ipv4;
            self.source[0] = u32_at(frame, NETWORK + 12) as u64;
            self.destination[0] = u32_at(frame, NETWORK + 16) as u64;
            self.end = NETWORK + u16_at(frame, NETWORK + 2) as usize;
            self.read_plain_tcp(packet, frame, TCP_OVER_V4)
        } else if kind == ethertype::IPV6 {
            let Some(frame) = packet.first::<V6>() else { return false };
            if frame[NETWORK] >> 4 != 6 || frame[NETWORK + 6] != protocol::TCP {
                return false;
            }
            self.link = Link::Ipv6;
            self.source = [u64_at(frame, NETWORK + 8), u64_at(frame, NETWORK + 16)];
            self.destination = [u64_at(frame, NETWORK + 24), u64_at(frame, NETWORK + 32)];
            self.hop_limit = frame[NETWORK + 7];
            self.end = TCP_OVER_V6 + u16_at(frame, NETWORK + 4) as usize;
            self.read_plain_tcp(packet, frame, TCP_OVER_V6)
        } else {
            false
        }
    }

    #[inline(always)]
    fn read_plain_tcp<P: Packet, const N: usize>(
        &mut self,
        packet: &P,
        frame: &[u8; N],
        segment: usize,
    ) -> bool {
        let length = (frame[segment + 12] >> 4) as usize * 4;
        self.transport = Transport::Tcp;
        self.protocol = protocol::TCP;
        self.network = NETWORK;
        self.segment = segment;
        self.offset = segment + length;
        self.source_port = u16_at(frame, segment);
        self.port = u16_at(frame, segment + 2);
        self.sequence = u32_at(frame, segment + 4);
        self.acknowledgement = u32_at(frame, segment + 8);
        self.flags = frame[segment + 13];
        // A frame that goes on in other memory than linear has more behind its packet there, or a packet that is not all here.
        let linear = packet.linear();
        length >= TCP_LENGTH && self.offset <= self.end && self.end <= linear && linear - self.end < SHORTEST
    }
}

/// A 16-bit number in network order.
#[inline(always)]
const fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A 32-bit number in network order.
#[inline(always)]
const fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A 64-bit number in network order.
#[inline(always)]
const fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    (u32_at(bytes, at) as u64) << 32 | u32_at(bytes, at + 4) as u64
}
