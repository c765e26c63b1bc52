//! Throw-away network namespaces: a client and a server with one wire between them.
//!
//! All traffic of tests and demo stays inside. Addresses are those of RFC 2544 (198.18.0.0/15) and RFC 3849
//! (2001:db8::/32), so even a mistake in routing would reach nobody.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    os::unix::fs::MetadataExt,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::{
    bpf::{Program, XDP_PASS},
    cleanup::{self, Owned},
    process,
};

/// The server's addresses, on-link for all clients.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// See [`SERVER_V4`].
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The wire's name on both sides.
pub const WIRE: &str = "eth0";
/// Sources that the client side can speak as.
pub const SOURCES: u8 = 9;

/// For commands that only configure.
const PATIENCE: Duration = Duration::from_secs(20);

/// `ip netns add` prepares a shared mount on first use; two at once may trip over each other.
static ADDING: Mutex<()> = Mutex::new(());
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A network namespace that ends with this value, and everything in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    _owned: Owned,
}

impl Netns {
    /// Makes an empty one; `role` appears in its name.
    pub fn new(role: &str) -> Result<Self> {
        let name = cleanup::name(role, NUMBER.fetch_add(1, Ordering::Relaxed));
        let owned = Owned::namespace(&name);
        let adding = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
        let made = process::run(Command::new("ip").args(["netns", "add", &name]), PATIENCE)?;
        drop(adding);
        made.success("ip netns add").context("cannot make a network namespace; this needs root")?;
        Ok(Self { name, _owned: owned })
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `program`, to be run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `ip -n NAME` with these words.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(words.split_whitespace());
        process::run(&mut command, PATIENCE)?.success(&format!("ip {words}"))
    }

    /// Calls `f` on a thread inside and waits for it.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.join()?;
                f()
            });
            inside.join().map_err(|_| anyhow!("a thread in {} panicked", self.name))?
        })
    }

    /// Calls `f` on a thread inside that goes on by itself.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let path = self.path();
        thread::spawn(move || {
            join(&path)?;
            f()
        })
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    fn join(&self) -> Result<()> {
        join(&self.path())
    }
}

fn join(path: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))?;
    assert_inside()
}

/// Fails on a thread that is in the same network namespace as the process itself: nothing may be sent from there.
pub fn assert_inside() -> Result<()> {
    let thread = std::fs::metadata("/proc/thread-self/ns/net")?;
    let process = std::fs::metadata("/proc/self/ns/net")?;
    if (thread.dev(), thread.ino()) == (process.dev(), process.ino()) {
        bail!("this thread is not in a namespace of its own; refusing to send from here");
    }
    Ok(())
}

/// A client and a server with one wire between them.
#[derive(Debug)]
pub struct Lab {
    /// Has the addresses of [`source_v4`] and [`source_v6`] for 1 to [`SOURCES`].
    pub client: Netns,
    /// Has [`SERVER_V4`] and [`SERVER_V6`].
    pub server: Netns,
}

impl Lab {
    /// Makes both, wires them and waits for nothing: addresses need no detection of duplicates here.
    pub fn new() -> Result<Self> {
        let lab = Self::unwired()?;
        let (client, server) = (lab.client.name(), lab.server.name());
        let link = format!("link add {WIRE} type veth peer name {WIRE} netns {server}");
        lab.client.ip(&link).with_context(|| format!("cannot wire {client} to {server}"))?;
        lab.set_up()?;
        Ok(lab)
    }

    /// Both, and nothing in them.
    pub(crate) fn unwired() -> Result<Self> {
        Ok(Self { client: Netns::new("client")?, server: Netns::new("server")? })
    }

    /// Gives both ends of the wire their addresses.
    pub(crate) fn set_up(&self) -> Result<()> {
        let mut batch = String::new();
        for source in 1..=SOURCES {
            batch += &format!("addr add {}/15 dev {WIRE}\n", source_v4(source));
            batch += &format!("addr add {}/32 dev {WIRE} nodad\n", source_v6(source));
        }
        set_up(&self.client, &batch)?;
        let addresses =
            format!("addr add {SERVER_V4}/15 dev {WIRE}\naddr add {SERVER_V6}/32 dev {WIRE} nodad\n");
        set_up(&self.server, &addresses)
    }

    /// Lets frames that the server's program sends itself reach the client for as long as the answer lives: a veth device
    /// takes them from the other end only where it runs a program too.
    pub fn hear_answers(&self) -> Result<OwnedFd> {
        let program = Program::constant(XDP_PASS)?;
        self.client.enter(|| program.attach(nix::net::if_::if_nametoindex(WIRE)?))
    }

    /// The server's address in the family of `source`.
    pub fn server_address(source: IpAddr) -> IpAddr {
        if source.is_ipv4() { SERVER_V4.into() } else { SERVER_V6.into() }
    }
}

/// Source number `n`: each lies in a /24 of its own.
pub const fn source_v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, n, 2)
}

/// Source number `n`: each lies in a /48 of its own.
pub const fn source_v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, n as u16, 0, 0, 0, 0, 2)
}

fn set_up(netns: &Netns, addresses: &str) -> Result<()> {
    let (batch_owned, dir) = Owned::directory()?;
    let batch = dir.join("batch");
    std::fs::write(&batch, format!("{addresses}link set lo up\nlink set {WIRE} up\n"))?;
    netns.ip(&format!("-batch {}", batch.display()))?;
    drop(batch_owned);
    Ok(())
}
