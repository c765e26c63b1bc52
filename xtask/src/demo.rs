//! Runs the demo, a binary of the `tests` package, in place of this process: signals go to the demo itself, which
//! cleans up.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};

use crate::{
    compile::{binary, with_program},
    process::{cargo, program, run},
    setup,
};

/// The demo, ready to run.
pub(crate) fn story(keep: bool) -> Command {
    let mut demo = program(binary("debug", "demo"));
    demo.env("ENFORCER_BIN", binary("debug", "enforcer"));
    if keep {
        demo.arg("--keep");
    }
    demo
}

/// `cargo xtask demo`
pub(crate) fn command(keep: bool) -> Result<()> {
    setup::everything().require_system()?;
    run(with_program(cargo()).args(["build", "--bin", "enforcer", "--bin", "demo"]))?;
    let failed = story(keep).exec();
    Err(failed).context("cannot start the demo")
}
