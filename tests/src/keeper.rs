//! What a service manager does for a daemon: keeps the sockets that it is given (sd_notify(3), `FDSTORE=1`), and hands them to the
//! next process (sd_listen_fds(3)).
#![allow(unsafe_code, reason = "descriptors that a message brings are numbers, which nobody else owns")]

use std::{
    io::IoSliceMut,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg},
};

use crate::netns::Netns;

/// Descriptors for the next process are duplicated to numbers from here on, out of the way of those that it gets them by.
const FIRST: i32 = 200;

/// Keeps sockets for one daemon after the other.
#[derive(Debug)]
pub struct Keeper {
    socket: UnixDatagram,
    path: PathBuf,
    kept: Vec<OwnedFd>,
    ready: u64,
}

impl Keeper {
    /// Listens below `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path, kept: Vec::new(), ready: 0 })
    }

    /// Reads what daemons have said so far.
    fn listen(&mut self) -> Result<()> {
        loop {
            let mut text = [0; 4096];
            let mut room = nix::cmsg_space!([i32; 16]);
            let mut pieces = [IoSliceMut::new(&mut text)];
            let descriptor = self.socket.as_raw_fd();
            let told =
                recvmsg::<UnixAddr>(descriptor, &mut pieces, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC);
            let told = match told {
                Err(Errno::EAGAIN) => return Ok(()),
                told => told.context("hearing what the daemon says")?,
            };
            for message in told.cmsgs()? {
                if let ControlMessageOwned::ScmRights(descriptors) = message {
                    // SAFETY: the kernel has just made them for this process, and they are told of once.
                    let owned = |descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) };
                    self.kept.extend(descriptors.into_iter().map(owned));
                }
            }
            let length = told.bytes;
            let text = String::from_utf8_lossy(&text[..length]);
            ensure!(!text.contains("FDSTOREREMOVE=1"), "a socket was let go: {text}");
            self.ready += u64::from(text.lines().any(|line| line == "READY=1"));
        }
    }

    /// How many daemons have said that they are up, and how many sockets are kept.
    pub fn heard(&mut self) -> Result<(u64, usize)> {
        self.listen()?;
        Ok((self.ready, self.kept.len()))
    }

    /// A command line in `netns` that becomes `daemon` with these words, and with all that is kept; and what it inherits, which has
    /// to live until it was started.
    pub fn command(&mut self, netns: &Netns, daemon: &Path, words: &str) -> Result<(Command, Vec<OwnedFd>)> {
        self.listen()?;
        let mut inherited = Vec::new();
        let mut moves = String::new();
        for (number, socket) in self.kept.iter().enumerate() {
            // SAFETY: the kernel has just made it.
            let copy = unsafe { OwnedFd::from_raw_fd(fcntl(socket, FcntlArg::F_DUPFD(FIRST))?) };
            moves += &format!("exec {}<&{1} {1}<&-; ", number + 3, copy.as_raw_fd());
            inherited.push(copy);
        }
        let listening = match self.kept.len() {
            0 => String::new(),
            count => format!("export LISTEN_PID=$$ LISTEN_FDS={count}; "),
        };
        let mut command = netns.command("bash");
        command.arg("-c").arg(format!("{moves}{listening}exec {} {words}", daemon.display()));
        command.env("NOTIFY_SOCKET", &self.path);
        Ok((command, inherited))
    }
}
