//! Takes everything away that daemons have pinned in a directory: program, links, maps. Needs no daemon and no
//! configuration; `enforcer detach` calls it.

use std::path::Path;

use anyhow::{Result, bail};

use super::{bpffs, pins, pins::Pins};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// There is no such directory on a BPF file system.
    Nothing,
    /// Everything is gone; so many interfaces had the program.
    Interfaces(usize),
}

/// Detaches and removes all that is pinned in `directory`. While a daemon runs on it, only with `force`.
pub fn detach(directory: &Path, force: bool) -> Result<Detached> {
    if !bpffs::exists(directory) {
        return Ok(Detached::Nothing);
    }
    match Pins::find(directory)? {
        Some(pins) => pins.remove_all(),
        None if force => pins::remove_all(directory),
        None => bail!(
            "an enforcer is running on {}: stop it first, or use --force, after which it judges no packet",
            directory.display()
        ),
    }
    .map(Detached::Interfaces)
}
