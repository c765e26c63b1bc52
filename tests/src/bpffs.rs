//! BPF file systems of tests: each directory of a test has one of its own, and what is pinned there ends with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::cleanup;

/// Mounts one below `directory`, which is a private one of this run; where it is.
pub fn below(directory: &Path) -> Result<PathBuf> {
    let place = cleanup::bpffs(directory);
    if !place.exists() {
        fs::create_dir(&place)?;
        let mounted = mount(Some("bpf"), &place, Some("bpf"), MsFlags::empty(), Some("mode=0700"));
        mounted.with_context(|| format!("mounting a bpf file system at {}", place.display()))?;
    }
    Ok(place)
}

/// What the kernel itself puts into each (kernel/bpf/inode.c, with CONFIG_BPF_PRELOAD).
const OF_THE_KERNEL: [&str; 2] = ["maps.debug", "progs.debug"];

/// Every name in it that somebody has made, as paths from its root.
pub fn names(place: &Path) -> Result<Vec<String>> {
    let (mut names, mut open) = (Vec::new(), vec![place.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            names.push(path.strip_prefix(place)?.display().to_string());
            open.extend(path.is_dir().then_some(path));
        }
    }
    names.retain(|name| !OF_THE_KERNEL.contains(&name.as_str()));
    names.sort();
    Ok(names)
}
