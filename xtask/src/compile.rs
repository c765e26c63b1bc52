//! Builds the workspace with the eBPF program inside.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    process::{cargo, run, target},
    setup,
};

/// `cargo xtask build`
pub(crate) fn command(release: bool) -> Result<()> {
    setup::toolchain().require_build()?;
    let mut build = with_program(cargo());
    build.arg("build");
    if release {
        build.arg("--release");
    }
    run(&mut build)
}

/// Makes a missing eBPF program an error instead of a warning. The same in every step of a run: the build script
/// watches it, and a change would build the daemon anew.
pub(crate) fn with_program(mut cargo: Command) -> Command {
    cargo.env("ENFORCER_REQUIRE_BPF", "1");
    cargo
}

/// A binary that was built.
pub(crate) fn binary(profile: &str, name: &str) -> PathBuf {
    target().join(profile).join(name)
}
