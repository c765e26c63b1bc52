//! Records the TCP segments that one end of a wire sends and hears, with the instant of each: a packet socket, which sees what comes
//! behind that end's own program.

use std::{
    io::IoSliceMut,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use anyhow::Result;
use enforcer_common::headers::{Headers, Link};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
        socket,
        sockopt::{RcvBufForce, ReceiveTimestampns},
    },
};

use crate::netns::Netns;

/// Room for some hundred handshakes between two looks, bytes.
const BUFFER: usize = 16 << 20;
/// More than any frame of a wire without offloads.
const FRAME: usize = 1 << 16;

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// When, since 1970.
    pub at: Duration,
    /// Who sent it.
    pub from: IpAddr,
    /// Sequence number.
    pub sequence: u32,
    /// TCP flags.
    pub flags: u8,
    /// Its data.
    pub data: Vec<u8>,
}

/// A recorder in a namespace.
#[derive(Debug)]
pub struct Recorder {
    socket: OwnedFd,
}

impl Recorder {
    /// Begins to record.
    pub fn open(netns: &Netns) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            netns.enter(|| Ok(socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?))?;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        Ok(Self { socket })
    }

    /// What was recorded since this was asked last, in its order.
    pub fn take(&self) -> Result<Vec<Segment>> {
        let mut segments = Vec::new();
        let mut bytes = vec![0; FRAME];
        let mut room = nix::cmsg_space!(nix::sys::time::TimeSpec);
        loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let fd = self.socket.as_raw_fd();
            let (length, at) = match recvmsg::<()>(fd, &mut parts, Some(&mut room), MsgFlags::empty()) {
                Ok(message) => {
                    let instant = message.cmsgs()?.find_map(|control| {
                        let ControlMessageOwned::ScmTimestampns(instant) = control else { return None };
                        Some(instant.into())
                    });
                    (message.bytes, instant.unwrap_or_default())
                }
                Err(Errno::EAGAIN) => return Ok(segments),
                Err(error) => return Err(error.into()),
            };
            segments.extend(bytes.get(..length).and_then(|frame| segment(frame, at)));
        }
    }
}

fn segment(frame: &[u8], at: Duration) -> Option<Segment> {
    let headers = Headers::of_tcp(&frame)?;
    let [upper, lower] = headers.source.map(u128::from);
    let from = if headers.link == Link::Ipv4 {
        Ipv4Addr::from_bits(upper as u32).into()
    } else {
        Ipv6Addr::from_bits(upper << 64 | lower).into()
    };
    let data = frame.get(headers.offset..headers.end)?.to_vec();
    Some(Segment { at, from, sequence: headers.sequence, flags: headers.flags, data })
}
