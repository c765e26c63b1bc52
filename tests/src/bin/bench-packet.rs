//! Nanoseconds per packet by `BPF_PROG_TEST_RUN`: a bare program that returns a constant, and the enforcer's own.
//!
//! One hot source on one CPU: everything is in the cache. The figures compare programs, not machines; the kernel rounds
//! them down to whole nanoseconds.
#![allow(clippy::print_stdout, reason = "this is a command-line tool")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use enforcer::{
    config::{self, KernelLimits, RateLimit},
    kernel::{Counters, Kernel, Reason},
};
use enforcer_common::{
    ban::{Ban, FOREVER, Listing},
    reason::{DropReason, PassReason},
    source::{SourceKey, v6_mask},
};
use enforcer_tests::{bare::Bare, kernel::plain, packets::*};

/// Return values of XDP programs (linux/bpf.h).
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Nanoseconds per packet by BPF_PROG_TEST_RUN, as a median of several runs.
#[derive(Parser)]
struct Arguments {
    /// Packets per run.
    #[arg(long, default_value_t = 1_000_000)]
    repeat: u32,
    /// Runs per line; the median counts.
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// The CPU to run on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// One line of the result.
#[derive(serde::Serialize)]
struct Line {
    name: &'static str,
    action: &'static str,
    nanoseconds: u64,
    fastest: u64,
    slowest: u64,
    /// Against the bare program with the same action.
    ratio: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.runs > 0 && arguments.repeat > 0, "--runs and --repeat must be at least 1");
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(arguments.cpu).with_context(|| format!("--cpu {}", arguments.cpu))?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus)
        .with_context(|| format!("running on CPU {}", arguments.cpu))?;

    let data = tcp_frame(SOURCE_V4.into(), 443, DATA, &[&[0x17, 3, 3, 4, 0][..], &[0xaa; 1024]].concat());
    let measure = |run: &dyn Fn() -> Result<Duration>| samples(arguments.runs, run);
    let mut lines = Vec::new();
    for (name, action, label) in [("bare XDP_PASS", XDP_PASS, "pass"), ("bare XDP_DROP", XDP_DROP, "drop")] {
        let bare = Bare::load(action).context("loading a bare program")?;
        lines.push(line(name, label, measure(&|| Ok(bare.run(&data, arguments.repeat)?))?, None));
    }
    let floor = [lines[0].nanoseconds, lines[1].nanoseconds];
    for scenario in scenarios(&data) {
        let kernel = prepare(scenario.list)?;
        let view = kernel.view()?;
        let before = packets(&view.counters()?, scenario.expected);
        let times = measure(&|| Ok(kernel.test_run(&scenario.frame, arguments.repeat)?.duration))?;
        let counted = packets(&view.counters()?, scenario.expected) - before;
        let sent = u64::from(arguments.repeat) * (arguments.runs as u64 + 1);
        ensure!(counted == sent, "{}: {counted} of {sent} packets ended as expected", scenario.name);
        let (label, floor) = match scenario.expected {
            Reason::Pass(_) => ("pass", floor[0]),
            Reason::Drop(_) | Reason::WouldDrop(_) => ("drop", floor[1]),
        };
        lines.push(line(scenario.name, label, times, Some(floor)));
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
    } else {
        print(&lines);
    }
    Ok(())
}

/// One warm-up, then `runs` measurements, sorted.
fn samples(runs: usize, run: &dyn Fn() -> Result<Duration>) -> Result<Vec<u64>> {
    run()?;
    let mut times = (0..runs).map(|_| Ok(run()?.as_nanos() as u64)).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    Ok(times)
}

fn line(name: &'static str, action: &'static str, times: Vec<u64>, floor: Option<u64>) -> Line {
    let nanoseconds = times[times.len() / 2];
    let ratio = floor.map_or(1.0, |floor| nanoseconds as f64 / floor.max(1) as f64);
    Line { name, action, nanoseconds, fastest: times[0], slowest: times[times.len() - 1], ratio }
}

fn packets(counters: &Counters, expected: Reason) -> u64 {
    counters.iter().filter(|count| count.reason == expected).map(|count| count.counter.packets).sum()
}

/// What is measured.
struct Scenario {
    name: &'static str,
    frame: Vec<u8>,
    list: List,
    expected: Reason,
}

/// What is listed meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Nothing,
    Source,
    Prefix,
}

fn scenarios(data: &[u8]) -> Vec<Scenario> {
    let frame = |flags, data: &[u8]| tcp_frame(SOURCE_V4.into(), 443, flags, data);
    let scenario = |name, frame, list, expected| Scenario { name, frame, list, expected };
    let clean = Reason::Pass(PassReason::Clean);
    let old = Hello::legacy(0x0301).bytes();
    vec![
        scenario("banned source", data.to_vec(), List::Source, Reason::Drop(DropReason::Banned)),
        scenario("banned prefix", data.to_vec(), List::Prefix, Reason::Drop(DropReason::BannedPrefix)),
        scenario("established TCP, 1 KiB of data", data.to_vec(), List::Nothing, clean),
        scenario(
            "established TCP, IPv6",
            tcp_frame(SOURCE_V6.into(), 443, DATA, &data[54..]),
            List::Nothing,
            clean,
        ),
        scenario("SYN", frame(SYN, &[]), List::Nothing, clean),
        scenario(
            "ClientHello, TLS 1.3",
            frame(DATA, &client_hello()),
            List::Nothing,
            Reason::Pass(PassReason::HelloAccepted),
        ),
        scenario(
            "ClientHello, TLS 1.0",
            frame(DATA, &old),
            List::Nothing,
            Reason::Drop(DropReason::TlsVersion),
        ),
    ]
}

/// A hello of the size and shape that a phone's TLS library sends without post-quantum key shares: 517 bytes, fourteen
/// extensions, the versions near the end.
fn client_hello() -> Vec<u8> {
    let extensions: [(u16, usize); 11] = [
        (0x7a7a, 0),
        (0, 20),
        (23, 0),
        (65281, 1),
        (10, 10),
        (11, 2),
        (35, 0),
        (16, 14),
        (5, 5),
        (13, 18),
        (51, 43),
    ];
    let hello = Hello { session: 32, suites: 16, extensions: Some(vec![]), ..Hello::legacy(0x0303) };
    let hello = extensions.iter().fold(hello, |hello, (kind, length)| hello.with(*kind, &vec![0; *length]));
    let hello = hello.with(45, &[1, 1]).with(43, &version_list(&[0x7a7a, 0x0304, 0x0303]));
    /// Clients pad to this (RFC 7685), record header included.
    const PADDED: usize = 517;
    let padding = PADDED.saturating_sub(hello.bytes().len() + 4);
    hello.with(21, &vec![0; padding]).bytes()
}

/// The program as it runs in production, all limits on, but so wide that this measurement stays within them.
fn prepare(list: List) -> Result<Kernel> {
    let wide =
        Some(RateLimit { events: 1_000_000_000, period: Duration::from_secs(1), burst: 4_000_000_000 });
    let plain = plain();
    let limits = KernelLimits {
        packets: wide,
        connections: wide,
        hellos: wide,
        max_sources: 262_144,
        ..plain.limits.clone()
    };
    let config = config::Kernel { limits, ..plain };
    let kernel = Kernel::load(&config, 100_000)?;
    let mut lists = kernel.lists()?;
    match list {
        List::Nothing => {}
        List::Source => lists.ban(SourceKey::of(SOURCE_V4.into(), v6_mask(64)), Ban { until: FOREVER })?,
        List::Prefix => {
            let prefix = "198.18.0.0/16".parse().map_err(anyhow::Error::msg)?;
            lists.list(prefix, Listing::banned(FOREVER))?;
        }
    }
    Ok(kernel)
}

fn print(lines: &[Line]) {
    println!("{:<34} {:>7} {:>9} {:>13} {:>8}", "packet", "verdict", "ns/packet", "fastest..slow", "ratio");
    for line in lines {
        let range = format!("{}..{}", line.fastest, line.slowest);
        println!(
            "{:<34} {:>7} {:>9} {:>13} {:>8.1}",
            line.name, line.action, line.nanoseconds, range, line.ratio
        );
    }
    println!("\nratio: against the bare program with the same verdict. One hot source, one CPU, medians.");
}
