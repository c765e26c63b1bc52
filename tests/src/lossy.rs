//! A wire that loses frames at random, on every kernel: the two ends of a lab do not meet each other but a namespace in between, in which
//! threads carry each frame over, or lose it.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use enforcer_common::headers::Headers;
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::{
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send,
            setsockopt, socket,
            sockopt::{RcvBufForce, ReceiveTimeout},
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::{
    netns::{Lab, Netns, WIRE},
    packets::with_checksum,
};

/// Both ends of the namespace in between.
const LEFT: &str = "left";
const RIGHT: &str = "right";
/// Room for what comes while a thread waits for a CPU, bytes.
const BUFFER: usize = 16 << 20;
/// More than any frame of a wire without offloads.
const FRAME: usize = 1 << 16;
/// Between two looks at whether all is over, in milliseconds.
const LOOK: i64 = 50;
/// Knuth's multiplier and increment for 64 bits (MMIX); of the state only the upper bits are random.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;
const UPPER: u32 = 33;

/// The way between two ends; frames pass while this lives.
#[derive(Debug)]
pub struct Between {
    over: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
    _netns: Netns,
}

impl Between {
    /// TCP segments that were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A way that broke has shown it: nothing passed any more.
            let _ = thread.join();
        }
    }
}

impl Lab {
    /// As [`Lab::new`], with a wire that loses one in so many TCP segments in each direction; which ones, `seed` says.
    pub fn lossy(one_in: u64, seed: u64) -> Result<(Self, Between)> {
        let (lab, netns) = (Self::unwired()?, Netns::new("between")?);
        for (end, name) in [(&lab.client, LEFT), (&lab.server, RIGHT)] {
            let peer = netns.name();
            end.ip(&format!("link add {WIRE} type veth peer name {name} netns {peer}"))?;
            // Each segment in a frame of its own, so that one can get lost without the others.
            end.ip(&format!("link set {WIRE} gso_max_segs 1"))?;
            netns.ip(&format!("link set {name} up"))?;
        }
        lab.set_up()?;
        let [left, right] = netns.enter(|| Ok([open(LEFT)?, open(RIGHT)?]))?.map(Arc::new);
        let (over, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let carry = |from: &Arc<OwnedFd>, to: &Arc<OwnedFd>, seed| {
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            let (over, lost) = (Arc::clone(&over), Arc::clone(&lost));
            netns.spawn(move || carry(&from, &to, one_in, seed, &over, &lost))
        };
        let threads = vec![carry(&left, &right, seed), carry(&right, &left, !seed)];
        Ok((lab, Between { over, lost, threads, _netns: netns }))
    }
}

/// Sees and sends on one interface of this namespace. What it sends itself it does not see.
fn open(interface: &str) -> Result<OwnedFd> {
    let address = getifaddrs()?.find_map(|one| {
        let link: LinkAddr = *one.address?.as_link_addr()?;
        (one.interface_name == interface).then_some(link)
    });
    let address = address.with_context(|| format!("there is no {interface}"))?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    bind(socket.as_raw_fd(), &address)?;
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(LOOK))?;
    Ok(socket)
}

fn carry(
    from: &OwnedFd,
    to: &OwnedFd,
    one_in: u64,
    seed: u64,
    over: &AtomicBool,
    lost: &AtomicU64,
) -> Result<()> {
    let (mut room, mut state) = (vec![0; FRAME], seed);
    while !over.load(Relaxed) {
        let frame = match recv(from.as_raw_fd(), &mut room, MsgFlags::empty()) {
            Ok(length) => &room[..length],
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error).context("hearing"),
        };
        let mut sent = frame.to_vec();
        if Headers::of_tcp(&frame).is_some() {
            state = state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
            if (state >> UPPER).is_multiple_of(one_in) {
                lost.fetch_add(1, Relaxed);
                continue;
            }
            // The sender left it to its device.
            sent = with_checksum(sent);
        }
        match send(to.as_raw_fd(), &sent, MsgFlags::empty()) {
            // Lost without being asked for, as on any wire.
            Ok(_) | Err(Errno::ENOBUFS | Errno::ENETDOWN) => {}
            Err(error) => return Err(error).context("sending"),
        }
    }
    Ok(())
}
