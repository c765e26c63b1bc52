//! Sees what arrives behind the program: a packet socket, which the kernel feeds with whatever XDP has let through.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};

use crate::netns::Netns;

/// Room for everything that a bounded flood could send between two looks, bytes.
const BUFFER: usize = 256 << 20;

/// A tap on every interface of a namespace.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    seen: Mutex<HashMap<IpAddr, u64>>,
}

impl Tap {
    /// Begins to see.
    pub fn open(netns: &Netns) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            netns.enter(|| Ok(socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?))?;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        Ok(Self { socket, seen: Mutex::default() })
    }

    /// IP packets from `source` that have arrived so far.
    pub fn seen(&self, source: IpAddr) -> Result<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frame = [0; 64];
        loop {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => {
                    if let Some(from) = sender(&frame[..length]) {
                        *seen.entry(from).or_default() += 1;
                    }
                }
                Err(Errno::EAGAIN) => return Ok(seen.get(&source).copied().unwrap_or_default()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The source address of an Ethernet frame that holds IP.
fn sender(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(26..30)?).ok()?).into()),
        [0x86, 0xdd] => Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(22..38)?).ok()?).into()),
        _ => None,
    }
}
