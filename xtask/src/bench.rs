//! Runs the measuring binaries of the `tests` package on a release build, in place of this process.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, anyhow};
use clap::Subcommand;

use crate::{
    compile::{binary, with_program},
    process::{cargo, program, run},
    setup,
};

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds per packet, by the kernel's test run of the program.
    Packet {
        /// Passed on to the driver.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The rate of a flood at which a legitimate client fails: with nothing, with nftables, with the enforcer.
    Flood {
        /// Passed on to the driver.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Seconds for a million bans: into the kernel's tables, and through the daemon, beside nftables.
    Bans {
        /// Passed on to the driver.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Nanoseconds per request with a token, a proof or a signature; CPU of the daemon with and without; memory of known tokens.
    Token {
        /// Passed on to the driver.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Microseconds per enrolment, session, request with a session and request with an assertion, beside one bare verification of ES256;
    /// CPU of the daemon for each.
    Attest {
        /// Passed on to the driver.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// CPU microseconds per request, beside HAProxy with the same job.
    Edge {
        /// Passed on to the driver.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// `cargo xtask bench`
pub(crate) fn command(bench: &Bench) -> Result<()> {
    setup::everything().require_system()?;
    let (driver, arguments) = match bench {
        Bench::Packet { arguments } => {
            setup::programs(setup::PACKET_PROGRAMS).map_err(|missing| anyhow!("{missing}"))?;
            ("bench-packet", arguments)
        }
        Bench::Flood { arguments } => {
            setup::programs(setup::FLOOD_PROGRAMS).map_err(|missing| anyhow!("{missing}"))?;
            ("bench-flood", arguments)
        }
        Bench::Bans { arguments } => {
            setup::programs(setup::BANS_PROGRAMS).map_err(|missing| anyhow!("{missing}"))?;
            ("bench-bans", arguments)
        }
        Bench::Token { arguments } => {
            setup::programs(setup::BENCH_PROGRAMS).map_err(|missing| anyhow!("{missing}"))?;
            ("bench-token", arguments)
        }
        Bench::Attest { arguments } => {
            setup::programs(setup::BENCH_PROGRAMS).map_err(|missing| anyhow!("{missing}"))?;
            ("bench-attest", arguments)
        }
        Bench::Edge { arguments } => {
            setup::programs(setup::BENCH_PROGRAMS).map_err(|missing| anyhow!("{missing}"))?;
            ("bench-edge", arguments)
        }
    };
    run(with_program(cargo()).args(["build", "--release", "--bin", "enforcer", "--bin", driver]))?;
    let failed = program(binary("release", driver))
        .env("ENFORCER_BIN", binary("release", "enforcer"))
        .args(arguments)
        .exec();
    Err(failed).with_context(|| format!("cannot start {driver}"))
}
