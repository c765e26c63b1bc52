//! Where pins can be: finds the BPF file system behind `kernel.pin_directory`, or mounts it at its usual place.
//!
//! Called by `pins` alone. A bpffs belongs to the mount namespace that it was mounted in, and with it go its pins.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use tracing::{info, warn};

use crate::fault;

/// Where systemd mounts it, and everybody looks for it.
const USUAL: &str = "/sys/fs/bpf";

/// Permission of the group and of all others to write.
const WRITABLE: u32 = 0o022;

/// Makes `directory`, on a bpffs that is there or can be mounted. Nobody but its owner may enter: a pin that can be opened is
/// a map that can be written.
pub(super) fn make(directory: &Path) -> Result<()> {
    let there = nearest(directory);
    if !is_bpffs(there) {
        if !directory.starts_with(USUAL) {
            bail!(fault::configuration(format!(
                "kernel.pin_directory: {} is on no bpf file system; mount one there (`mount -t bpf bpf {}`), name a directory below {USUAL}, or set kernel.persist = false",
                there.display(),
                directory.parent().unwrap_or(directory).display()
            )));
        }
        mount_usual()?;
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| explain(&error, directory))?;
    refuse_strangers(directory)
}

/// Refuses a directory that was there before and that others own or may write to: they could exchange what is pinned.
fn refuse_strangers(directory: &Path) -> Result<()> {
    let found = fs::metadata(directory).map_err(|error| explain(&error, directory))?;
    let user = nix::unistd::geteuid();
    let wrong = if found.uid() != user.as_raw() {
        format!("belongs to user {} and not to {user}", found.uid())
    } else if found.mode() & WRITABLE != 0 {
        format!("can be written by others (mode {:o})", found.mode() & 0o7777)
    } else {
        return Ok(());
    };
    let place = directory.display();
    bail!(fault::permission(format!(
        "kernel.pin_directory: {place} {wrong}: `chown {user} {place}` and `chmod 700 {place}` if what is pinned there can be trusted, otherwise `enforcer detach --pin-directory {place}`"
    )))
}

/// Whether `directory` exists and is on a bpffs.
pub(super) fn exists(directory: &Path) -> bool {
    directory.is_dir() && is_bpffs(directory)
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// The directory itself, or the nearest above it that exists and may be looked at.
fn nearest(directory: &Path) -> &Path {
    directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn mount_usual() -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(error) = mount(Some("bpf"), USUAL, Some("bpf"), flags, Some("mode=0700")) {
        let how = format!(
            "no bpf file system is mounted at {USUAL}, and this process may not mount it ({error}): run `mount -t bpf bpf {USUAL}` as root, use the packaged systemd unit, or set kernel.persist = false"
        );
        return Err(if error == nix::errno::Errno::EPERM {
            fault::permission(how)
        } else {
            anyhow::anyhow!(how)
        });
    }
    info!(at = USUAL, "mounted the bpf file system");
    let namespace = |process: &str| fs::metadata(format!("/proc/{process}/ns/mnt")).map(|meta| meta.ino());
    if let (Ok(own), Ok(first)) = (namespace("self"), namespace("1"))
        && own != first
    {
        warn!(
            at = USUAL,
            "the bpf file system was mounted in a mount namespace of its own: what is pinned there ends with the last process of that namespace"
        );
    }
    Ok(())
}

fn explain(error: &io::Error, directory: &Path) -> anyhow::Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        let user = nix::unistd::geteuid();
        return fault::permission(format!(
            "kernel.pin_directory: {} cannot be made or entered by user {user}: as root, `mkdir {}` and `chown` it to the service's user (the packaged unit does), or set kernel.persist = false",
            directory.display(),
            directory.display()
        ));
    }
    anyhow::anyhow!("kernel.pin_directory: cannot make {}: {error}", directory.display())
}

/// Everything in `directory`, sorted.
pub(super) fn list(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let read = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut entries = read
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .with_context(|| format!("reading {}", directory.display()))?;
    entries.sort();
    Ok(entries)
}
