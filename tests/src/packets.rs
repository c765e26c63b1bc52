//! Builds frames byte by byte, right ones and wrong ones.
//!
//! Each function wraps what it is given in one more header, innermost first, so that a test can leave out, repeat or cut
//! whatever it likes. Checksums are 0: nothing that is tested with these frames verifies them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The source of every frame, IPv4 (RFC 2544 range).
pub const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 7);
/// The source of every frame, IPv6 (documentation range).
pub const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 7);

/// TCP flags.
pub const SYN: u8 = 0x02;
/// The end of what a side sends.
pub const FIN: u8 = 0x01;
/// The end of a connection at once.
pub const RST: u8 = 0x04;
/// Acknowledgement.
pub const ACK: u8 = 0x10;
/// Data that is to be delivered at once, with an acknowledgement.
pub const DATA: u8 = 0x18;

/// Protocol numbers.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// EtherTypes.
pub const IPV4: u16 = 0x0800;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// A customer's VLAN tag, 802.1Q.
pub const VLAN: u16 = 0x8100;
/// A service provider's VLAN tag, 802.1ad.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// An Ethernet frame.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    tagged(&[], ethertype, payload)
}

/// An Ethernet frame with VLAN tags of these types, outermost first.
pub fn tagged(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]); // priority and VLAN id
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet from [`SOURCE_V4`].
pub fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_from(SOURCE_V4, protocol, payload)
}

/// An IPv4 packet from somewhere else.
pub fn ipv4_from(source: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(source, protocol, 0x4000, &[], payload)
}

/// An IPv4 fragment; `offset` in bytes.
pub fn ipv4_fragment(protocol: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    ipv4_with(SOURCE_V4, protocol, offset / 8 + if more { 0x2000 } else { 0 }, &[], payload)
}

/// An IPv4 packet with everything said: the field of flags and offset, and options of a multiple of 4 bytes.
pub fn ipv4_with(source: Ipv4Addr, protocol: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1]); // identification
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend([198, 19, 0, 1]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet from [`SOURCE_V6`].
pub fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6_from(SOURCE_V6, next, 64, payload)
}

/// An IPv6 packet from somewhere else, with a hop limit.
pub fn ipv6_from(source: Ipv6Addr, next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(source.octets());
    packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 1).octets());
    packet.extend(payload);
    packet
}

/// An IPv6 extension header of the common form in front of `payload`; `words` of 8 bytes beyond the first.
pub fn extension(next: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![next, words];
    packet.resize(8 + usize::from(words) * 8, 0);
    packet.extend(payload);
    packet
}

/// An authentication header with a check value of 12 bytes in front of `payload`.
pub fn authentication(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![next, 4];
    packet.resize(24, 0);
    packet.extend(payload);
    packet
}

/// An IPv6 fragment header in front of `payload`; `offset` in bytes.
pub fn ipv6_fragment(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![next, 0];
    packet.extend((offset & 0xfff8 | u16::from(more)).to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.extend(payload);
    packet
}

/// A TCP segment.
pub fn tcp(port: u16, flags: u8, data: &[u8]) -> Vec<u8> {
    tcp_with(port, flags, &[], data)
}

/// A TCP segment with options of a multiple of 4 bytes.
pub fn tcp_with(port: u16, flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::from(50_000u16.to_be_bytes());
    segment.extend(port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1]); // sequence, acknowledgement
    segment.extend([((20 + options.len()) / 4 * 16) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(data);
    segment
}

/// The frame of a TCP segment to `port`, with its place in the connection: `sequence` is that of its first byte, or its SYN.
pub fn tcp_at(source: IpAddr, port: u16, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = tcp(port, flags, data);
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    match source {
        IpAddr::V4(source) => ethernet(IPV4, &ipv4_from(source, TCP, &segment)),
        IpAddr::V6(source) => ethernet(IPV6, &ipv6_from(source, TCP, 64, &segment)),
    }
}

/// The frame with the checksums that its TCP segment and an IPv4 header should have; no VLAN tags, no options of IP.
pub fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let (addresses, segment) = if frame[12..14] == IPV4.to_be_bytes() { (26..34, 34) } else { (22..54, 54) };
    frame[segment + 16..segment + 18].fill(0);
    let mut words = frame[addresses].to_vec();
    words.extend((frame.len() as u32 - segment as u32).to_be_bytes());
    words.extend([0, TCP]);
    words.extend(&frame[segment..]);
    let mut sum: u32 = words
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[segment + 16..segment + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    if segment == 34 {
        frame[24..26].fill(0);
        let sum: u32 =
            frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    frame
}

/// A UDP datagram.
pub fn udp(port: u16, data: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::from(50_000u16.to_be_bytes());
    datagram.extend(port.to_be_bytes());
    datagram.extend(((8 + data.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    datagram
}

/// A frame with a TCP segment from `source`.
pub fn tcp_frame(source: IpAddr, port: u16, flags: u8, data: &[u8]) -> Vec<u8> {
    let segment = tcp(port, flags, data);
    match source {
        IpAddr::V4(source) => ethernet(IPV4, &ipv4_from(source, TCP, &segment)),
        IpAddr::V6(source) => ethernet(IPV6, &ipv6_from(source, TCP, 64, &segment)),
    }
}

/// The number of the extension `supported_versions`.
const SUPPORTED_VERSIONS: u16 = 43;

/// A ClientHello to be.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Version of the record, which must not matter.
    pub record: u16,
    /// `legacy_version`.
    pub legacy: u16,
    /// Length of the session id.
    pub session: usize,
    /// Cipher suites.
    pub suites: usize,
    /// Extensions; `None` for a hello without the block.
    pub extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Hello {
    /// What a client of TLS 1.2 or older sends, with two extensions.
    pub fn legacy(version: u16) -> Self {
        let extensions = Some(vec![(0, vec![0; 18]), (10, vec![0, 2, 0, 29])]);
        Self { record: 0x0301, legacy: version, session: 0, suites: 12, extensions }
    }

    /// What a client of TLS 1.3 sends, offering these versions in `supported_versions`.
    pub fn offering(versions: &[u16]) -> Self {
        let hello = Self { session: 32, ..Self::legacy(0x0303) };
        hello.with(SUPPORTED_VERSIONS, &version_list(versions)).with(51, &[0; 38])
    }

    /// With one more extension, at the end.
    pub fn with(mut self, kind: u16, content: &[u8]) -> Self {
        self.extensions.get_or_insert_default().push((kind, content.to_vec()));
        self
    }

    /// The handshake message.
    pub fn message(&self) -> Vec<u8> {
        let mut body = Vec::from(self.legacy.to_be_bytes());
        body.extend([0x5a; 32]);
        body.push(self.session as u8);
        body.resize(body.len() + self.session, 0x5a);
        body.extend(((self.suites * 2) as u16).to_be_bytes());
        body.resize(body.len() + self.suites * 2, 0x13);
        body.extend([1, 0]); // compression: none
        if let Some(extensions) = &self.extensions {
            let block: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, content)| {
                    [&kind.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat()
                })
                .collect();
            body.extend((block.len() as u16).to_be_bytes());
            body.extend(block);
        }
        let length = (body.len() as u32).to_be_bytes();
        [&[1][..], &length[1..], &body].concat()
    }

    /// The message in one record.
    pub fn bytes(&self) -> Vec<u8> {
        record(self.record, &self.message())
    }
}

/// The content of `supported_versions`.
pub fn version_list(versions: &[u16]) -> Vec<u8> {
    let mut list = vec![(versions.len() * 2) as u8];
    list.extend(versions.iter().flat_map(|version| version.to_be_bytes()));
    list
}

/// A handshake record.
pub fn record(version: u16, content: &[u8]) -> Vec<u8> {
    [&[0x16][..], &version.to_be_bytes(), &(content.len() as u16).to_be_bytes(), content].concat()
}
