//! A TCP client that writes every segment itself, right ones and wrong ones: the only one that can repeat a part of its hello with other
//! content, or send what a server ignores. Its addresses belong to no interface, so no kernel answers in its place.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::{
    flood::{Wire, checksum},
    netns::{Lab, WIRE, assert_inside},
    packets::{ACK, DATA, RST, SYN, tcp_with},
    poll,
};

/// Who the client is: an address that no interface has, in the same networks as the server.
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 100, 2);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 100, 0, 0, 0, 0, 2);
/// Where nobody listens.
const CLOSED: u16 = 9;
/// For each answer of the server's stack.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the clock while nothing comes, in milliseconds.
const LOOK: i64 = 50;
/// The clock of timestamps when a connection begins (RFC 7323 section 3.2).
const CLOCK: u32 = 1_000_000;
/// Before the connection: a server takes no data that is so old (RFC 7323 section 5.3).
const OLD: u32 = 1_000;

/// A segment as part of a connection.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Place of the first byte, counted from where the client's data begins.
    pub at: i64,
    /// TCP flags.
    pub flags: u8,
    /// The data.
    pub data: Vec<u8>,
    /// Why a server ignores it.
    pub flaw: Flaw,
}

/// Why a server ignores a segment that is otherwise as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It does not.
    None,
    /// Its timestamp is older than the connection (RFC 7323 section 5.3).
    Old,
    /// It acknowledges what was never sent (RFC 9293 section 3.10.7.4).
    Unsent,
    /// Its checksum is wrong.
    Checksum,
}

impl Piece {
    /// Data.
    pub fn new(at: i64, data: &[u8]) -> Self {
        Self { at, flags: DATA, data: data.to_vec(), flaw: Flaw::None }
    }

    /// A SYN with the number in front of `at`.
    pub fn syn(at: i64) -> Self {
        Self { at: at - 1, flags: SYN, data: Vec::new(), flaw: Flaw::None }
    }

    /// The same with a flaw.
    #[must_use]
    pub fn with(mut self, flaw: Flaw) -> Self {
        self.flaw = flaw;
        self
    }
}

/// The client, on the wire of a lab.
#[derive(Debug)]
pub struct Writer {
    wire: Wire,
    /// Sees what comes for the client, which its kernel does not take.
    ear: OwnedFd,
    source: IpAddr,
    server: IpAddr,
    port: AtomicU16,
}

/// What the server's stack has said.
#[derive(Clone, Copy, Debug)]
struct Said {
    flags: u8,
    sequence: u32,
    /// What it has last heard of the client's clock.
    clock: u32,
}

/// A connection whose handshake is complete.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    port: u16,
    /// The server's port.
    to: u16,
    /// The number of the client's first byte.
    first: u32,
    /// The number of the server's first byte.
    expected: u32,
    /// The server's clock.
    clock: u32,
}

impl Writer {
    /// A client of IPv4 or IPv6.
    pub fn new(lab: &Lab, is_ipv4: bool) -> Result<Self> {
        let source = if is_ipv4 { IpAddr::V4(SOURCE_V4) } else { SOURCE_V6.into() };
        let link: serde_json::Value =
            serde_json::from_str(&lab.client.ip(&format!("-j link show dev {WIRE}"))?)?;
        let hardware = link[0]["address"].as_str().with_context(|| format!("no address: {link}"))?;
        lab.server.ip(&format!("neigh replace {source} lladdr {hardware} dev {WIRE} nud permanent"))?;
        let server = Lab::server_address(source);
        let (wire, ear) = lab.client.enter(|| {
            assert_inside()?;
            // What comes for an address that nobody here has must not be sent on.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
            let flags = SockFlag::SOCK_CLOEXEC;
            let ear = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            setsockopt(&ear, ReceiveTimeout, &TimeVal::milliseconds(LOOK))?;
            Ok((Wire::open(server)?, ear))
        })?;
        Ok(Self { wire, ear, source, server, port: AtomicU16::new(20_000) })
    }

    /// The client's address.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// A handshake with a port of the server; data in the SYN belongs to those who know each other (RFC 7413).
    pub fn connect(&self, to: u16, with_syn: &[u8]) -> Result<Connection> {
        let mut connection = self.begin(to);
        self.send(&connection, &Piece { data: with_syn.to_vec(), ..Piece::syn(0) })?;
        let said = self.hear(&connection, "a SYN-ACK", |said| said.flags & (SYN | ACK) == SYN | ACK)?;
        connection.expected = said.sequence.wrapping_add(1);
        connection.clock = said.clock;
        self.send(&connection, &Piece { flags: ACK, ..Piece::new(0, &[]) })?;
        Ok(connection)
    }

    fn begin(&self, to: u16) -> Connection {
        let port = self.port.fetch_add(1, Ordering::Relaxed);
        Connection { port, to, first: u32::from(port) << 16, expected: 0, clock: 0 }
    }

    /// Sends a segment.
    pub fn send(&self, connection: &Connection, piece: &Piece) -> Result<()> {
        let options = options(piece, connection.clock);
        let mut segment = tcp_with(connection.to, piece.flags, &options, &piece.data);
        segment[..2].copy_from_slice(&connection.port.to_be_bytes());
        let sequence = connection.first.wrapping_add(piece.at as u32);
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        let unsent = if piece.flaw == Flaw::Unsent { 1 << 30 } else { 0 };
        let acknowledged = if piece.flags & ACK == 0 { 0 } else { connection.expected.wrapping_add(unsent) };
        segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        let right = checksum(self.source, self.server, &segment);
        let written = if piece.flaw == Flaw::Checksum { right ^ 0x55 } else { right };
        segment[16..18].copy_from_slice(&written.to_be_bytes());
        self.wire.send(self.source, &segment)
    }

    /// Waits until the server's stack has handled everything that was sent before: the wire keeps the order of segments that are to be
    /// delivered at once, and a closed port answers at once.
    pub fn settle(&self) -> Result<()> {
        let probe = self.begin(CLOSED);
        self.send(&probe, &Piece::syn(0))?;
        self.hear(&probe, "a closed port's reset", |said| said.flags & RST != 0).map(drop)
    }

    /// The next segment of the server's to a port of the client's that is as wanted.
    fn hear(&self, connection: &Connection, what: &str, is_wanted: impl Fn(&Said) -> bool) -> Result<Said> {
        poll::until(what, PATIENCE, || {
            let mut frame = [0; 2048];
            match recv(self.ear.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => {
                    let said = said(&frame[..length.min(frame.len())], self.server, connection.port);
                    Ok(said.filter(&is_wanted))
                }
                Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }
}

/// Timestamps on every segment (RFC 7323 section 3.2); a SYN says besides how long segments may be.
fn options(piece: &Piece, echo: u32) -> Vec<u8> {
    let clock = if piece.flaw == Flaw::Old { OLD } else { CLOCK };
    let mut options = if piece.flags & SYN == 0 { Vec::new() } else { vec![2, 4, 5, 180] };
    options.extend([1, 1, 8, 10]);
    options.extend(clock.to_be_bytes());
    options.extend(echo.to_be_bytes());
    options
}

/// Reads a frame of the server's to a port.
fn said(frame: &[u8], server: IpAddr, port: u16) -> Option<Said> {
    let (from, at) = match frame.get(12..14)? {
        [0x08, 0x00] => (IpAddr::from(<[u8; 4]>::try_from(frame.get(26..30)?).ok()?), 34),
        [0x86, 0xdd] => (IpAddr::from(<[u8; 16]>::try_from(frame.get(22..38)?).ok()?), 54),
        _ => return None,
    };
    let segment = frame.get(at..)?;
    let word = |at: usize| Some(u32::from_be_bytes(segment.get(at..at + 4)?.try_into().ok()?));
    if from != server || segment.get(2..4)? != port.to_be_bytes() {
        return None;
    }
    let header = usize::from(segment.get(12)? >> 4) * 4;
    Some(Said {
        flags: *segment.get(13)?,
        sequence: word(4)?,
        clock: clock(segment.get(20..header)?).unwrap_or(0),
    })
}

/// The clock of timestamps in options of TCP.
fn clock(mut options: &[u8]) -> Option<u32> {
    loop {
        match options {
            [1, rest @ ..] => options = rest,
            [8, 10, value @ ..] => return Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?)),
            [kind, length, ..] if *kind > 1 => options = options.get(usize::from((*length).max(2))..)?,
            _ => return None,
        }
    }
}

/// Everything that an application has to read of the connection that came last, now. Call it when what is awaited has been handled: it
/// waits for nothing.
pub fn read_now(listener: &TcpListener) -> Result<Vec<u8>> {
    listener.set_nonblocking(true)?;
    let (mut stream, _) = listener.accept().context("no connection was established")?;
    stream.set_nonblocking(true)?;
    let mut read = Vec::new();
    match stream.read_to_end(&mut read) {
        Ok(_) => {}
        // A connection that was reset has shown what came before.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset) => {}
        Err(error) => return Err(error).context("reading"),
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::{self, IPV4, TCP, ethernet, ipv4_from};

    #[test]
    fn an_answer_is_read_with_its_clock() {
        let options = options(&Piece::syn(0), 7);
        assert_eq!((options.len() % 4, clock(&options)), (0, Some(CLOCK)));
        let mut segment = tcp_with(20_001, SYN | ACK, &options, &[]);
        segment[4..8].copy_from_slice(&99u32.to_be_bytes());
        let server: IpAddr = packets::SOURCE_V4.into();
        let frame = ethernet(IPV4, &ipv4_from(packets::SOURCE_V4, TCP, &segment));
        let heard = said(&frame, server, 20_001).unwrap();
        assert_eq!((heard.flags, heard.sequence, heard.clock), (SYN | ACK, 99, CLOCK));
        assert!(said(&frame, server, 20_002).is_none());
        assert!(said(&frame, SOURCE_V6.into(), 20_001).is_none());
        assert_eq!(clock(&[2, 4, 5]), None);
        assert_eq!(clock(&[3, 0, 0]), None);
    }
}
