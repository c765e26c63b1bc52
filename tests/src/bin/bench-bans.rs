//! Times a million bans: into the kernel's tables, and from a file through the daemon while a client is served; beside nftables.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command-line tool")]

use anyhow::Result;
use clap::Parser;
use enforcer_tests::bench::bans::{self, Row};

/// Seconds for a million bans and a hundred thousand banned prefixes.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    scale: bans::Scale,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let report = bans::run(&arguments.scale, |row| eprintln!("{}: {:.2} s", row.name, row.seconds))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!(
        "{:<36} {:>9} {:>8} {:>6} {:>8} {:>9}  client: requests, failed, median, worst",
        "what", "entries", "seconds", "bar", "", "nftables"
    );
    for row in &report.rows {
        println!("{}", line(row).trim_end());
    }
    let [before, with] = report.resident_mib;
    println!("\nResident memory of the daemon: {before} MiB before, {with} MiB with all bans.");
    Ok(())
}

fn line(row: &Row) -> String {
    let bar = row.bar.map_or(String::new(), |bar| format!("{bar:.1}"));
    let met = row.bar.map_or("", |bar| if row.seconds <= bar { "met" } else { "NOT MET" });
    let ratio = row.against_nftables.map_or(String::new(), |ratio| format!("{ratio:.2}x"));
    let client = row.client.map_or(String::new(), |client| {
        format!(
            "{}, {}, {:.0} ms, {:.0} ms",
            client.requests, client.failed, client.median_ms, client.worst_ms
        )
    });
    format!("{:<36} {:>9} {:>8.2} {bar:>6} {met:>8} {ratio:>9}  {client}", row.name, row.entries, row.seconds)
}
