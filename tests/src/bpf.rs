//! Small XDP programs assembled by hand, and bpf(2) to load and run them: what benchmarks measure by and compare with.
//!
//! They would otherwise have to be in the daemon's object, where they have no business.
#![allow(unsafe_code, reason = "aya loads objects only; a few instructions need bpf(2)")]

mod assemble;

use std::{
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use self::assemble::{Code, Keys, address};

/// Return values of XDP programs (linux/bpf.h).
pub const XDP_DROP: u32 = 1;
/// See [`XDP_DROP`].
pub const XDP_PASS: u32 = 2;

/// Commands, types and flags of bpf(2) (linux/bpf.h).
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
const BPF_MAP_TYPE_LRU_HASH: u32 = 9;
const BPF_MAP_TYPE_LPM_TRIE: u32 = 11;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The verifier's log, for when a program is refused.
const LOG: usize = 64 * 1024;

/// `union bpf_attr`: each command reads its own layout, and zeros beyond it.
#[derive(Default)]
struct Attributes([u64; 18]);

impl Attributes {
    fn put(&mut self, offset: usize, value: u32) -> &mut Self {
        let shift = 8 * (offset % 8);
        self.0[offset / 8] |= u64::from(value) << shift;
        self
    }

    fn put_long(&mut self, offset: usize, value: u64) -> &mut Self {
        self.0[offset / 8] = value;
        self
    }

    fn pointer<T>(&mut self, offset: usize, to: &[T]) -> &mut Self {
        self.put_long(offset, to.as_ptr() as u64)
    }

    fn get(&self, offset: usize) -> u32 {
        (self.0[offset / 8] >> (8 * (offset % 8))) as u32
    }

    fn call(&mut self, command: libc::c_long) -> io::Result<i32> {
        // SAFETY: the attributes are as large as is said, and the pointers in them lead to buffers that the callers hold
        // until this returns.
        let answer =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size_of_val(&self.0)) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
    }

    fn make(&mut self, command: libc::c_long) -> io::Result<OwnedFd> {
        let descriptor = self.call(command)?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

fn number(descriptor: &OwnedFd) -> u32 {
    descriptor.as_raw_fd() as u32
}

/// A map of the benchmark's own.
#[derive(Debug)]
pub struct Map(OwnedFd);

impl Map {
    /// A hash from `u32` to `u64` that holds 0 to `entries` - 1.
    pub fn hash(entries: u32) -> Result<Self> {
        let map = Self::create(BPF_MAP_TYPE_HASH, 8, entries).context("creating a hash")?;
        let keys: Vec<u32> = (0..entries).collect();
        map.fill(&keys).context("filling a hash")?;
        Ok(map)
    }

    /// An array of zeroes.
    pub fn array(entries: u32, value: u32) -> Result<Self> {
        Self::create(BPF_MAP_TYPE_ARRAY, value, entries).context("creating an array")
    }

    /// An empty hash from `u32` to `u64` that makes room by itself.
    pub fn lru(entries: u32) -> Result<Self> {
        Self::create(BPF_MAP_TYPE_LRU_HASH, 8, entries).context("creating a hash that forgets")
    }

    /// A trie of these IPv4 prefixes of 24 bits.
    pub fn trie(prefixes: impl Iterator<Item = u32>) -> Result<Self> {
        let keys: Vec<[u32; 2]> = prefixes.map(|prefix| [24, prefix.to_be()]).collect();
        let mut attributes = Attributes::default();
        attributes.put(0, BPF_MAP_TYPE_LPM_TRIE).put(4, 8).put(8, 8).put(12, keys.len() as u32);
        let map =
            Self(attributes.put(16, BPF_F_NO_PREALLOC).make(BPF_MAP_CREATE).context("creating a trie")?);
        map.fill(&keys).context("filling a trie")?;
        Ok(map)
    }

    fn fill<K>(&self, keys: &[K]) -> io::Result<()> {
        let values: Vec<u64> = (0..keys.len() as u64).collect();
        let mut attributes = Attributes::default();
        attributes.pointer(16, keys).pointer(24, &values).put(32, keys.len() as u32).put(36, number(&self.0));
        attributes.call(BPF_MAP_UPDATE_BATCH).map(drop)
    }

    /// Room for one program.
    pub fn programs() -> Result<Self> {
        Self::create(BPF_MAP_TYPE_PROG_ARRAY, 4, 1).context("creating a program array")
    }

    /// Two numbers for [`Code::pace`]: when the next frame is due, and how many were sent.
    pub fn pace(due: u64) -> Result<Self> {
        let map = Self::create(BPF_MAP_TYPE_ARRAY, 16, 1).context("creating an array")?;
        map.put(&[due, 0]).context("setting the pace")?;
        Ok(map)
    }

    /// How many frames were sent.
    pub fn sent(&self) -> Result<u64> {
        let (key, mut value) = ([0u32], [0u64; 2]);
        let mut attributes = Attributes::default();
        attributes.put(0, number(&self.0)).pointer(8, &key).put_long(16, value.as_mut_ptr() as u64);
        attributes.call(BPF_MAP_LOOKUP_ELEM).context("reading an array")?;
        Ok(value[1])
    }

    fn put<T>(&self, value: &[T]) -> io::Result<()> {
        let key = [0u32];
        let mut attributes = Attributes::default();
        attributes.put(0, number(&self.0)).pointer(8, &key).pointer(16, value);
        attributes.call(BPF_MAP_UPDATE_ELEM).map(drop)
    }

    fn create(kind: u32, value: u32, entries: u32) -> io::Result<Self> {
        let mut attributes = Attributes::default();
        attributes.put(0, kind).put(4, 4).put(8, value).put(12, entries);
        attributes.make(BPF_MAP_CREATE).map(Self)
    }

    /// Puts a program into its place.
    pub fn set(&self, program: &Program) -> Result<()> {
        self.put(&[number(&program.0)]).context("this program cannot be called from another one")
    }

    fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Which frames a program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Only those that lie in one piece of memory.
    Whole,
    /// Also those in several (Linux 5.18).
    InParts,
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// What a test run came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What the program returned last.
    pub action: u32,
    /// Mean time of a run, as the kernel measured it.
    pub duration: Duration,
}

impl Program {
    /// Loads instructions that may call programs that take frames in several parts, and be called by such.
    pub fn load(code: &Code) -> Result<Self> {
        Self::load_for(code, Frames::InParts)
    }

    /// Loads instructions for frames of one kind: the kernel lets programs call only their like.
    pub fn load_for(code: &Code, frames: Frames) -> Result<Self> {
        let mut log = vec![0u8; LOG];
        let mut attributes = Attributes::default();
        attributes.put(0, BPF_PROG_TYPE_XDP).put(4, code.instructions() as u32).pointer(8, code.bytes());
        attributes.put_long(16, c"GPL".as_ptr() as u64);
        attributes.put(24, 1).put(28, LOG as u32).pointer(32, &log);
        attributes.put(44, if frames == Frames::InParts { BPF_F_XDP_HAS_FRAGS } else { 0 }).put(68, BPF_XDP);
        let made = attributes.make(BPF_PROG_LOAD);
        log.retain(|byte| *byte != 0);
        made.map(Self).with_context(|| format!("the verifier: {}", String::from_utf8_lossy(&log).trim()))
    }

    /// A program that returns one action for every frame.
    pub fn constant(action: u32) -> Result<Self> {
        Self::constant_for(action, Frames::InParts)
    }

    /// As [`Program::constant`], for frames of one kind.
    pub fn constant_for(action: u32, frames: Frames) -> Result<Self> {
        Self::load_for(Code::default().constant(action), frames)
    }

    /// The program of this name that this process has loaded last, by aya for example: those hand out no descriptor.
    pub fn own(name: &str) -> Result<Self> {
        let mut found: Option<(u32, RawFd)> = None;
        let infos: Vec<_> = aya::programs::loaded_programs().flatten().collect();
        for entry in fs::read_dir("/proc/self/fd")?.flatten() {
            let Ok(number) = entry.file_name().to_string_lossy().parse::<RawFd>() else { continue };
            let Ok(text) = fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else { continue };
            let id = text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
            let Some(id) = id else { continue };
            let named = infos.iter().any(|info| info.id() == id && info.name_as_str() == Some(name));
            if named && found.is_none_or(|(newest, _)| id > newest) {
                found = Some((id, number));
            }
        }
        let (_, descriptor) = found.with_context(|| format!("this process has no program `{name}`"))?;
        // SAFETY: it was open a moment ago, and its owner is alive for as long as the caller measures it.
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        Ok(Self(borrowed.try_clone_to_owned()?))
    }

    /// Runs it `repeat` times on one frame. What it writes into the frame is there in the next run.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<Outcome> {
        let mut attributes = Attributes::default();
        attributes.put(0, number(&self.0)).put(8, frame.len() as u32).pointer(16, frame).put(32, repeat);
        attributes.call(BPF_PROG_TEST_RUN).context("BPF_PROG_TEST_RUN")?;
        let duration = Duration::from_nanos(u64::from(attributes.get(36)));
        Ok(Outcome { action: attributes.get(4), duration })
    }

    /// Runs it on `count` real frames: what it returns is done to them (Linux 5.18).
    pub fn send(&self, frame: &[u8], count: u32, batch: u32) -> Result<()> {
        ensure!(count > 0, "no frames to send");
        let mut attributes = Attributes::default();
        attributes.put(0, number(&self.0)).put(8, frame.len() as u32).pointer(16, frame).put(32, count);
        attributes.put(64, BPF_F_TEST_XDP_LIVE_FRAMES).put(72, batch);
        attributes.call(BPF_PROG_TEST_RUN).context("sending live frames")?;
        Ok(())
    }

    /// Attaches it to an interface, in its driver, for as long as the answer lives.
    pub fn attach(&self, interface: u32) -> Result<OwnedFd> {
        let mut attributes = Attributes::default();
        attributes.put(0, number(&self.0)).put(4, interface).put(8, BPF_XDP).put(12, XDP_FLAGS_DRV_MODE);
        attributes.make(BPF_LINK_CREATE).context("attaching to an interface")
    }
}
