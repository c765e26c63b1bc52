//! xdp-filter's own program with its own maps: the nearest thing that people can install instead.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{PerCpuHashMap, PerCpuValues},
    programs::Xdp,
    util::nr_cpus,
};

use crate::{bpf::Program, cleanup::Owned, process};

/// Passes what no list names; filters by IP address alone.
const OBJECT: &str = "bpf/xdpfilt_alw_ip.o";
/// Where Debian puts objects of programs.
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib"];
/// For mounting.
const PATIENCE: Duration = Duration::from_secs(10);
/// An address is listed as a source (xdp-filter's `common_kern_user.h`).
const AS_SOURCE: u64 = 1;

/// Loaded, with its list filled.
pub(super) struct Filter {
    pub(super) program: Program,
    _ebpf: Ebpf,
}

/// Where the object wants its maps pinned: nobody else is to find them, so the file system goes away after the load.
struct Pins {
    folder: PathBuf,
    _owned: Owned,
}

impl Pins {
    fn mount() -> Result<Self> {
        let (owned, folder) = Owned::directory()?;
        let mut mount = Command::new("mount");
        let done = process::run(mount.args(["-t", "bpf", "none"]).arg(&folder), PATIENCE)?;
        done.success("mount")?;
        Ok(Self { folder, _owned: owned })
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // A mount that stays behind holds no more than the two maps.
        let _ = process::run(Command::new("umount").arg(&self.folder), PATIENCE);
    }
}

impl Filter {
    /// Loads it with `banned` in its list.
    pub(super) fn load(banned: impl Iterator<Item = u32>, count: u32) -> Result<Self> {
        let places = LIBRARIES.map(|folder| Path::new(folder).join(OBJECT));
        let object = places.iter().find(|path| path.is_file());
        let object = object.with_context(|| format!("no {OBJECT}; `apt-get install xdp-tools` brings it"))?;
        let pins = Pins::mount()?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("filter_ipv4", count).default_map_pin_directory(&pins.folder);
        let mut ebpf = loader.load_file(object)?;
        drop(pins);
        let name = ebpf.programs().map(|(name, _)| name.to_owned()).next();
        let name = name.ok_or_else(|| anyhow!("{} holds no program", object.display()))?;
        let program: &mut Xdp = ebpf.program_mut(&name).context("the program")?.try_into()?;
        program.load()?;
        let shown = program.info()?.name_as_str().unwrap_or_default().to_owned();
        let cpus = nr_cpus().map_err(|(what, error)| anyhow!("{what}: {error}"))?;
        let map = ebpf.map_mut("filter_ipv4").context("the map")?;
        let mut list = PerCpuHashMap::<_, [u8; 4], u64>::try_from(map)?;
        for address in banned {
            list.insert(address.to_be_bytes(), PerCpuValues::try_from(vec![AS_SOURCE; cpus])?, 0)?;
        }
        Ok(Self { program: Program::own(&shown)?, _ebpf: ebpf })
    }
}
