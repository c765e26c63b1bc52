//! The XDP program: what the kernel and the process must bring along for it, and how it is loaded.
//!
//! Called by `Kernel::load`, and by tests and benchmarks, which run it on frames without attaching it. Every error is one
//! line that says what to do.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, MapError},
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
    util::KernelVersion,
};
use enforcer_common::{flow, limiter::SLOTS, maps};

use super::layout::Layout;
use crate::{config::MAX_ALLOW, fault};

/// The object that build.rs made; empty if there was no toolchain for it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/enforcer-xdp"));

/// The name of the program in the object, and of the entry function.
const NAME: &str = "enforcer";

/// The global that switches diagnostics on.
const DIAGNOSTICS: &str = "DIAGNOSTICS";

/// Bans of prefixes that are no single source: the tries hold so many besides all allowances. A lookup walks one node of
/// a trie per branching bit, and memory that it does not find in a cache costs most; a trie is also freed node by node, by
/// one CPU.
pub const PREFIX_BANS: u32 = 100_000;

/// Allowances of operators that the tries have room for.
pub const OPERATOR_ALLOWANCES: u32 = 4_096;

/// Prefixes that operators have put into tiers, that the tries have room for.
pub const OPERATOR_TIERS: u32 = 4_096;

/// Bans that the table of sources has room for, whether there are any or not: together with the sources of the default
/// configuration 16 MiB.
const EXPECTED_BANS: u32 = 100_000;

/// Entries per family. Configured prefixes count twice: a reload lists the new ones before it takes the old ones off.
const MAX_PREFIXES: u32 = PREFIX_BANS + OPERATOR_ALLOWANCES + OPERATOR_TIERS + 2 * MAX_ALLOW as u32;

/// Buckets of the flow table, a power of two: 65,536 flows that await a hello or have lately had one. Their words take 512 KiB,
/// which stay in the cache of a processor; their entries take 16 MiB.
pub(super) const FLOW_BUCKETS: u32 = 1 << 13;

/// The oldest kernel that has what the program needs: multi-buffer XDP is of 5.18, and 6.1 is the oldest long-term
/// series behind it.
const FLOOR: (u8, u8, u16) = (6, 1, 0);

/// Capabilities by their numbers in `linux/capability.h`.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// Implies CAP_PERFMON and CAP_BPF (capabilities(7)).
const CAP_SYS_ADMIN: u32 = 21;

/// Lines of the verifier's log that are shown: the instruction that it refused, and how it came there.
const VERIFIER_LINES: usize = 8;

/// How much longer than the packet an answer to it can be, in bytes: headers and options that were not there.
const GROWTH: usize = 128;

/// How much the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Exact bans, at most.
    bans: u32,
    /// Exact bans that the table of sources has room for. Its memory is taken at once; what is beyond lies in a map that grows.
    expected: u32,
    /// Sources per limit; rounded up to a power of two of at least one bucket.
    sources: u32,
}

impl Sizes {
    /// Room for so many exact bans in the table itself, and for sources.
    pub const fn new(bans: u32, sources: u32) -> Self {
        Self { bans, expected: bans, sources }
    }

    /// The same, with room in the table for as many bans as there may soon be, if there are `known` now.
    pub fn growing(bans: u32, known: usize, sources: u32) -> Self {
        let known = u32::try_from(known).unwrap_or(u32::MAX);
        Self { bans, expected: known.saturating_mul(2).max(EXPECTED_BANS).min(bans), sources }
    }

    /// Buckets per limiter table besides the table of sources: a power of two.
    pub fn buckets(&self) -> u32 {
        buckets(u64::from(self.sources))
    }

    /// Buckets of the table of further budgets, of which a source may have several: see
    /// [`enforcer_common::settings::Settings::budget_mask`].
    pub fn budget_buckets(&self) -> u32 {
        2 * self.buckets()
    }

    /// Buckets of the table of sources, which holds the bans as well: a power of two. Twice the slots that both need, so that buckets
    /// that overflow stay rare: with a million bans in four million slots one ban in forty spills over.
    pub fn source_buckets(&self) -> u32 {
        buckets(2 * (u64::from(self.sources) + u64::from(self.expected)))
    }

    /// Entries of every map whose size is not fixed.
    fn maps(&self) -> [(&'static str, u32); 12] {
        let [sources, connections, hellos, quic, bytes] = maps::LIMITERS;
        [
            (sources, self.source_buckets()),
            (maps::SPILLED, self.source_buckets().div_ceil(u64::BITS)),
            (maps::BANS, self.bans.max(1)),
            (connections, self.buckets()),
            (hellos, self.buckets()),
            (quic, self.buckets()),
            (bytes, self.buckets()),
            (maps::BUDGETS, self.budget_buckets()),
            (maps::LISTED_V4, MAX_PREFIXES),
            (maps::LISTED_V6, MAX_PREFIXES),
            (maps::FLOW_WORDS, FLOW_BUCKETS),
            (maps::FLOWS, FLOW_BUCKETS * flow::SLOTS as u32),
        ]
    }
}

fn buckets(slots: u64) -> u32 {
    (slots.clamp(SLOTS as u64, 1 << 30).next_power_of_two() / SLOTS as u64) as u32
}

/// The loaded program and its maps. Whatever is attached through it is detached when it is dropped.
#[derive(Debug)]
pub struct Program {
    ebpf: Ebpf,
}

/// What came of running the program on a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it returned: 1 is XDP_DROP, 2 is XDP_PASS, 3 is XDP_TX.
    pub action: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// Mean time of one run, as the kernel measured it.
    pub duration: Duration,
}

impl Program {
    /// Loads the program with maps of these sizes and verifies it; nothing is attached yet.
    pub fn load(sizes: Sizes, diagnostics: bool) -> Result<Self> {
        Self::load_over(sizes, diagnostics, None)
    }

    /// As [`Program::load`], but with the maps that are pinned in a directory, if one is given. They have been compared with
    /// the layout before: aya takes whatever lies there.
    pub(super) fn load_over(
        sizes: Sizes,
        diagnostics: bool,
        pinned: Option<(&Layout, &Path)>,
    ) -> Result<Self> {
        Self::require()?;
        // No RLIMIT_MEMLOCK: since 5.11 maps are charged to the memory control group.
        let diagnostics = u32::from(diagnostics);
        let mut loader = EbpfLoader::new();
        loader.override_global(DIAGNOSTICS, &diagnostics, true);
        for (name, entries) in sizes.maps() {
            loader.map_max_entries(name, entries);
        }
        if let Some((layout, directory)) = pinned {
            for name in layout.maps() {
                loader.map_pin_path(name, directory.join(name));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(explain_load)?;
        xdp(&mut ebpf)?.load().map_err(|error| explain_load(EbpfError::ProgramError(error)))?;
        Ok(Self { ebpf })
    }

    /// The layout of the maps that [`Program::load`] makes. `meaning` is what their content depends on besides.
    pub(super) fn layout(sizes: Sizes, meaning: u64) -> Result<Layout> {
        Self::require()?;
        Layout::of(OBJECT, &sizes.maps(), meaning)
    }

    /// Whether this build, this kernel and this process can have the program at all.
    fn require() -> Result<()> {
        ensure!(
            !OBJECT.is_empty(),
            "this enforcer was built without its XDP program: run `cargo xtask setup` and build again, or set kernel.mode = \"off\""
        );
        let version =
            KernelVersion::current().map_err(|error| anyhow!("the kernel's version is unknown: {error}"))?;
        require_floor(version.code(), &release())?;
        require_capabilities(&std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?)
    }

    /// Runs the program `repeat` times on a frame, without any interface.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<Outcome> {
        let mut left = vec![0; frame.len() + GROWTH];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut left),
            repeat,
            ..TestRunOptions::new()
        };
        let program = self.ebpf.program(NAME).ok_or_else(|| anyhow!("the object has no program {NAME}"))?;
        let result = <&Xdp>::try_from(program)?.test_run(options).context("BPF_PROG_TEST_RUN")?;
        left.truncate(result.data_size_out as usize);
        Ok(Outcome { action: result.return_value, frame: left, duration: result.duration })
    }

    /// Instructions that the verifier walked through; it gives up at a million.
    pub fn verified_instructions(&self) -> Result<Option<u32>> {
        let program = self.ebpf.program(NAME).ok_or_else(|| anyhow!("the object has no program {NAME}"))?;
        Ok(program.info()?.verified_instruction_count())
    }

    /// The kernel's number of the program.
    pub(super) fn id(&self) -> Result<u32> {
        let program = self.ebpf.program(NAME).ok_or_else(|| anyhow!("the object has no program {NAME}"))?;
        Ok(program.info()?.id())
    }

    /// The program itself, to attach it.
    pub(super) fn fd(&self) -> Result<BorrowedFd<'_>> {
        let program = self.ebpf.program(NAME).ok_or_else(|| anyhow!("the object has no program {NAME}"))?;
        Ok(<&Xdp>::try_from(program)?.fd()?.as_fd())
    }

    /// Gives a map a name on a bpffs.
    pub(super) fn pin_map(&self, name: &str, path: &Path) -> Result<()> {
        let map = self.ebpf.map(name).ok_or_else(|| anyhow!("the object has no map {name}"))?;
        Ok(map.pin(path)?)
    }

    /// For aya-log, which takes its ring buffer out.
    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// A handle of its own on a map of the object; see `enforcer_common::maps` for the names.
    pub fn map(&self, name: &str) -> Result<Map> {
        let map = self.ebpf.map(name).ok_or_else(|| anyhow!("the object has no map {name}"))?;
        let (Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)) = map
        else {
            bail!("the map {name} is of another type than expected");
        };
        let descriptor = data
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .with_context(|| format!("map {name}: duplicating its descriptor"))?;
        Ok(Map::from_map_data(MapData::from_fd(descriptor)?)?)
    }
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf.program_mut(NAME).ok_or_else(|| anyhow!("the object has no program {NAME}"))?;
    Ok(program.try_into()?)
}

fn release() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "of unknown version".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

fn require_floor(version: u32, release: &str) -> Result<()> {
    let floor = KernelVersion::new(FLOOR.0, FLOOR.1, FLOOR.2);
    ensure!(
        version >= floor.code(),
        "Linux {release} is too old: the XDP program needs {}.{} or newer; set kernel.mode = \"off\" to run without it",
        FLOOR.0,
        FLOOR.1
    );
    Ok(())
}

/// Names the missing capabilities; `status` is `/proc/self/status`.
fn require_capabilities(status: &str) -> Result<()> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |number: u32| effective & (1 << number) != 0;
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(number, name)| !has(*number) && (*name == "CAP_NET_ADMIN" || !has(CAP_SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(fault::permission(format!(
        "no privilege to load the XDP program: {} missing; run as root, or through the systemd unit, which grants them",
        missing.join(" and ")
    )))
}

/// One line for what may go wrong while loading.
fn explain_load(error: EbpfError) -> anyhow::Error {
    if let EbpfError::ProgramError(ProgramError::LoadError { io_error, verifier_log }) = &error {
        let log = verifier_log.to_string();
        if io_error.kind() == io::ErrorKind::PermissionDenied && log.trim().is_empty() {
            return denied(io_error);
        }
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join(" | ");
        return anyhow!(
            "the kernel ({}) refused the XDP program: {io_error}; please report this with the verifier's last words: {tail}",
            release()
        );
    }
    if let EbpfError::MapError(MapError::CreateError { name, io_error }) = &error {
        return match io_error.raw_os_error() {
            Some(libc::EPERM) => denied(io_error),
            Some(libc::ENOMEM) => anyhow!(
                "no memory for the map {name}: lower kernel.limits.max_sources or bans.max_entries, or raise the service's MemoryMax"
            ),
            _ => anyhow!("the map {name} could not be made: {io_error}"),
        };
    }
    anyhow::Error::new(error).context("loading the XDP program")
}

fn denied(error: &io::Error) -> anyhow::Error {
    fault::permission(format!(
        "the kernel denies BPF to this process ({error}) although it has the capabilities: a user namespace, a container's seccomp profile or kernel lockdown forbids bpf(2)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_bans_in_the_table_follows_what_is_remembered() {
        let slots =
            |known| u64::from(Sizes::growing(1_100_000, known, 262_144).source_buckets()) * SLOTS as u64;
        assert_eq!([slots(0), slots(100_000)], [1 << 20, 1 << 20]);
        assert_eq!([slots(200_000), slots(1_000_000), slots(usize::MAX)], [1 << 21, 1 << 22, 1 << 22]);
        let few = Sizes::growing(16, 0, 1);
        assert_eq!(few, Sizes::new(16, 1), "no more than there may be");
        assert!(Sizes::growing(1_100_000, 0, 1).maps().contains(&(maps::BANS, 1_100_000)));
    }

    #[test]
    fn an_old_kernel_is_refused_in_one_line() {
        let old = KernelVersion::new(5, 10, 262).code();
        let message = require_floor(old, "5.10.0-40-amd64").unwrap_err().to_string();
        assert!(message.contains("5.10.0-40-amd64") && message.contains("6.1") && !message.contains('\n'));
        require_floor(KernelVersion::new(6, 1, 0).code(), "6.1.0").unwrap();
    }

    #[test]
    fn missing_capabilities_are_named() {
        let message = require_capabilities("Name:\tx\nCapEff:\t0000000000000000\n").unwrap_err().to_string();
        assert!(message.contains("CAP_NET_ADMIN and CAP_PERFMON and CAP_BPF"), "{message}");
        let message = require_capabilities("CapEff:\t0000008000000000\n").unwrap_err().to_string();
        assert!(!message.contains("CAP_BPF") && message.contains("CAP_PERFMON"), "{message}");
        require_capabilities("CapEff:\t000000c000001000\n").unwrap();
        // CAP_SYS_ADMIN stands for the two newer ones.
        require_capabilities("CapEff:\t0000000000201000\n").unwrap();
    }

    #[test]
    fn tables_have_a_power_of_two_of_buckets() {
        let buckets = |sources| Sizes::new(1, sources).buckets();
        assert_eq!([buckets(0), buckets(1), buckets(5), buckets(1024)], [1, 1, 2, 256]);
        let sources = |bans, sources| Sizes::new(bans, sources).source_buckets();
        assert_eq!([sources(0, 1), sources(1, 1), sources(1_000_000, 262_144)], [1, 1, 1 << 20]);
    }
}
