//! Finds or installs what builds and system tests need. Idempotent; says each thing that it found or did, and for
//! each thing that it cannot do which commands would.
//!
//! `enforcer/build.rs` looks in the same places: the standard library's source in the active rustup toolchain, else in
//! another one of rustup's, else Debian's compiler in `/usr`; bpf-linker in `target/tools/bin`, else on `PATH`.

mod clients;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, find, has_capability, is_root, output, program, root, target};

/// The release that was proven with the pinned compiler and with Debian's: both bring LLVM 22.
const BPF_LINKER: &str = "0.10.4";
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// Where those packages put it.
const DEBIAN_SYSROOT: &str = "/usr";
/// Where a sysroot holds the source of the standard library.
const LIBRARY: &str = "lib/rustlib/src/rust/library";
/// The oldest supported kernel.
const KERNEL: (u32, u32) = (6, 1);
/// A download that takes longer than this many seconds is given up; the next source is tried.
const COMPONENT_SECONDS: &str = "60";

/// Programs and the Debian packages that bring them.
pub(crate) const TEST_PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("h2load", "nghttp2-client"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("sslscan", "sslscan"),
    ("testssl", "testssl.sh"),
];
/// What `bench edge` compares with and measures by.
pub(crate) const BENCH_PROGRAMS: &[(&str, &str)] =
    &[("haproxy", "haproxy"), ("nginx", "nginx"), ("h2load", "nghttp2-client"), ("wrk", "wrk")];

/// What `bench packet` compares with.
pub(crate) const PACKET_PROGRAMS: &[(&str, &str)] = &[("xdp-filter", "xdp-tools")];
/// What `bench flood` compares with and steers by.
pub(crate) const FLOOD_PROGRAMS: &[(&str, &str)] = &[("nft", "nftables"), ("chrt", "util-linux")];
/// What `bench bans` compares with.
pub(crate) const BANS_PROGRAMS: &[(&str, &str)] = &[("nft", "nftables")];
/// What boots a container of this machine, and looks at what it has attached.
pub(crate) const SERVICE_PROGRAMS: &[(&str, &str)] =
    &[("systemd-nspawn", "systemd-container"), ("bpftool", "bpftool"), ("pgrep", "procps")];
/// What boots other kernels and reads their packages.
pub(crate) const VM_PROGRAMS: &[(&str, &str)] =
    &[("qemu-system-x86_64", "qemu-system-x86"), ("xz", "xz-utils"), ("ldd", "libc-bin"), ("tc", "iproute2")];

pub(crate) use clients::clients;

/// Something that is needed, is not there and could not be had.
#[derive(Debug)]
pub(crate) struct Missing {
    what: String,
    remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    {}", self.what, self.remedy)
    }
}

/// What setup found. Empty lists are good news.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// Without these the eBPF program cannot be built.
    pub build: Vec<Missing>,
    /// Without these system tests and the demo cannot run.
    pub system: Vec<Missing>,
}

impl Setup {
    /// Fails with every remedy unless the eBPF program can be built.
    pub(crate) fn require_build(&self) -> Result<()> {
        refuse("the eBPF program cannot be built here", self.build.iter())
    }

    /// Fails with every remedy unless system tests can run.
    pub(crate) fn require_system(&self) -> Result<()> {
        refuse("system tests and the demo cannot run here", self.build.iter().chain(&self.system))
    }
}

fn refuse<'a>(consequence: &str, missing: impl Iterator<Item = &'a Missing>) -> Result<()> {
    let list: String = missing.map(|missing| format!("\n  {missing}")).collect();
    if list.is_empty() {
        return Ok(());
    }
    bail!("{consequence}:{list}")
}

/// `cargo xtask setup`
pub(crate) fn command() -> Result<()> {
    THOROUGH.store(true, Ordering::Relaxed);
    let mut setup = everything();
    setup.system.extend(clients().err());
    setup.require_system()?;
    found("complete");
    Ok(())
}

/// Everything for builds, system tests and the demo.
pub(crate) fn everything() -> Setup {
    let mut setup = toolchain();
    setup.system.extend(programs(TEST_PROGRAMS).err());
    setup.system.extend(facts());
    setup
}

/// What building the eBPF program needs.
pub(crate) fn toolchain() -> Setup {
    let mut setup = Setup::default();
    setup.build.extend(library_source().err());
    setup.build.extend(bpf_linker().err());
    setup
}

/// Set by `cargo xtask setup`, which tells what it found too; as a part of other tasks it tells only what it does.
static THOROUGH: AtomicBool = AtomicBool::new(false);

/// Something was done, or needs attention.
fn say(text: &str) {
    println!("setup: {text}");
}

/// Something was there already.
fn found(text: &str) {
    if THOROUGH.load(Ordering::Relaxed) {
        say(text);
    }
}

/// A compiler that has the source of `core`, which must be built for the BPF target.
fn library_source() -> Result<(), Missing> {
    if let Some(sysroot) = source_sysroot() {
        if sysroot == Path::new(DEBIAN_SYSROOT) {
            found("eBPF toolchain: the system's compiler in /usr, with the library's source");
            warn_of_path_order();
        } else {
            found(&format!("eBPF toolchain: {} with rust-src", name_of(&sysroot)));
        }
        return Ok(());
    }
    if find("rustup").is_some() {
        let mut add = program("timeout");
        add.args([COMPONENT_SECONDS, "rustup", "component", "add", "rust-src"]);
        if output(&mut add).is_ok() && source_sysroot().is_some() {
            say("eBPF toolchain: added rust-src to the active rustup toolchain");
            return note_compiler();
        }
        say("rustup cannot add rust-src here; trying the system's packages");
    }
    let packages = DEBIAN_COMPILER.join(" ");
    install(&DEBIAN_COMPILER).map_err(|reason| Missing {
        what: format!("no compiler with the standard library's source ({reason:#})"),
        remedy: format!(
            "run `rustup component add rust-src`, or as root `apt-get update && apt-get install --no-install-recommends {packages}`"
        ),
    })?;
    say(&format!("eBPF toolchain: installed {packages}"));
    warn_of_path_order();
    note_compiler()
}

/// Makes the build script look again: it watches `target/tools`, not the places of compilers.
fn note_compiler() -> Result<(), Missing> {
    let tools = root().join("target/tools");
    let note = source_sysroot().map(|sysroot| sysroot.display().to_string()).unwrap_or_default();
    let written = fs::create_dir_all(&tools).and_then(|()| fs::write(tools.join("compiler"), note));
    written.map_err(|error| Missing {
        what: format!("cannot write to {} ({error})", tools.display()),
        remedy: "make the checkout's target folder writable".to_owned(),
    })
}

/// The compiler that the build script will take: the active one, another one of rustup's, the system's.
fn source_sysroot() -> Option<PathBuf> {
    let active = output(program("rustc").args(["--print", "sysroot"])).ok();
    let active = active.map(|path| PathBuf::from(path.trim()));
    let siblings = active.as_deref().and_then(Path::parent).filter(|folder| folder.ends_with("toolchains"));
    let entries = siblings.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut others: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    others.sort();
    let system = Path::new("/usr/bin/cargo").is_file().then(|| PathBuf::from(DEBIAN_SYSROOT));
    let mut candidates = active.into_iter().chain(others).chain(system);
    candidates.find(|sysroot| sysroot.join(LIBRARY).join("core/Cargo.toml").is_file())
}

fn name_of(sysroot: &Path) -> String {
    sysroot.file_name().unwrap_or(sysroot.as_os_str()).to_string_lossy().into_owned()
}

/// The system's compiler must not take the place of the pinned one.
fn warn_of_path_order() {
    let first = find("cargo").and_then(|path| path.parent().map(Path::to_owned));
    let systems = first.is_some_and(|folder| folder == Path::new("/usr/bin") || folder == Path::new("/bin"));
    if systems && find("rustup").is_some() {
        say(
            "warning: /usr/bin comes before rustup's folder in PATH; put ~/.cargo/bin first, or another compiler than the pinned one builds the workspace",
        );
    }
}

fn bpf_linker() -> Result<(), Missing> {
    let tools = root().join("target/tools");
    let own = tools.join("bin/bpf-linker");
    let wanted = format!("bpf-linker {BPF_LINKER}");
    for place in [Some(own), find("bpf-linker")].into_iter().flatten() {
        if output(program(&place).arg("--version")).is_ok_and(|version| version.trim() == wanted) {
            found(&format!("{wanted}: {}", place.strip_prefix(root()).unwrap_or(&place).display()));
            return Ok(());
        }
    }
    say(&format!("building {wanted} into target/tools, some two minutes"));
    let mut install = cargo();
    install
        .args(["install", "--quiet", "bpf-linker", "--version", BPF_LINKER, "--locked", "--root"])
        .arg(&tools);
    // Keeps the intermediate files of the tool apart from those of the workspace, and once built they are of no use.
    let scratch = target().join("tools-build");
    // Its own profile carries full debug information; all its work is done by LLVM, so neither that nor more
    // optimisation is worth the minutes.
    install.env("CARGO_PROFILE_RELEASE_DEBUG", "0").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    let done = output(install.env("CARGO_TARGET_DIR", &scratch));
    // Left-over files cost disk space and nothing else.
    let _ = fs::remove_dir_all(&scratch);
    done.map_err(|reason| Missing {
        what: format!("{wanted} could not be built ({reason:#})"),
        remedy: format!("run `cargo install bpf-linker --version {BPF_LINKER} --locked --root target/tools` with network access"),
    })?;
    say(&format!("{wanted}: built into target/tools"));
    Ok(())
}

/// Sees to it that programs are there, by their Debian packages.
pub(crate) fn programs(wanted: &[(&str, &str)]) -> Result<(), Missing> {
    let names: Vec<&str> = wanted.iter().map(|(program, _)| *program).collect();
    let absent = |(program, _): &&(&str, &str)| find(program).is_none();
    let mut packages: Vec<&str> = wanted.iter().filter(absent).map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        found(&format!("programs: {}", names.join(" ")));
        return Ok(());
    }
    let list = packages.join(" ");
    install(&packages).map_err(|reason| Missing {
        what: format!("missing programs, packages {list} ({reason:#})"),
        remedy: format!("as root: `apt-get update && apt-get install --no-install-recommends {list}`"),
    })?;
    say(&format!("programs: {}; installed {list}", names.join(" ")));
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    if !is_root() {
        bail!("not root, so nothing can be installed");
    }
    if find("apt-get").is_none() {
        bail!("no apt-get on this system");
    }
    say(&format!("installing {} by apt-get", packages.join(" ")));
    let apt = || {
        let mut apt: Command = program("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).args(["-q", "-y"]);
        apt
    };
    output(apt().arg("update")).context("the package lists could not be updated")?;
    output(apt().args(["install", "--no-install-recommends"]).args(packages))?;
    Ok(())
}

/// Formatter and linter of the pinned toolchain, which a minimal installation leaves out.
pub(crate) fn lint_tools() -> Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if output(cargo().args([tool, "--version"])).is_ok() {
            continue;
        }
        let mut add = program("timeout");
        output(add.args([COMPONENT_SECONDS, "rustup", "component", "add", component]))
            .with_context(|| format!("`cargo {tool}` is missing; run `rustup component add {component}`"))?;
        say(&format!("added {component} to the active rustup toolchain"));
    }
    Ok(())
}

/// What no package can change: privileges, kernel, namespaces.
fn facts() -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut need = |holds: bool, what: &str, remedy: &str| {
        if !holds {
            missing.push(Missing { what: what.to_owned(), remedy: remedy.to_owned() });
        }
    };
    let root = is_root();
    // CAP_SYS_ADMIN is 21, CAP_BPF is 39, CAP_NET_ADMIN is 12 (linux/capability.h).
    let bpf = (has_capability(39) || has_capability(21)) && has_capability(12);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let namespaces = root && namespaces();
    found(&format!(
        "root: {}; kernel {}; may load programs: {}; network namespaces: {}",
        yes(root),
        kernel.trim(),
        yes(bpf),
        yes(namespaces)
    ));
    need(root, "not root", "run the same command as root");
    let too_old = format!("kernel {} is older than {}.{}", kernel.trim(), KERNEL.0, KERNEL.1);
    need(version(&kernel) >= KERNEL, &too_old, "use a machine with a newer kernel");
    if root {
        need(
            bpf,
            "root without CAP_BPF and CAP_NET_ADMIN",
            "give the container both capabilities (and CAP_PERFMON)",
        );
        need(
            namespaces,
            "network namespaces cannot be made",
            "give the container CAP_SYS_ADMIN and a writable /run/netns",
        );
    }
    missing
}

fn yes(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}

/// Major and minor number of a release like `6.18.3-cloud-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Makes a namespace and removes it.
fn namespaces() -> bool {
    let Some(ip) = find("ip") else { return false };
    let name = format!("enforcer-probe-{}", std::process::id());
    let netns = |action: &str| output(program(&ip).args(["netns", action, &name])).is_ok();
    netns("add") && netns("delete")
}

/// Whether an earlier setup, or a person, left what the eBPF program needs; finds only, installs nothing.
pub(crate) fn toolchain_is_there() -> bool {
    let linker = root().join("target/tools/bin/bpf-linker").is_file() || find("bpf-linker").is_some();
    linker && source_sysroot().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kernel_releases() {
        assert_eq!(version("6.18.3-cloud-amd64"), (6, 18));
        assert_eq!(version("6.1"), (6, 1));
        assert!(version("5.10.0-44-amd64") < KERNEL);
        assert_eq!(version("?"), (0, 0));
    }

    #[test]
    fn a_refusal_names_every_remedy() {
        let missing = |what: &str| Missing { what: what.to_owned(), remedy: format!("get {what}") };
        let setup = Setup { build: vec![], system: vec![missing("one"), missing("two")] };
        assert!(setup.require_build().is_ok());
        let text = setup.require_system().unwrap_err().to_string();
        assert!(text.contains("get one") && text.contains("get two"), "{text}");
    }
}
