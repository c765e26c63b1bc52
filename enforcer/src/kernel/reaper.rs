//! Ends the sockets of connections whose hello was refused and whose client has said nothing since.
//!
//! The program turns a client's next packet into the reset that ends the server's socket; who stays silent would leave it
//! waiting for a hello. The daemon looks once a second through the words of the flow table, and asks the kernel over
//! `NETLINK_SOCK_DIAG` to destroy what it finds (`SOCK_DESTROY`, Linux 4.5, `CONFIG_INET_DIAG_DESTROY`).
//!
//! SYN and hello may both be forged, and the socket that of another connection with the same ends. So the kernel is asked first what
//! the socket has seen: a server that waits for a hello has said nothing, and has heard no more than part of one. Only that very socket, by its cookie, is
//! destroyed. Where no connection is, the kernel finds the listener, which is left alone; so is one that is still being made, which
//! ends by itself.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use enforcer_common::{
    flow::{
        Ends, Entry,
        slot::{self, Phase},
    },
    maps,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::{memory::Words, program::Program};
use crate::clock::KernelTime;

/// How long a client may stay silent, nanoseconds: longer than its packets take over most paths.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Sockets that are ended at a time: a flood of refusals must not keep the daemon from its other work.
const AT_ONCE: usize = 1024;

/// Message types (linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Flags of a request that is answered anyhow, and of one that wants to hear how it went (linux/netlink.h).
const REQUEST: u16 = 1;
const REQUEST_ACK: u16 = 1 | 4;
/// Bytes of `struct nlmsghdr`.
const MESSAGE_HEADER: usize = 16;
/// Bytes of `struct inet_diag_req_v2` (linux/inet_diag.h).
const QUESTION: usize = 56;
/// Bytes of `struct inet_diag_msg`, and where the state and the cookie lie in it (linux/inet_diag.h).
const ANSWER: usize = 72;
const STATE: usize = 1;
const COOKIE: usize = 44;
/// Attribute with a `struct tcp_info`, and the bit that asks for it (linux/inet_diag.h).
const INET_DIAG_INFO: u16 = 2;
const WANTS_INFO: u8 = 1 << (INET_DIAG_INFO - 1);
/// Where `tcpi_bytes_received` and `tcpi_data_segs_out` lie in `struct tcp_info` (linux/tcp.h).
const BYTES_RECEIVED: usize = 128;
const DATA_SEGMENTS_OUT: usize = 156;
/// TCP_LISTEN (include/net/tcp_states.h).
const LISTEN: u8 = 10;
/// Whatever the cookie is (INET_DIAG_NOCOOKIE).
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// More bytes than a hello has (65,535, and the headers of its records).
const HELLO: u64 = 1 << 17;
/// IPPROTO_TCP.
const TCP: u8 = 6;

/// Looks through the flow table of one program.
pub(super) struct Reaper {
    words: Words,
    entries: Array<MapData, Entry>,
    socket: OwnedFd,
}

impl Reaper {
    pub(super) fn open(program: &Program) -> Result<Self> {
        let words = Words::of(&program.map(maps::FLOW_WORDS)?, maps::FLOW_WORDS)?;
        let entries = Array::try_from(program.map(maps::FLOWS)?)?;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )
        .context("opening NETLINK_SOCK_DIAG")?;
        Ok(Self { words, entries, socket })
    }

    /// Ends what has been silent for too long; answers how many sockets that were.
    pub(super) fn reap(&self, now: KernelTime) -> Result<usize> {
        let mut ended = 0;
        for (index, word) in self.words.all().enumerate() {
            let silent = slot::phase(word) == Phase::Refused
                && !slot::is_claimed(word)
                && !slot::is_expired(word, now.0)
                && slot::settled_for(word, now.0) >= PATIENCE_NS;
            if !silent || ended >= AT_ONCE {
                continue;
            }
            let index = u32::try_from(index).context("a flow table of that size")?;
            let entry = self.entries.get(&index, 0).context("reading the flow table")?;
            // The client, or another one, may have come in between: then the entry says something else.
            if self.words.get(index as usize) == Some(word) && self.destroy(&entry.ends)? {
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Destroys the socket of one connection; `false`: there is none that waits for a hello.
    fn destroy(&self, ends: &Ends) -> Result<bool> {
        let question = request(ends, SOCK_DIAG_BY_FAMILY, REQUEST, NO_COOKIE);
        let asked = self.ask(&question).context("asking for a socket by NETLINK_SOCK_DIAG")?;
        let Some(cookie) = asked.as_deref().and_then(waiting) else { return Ok(false) };
        let order = request(ends, SOCK_DESTROY, REQUEST_ACK, cookie);
        Ok(self.ask(&order).context("SOCK_DESTROY")?.is_some())
    }

    /// The kernel's answer to one message, behind its header; [`None`]: there is no such socket.
    fn ask(&self, message: &[u8]) -> Result<Option<Vec<u8>>> {
        let fd = self.socket.as_raw_fd();
        sendto(fd, message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = vec![0; 4096];
        let length = recv(fd, &mut answer, MsgFlags::empty())?;
        answer.truncate(length);
        let kind = answer.get(4..).and_then(|rest| rest.first_chunk());
        let body = answer.get(MESSAGE_HEADER..).unwrap_or_default();
        if kind.map(|kind| u16::from_ne_bytes(*kind)) != Some(libc::NLMSG_ERROR as u16) {
            return Ok(Some(body.to_vec()));
        }
        match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
            Some(0) => Ok(Some(Vec::new())),
            // Or another socket has the ends now (ESTALE).
            Some(code) if code == -libc::ENOENT || code == -libc::ESTALE => Ok(None),
            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg()).into()),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// The cookie of a socket that still waits for its hello, from an `inet_diag_msg` and its attributes.
fn waiting(answer: &[u8]) -> Option<[u8; 8]> {
    let info = attribute(answer.get(ANSWER..)?, INET_DIAG_INFO)?;
    let received = u64::from_ne_bytes(*info.get(BYTES_RECEIVED..)?.first_chunk()?);
    let sent = u32::from_ne_bytes(*info.get(DATA_SEGMENTS_OUT..)?.first_chunk()?);
    let waits = answer[STATE] != LISTEN && sent == 0 && received < HELLO;
    waits.then(|| answer[COOKIE..].first_chunk().copied()).flatten()
}

/// The payload of an attribute (`struct nlattr`: length with its four bytes, type; aligned to four).
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let payload = rest.get(4..length)?;
        if kind == wanted {
            return Some(payload);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// Asks something about the server's side of a connection.
fn request(ends: &Ends, kind: u16, flags: u16, cookie: [u8; 8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(MESSAGE_HEADER + QUESTION);
    message.extend(((MESSAGE_HEADER + QUESTION) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence number, port
    let family = if ends.family == 4 { libc::AF_INET } else { libc::AF_INET6 };
    message.extend([family as u8, TCP, WANTS_INFO, 0]);
    message.extend(u32::MAX.to_ne_bytes()); // in whatever state it is
    message.extend((ends.ports as u16).to_be_bytes()); // the socket's own port comes first
    message.extend(((ends.ports >> 16) as u16).to_be_bytes());
    for address in [ends.destination, ends.source] {
        if ends.family == 4 {
            message.extend((address[0] as u32).to_be_bytes());
            message.extend([0; 12]);
        } else {
            message.extend(address[0].to_be_bytes());
            message.extend(address[1].to_be_bytes());
        }
    }
    message.extend([0; 4]); // any interface
    message.extend(cookie);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_server_first() {
        let ends = Ends {
            source: [0xc612_0007, 0],
            destination: [0xc613_0001, 0],
            ports: 50_000 << 16 | 443,
            family: 4,
        };
        let message = request(&ends, SOCK_DESTROY, REQUEST_ACK, *b"a cookie");
        assert_eq!(message.len(), MESSAGE_HEADER + QUESTION);
        assert_eq!(message[16..18], [2, 6], "AF_INET, TCP");
        assert_eq!(message[24..28], [1, 187, 195, 80]);
        assert_eq!(message[28..32], [198, 19, 0, 1]);
        assert_eq!(message[44..48], [198, 18, 0, 7]);
        assert_eq!(message[64..], *b"a cookie");
    }

    fn answer(state: u8, received: u64, sent: u32) -> Vec<u8> {
        let mut info = vec![0; 232];
        info[BYTES_RECEIVED..][..8].copy_from_slice(&received.to_ne_bytes());
        info[DATA_SEGMENTS_OUT..][..4].copy_from_slice(&sent.to_ne_bytes());
        let mut answer = vec![0; ANSWER];
        answer[STATE] = state;
        answer[COOKIE..][..8].copy_from_slice(b"a cookie");
        // Another attribute of five bytes comes first.
        for (kind, payload) in [(8u16, vec![7; 5]), (INET_DIAG_INFO, info)] {
            answer.extend((4 + payload.len() as u16).to_ne_bytes());
            answer.extend(kind.to_ne_bytes());
            answer.extend(payload);
            answer.resize(answer.len().next_multiple_of(4), 0);
        }
        answer
    }

    #[test]
    fn only_a_server_that_waits_for_its_hello_is_ended() {
        const ESTABLISHED: u8 = 1;
        assert_eq!(waiting(&answer(ESTABLISHED, 0, 0)), Some(*b"a cookie"));
        assert_eq!(waiting(&answer(ESTABLISHED, 900, 0)), Some(*b"a cookie"), "part of a hello has passed");
        assert_eq!(waiting(&answer(ESTABLISHED, 900, 1)), None, "it has answered");
        assert_eq!(waiting(&answer(ESTABLISHED, HELLO, 0)), None);
        assert_eq!(waiting(&answer(LISTEN, 0, 0)), None);
        let whole = answer(ESTABLISHED, 0, 0);
        assert_eq!(waiting(&whole[..ANSWER]), None, "one that is still being made has no numbers");
        for length in 0..whole.len() {
            waiting(&whole[..length]);
        }
    }
}
