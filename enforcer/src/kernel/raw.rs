//! The few bpf(2) commands on links and pins for which aya has no call, or none that leaves the link with us.
//!
//! Called by `attach`, `pins` and `detach`. aya's own way of attaching falls back to netlink, and what is attached like that
//! can neither be pinned nor replaced in one step (links of XDP are of Linux 5.9, so nothing here needs it).
#![allow(unsafe_code, reason = "aya has no call for these commands of bpf(2)")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Commands of bpf(2) (`enum bpf_cmd` of linux/bpf.h).
mod command {
    pub(super) const MAP_LOOKUP_ELEM: libc::c_long = 1;
    pub(super) const OBJ_PIN: libc::c_long = 6;
    pub(super) const OBJ_GET: libc::c_long = 7;
    pub(super) const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    pub(super) const LINK_CREATE: libc::c_long = 28;
    pub(super) const LINK_UPDATE: libc::c_long = 29;
    pub(super) const LINK_DETACH: libc::c_long = 34;
}

/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `BPF_LINK_TYPE_XDP` of `enum bpf_link_type`.
const LINK_XDP: u32 = 6;

/// Where on an interface the program sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// In the driver.
    Native,
    /// Behind it.
    Generic,
}

impl Hook {
    /// The name in `status` and in logs.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// `XDP_FLAGS_DRV_MODE` and `XDP_FLAGS_SKB_MODE` (linux/if_link.h).
    const fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The kernel's number of the link.
    pub(super) id: u32,
    /// The number of the program on it.
    pub(super) program: u32,
    /// The interface; 0 once that is gone.
    pub(super) interface: u32,
}

/// Attaches a program to an interface.
pub(super) fn link_create(program: BorrowedFd<'_>, interface: u32, hook: Hook) -> io::Result<OwnedFd> {
    let attributes = [program.as_raw_fd() as u32, interface, ATTACH_XDP, hook.flags()];
    descriptor(call(command::LINK_CREATE, &attributes)?)
}

/// Puts another program on a link: every packet meets the old one or the new one.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    call(command::LINK_UPDATE, &[link.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0]).map(drop)
}

/// Takes the program off the interface, whoever else holds the link (Linux 5.9).
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    call(command::LINK_DETACH, &[link.as_raw_fd() as u32]).map(drop)
}

/// What a link is on; an error for links that are not XDP's.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // `struct bpf_link_info`: type, id and program, then, aligned to 8 bytes, what is particular to the type.
    let mut info = [0u32; 32];
    let address = info.as_mut_ptr() as u64;
    let attributes =
        [link.as_raw_fd() as u32, size_of_val(&info) as u32, address as u32, (address >> 32) as u32];
    call(command::OBJ_GET_INFO_BY_FD, &attributes)?;
    let [kind, id, program, _, interface, ..] = info;
    if kind == LINK_XDP {
        Ok(LinkInfo { id, program, interface })
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "not a link of an XDP program"))
    }
}

/// The first value of an array map whose values have `size` bytes, which the caller has asked the kernel for.
pub(super) fn first_value(map: BorrowedFd<'_>, size: usize) -> io::Result<Vec<u8>> {
    let key = 0u32;
    // Some more than asked for: the kernel rounds sizes up to 8 bytes.
    let mut value = vec![0u8; size.next_multiple_of(8)];
    let (key_at, value_at) = (&raw const key as u64, value.as_mut_ptr() as u64);
    let [map, none] = [map.as_raw_fd() as u32, 0];
    let attributes =
        [map, none, key_at as u32, (key_at >> 32) as u32, value_at as u32, (value_at >> 32) as u32, 0, 0];
    call(command::MAP_LOOKUP_ELEM, &attributes)?;
    value.truncate(size);
    Ok(value)
}

/// Gives an object a name on a bpffs, which keeps it.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    with_path(path, |address| {
        let attributes = [address as u32, (address >> 32) as u32, object.as_raw_fd() as u32, 0];
        call(command::OBJ_PIN, &attributes).map(drop)
    })
}

/// The object of a name on a bpffs.
pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    with_path(path, |address| {
        descriptor(call(command::OBJ_GET, &[address as u32, (address >> 32) as u32, 0, 0])?)
    })
}

fn with_path<T>(path: &Path, run: impl FnOnce(u64) -> io::Result<T>) -> io::Result<T> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    run(path.as_ptr() as u64)
}

/// `attributes` is the beginning of `union bpf_attr`; the kernel takes the rest as zero. 64-bit members are split low word
/// first, as on the little-endian machines that this is built for.
fn call(command: libc::c_long, attributes: &[u32]) -> io::Result<libc::c_long> {
    const { assert!(cfg!(target_endian = "little")) };
    // The kernel reads 64-bit members; it copies them, so their alignment does not matter.
    // SAFETY: the kernel reads `size_of_val(attributes)` bytes there; addresses in it are of memory that its callers hold.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(number: libc::c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just made it for us, close-on-exec as all of bpf(2)'s.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
