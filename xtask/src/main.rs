//! The command line of `cargo xtask`: which task, with which flags.
//!
//! Called by people, by `.ci/run` and by the README. It must build when no other crate of the workspace does, so it
//! depends on none of them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "talking to people is what this program does")]
#![allow(
    clippy::disallowed_methods,
    reason = "it measures the wall time of build steps, and nothing of the product"
)]

mod bench;
mod compile;
mod demo;
mod dist;
mod fuzz;
mod process;
mod service;
mod setup;
mod suite;
mod tally;
mod tidy;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Tasks of the enforcer repository.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what builds and tests need: eBPF toolchain, bpf-linker, a few system packages.
    Setup,
    /// Build everything with the eBPF program inside.
    Build {
        /// Optimised.
        #[arg(long)]
        release: bool,
    },
    /// Run format, lint, tidy and every test. Ends with `N passed, N failed`. Without a flag it is `ci`.
    Test {
        /// Only what needs neither root nor the eBPF toolchain.
        #[arg(long, conflicts_with = "system")]
        rootless: bool,
        /// Only what needs root: system tests and the demo.
        #[arg(long)]
        system: bool,
    },
    /// Exactly what continuous integration runs, with the wall time of each step: the same list as `test`.
    Ci,
    /// Check the rules of the house: imports, file sizes, words, documentation.
    Tidy,
    /// Show the whole path at work in network namespaces, as root.
    Demo {
        /// Leave everything running to explore.
        #[arg(long)]
        keep: bool,
    },
    /// Measure, on a release build.
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Run the system tests under other kernels, in virtual machines: the floor, the one below it, and newer ones.
    Vm(vm::Arguments),
    /// Fuzz the decisions about packets, tokens, signatures and devices, on a nightly toolchain with cargo-fuzz, and keep what is found of new paths.
    Fuzz {
        /// Which one; all if absent.
        #[arg(value_parser = fuzz::TARGETS)]
        target: Option<String>,
        /// For how long each, in seconds.
        #[arg(long, default_value_t = 120)]
        seconds: u32,
    },
    /// Run the packaged unit under a real systemd, in a container of this machine, as root.
    Service,
    /// Make the Debian package in `target/dist`.
    Dist,
}

fn main() -> ExitCode {
    match run(&Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        // Not by `main`'s own result: that would add a backtrace, and what went wrong is never in this program.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    match *task {
        Task::Setup => setup::command(),
        Task::Build { release } => compile::command(release),
        Task::Test { rootless, system } => suite::command(suite::Parts::from_flags(rootless, system)),
        // One definition for both: what passes here passes there.
        Task::Ci => suite::command(suite::Parts::All),
        Task::Tidy => tidy::command(),
        Task::Demo { keep } => demo::command(keep),
        Task::Bench { ref bench } => bench::command(bench),
        Task::Vm(ref arguments) => vm::command(arguments),
        Task::Fuzz { ref target, seconds } => fuzz::command(target.as_deref(), seconds),
        Task::Service => service::command(),
        Task::Dist => dist::command(),
    }
}
