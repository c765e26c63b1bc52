//! Nanoseconds per packet by `BPF_PROG_TEST_RUN`: the enforcer's program with full tables, beside the simplest programs
//! and beside xdp-filter.
#![allow(clippy::print_stdout, reason = "this is a command-line tool")]

use anyhow::Result;
use clap::Parser;
use enforcer_tests::bench::packet;

/// Nanoseconds per packet by BPF_PROG_TEST_RUN, as medians of several runs.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    scale: packet::Scale,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let report = packet::run(&arguments.scale)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.table());
    }
    Ok(())
}
