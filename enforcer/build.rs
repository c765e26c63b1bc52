//! Compiles the XDP program and leaves its object in `OUT_DIR`, where `kernel/program.rs` embeds it.
//!
//! Not aya-build: it replaces `CARGO_ENCODED_RUSTFLAGS` with flags of its own and so cannot pass `-C target-cpu=v3`,
//! without which there is no compare-and-swap. Without a toolchain for BPF the object is empty and a warning says so;
//! `ENFORCER_REQUIRE_BPF=1` turns that into an error. What is found depends on files alone, not on the environment, so
//! that plain cargo and `cargo xtask` agree and nothing is built twice.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PACKAGE: &str = "enforcer-ebpf";
const BINARY: &str = "enforcer-xdp";
const TARGET: &str = "bpfel-unknown-none";
const REQUIRE: &str = "ENFORCER_REQUIRE_BPF";
/// Where Debian's rustc-web keeps its sysroot.
const DEBIAN_SYSROOT: &str = "/usr";
/// Where a sysroot keeps the standard library's source, which `-Z build-std` compiles.
const LIBRARY_SOURCE: &str = "lib/rustlib/src/rust/library";

fn main() -> Result<()> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("the package lies in a workspace")?.to_owned();
    let object = PathBuf::from(variable("OUT_DIR")?).join(BINARY);
    println!("cargo::rerun-if-env-changed={REQUIRE}");
    for watched in
        ["enforcer-ebpf/src", "enforcer-ebpf/Cargo.toml", "enforcer-common/src", "enforcer-common/Cargo.toml"]
    {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    match Toolchain::find(&root) {
        Ok(toolchain) => toolchain.compile(&root, &object),
        Err(missing) if env::var_os(REQUIRE).is_some_and(|value| value == "1") => {
            Err(format!("{missing}: run `cargo xtask setup`").into())
        }
        Err(missing) => {
            println!(
                "cargo::warning={missing}; built without the XDP program. Run `cargo xtask setup` to get it."
            );
            Ok(fs::write(object, [])?)
        }
    }
}

fn variable(name: &str) -> Result<OsString> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}").into())
}

/// What compiles and links for BPF.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
    /// Holds the libLLVM that bpf-linker borrows: that of the compiler it was built with.
    libraries: PathBuf,
}

impl Toolchain {
    fn find(root: &Path) -> std::result::Result<Self, String> {
        let tools = root.join("target/tools");
        let installed = tools.join("bin/bpf-linker");
        // What `cargo xtask setup` installs later is noticed only in a folder that exists now: a missing path would mean
        // a build at every call.
        if fs::create_dir_all(&tools).is_ok() {
            println!("cargo::rerun-if-changed={}", tools.display());
        }
        let linker = Some(installed)
            .filter(|path| path.is_file())
            .or_else(|| in_path("bpf-linker"))
            .ok_or("bpf-linker was not found")?;
        let active = sysroot().ok_or("rustc does not say where it is installed")?;
        let sysroot = candidates(&active)
            .into_iter()
            .find(|sysroot| sysroot.join(LIBRARY_SOURCE).join("core/Cargo.toml").is_file())
            .ok_or("no Rust toolchain with the standard library's source (rust-src) was found")?;
        let bin = sysroot.join("bin");
        Ok(Self { cargo: bin.join("cargo"), rustc: bin.join("rustc"), linker, libraries: active.join("lib") })
    }

    fn compile(&self, root: &Path, object: &Path) -> Result<()> {
        let target_dir = object.with_file_name("bpf");
        let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
        let flags = [
            // aya-ebpf chooses the registers' layout by it.
            format!("--cfg=bpf_target_arch=\"{architecture}\""),
            "-Ctarget-cpu=v3".to_owned(),
            // BTF is made from debug information; the btf_maps need it.
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // Headers are not aligned. Every machine whose kernel has a JIT for BPF loads such numbers at once; LLVM would go byte by byte.
            "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
            format!("-Clinker={}", self.linker.display()),
        ];
        let mut cargo = Command::new(&self.cargo);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            // The outer cargo speaks of the outer build: its compiler, flags, profile, target.
            let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_CAINFO", "CARGO_HTTP_PROXY"]
                .contains(&&*text)
                || text.starts_with("CARGO_REGISTRIES_")
                || text.starts_with("CARGO_SOURCE_");
            let outer = [
                "CARGO",
                "RUSTC",
                "RUSTUP_TOOLCHAIN",
                "RUSTFLAGS",
                "TARGET",
                "HOST",
                "PROFILE",
                "OPT_LEVEL",
                "DEBUG",
            ];
            if !kept && (text.starts_with("CARGO_") || text.starts_with("RUSTC_") || outer.contains(&&*text))
            {
                cargo.env_remove(&name);
            }
        }
        let output = cargo
            .current_dir(root)
            .env("RUSTC", &self.rustc)
            // `build-std` and the intrinsics are unstable; the pinned versions make that harmless.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("LD_LIBRARY_PATH", &self.libraries)
            .args(["build", "--quiet", "--locked", "--release", "--package", PACKAGE, "--bin", BINARY])
            .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
            // Not the workspace's own directory, on which the outer cargo holds a lock.
            .arg(&target_dir)
            .output()
            .map_err(|error| format!("{} does not start: {error}", self.cargo.display()))?;
        if !output.status.success() {
            return Err(format!(
                "the XDP program does not compile:\n{}",
                String::from_utf8_lossy(&output.stderr)
            )
            .into());
        }
        fs::copy(target_dir.join(TARGET).join("release").join(BINARY), object)?;
        Ok(())
    }
}

/// Sysroots to try: the active toolchain, the other ones of rustup, then Debian's.
fn candidates(active: &Path) -> Vec<PathBuf> {
    let mut found = vec![active.to_owned()];
    if let Some(siblings) = active.parent()
        && siblings.file_name().is_some_and(|name| name == "toolchains")
        && let Ok(entries) = fs::read_dir(siblings)
    {
        let mut others: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        others.sort();
        found.extend(others);
    }
    found.push(PathBuf::from(DEBIAN_SYSROOT));
    found
}

/// The sysroot of the compiler that compiles the daemon.
fn sysroot() -> Option<PathBuf> {
    let rustc = env::var_os("RUSTC")?;
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(text.trim())).filter(|path| path.is_dir())
}

fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}
