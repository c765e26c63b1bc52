//! Where a frame's headers lie and what they say: Ethernet, VLAN tags, IPv4, IPv6 with extension headers, TCP, UDP.
//!
//! Called by [`crate::verdict::decide`] alone. Nothing here looks anything up or decides about a source; a header that
//! contradicts itself, its packet or its frame is an error that carries the reason.
//!
//! [`Headers`] is flat, and every field has a value from the start: of an enum's absent payload LLVM makes a register that
//! nobody wrote, and the verifier refuses to see it copied.

mod plain;

use crate::{packet::Packet, reason::DropReason};

/// Destination, source and EtherType of an Ethernet header, in bytes.
const ETHERNET_LENGTH: usize = 14;
/// An 802.1Q or 802.1ad tag with the EtherType behind it, in bytes.
const VLAN_LENGTH: usize = 4;
/// Tags that are followed: a service tag and a customer tag (IEEE 802.1ad).
const VLAN_TAGS: usize = 2;
/// An IPv4 header without options, in bytes (RFC 791 section 3.1).
pub(crate) const IPV4_LENGTH: usize = 20;
/// The fixed IPv6 header, in bytes (RFC 8200 section 3).
pub(crate) const IPV6_LENGTH: usize = 40;
/// Extension headers that are followed. RFC 8200 section 4.1 knows six that may precede TCP, one of them twice; one is
/// left as a margin.
const EXTENSION_HEADERS: usize = 8;
/// The fixed TCP header, in bytes (RFC 9293 section 3.1).
pub(crate) const TCP_LENGTH: usize = 20;
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

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
}

/// What the frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A protocol that the link itself needs: ARP, LACP, LLDP, EAPOL.
    Control,
    /// Neither IP nor link control.
    Other,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, whole or a first fragment.
    Tcp,
    /// UDP, its form checked.
    Udp,
    /// A later fragment, which has no ports.
    LaterFragment,
    /// Anything else.
    Other,
}

/// What the headers of one frame say, as far as they have been read. Fields that were not read yet, or that the packet
/// does not have, are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// What follows the link layer.
    pub link: Link,
    /// Source address, host order: IPv6 as its two halves, IPv4 in the first.
    pub source: [u64; 2],
    /// Destination address, likewise.
    pub destination: [u64; 2],
    /// What follows the network layer.
    pub transport: Transport,
    /// Whether the packet is a fragment of another one.
    pub fragment: bool,
    /// TCP or UDP source port.
    pub source_port: u16,
    /// TCP or UDP destination port.
    pub port: u16,
    /// TCP sequence number, of the segment's first byte (or its SYN).
    pub sequence: u32,
    /// TCP acknowledgement number.
    pub acknowledgement: u32,
    /// TCP flags, see [`tcp`].
    pub flags: u8,
    /// Where the IP header begins.
    pub network: usize,
    /// Where the TCP or UDP header begins.
    pub segment: usize,
    /// Where the next header begins; after TCP and UDP, where their data begins.
    pub offset: usize,
    /// Where the IP packet ends; padding of short frames lies behind.
    pub end: usize,
    /// Whether an IPv6 fragment header has been read.
    fragment_header: bool,
    /// Where the fragment's payload belongs, in bytes.
    fragment_offset: usize,
    /// The protocol of what stands at `offset`; for IPv6 perhaps an extension header.
    protocol: u8,
    /// IPv6 hop limit; IPv4's time to live interests nobody.
    hop_limit: u8,
}

impl Headers {
    /// Nothing read yet.
    pub const UNREAD: Self = Self {
        link: Link::Other,
        source: [0; 2],
        destination: [0; 2],
        transport: Transport::Other,
        fragment: false,
        source_port: 0,
        port: 0,
        sequence: 0,
        acknowledgement: 0,
        flags: 0,
        network: 0,
        segment: 0,
        offset: 0,
        end: 0,
        fragment_header: false,
        fragment_offset: 0,
        protocol: 0,
        hop_limit: 0,
    };

    /// All of them at once, for those that judge nothing: `None` for what is no TCP over IP, or contradicts itself.
    pub fn of_tcp<P: Packet>(packet: &P) -> Option<Self> {
        let mut headers = Self::UNREAD;
        headers.read_link(packet).ok()?;
        match headers.link {
            Link::Ipv4 => headers.read_ipv4(packet).ok()?,
            Link::Ipv6 => headers.read_ipv6(packet).ok()?,
            Link::Control | Link::Other => return None,
        }
        headers.read_transport(packet).ok()?;
        (headers.transport == Transport::Tcp).then_some(headers)
    }

    /// Finds the network header behind Ethernet and at most two VLAN tags.
    #[inline(always)]
    pub fn read_link<P: Packet>(&mut self, packet: &P) -> Result<(), DropReason> {
        let Some(mut kind) = packet.u16(ETHERNET_LENGTH - 2) else { return Err(DropReason::Truncated) };
        self.offset = ETHERNET_LENGTH;
        let mut tags = 0;
        while kind == ethertype::VLAN || kind == ethertype::SERVICE_VLAN {
            if tags == VLAN_TAGS {
                return Err(DropReason::VlanDepth);
            }
            let Some(inner) = packet.u16(self.offset + VLAN_LENGTH - 2) else {
                return Err(DropReason::Truncated);
            };
            kind = inner;
            self.offset += VLAN_LENGTH;
            tags += 1;
        }
        self.offset = packet.forget(self.offset);
        self.network = self.offset;
        self.link = match kind {
            ethertype::IPV4 => Link::Ipv4,
            ethertype::IPV6 => Link::Ipv6,
            ethertype::ARP | ethertype::LACP | ethertype::LLDP | ethertype::EAPOL => Link::Control,
            _ => Link::Other,
        };
        Ok(())
    }

    /// Reads the IPv4 header.
    #[inline(always)]
    pub fn read_ipv4<P: Packet>(&mut self, packet: &P) -> Result<(), DropReason> {
        let Some(header) = packet.bytes::<IPV4_LENGTH>(self.offset) else {
            return Err(DropReason::Truncated);
        };
        let length = (header[0] & 0x0f) as usize * 4;
        let total = self.extent(packet, [header[2], header[3]]);
        self.end = self.offset + total;
        if header[0] >> 4 != 4 || length < IPV4_LENGTH || total < length || self.end > packet.length() {
            return Err(DropReason::MalformedIpv4);
        }
        // Three flag bits, then the offset in units of 8 bytes; the lowest flag is "more fragments" (RFC 791 section 3.1).
        let field = u16::from_be_bytes([header[6], header[7]]);
        self.fragment_offset = (field & 0x1fff) as usize * 8;
        self.fragment = field & 0x3fff != 0;
        self.source[0] = u32::from_be_bytes([header[12], header[13], header[14], header[15]]) as u64;
        self.destination[0] = u32::from_be_bytes([header[16], header[17], header[18], header[19]]) as u64;
        self.protocol = header[9];
        self.offset = packet.forget(self.offset + length);
        self.end = packet.forget(self.end);
        Ok(())
    }

    /// How many bytes from `offset` on a length field speaks of. It is 0 where there are more than it can say, as in packets that this
    /// machine's network stack has put together (BIG TCP: IPv6 since Linux 5.19, IPv4 since 6.3). No wire brings such a one.
    #[inline(always)]
    fn extent<P: Packet>(&self, packet: &P, field: [u8; 2]) -> usize {
        let told = u16::from_be_bytes(field) as usize;
        if told == 0 && packet.length() > self.offset + u16::MAX as usize {
            return packet.length() - self.offset;
        }
        told
    }

    /// Reads the fixed IPv6 header.
    #[inline(always)]
    pub fn read_ipv6<P: Packet>(&mut self, packet: &P) -> Result<(), DropReason> {
        if self.offset + IPV6_LENGTH > packet.length() {
            return Err(DropReason::Truncated);
        }
        let Some(header) = packet.bytes::<8>(self.offset) else { return Err(DropReason::Truncated) };
        let Some(upper) = packet.bytes::<8>(self.offset + 8) else { return Err(DropReason::Truncated) };
        let Some(lower) = packet.bytes::<8>(self.offset + 16) else { return Err(DropReason::Truncated) };
        let Some(to_upper) = packet.bytes::<8>(self.offset + 24) else { return Err(DropReason::Truncated) };
        let Some(to_lower) = packet.bytes::<8>(self.offset + 32) else { return Err(DropReason::Truncated) };
        self.offset += IPV6_LENGTH;
        self.end = self.offset + self.extent(packet, [header[4], header[5]]);
        if header[0] >> 4 != 6 || self.end > packet.length() {
            return Err(DropReason::MalformedIpv6);
        }
        self.source = [u64::from_be_bytes(upper), u64::from_be_bytes(lower)];
        self.destination = [u64::from_be_bytes(to_upper), u64::from_be_bytes(to_lower)];
        self.protocol = header[6];
        self.hop_limit = header[7];
        self.offset = packet.forget(self.offset);
        self.end = packet.forget(self.end);
        Ok(())
    }

    /// Whether the packet is neighbour discovery from this very link: ICMPv6 types 133 to 137 with a hop limit of 255,
    /// which no router forwards (RFC 4861 sections 4 and 6.1). Extension headers are not followed: nobody sends them here.
    #[inline(always)]
    pub fn is_neighbour_discovery<P: Packet>(&self, packet: &P) -> bool {
        self.protocol == protocol::ICMPV6
            && self.hop_limit == 255
            && self.offset < self.end
            && matches!(packet.u8(self.offset), Some(133..=137))
    }

    /// Reads what follows the IP header, behind any extension headers.
    #[inline(always)]
    pub fn read_transport<P: Packet>(&mut self, packet: &P) -> Result<(), DropReason> {
        if self.is_at_extension() {
            self.read_extensions(packet)?;
        }
        self.read_payload(packet)
    }

    /// Reads what follows the IP header where that is no extension header.
    #[inline(always)]
    pub fn read_payload<P: Packet>(&mut self, packet: &P) -> Result<(), DropReason> {
        if self.fragment_offset != 0 {
            // What could overwrite the header of the first fragment, or hold the ports that the first one lacks (RFC
            // 1858 section 3, RFC 3128), has no honest sender: no link has an MTU that small.
            // Behind an extension header TCP may follow.
            if self.fragment_offset < TCP_LENGTH_MAX
                && (self.protocol == protocol::TCP || self.is_extension())
            {
                return Err(DropReason::TcpFragment);
            }
            self.transport = Transport::LaterFragment;
            return Ok(());
        }
        match self.protocol {
            protocol::TCP => self.read_tcp(packet),
            protocol::UDP => self.read_udp(packet),
            _ => Ok(()),
        }
    }

    /// Follows a chain of extension headers to its end, or to a fragment header behind which there is no more of it.
    #[inline(always)]
    pub fn read_extensions<P: Packet>(&mut self, packet: &P) -> Result<(), DropReason> {
        // In this form LLVM ends the loop with a jump. Laid out so that control falls through into its head, a loop is
        // refused by Linux 6.1 as a back edge.
        let mut headers = 0;
        while headers < EXTENSION_HEADERS {
            if !self.is_at_extension() {
                return Ok(());
            }
            // Hop-by-hop options stand first or nowhere (RFC 8200 section 4.1).
            if self.protocol == protocol::HOP_BY_HOP && headers != 0 {
                return Err(DropReason::MalformedIpv6);
            }
            self.read_extension(packet)?;
            headers += 1;
        }
        if self.is_at_extension() { Err(DropReason::ExtensionDepth) } else { Ok(()) }
    }

    /// Whether an extension header follows: behind the header of a later fragment there is only payload.
    #[inline(always)]
    pub const fn is_at_extension(&self) -> bool {
        self.fragment_offset == 0 && self.is_extension()
    }

    /// Whether `protocol` is an IPv6 extension header.
    #[inline(always)]
    const fn is_extension(&self) -> bool {
        matches!(self.link, Link::Ipv6)
            && matches!(
                self.protocol,
                protocol::HOP_BY_HOP
                    | protocol::ROUTING
                    | protocol::FRAGMENT
                    | protocol::AUTHENTICATION
                    | protocol::DESTINATION
            )
    }

    #[inline(always)]
    fn read_extension<P: Packet>(&mut self, packet: &P) -> Result<(), DropReason> {
        if self.offset + 8 > self.end {
            return Err(DropReason::MalformedIpv6);
        }
        let Some(header) = packet.bytes::<4>(self.offset) else { return Err(DropReason::MalformedIpv6) };
        let mut length = 8;
        if self.protocol == protocol::FRAGMENT {
            // 13 bits of offset in units of 8 bytes, two reserved bits, "more" (RFC 8200 section 4.5). A fragment that is
            // the whole packet is treated as that packet (RFC 6946 section 4).
            let field = u16::from_be_bytes([header[2], header[3]]);
            self.fragment_offset = (field & 0xfff8) as usize;
            self.fragment = field & 0xfff9 != 0;
            // A fragment of a fragment: no sender makes any (RFC 8200 section 4.5 has one fragment header per packet), and
            // the offset that counts would be the inner one, which only reassembly shows.
            if self.fragment_header || header[0] == protocol::FRAGMENT {
                return Err(DropReason::MalformedIpv6);
            }
            self.fragment_header = true;
        } else if self.protocol == protocol::AUTHENTICATION {
            // Counts words of 4 bytes, less two (RFC 4302 section 2.2).
            length = (header[1] as usize + 2) * 4;
        } else {
            // Counts words of 8 bytes, less one (RFC 8200 sections 4.3, 4.4 and 4.6).
            length += header[1] as usize * 8;
        }
        self.protocol = packet.forget(header[0] as usize) as u8;
        self.fragment_offset = packet.forget(self.fragment_offset);
        self.fragment = packet.forget(self.fragment as usize) != 0;
        self.fragment_header = packet.forget(self.fragment_header as usize) != 0;
        self.offset = packet.forget(self.offset + length);
        if self.offset > self.end { Err(DropReason::MalformedIpv6) } else { Ok(()) }
    }

    #[inline(always)]
    fn read_tcp<P: Packet>(&mut self, packet: &P) -> Result<(), DropReason> {
        let broken = if self.fragment { DropReason::TcpFragment } else { DropReason::MalformedTcp };
        if self.offset + TCP_LENGTH > self.end {
            return Err(broken);
        }
        let Some(ports) = packet.u32(self.offset) else { return Err(broken) };
        let Some(sequence) = packet.u32(self.offset + 4) else { return Err(broken) };
        let Some(acknowledgement) = packet.u32(self.offset + 8) else { return Err(broken) };
        let Some([data_offset, flags]) = packet.bytes::<2>(self.offset + 12) else { return Err(broken) };
        let length = (data_offset >> 4) as usize * 4;
        self.segment = self.offset;
        self.offset = packet.forget(self.offset + length);
        if length < TCP_LENGTH || self.offset > self.end {
            return Err(broken);
        }
        self.transport = Transport::Tcp;
        self.source_port = (ports >> 16) as u16;
        self.port = ports as u16;
        self.sequence = sequence;
        self.acknowledgement = acknowledgement;
        self.flags = flags;
        Ok(())
    }

    #[inline(always)]
    fn read_udp<P: Packet>(&mut self, packet: &P) -> Result<(), DropReason> {
        if self.offset + UDP_LENGTH > self.end {
            return Err(DropReason::MalformedUdp);
        }
        let Some(ports) = packet.u32(self.offset) else { return Err(DropReason::MalformedUdp) };
        let Some(length) = packet.u16(self.offset + 4) else { return Err(DropReason::MalformedUdp) };
        // The first fragment announces the length of the whole datagram.
        if (length as usize) < UDP_LENGTH || (!self.fragment && self.offset + length as usize > self.end) {
            return Err(DropReason::MalformedUdp);
        }
        self.transport = Transport::Udp;
        self.segment = self.offset;
        self.source_port = (ports >> 16) as u16;
        self.port = ports as u16;
        self.offset = packet.forget(self.offset + UDP_LENGTH);
        Ok(())
    }

    /// Whether the segment asks for a new connection: SYN without ACK (RFC 9293 section 3.5).
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }
}
