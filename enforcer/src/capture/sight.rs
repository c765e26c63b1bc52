//! Who sends what to whom, read from a frame's headers by the program's own parser.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use enforcer_common::{
    headers::{Headers, Link, Transport, tcp},
    packet::Packet,
};
use serde::{Deserialize, Serialize};

use super::hello::{self, Hello};

/// Where the destination address lies in an IPv4 and in an IPv6 header, in bytes (RFC 791 section 3.1, RFC 8200 section 3).
const DESTINATION_V4: usize = 16;
const DESTINATION_V6: usize = 24;

/// The first bytes of a frame that may have been longer.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What there is of it.
    pub bytes: &'a [u8],
    /// How long it was.
    pub length: usize,
}

impl Packet for Frame<'_> {
    fn length(&self) -> usize {
        self.length.max(self.bytes.len())
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.bytes(offset)
    }

    fn first<const N: usize>(&self) -> Option<&[u8; N]> {
        self.bytes.first_chunk()
    }
}

/// A frame of which somebody may want to know whether all that was asked for is there.
#[derive(Debug)]
pub struct Asked<'a> {
    frame: Frame<'a>,
    missed: Cell<bool>,
}

impl<'a> Asked<'a> {
    /// Nothing was asked for yet.
    pub const fn new(frame: Frame<'a>) -> Self {
        Self { frame, missed: Cell::new(false) }
    }

    /// Whether bytes were asked for that the frame had and that are not there.
    pub fn missed(&self) -> bool {
        self.missed.get()
    }
}

impl Packet for Asked<'_> {
    fn length(&self) -> usize {
        self.frame.length()
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let there = self.frame.bytes(offset);
        if there.is_none() && offset.checked_add(N).is_some_and(|end| end <= self.frame.length) {
            self.missed.set(true);
        }
        there
    }

    fn first<const N: usize>(&self) -> Option<&[u8; N]> {
        self.frame.first()
    }
}

/// What people look for in a frame; what it does not have is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// `tcp`, `udp`, `icmp`, `ip` for anything else in IP, `fragment`, `link` or `other`.
    pub protocol: String,
    /// Source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// Destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// TCP flags by their initials, like `S` or `PA`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub flags: String,
    /// The ClientHello in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<Hello>,
}

/// Looks at a frame. Whatever cannot be read is left out.
pub fn look(frame: Frame<'_>) -> Sight {
    let mut headers = Headers::UNREAD;
    let mut sight = Sight { protocol: "other".to_owned(), ..Sight::default() };
    if headers.read_link(&frame).is_err() {
        return sight;
    }
    let network = headers.offset;
    let read = match headers.link {
        Link::Control => {
            "link".clone_into(&mut sight.protocol);
            return sight;
        }
        Link::Other => return sight,
        Link::Ipv4 => headers.read_ipv4(&frame),
        Link::Ipv6 => headers.read_ipv6(&frame),
    };
    "ip".clone_into(&mut sight.protocol);
    if read.is_err() {
        return sight;
    }
    let [upper, lower] = headers.source.map(u128::from);
    if headers.link == Link::Ipv4 {
        sight.source = Some(Ipv4Addr::from_bits(upper as u32).into());
        sight.destination =
            frame.bytes::<4>(network + DESTINATION_V4).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
    } else {
        sight.source = Some(Ipv6Addr::from_bits(upper << 64 | lower).into());
        sight.destination =
            frame.bytes::<16>(network + DESTINATION_V6).map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
    }
    if headers.read_transport(&frame).is_err() {
        return sight;
    }
    let name = match headers.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::LaterFragment => "fragment",
        Transport::Other => "ip",
    };
    name.clone_into(&mut sight.protocol);
    if matches!(headers.transport, Transport::Tcp | Transport::Udp) {
        (sight.source_port, sight.port) = (Some(headers.source_port), Some(headers.port));
    }
    if headers.transport == Transport::Tcp {
        sight.flags = flags(headers.flags);
        let end = headers.end.min(frame.bytes.len());
        sight.hello = frame.bytes.get(headers.offset..end).and_then(hello::read);
    }
    sight
}

/// TCP flags in the order in which tcpdump shows them.
fn flags(flags: u8) -> String {
    const PUSH: u8 = 0x08;
    let names = [(tcp::SYN, 'S'), (tcp::FIN, 'F'), (tcp::RST, 'R'), (PUSH, 'P'), (tcp::ACK, 'A')];
    names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name).collect()
}

impl Sight {
    /// `198.18.0.7:50000`, or as much of it as there is.
    pub fn from(&self) -> String {
        end(self.source, self.source_port)
    }

    /// The same for where it goes.
    pub fn to(&self) -> String {
        end(self.destination, self.port)
    }

    /// Protocol, flags and ClientHello in a few words.
    pub fn what(&self) -> String {
        let mut text = self.protocol.clone();
        if !self.flags.is_empty() {
            text.push_str(&format!(" [{}]", self.flags));
        }
        if let Some(hello) = &self.hello {
            text.push_str(&format!(" hello {}", hello.versions.join("/")));
            if let Some(name) = &hello.server_name {
                text.push_str(&format!(" for {name}"));
            }
            if let Some(fingerprint) = &hello.fingerprint {
                text.push_str(&format!(" [{fingerprint}]"));
            }
            if !hello.complete {
                text.push_str(" (in part)");
            }
        }
        text
    }
}

fn end(address: Option<IpAddr>, port: Option<u16>) -> String {
    match (address, port) {
        (None, _) => "-".to_owned(),
        (Some(address), None) => address.to_string(),
        (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_is_seen_with_both_ends() {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 7, 198, 19, 0, 1]);
        frame.extend([0xc3, 0x50, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        let sight = look(Frame { bytes: &frame, length: frame.len() });
        assert_eq!((sight.from(), sight.to()), ("198.18.0.7:50000".into(), "198.19.0.1:443".into()));
        assert_eq!(sight.what(), "tcp [S]");
        for end in 0..frame.len() {
            look(Frame { bytes: &frame[..end], length: frame.len() });
        }
    }
}
