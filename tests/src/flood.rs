//! Bounded floods of TCP segments with any source address, from inside a namespace that the harness made.
//!
//! Nothing is sent from a thread that is still in the process's own namespace, and nothing to an address outside
//! 198.18.0.0/15 and 2001:db8::/32.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use enforcer::clock;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
};

use crate::netns::{Netns, WIRE, assert_inside};

/// No flood is larger, whatever it is asked for.
pub const MOST: u32 = 200_000;
/// How often a paced flood sends its share.
const TICK: Duration = Duration::from_millis(5);

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What a flood consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A new connection each time, from another port.
    Syn,
    /// A bare acknowledgement that belongs to no connection.
    Ack,
}

/// How much, how fast, from where to where.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// What is sent.
    pub segment: Segment,
    /// The source address on the packets; need not be the sender's.
    pub from: IpAddr,
    /// How many sources take turns, from `from` on: addresses for IPv4, /64s for IPv6.
    pub sources: u32,
    /// Where they go.
    pub to: IpAddr,
    /// Destination port.
    pub port: u16,
    /// How many, at most [`MOST`].
    pub count: u32,
    /// How many per second; `None`: as fast as it goes.
    pub per_second: Option<u32>,
}

/// What a flood did.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Packets that went onto the wire.
    pub packets: u32,
    /// From the first to the last.
    pub took: Duration,
}

impl Flood {
    /// Sends it and returns when the last packet has left. The neighbour must be known: while its address is being
    /// resolved the kernel queues a few packets and loses the others.
    pub fn send(&self, from: &Netns) -> Result<Sent> {
        let before = lost(from)?;
        let mut sent = from.enter(|| self.run())?;
        // A busy machine may find the wire's ring full.
        sent.packets = sent.packets.saturating_sub(lost(from)?.saturating_sub(before));
        Ok(sent)
    }

    fn run(&self) -> Result<Sent> {
        assert_inside()?;
        let last = source(self.from, self.sources.saturating_sub(1));
        if self.count > MOST || [self.to, self.from, last].iter().any(|address| !is_for_tests(*address)) {
            bail!("{self:?} is larger than {MOST} or leaves the addresses for tests");
        }
        let wire = Wire::open(self.to)?;
        let begun = clock::instant_now();
        let mut packets = 0;
        while packets < self.count {
            let due = match self.per_second {
                None => self.count,
                Some(rate) => {
                    let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u32 + 1;
                    if due <= packets {
                        thread::sleep(TICK);
                        continue;
                    }
                    due.min(self.count)
                }
            };
            for number in packets..due {
                let from = source(self.from, number % self.sources.max(1));
                wire.send(from, &tcp_segment(self, from, number))?;
            }
            packets = due;
        }
        Ok(Sent { packets, took: begun.elapsed() })
    }
}

/// Packets that the wire has refused so far.
fn lost(netns: &Netns) -> Result<u32> {
    let statistics = netns.ip(&format!("-s -j link show dev {WIRE}"))?;
    let statistics: serde_json::Value = serde_json::from_str(&statistics)?;
    let dropped = statistics[0]["stats64"]["tx"]["dropped"].as_u64();
    Ok(dropped.with_context(|| format!("no statistics: {statistics}"))? as u32)
}

/// Source number `n` from `first` on.
fn source(first: IpAddr, n: u32) -> IpAddr {
    match first {
        IpAddr::V4(v4) => Ipv4Addr::from(v4.to_bits().wrapping_add(n)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(v6.to_bits().wrapping_add(u128::from(n) << 64)).into(),
    }
}

fn is_for_tests(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.to_bits() >> 17 == Ipv4Addr::new(198, 18, 0, 0).to_bits() >> 17,
        IpAddr::V6(v6) => v6.segments()[..2] == [0x2001, 0xdb8],
    }
}

/// A raw socket that takes whole IP packets.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    to: IpAddr,
}

impl Wire {
    /// To the address, in the namespace of this thread.
    pub(crate) fn open(to: IpAddr) -> Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Raw, flags, SockProtocol::Raw).context("no raw socket")?;
        Ok(Self { socket, to })
    }

    /// Sends a TCP segment from any address.
    pub(crate) fn send(&self, from: IpAddr, segment: &[u8]) -> Result<()> {
        let fd = self.socket.as_raw_fd();
        let sent = match (from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let to_socket = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
                sendto(fd, &ipv4(from, to, segment), &to_socket, MsgFlags::empty())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let to_socket = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, 0));
                sendto(fd, &ipv6(from, to, segment), &to_socket, MsgFlags::empty())
            }
            _ => bail!("{from} and {} are of different families", self.to),
        };
        match sent {
            // A full queue of the device: the packet is lost, as on any wire.
            Ok(_) | Err(nix::errno::Errno::ENOBUFS) => Ok(()),
            Err(error) => Err(error).context("cannot send"),
        }
    }
}

/// RFC 791 section 3.1; the kernel fills in identification and checksum.
fn ipv4(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// RFC 8200 section 3.
fn ipv6(from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([TCP, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// RFC 9293 section 3.1, without options or payload. `number` varies source port and sequence number.
fn tcp_segment(flood: &Flood, from: IpAddr, number: u32) -> Vec<u8> {
    let source_port = 1024 + (number % 60_000) as u16;
    let (flags, acknowledged) = match flood.segment {
        Segment::Syn => (SYN, 0u32),
        Segment::Ack => (ACK, 1),
    };
    let mut segment = Vec::with_capacity(20);
    segment.extend(source_port.to_be_bytes());
    segment.extend(flood.port.to_be_bytes());
    segment.extend(number.wrapping_mul(64_000).to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let checksum = checksum(from, flood.to, &segment);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// RFC 9293 section 3.1: over the pseudo header and the segment.
pub(crate) fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(v4) => Ipv4Addr::octets(&v4).to_vec(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6).to_vec(),
    };
    let mut covered = octets(from);
    covered.extend(octets(to));
    covered.extend([0, TCP]);
    covered.extend((segment.len() as u16).to_be_bytes());
    covered.extend(segment);
    let words =
        covered.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood(from: IpAddr, to: IpAddr) -> Flood {
        Flood { segment: Segment::Syn, from, sources: 1, to, port: 443, count: 1, per_second: None }
    }

    #[test]
    fn refuses_the_process_s_own_namespace_and_foreign_addresses() {
        let test: IpAddr = "198.18.1.2".parse().unwrap();
        let flood = flood(test, test);
        assert!(flood.run().unwrap_err().to_string().contains("namespace"));
        assert!(!is_for_tests("192.0.2.1".parse().unwrap()));
        assert!(!is_for_tests("198.20.0.1".parse().unwrap()));
        assert!(is_for_tests("198.19.255.255".parse().unwrap()));
        assert!(!is_for_tests("2001:db9::1".parse().unwrap()));
    }

    #[test]
    fn a_segment_s_checksum_makes_the_sum_zero() {
        let (from, to) = ("198.18.1.2".parse().unwrap(), "198.18.0.1".parse().unwrap());
        assert_eq!(checksum(from, to, &tcp_segment(&flood(from, to), from, 7)), 0);
    }
}
