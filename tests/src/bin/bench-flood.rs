//! Floods a service in a namespace, with nothing, nftables or the enforcer in front of it, until a legitimate client fails.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command-line tool")]

use anyhow::Result;
use clap::Parser;
use enforcer_tests::bench::flood::{self, Guard};

/// What the enforcer has to bear, as a multiple of what nftables bears.
const BAR: f64 = 3.0;

/// The rate of a flood at which a legitimate HTTPS client begins to fail.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    scale: flood::Scale,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let outcomes = flood::run(&arguments.scale, |guard, step| {
        let flood::Step { asked, sent, cost, answered, requests } = step;
        eprintln!(
            "{guard:?}: {asked} packets/s asked, {sent:.0} sent, {cost:.0} ns each: {answered} of {requests} requests answered"
        );
    })?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
        return Ok(());
    }
    println!("{:<10} {:>14} {:>14} {:>10}", "guard", "served at", "failing at", "ns each");
    for outcome in &outcomes {
        let failed = outcome.failed.map_or("never".to_owned(), |rate| format!("{rate:.0}/s"));
        println!(
            "{:<10} {:>12.0}/s {failed:>14} {:>10.0}",
            format!("{:?}", outcome.guard).to_lowercase(),
            outcome.held,
            outcome.cost()
        );
    }
    let of = |guard| outcomes.iter().find(|outcome| outcome.guard == guard);
    if let (Some(ours), Some(theirs)) = (of(Guard::Enforcer), of(Guard::Nftables)) {
        let ratio = ours.held / theirs.held.max(1.0);
        let least = if ours.failed.is_none() { "at least " } else { "" };
        let word = if ratio >= BAR { "met" } else { "NOT MET" };
        println!("\nenforcer against nftables: {least}{ratio:.1} times; bar {BAR:.0}: {word}");
    }
    if let (Some(floor), Some(theirs)) = (of(Guard::Least), of(Guard::Nftables)) {
        let ratio = floor.held / theirs.held.max(1.0);
        println!("a program that does nothing but drop the flood: {ratio:.1} times nftables");
    }
    println!("Sender, service and client share this machine's CPUs: compare the lines, not machines.");
    Ok(())
}
