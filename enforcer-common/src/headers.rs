//! Where a frame's headers lie and what they say: Ethernet, VLAN tags, IPv4, IPv6 with extension headers, TCP, UDP.
//!
//! Called by [`crate::verdict::decide`] alone. Nothing here looks anything up or decides about a source; a header that
//! contradicts itself, its packet or its frame is an error that carries the reason.

use crate::{packet::Packet, reason::DropReason};

/// Destination, source and EtherType of an Ethernet header, in bytes.
const ETHERNET_LENGTH: usize = 14;
/// An 802.1Q or 802.1ad tag with the EtherType behind it, in bytes.
const VLAN_LENGTH: usize = 4;
/// Tags that are followed: a service tag and a customer tag (IEEE 802.1ad).
const VLAN_TAGS: usize = 2;
/// An IPv4 header without options, in bytes (RFC 791 section 3.1).
const IPV4_LENGTH: usize = 20;
/// The fixed IPv6 header, in bytes (RFC 8200 section 3).
const IPV6_LENGTH: usize = 40;
/// Extension headers that are followed. RFC 8200 section 4.1 knows six that may precede TCP, one of them twice; one is
/// left as a margin.
const EXTENSION_HEADERS: usize = 8;
/// The fixed TCP header, in bytes (RFC 9293 section 3.1).
const TCP_LENGTH: usize = 20;
/// The longest TCP header, in bytes: a data offset of 15 words.
const TCP_LENGTH_MAX: usize = 60;
/// The UDP header, in bytes (RFC 768).
const UDP_LENGTH: usize = 8;

/// EtherTypes (IEEE 802, RFC 9542 section B).
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const ARP: u16 = 0x0806;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const LACP: u16 = 0x8809;
    pub(super) const EAPOL: u16 = 0x888e;
    pub(super) const SERVICE_VLAN: u16 = 0x88a8;
    pub(super) const LLDP: u16 = 0x88cc;
}

/// IP protocol and extension header numbers (IANA, RFC 8200, RFC 4302, RFC 4443).
mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const DESTINATION: u8 = 60;
}

/// What the frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A protocol that the link itself needs: ARP, LACP, LLDP, EAPOL.
    Control,
    /// Neither IP nor link control.
    Other,
    /// IPv4 from this offset on.
    Ipv4(usize),
    /// IPv6 from this offset on.
    Ipv6(usize),
}

/// The source address, as it stands in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4, network order.
    V4([u8; 4]),
    /// IPv6, network order.
    V6([u8; 16]),
}

/// What the IP header says, its form already checked against the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Whence the packet claims to come.
    pub source: Address,
    /// The protocol of what follows; for IPv6 perhaps an extension header.
    protocol: u8,
    /// IPv4 only; IPv6 says it in an extension header.
    fragment: Option<Fragment>,
    /// Where the header ends.
    payload: usize,
    /// Where the packet ends; padding of short frames lies behind.
    end: usize,
    /// IPv6 hop limit; 0 for IPv4, where nothing asks for it.
    hop_limit: u8,
}

/// A packet that is a part of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fragment {
    /// Where its payload belongs, in bytes.
    offset: usize,
    /// Whether more follow.
    more: bool,
}

/// A TCP segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Destination port.
    pub port: u16,
    /// SYN without ACK: asks for a new connection (RFC 9293 section 3.5).
    pub opens: bool,
    /// Where its data begins.
    pub payload: usize,
    /// Where its data ends.
    pub end: usize,
    /// The first fragment of a segment: the data goes on in another packet.
    pub fragment: bool,
}

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, whole or a first fragment.
    Tcp(Tcp),
    /// UDP, its form checked.
    Udp,
    /// A later fragment, which has no ports.
    LaterFragment,
    /// Anything else.
    Other,
}

/// Finds the network header behind Ethernet and at most two VLAN tags.
#[inline(always)]
pub fn link<P: Packet>(packet: &P) -> Result<Link, DropReason> {
    let Some(mut kind) = packet.u16(ETHERNET_LENGTH - 2) else { return Err(DropReason::Truncated) };
    let mut offset = ETHERNET_LENGTH;
    let mut tags = 0;
    while kind == ethertype::VLAN || kind == ethertype::SERVICE_VLAN {
        if tags == VLAN_TAGS {
            return Err(DropReason::VlanDepth);
        }
        let Some(inner) = packet.u16(offset + VLAN_LENGTH - 2) else { return Err(DropReason::Truncated) };
        kind = inner;
        offset += VLAN_LENGTH;
        tags += 1;
    }
    Ok(match kind {
        ethertype::IPV4 => Link::Ipv4(offset),
        ethertype::IPV6 => Link::Ipv6(offset),
        ethertype::ARP | ethertype::LACP | ethertype::LLDP | ethertype::EAPOL => Link::Control,
        _ => Link::Other,
    })
}

/// Reads the IPv4 header at `offset`.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P, offset: usize) -> Result<Network, DropReason> {
    let Some(header) = packet.bytes::<IPV4_LENGTH>(offset) else { return Err(DropReason::Truncated) };
    let length = (header[0] & 0x0f) as usize * 4;
    let total = u16::from_be_bytes([header[2], header[3]]) as usize;
    if header[0] >> 4 != 4 || length < IPV4_LENGTH || total < length || offset + total > packet.length() {
        return Err(DropReason::MalformedIpv4);
    }
    // Three flag bits, then the offset in units of 8 bytes; the lowest flag is "more fragments" (RFC 791 section 3.1).
    let field = u16::from_be_bytes([header[6], header[7]]);
    let fragment = Fragment { offset: (field & 0x1fff) as usize * 8, more: field & 0x2000 != 0 };
    Ok(Network {
        source: Address::V4([header[12], header[13], header[14], header[15]]),
        protocol: header[9],
        fragment: if fragment.more || fragment.offset != 0 { Some(fragment) } else { None },
        payload: offset + length,
        end: offset + total,
        hop_limit: 0,
    })
}

/// Reads the fixed IPv6 header at `offset`.
#[inline(always)]
pub fn ipv6<P: Packet>(packet: &P, offset: usize) -> Result<Network, DropReason> {
    let Some(header) = packet.bytes::<8>(offset) else { return Err(DropReason::Truncated) };
    let Some(source) = packet.bytes::<16>(offset + 8) else { return Err(DropReason::Truncated) };
    let end = offset + IPV6_LENGTH + u16::from_be_bytes([header[4], header[5]]) as usize;
    if header[0] >> 4 != 6 || end > packet.length() {
        return Err(if packet.length() < offset + IPV6_LENGTH {
            DropReason::Truncated
        } else {
            DropReason::MalformedIpv6
        });
    }
    Ok(Network {
        source: Address::V6(source),
        protocol: header[6],
        fragment: None,
        payload: offset + IPV6_LENGTH,
        end,
        hop_limit: header[7],
    })
}

/// Whether the packet is neighbour discovery from this very link: ICMPv6 types 133 to 137 with a hop limit of 255, which no
/// router forwards (RFC 4861 sections 4 and 6.1). Extension headers are not followed: nobody sends them here.
#[inline(always)]
pub fn is_neighbour_discovery<P: Packet>(packet: &P, network: &Network) -> bool {
    network.protocol == protocol::ICMPV6
        && network.hop_limit == 255
        && network.payload < network.end
        && matches!(packet.u8(network.payload), Some(133..=137))
}

/// Reads what follows the IP header, behind any extension headers.
#[inline(always)]
pub fn transport<P: Packet>(packet: &P, network: &Network) -> Result<Transport, DropReason> {
    match network.source {
        Address::V4(_) => upper(packet, network.protocol, network.payload, network.end, network.fragment),
        Address::V6(_) => {
            let mut walk = Chain { next: network.protocol, offset: network.payload, fragment: None };
            let mut headers = 0;
            while walk.is_extension() {
                if headers == EXTENSION_HEADERS {
                    return Err(DropReason::ExtensionDepth);
                }
                // Hop-by-hop options stand first or nowhere (RFC 8200 section 4.1).
                if walk.next == protocol::HOP_BY_HOP && headers != 0 {
                    return Err(DropReason::MalformedIpv6);
                }
                walk.step(packet, network.end)?;
                if let Some(Fragment { offset: 1.., .. }) = walk.fragment {
                    break;
                }
                headers += 1;
            }
            upper(packet, walk.next, walk.offset, network.end, walk.fragment)
        }
    }
}

/// A position in a chain of IPv6 extension headers.
struct Chain {
    /// What stands at `offset`.
    next: u8,
    offset: usize,
    fragment: Option<Fragment>,
}

impl Chain {
    #[inline(always)]
    fn is_extension(&self) -> bool {
        matches!(
            self.next,
            protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::FRAGMENT
                | protocol::AUTHENTICATION
                | protocol::DESTINATION
        )
    }

    /// Moves behind the header at `offset`.
    #[inline(always)]
    fn step<P: Packet>(&mut self, packet: &P, end: usize) -> Result<(), DropReason> {
        if self.offset + 8 > end {
            return Err(DropReason::MalformedIpv6);
        }
        let Some(header) = packet.bytes::<4>(self.offset) else { return Err(DropReason::MalformedIpv6) };
        let length = match self.next {
            protocol::FRAGMENT => {
                // 13 bits of offset in units of 8 bytes, two reserved bits, "more" (RFC 8200 section 4.5).
                let field = u16::from_be_bytes([header[2], header[3]]);
                let fragment = Fragment { offset: (field & 0xfff8) as usize, more: field & 1 != 0 };
                // A fragment that is the whole packet is treated as that packet (RFC 6946 section 4).
                if fragment.more || fragment.offset != 0 {
                    self.fragment = Some(fragment);
                }
                8
            }
            // Counts words of 4 bytes, less two (RFC 4302 section 2.2).
            protocol::AUTHENTICATION => (header[1] as usize + 2) * 4,
            // The others count words of 8 bytes, less one (RFC 8200 section 4.3 and following).
            _ => (header[1] as usize + 1) * 8,
        };
        self.next = header[0];
        self.offset += length;
        if self.offset > end { Err(DropReason::MalformedIpv6) } else { Ok(()) }
    }
}

#[inline(always)]
fn upper<P: Packet>(
    packet: &P,
    next: u8,
    offset: usize,
    end: usize,
    fragment: Option<Fragment>,
) -> Result<Transport, DropReason> {
    if let Some(Fragment { offset: 1.., .. }) = fragment {
        // What could overwrite the header of the first fragment, or hold the ports that the first one lacks (RFC 1858
        // section 3, RFC 3128), has no honest sender: no link has an MTU that small.
        let hides = matches!(fragment, Some(Fragment { offset: 0..TCP_LENGTH_MAX, .. }));
        return if next == protocol::TCP && hides {
            Err(DropReason::TcpFragment)
        } else {
            Ok(Transport::LaterFragment)
        };
    }
    match next {
        protocol::TCP => tcp(packet, offset, end, fragment.is_some()),
        protocol::UDP => udp(packet, offset, end, fragment.is_some()),
        _ => Ok(Transport::Other),
    }
}

#[inline(always)]
fn tcp<P: Packet>(packet: &P, offset: usize, end: usize, fragment: bool) -> Result<Transport, DropReason> {
    let broken = if fragment { DropReason::TcpFragment } else { DropReason::MalformedTcp };
    if offset + TCP_LENGTH > end {
        return Err(broken);
    }
    let Some(port) = packet.u16(offset + 2) else { return Err(broken) };
    let Some([data_offset, flags]) = packet.bytes::<2>(offset + 12) else { return Err(broken) };
    let length = (data_offset >> 4) as usize * 4;
    if length < TCP_LENGTH || offset + length > end {
        return Err(broken);
    }
    // SYN is 0x02, ACK 0x10 (RFC 9293 section 3.1).
    let opens = flags & 0x12 == 0x02;
    Ok(Transport::Tcp(Tcp { port, opens, payload: offset + length, end, fragment }))
}

#[inline(always)]
fn udp<P: Packet>(packet: &P, offset: usize, end: usize, fragment: bool) -> Result<Transport, DropReason> {
    if offset + UDP_LENGTH > end {
        return Err(DropReason::MalformedUdp);
    }
    let Some(length) = packet.u16(offset + 4) else { return Err(DropReason::MalformedUdp) };
    let length = length as usize;
    // The first fragment announces the length of the whole datagram.
    if length < UDP_LENGTH || (!fragment && offset + length > end) {
        return Err(DropReason::MalformedUdp);
    }
    Ok(Transport::Udp)
}
