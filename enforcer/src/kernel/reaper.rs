//! Ends the sockets of connections whose hello was refused and whose client has said nothing since.
//!
//! The program turns a client's next packet into the reset that ends the server's socket; who stays silent would leave it
//! waiting for a hello. The daemon looks once a second through the words of the flow table, and asks the kernel over
//! `NETLINK_SOCK_DIAG` to destroy what it finds (`SOCK_DESTROY`, Linux 4.5, `CONFIG_INET_DIAG_DESTROY`).

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

/// Message type (linux/sock_diag.h).
const SOCK_DESTROY: u16 = 21;
/// Flags of a request that wants to hear how it went (linux/netlink.h).
const REQUEST_ACK: u16 = 1 | 4;
/// Bytes of `struct nlmsghdr`.
const MESSAGE_HEADER: usize = 16;
/// Bytes of `struct inet_diag_req_v2` (linux/inet_diag.h).
const REQUEST: usize = 56;
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

    /// Destroys one socket; `false`: there is none.
    fn destroy(&self, ends: &Ends) -> Result<bool> {
        let fd = self.socket.as_raw_fd();
        sendto(fd, &request(ends), &NetlinkAddr::new(0, 0), MsgFlags::empty()).context("SOCK_DESTROY")?;
        let mut answer = [0; 512];
        let length = recv(fd, &mut answer, MsgFlags::empty()).context("SOCK_DESTROY")?;
        let code = answer[..length].get(MESSAGE_HEADER..).and_then(|body| body.first_chunk());
        match code.map(|code| i32::from_ne_bytes(*code)) {
            Some(0) => Ok(true),
            Some(code) if code == -libc::ENOENT => Ok(false),
            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())).context("SOCK_DESTROY"),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context("SOCK_DESTROY"),
        }
    }
}

/// Asks for the end of the server's side of a connection.
fn request(ends: &Ends) -> Vec<u8> {
    let mut message = Vec::with_capacity(MESSAGE_HEADER + REQUEST);
    message.extend(((MESSAGE_HEADER + REQUEST) as u32).to_ne_bytes());
    message.extend(SOCK_DESTROY.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence number, port
    let family = if ends.family == 4 { libc::AF_INET } else { libc::AF_INET6 };
    message.extend([family as u8, TCP, 0, 0]);
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
    message.extend([0xff; 8]); // whatever its cookie is
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
        let message = request(&ends);
        assert_eq!(message.len(), MESSAGE_HEADER + REQUEST);
        assert_eq!(message[16..18], [2, 6], "AF_INET, TCP");
        assert_eq!(message[24..28], [1, 187, 195, 80]);
        assert_eq!(message[28..32], [198, 19, 0, 1]);
        assert_eq!(message[44..48], [198, 18, 0, 7]);
    }
}
