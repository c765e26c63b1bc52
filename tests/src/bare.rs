//! The smallest XDP programs there are: they return a constant. What the benchmark compares with.
//!
//! Assembled by hand and loaded by bpf(2): they would otherwise have to be in the daemon's object.
#![allow(unsafe_code, reason = "aya loads objects only; two instructions need bpf(2)")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

/// Commands and types of bpf(2) (linux/bpf.h).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// `struct bpf_attr` as the command for loading reads it, up to `prog_flags`.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// `struct bpf_attr` as the command for test runs reads it, up to `duration`.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    returned: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// A program that returns one action for every frame.
#[derive(Debug)]
pub struct Bare(OwnedFd);

impl Bare {
    /// Loads `r0 = action; exit`.
    pub fn load(action: u32) -> io::Result<Self> {
        // An instruction is opcode, registers, offset (16 bits), immediate (32 bits): 0xb7 moves it to r0, 0x95 exits.
        let mut code = [0u8; 16];
        code[0] = 0xb7;
        code[4..8].copy_from_slice(&action.to_ne_bytes());
        code[8] = 0x95;
        let mut attributes = Load {
            kind: BPF_PROG_TYPE_XDP,
            instructions: 2,
            code: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            ..Load::default()
        };
        let descriptor = bpf(BPF_PROG_LOAD, &mut attributes)?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Mean time of one of `repeat` runs on a frame.
    pub fn run(&self, frame: &[u8], repeat: u32) -> io::Result<Duration> {
        let mut attributes = Run {
            program: self.0.as_raw_fd() as u32,
            size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat,
            ..Run::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
        Ok(Duration::from_nanos(u64::from(attributes.duration)))
    }
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `T` is one of the two layouts above, both of integers only and valid for the size that is passed; the
    // pointers in it lead to buffers that the callers hold until this returns.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}
