//! The program's cost per packet with full tables, in units that hold on every machine.
//!
//! A test run sees one frame, so packets of many sources come from a small program in front: it writes the next source
//! address into the frame and calls the enforcer's program. Its cost is measured with a callee that returns at once, and is
//! taken off.

use anyhow::{Context as _, Result, ensure};
use enforcer::{
    clock,
    config::{self, KernelLimits, RateLimit},
    kernel::{Counters, Kernel, Reason, View},
};
use enforcer_common::{
    ban::{Ban, FOREVER, Listing},
    reason::{DropReason, PassReason},
    source::{SourceKey, v6_mask},
};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use super::{
    measure::{Effort, Sample, cpus, seeded},
    report::{Report, Row, Unit},
    xdp_filter::Filter,
};
use crate::{
    bpf::{Code, Frames, Keys, Map, Program, XDP_DROP, XDP_PASS, address},
    kernel::plain,
    packets::*,
};

/// How much the tables hold, and how long is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Scale {
    /// Packets per run and CPU.
    #[arg(long, default_value_t = 1_000_000)]
    pub repeat: u32,
    /// Runs per line; the median counts.
    #[arg(long, default_value_t = 9)]
    pub runs: usize,
    /// Banned prefixes.
    #[arg(long, default_value_t = 10_000)]
    pub prefixes: u32,
}

/// Banned sources: a power of two, about a million.
const BANNED: u32 = 1 << 20;
/// Sources that owe something while everything is measured: a power of two, about half a million.
const KNOWN: u32 = 1 << 19;
/// What loading all bans at once may take, in seconds.
const LOAD_SECONDS: f64 = 2.0;
/// Room per limit.
const SLOTS: u32 = 1 << 21;
/// The blocks in which known, banned and never seen sources lie. No packet of a test run leaves the kernel's test function,
/// so the addresses need not be those for tests.
const KNOWN_BASE: u32 = 10 << 24;
const BANNED_BASE: u32 = 11 << 24;
const FRESH_BASE: u32 = 1 << 31;
/// Sources that were never seen, before they repeat.
const FRESH: u32 = 1 << 30;

/// The loaded program, with what is around it.
struct Enforcer {
    program: Program,
    view: Arc<dyn View>,
    kernel: Kernel,
    /// What the bulk load of the bans took.
    loading: Duration,
}

/// Chooses sources and goes on with the enforcer; and the same with a callee that does nothing.
struct Senders {
    real: Program,
    floor: Program,
}

impl Senders {
    fn new(target: &Target, keys: Keys, count: u32, base: u32) -> Result<Self> {
        let sender = |callee: &Map| {
            let mut code = Code::default();
            Program::load_for(code.next_key(keys, count - 1).source(base).call(callee), target.frames)
        };
        Ok(Self { real: sender(&target.real)?, floor: sender(&target.nothing)? })
    }
}

/// What senders call: a program, and one that does nothing.
struct Target {
    frames: Frames,
    real: Map,
    nothing: Map,
}

impl Target {
    fn new(program: &Program, frames: Frames) -> Result<Self> {
        let (real, nothing) = (Map::programs()?, Map::programs()?);
        real.set(program)?;
        nothing.set(&Program::constant_for(XDP_PASS, frames)?)?;
        Ok(Self { frames, real, nothing })
    }
}

/// Measures everything.
pub fn run(scale: &Scale) -> Result<Report> {
    let effort = Effort { repeat: scale.repeat, runs: scale.runs };
    let all = cpus()?;
    let mut bench = Bench { effort, rows: Vec::new(), all, notes: Vec::new() };
    bench.everything(scale)?;
    Ok(Report { rows: bench.rows, notes: bench.notes })
}

struct Bench {
    effort: Effort,
    all: Vec<usize>,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// What others are compared with, by number of CPUs.
struct Units {
    pass: Sample,
    drop: Sample,
    /// One CPU, all CPUs.
    random_hit: [f64; 2],
}

impl Bench {
    fn everything(&mut self, scale: &Scale) -> Result<()> {
        let frame = data_frame();
        let units = self.units(&frame)?;
        let mut full = load(scale, true)?;
        let loading = full.loading.as_secs_f64();
        let met = if loading < LOAD_SECONDS { "met" } else { "NOT MET" };
        self.notes.push(format!("{BANNED} bans loaded in {loading:.2} s; bar {LOAD_SECONDS} s: {met}"));
        let target = Target::new(&full.program, Frames::InParts)?;
        fill(&mut full, &target.real, &frame)?;
        self.hot(&full, &frame, &units)?;
        self.cold(&full, &target, &frame, &units)?;
        drop((full, target));
        self.beside_xdp_filter(scale, &frame)?;
        self.notes.push(
            "net: without what the test run, the choice of the source and the call cost; hot lines are compared as they are.\n\
             R: one random hit in a hash of 1048576 entries, net, on as many CPUs. empty: the program that returns the verdict at once.\n\
             Medians; the kernel measures in whole nanoseconds."
                .to_owned(),
        );
        Ok(())
    }

    fn cpu_sets(&self) -> Vec<Vec<usize>> {
        let one = self.all.iter().copied().take(1).collect();
        if self.all.len() > 1 { vec![one, self.all.clone()] } else { vec![one] }
    }

    fn units(&mut self, frame: &[u8]) -> Result<Units> {
        let one = &self.all[..1];
        let (pass, drop) = (Program::constant(XDP_PASS)?, Program::constant(XDP_DROP)?);
        let pass = self.effort.measure(&pass, frame, Some(XDP_PASS), one)?;
        let drop = self.effort.measure(&drop, frame, Some(XDP_DROP), one)?;
        self.rows.push(Row::plain("returns XDP_PASS", false, 1, pass, 0.0));
        self.rows.push(Row::plain("returns XDP_DROP", false, 1, drop, 0.0));
        let hash = Map::hash(BANNED)?;
        let chooses = Program::load(Code::default().next_key(Keys::Random, BANNED - 1).constant(XDP_PASS))?;
        let mut looks = Code::default();
        looks.next_key(Keys::Random, BANNED - 1).look_up(&hash).constant(XDP_PASS);
        let looks = Program::load(&looks)?;
        let mut random_hit = [0.0; 2];
        for (set, hit) in self.cpu_sets().iter().zip(&mut random_hit) {
            let floor = self.effort.measure(&chooses, frame, Some(XDP_PASS), set)?;
            let sample = self.effort.measure(&looks, frame, Some(XDP_PASS), set)?;
            *hit = sample.median - floor.median;
            self.rows.push(
                Row::plain("R: a hit in a hash of 1048576 entries", true, set.len(), sample, *hit).against(
                    Unit::R,
                    *hit,
                    *hit,
                    None,
                ),
            );
        }
        Ok(Units { pass, drop, random_hit })
    }

    /// One source, in the cache.
    fn hot(&mut self, full: &Enforcer, data: &[u8], units: &Units) -> Result<()> {
        let banned: Ipv4Addr = address(BANNED_BASE, 77).into();
        let v6 = tcp_frame(SOURCE_V6.into(), 443, DATA, &data[54..]);
        let banned = tcp_frame(banned.into(), 443, DATA, &data[54..]);
        let frame = |flags, data: &[u8]| tcp_frame(SOURCE_V4.into(), 443, flags, data);
        let old = Hello::legacy(0x0301).bytes();
        let clean = Reason::Pass(PassReason::Clean);
        let accepted = Reason::Pass(PassReason::HelloAccepted);
        let refused = Reason::Drop(DropReason::TlsVersion);
        let lines: [(&str, Vec<u8>, Reason, Option<f64>); 6] = [
            ("established TCP, 1 KiB of data", data.to_vec(), clean, Some(9.0)),
            ("banned source", banned, Reason::Drop(DropReason::Banned), Some(3.0)),
            ("ClientHello in one segment, TLS 1.3", frame(DATA, &client_hello()), accepted, Some(25.0)),
            ("ClientHello, TLS 1.0", frame(DATA, &old), refused, None),
            ("SYN", frame(SYN, &[]), clean, None),
            ("established TCP, IPv6", v6, clean, None),
        ];
        for (name, frame, expected, bar) in lines {
            let mut alone = None;
            for set in self.cpu_sets() {
                let (sample, share) = self.judged(full, &full.program, &frame, expected, &set)?;
                let floor = if matches!(expected, Reason::Pass(_)) { units.pass } else { units.drop };
                let row = Row::plain(name, false, set.len(), sample, sample.median - floor.median);
                let mut row = match alone {
                    None => row.against(Unit::Empty, sample.median, floor.median, bar),
                    // What several CPUs pay for sharing one source.
                    Some(alone) => {
                        let bar = (expected == clean && name.ends_with("data")).then_some(3.0);
                        row.against(Unit::Alone, sample.median, alone, bar)
                    }
                };
                row.expected = share;
                alone = alone.or(Some(sample.median));
                self.rows.push(row);
            }
        }
        Ok(())
    }

    /// Another source each time, and tables far larger than any cache.
    fn cold(&mut self, full: &Enforcer, target: &Target, frame: &[u8], units: &Units) -> Result<()> {
        let known = Senders::new(target, Keys::Random, KNOWN, KNOWN_BASE)?;
        let banned = Senders::new(target, Keys::Random, BANNED, BANNED_BASE)?;
        let fresh = Senders::new(target, Keys::Rising, FRESH, FRESH_BASE)?;
        let clean = Reason::Pass(PassReason::Clean);
        let mut cost_of_known = [0.0; 2];
        for (index, set) in self.cpu_sets().iter().enumerate() {
            let (row, cost) =
                self.through(full, &known, "known source, TCP data, all checks", frame, clean, set)?;
            cost_of_known[index] = cost;
            let bar = (index == 0).then_some(1.3);
            self.rows.push(row.against(Unit::R, cost, units.random_hit[index], bar));
        }
        for (index, set) in self.cpu_sets().iter().enumerate() {
            let reason = Reason::Drop(DropReason::Banned);
            let (row, cost) = self.through(full, &banned, "banned source", frame, reason, set)?;
            let bar = (index == 0).then_some(0.8);
            self.rows.push(row.against(Unit::R, cost, units.random_hit[index], bar));
        }
        for (index, set) in self.cpu_sets().iter().enumerate() {
            let (row, cost) =
                self.through(full, &fresh, "a new source each time (flood)", frame, clean, set)?;
            let bar = (index == 0).then_some(1.2);
            self.rows.push(row.against(Unit::Known, cost, cost_of_known[index], bar));
        }
        Ok(())
    }

    /// A line through a sender, and what the program itself cost.
    fn through(
        &mut self,
        enforcer: &Enforcer,
        senders: &Senders,
        name: &str,
        frame: &[u8],
        expected: Reason,
        set: &[usize],
    ) -> Result<(Row, f64)> {
        let floor = self.effort.measure(&senders.floor, frame, Some(XDP_PASS), set)?;
        let (sample, share) = self.judged(enforcer, &senders.real, frame, expected, set)?;
        let net = sample.median - floor.median;
        let mut row = Row::plain(name, true, set.len(), sample, net);
        row.expected = share;
        if share < 0.999 {
            self.notes.push(format!("{name}: {:.1} % of the packets ended otherwise", 100.0 * (1.0 - share)));
        }
        Ok((row, net))
    }

    /// Measures, and holds the program's counters against what was expected of it; answers the share that was.
    fn judged(
        &self,
        enforcer: &Enforcer,
        program: &Program,
        frame: &[u8],
        expected: Reason,
        set: &[usize],
    ) -> Result<(Sample, f64)> {
        let before = packets(&enforcer.view.counters()?, expected);
        let sample = self.effort.measure(program, frame, None, set)?;
        let counted = packets(&enforcer.view.counters()?, expected) - before;
        let sent = self.effort.packets(set);
        // A source whose bucket is full is dropped, which is right, and at this load rare.
        ensure!(counted * 100 >= sent * 97, "{counted} of {sent} packets ended as {expected:?}");
        Ok((sample, counted as f64 / sent as f64))
    }

    /// Both programs with lists alone, and the same packets.
    fn beside_xdp_filter(&mut self, scale: &Scale, frame: &[u8]) -> Result<()> {
        let banned = (0..BANNED).map(|key| address(BANNED_BASE, key));
        let filter = match Filter::load(banned, BANNED) {
            Ok(filter) => filter,
            Err(error) => {
                self.notes.push(format!("NOT MEASURED beside xdp-filter: {error:#}"));
                return Ok(());
            }
        };
        let lists = load(scale, false)?;
        let ours = Target::new(&lists.program, Frames::InParts)?;
        let theirs = Target::new(&filter.program, Frames::Whole)?;
        let clean = Reason::Pass(PassReason::Clean);
        let dropped = Reason::Drop(DropReason::Banned);
        let hot_banned: Ipv4Addr = address(BANNED_BASE, 77).into();
        let hot_banned = tcp_frame(hot_banned.into(), 443, DATA, &frame[54..]);
        for (name, frame, reason, action) in [
            ("lists alone, unlisted source", frame, clean, XDP_PASS),
            ("lists alone, banned source", &*hot_banned, dropped, XDP_DROP),
        ] {
            let one = self.all[..1].to_vec();
            let (sample, _) = self.judged(&lists, &lists.program, frame, reason, &one).context(name)?;
            let other = self.effort.measure(&filter.program, frame, Some(action), &one);
            let other = other.with_context(|| format!("xdp-filter, {name}"))?;
            self.rows.push(Row::plain(&format!("xdp-filter, {name}"), false, 1, other, other.median));
            let row = Row::plain(name, false, 1, sample, sample.median);
            self.rows.push(row.against(Unit::Filter, sample.median, other.median, Some(1.5)));
        }
        for (name, count, base, reason, action) in [
            ("lists alone, unlisted source", KNOWN, KNOWN_BASE, clean, XDP_PASS),
            ("lists alone, banned source", BANNED, BANNED_BASE, dropped, XDP_DROP),
        ] {
            let one = self.all[..1].to_vec();
            let senders = Senders::new(&ours, Keys::Random, count, base)?;
            let (row, cost) = self.through(&lists, &senders, name, frame, reason, &one)?;
            let senders = Senders::new(&theirs, Keys::Random, count, base)?;
            let floor = self.effort.measure(&senders.floor, frame, Some(XDP_PASS), &one)?;
            let other = self.effort.measure(&senders.real, frame, Some(action), &one)?;
            let their_cost = other.median - floor.median;
            self.rows.push(Row::plain(&format!("xdp-filter, {name}"), true, 1, other, their_cost));
            self.rows.push(row.against(Unit::Filter, cost, their_cost, Some(1.5)));
        }
        Ok(())
    }
}

fn packets(counters: &Counters, expected: Reason) -> u64 {
    counters.iter().filter(|count| count.reason == expected).map(|count| count.counter.packets).sum()
}

fn data_frame() -> Vec<u8> {
    tcp_frame(SOURCE_V4.into(), 443, DATA, &[&[0x17, 3, 3, 4, 0][..], &[0xaa; 1024]].concat())
}

/// The program as it runs in production with its lists full; with every limit on, or with none.
fn load(scale: &Scale, limited: bool) -> Result<Enforcer> {
    let mut config = plain();
    // Whoever is seen once owes an hour, so all of them are still known when everything else is measured.
    config.limits =
        limits(limited.then_some(RateLimit { events: 1, period: Duration::from_secs(3600), burst: 4_000 }));
    if !limited {
        config.protected_ports = Vec::new();
    }
    let kernel = Kernel::load(&config, BANNED)?;
    let program = Program::own("enforcer")?;
    let mut lists = kernel.lists()?;
    let bans: Vec<_> = (0..BANNED)
        .map(|key| {
            let address = Ipv4Addr::from(address(BANNED_BASE, key));
            (SourceKey::of(address.into(), v6_mask(64)), Ban { until: FOREVER })
        })
        .collect();
    let begun = clock::instant_now();
    lists.ban_many(&bans)?;
    let loading = begun.elapsed();
    for number in 0..scale.prefixes {
        let prefix = format!("{}/24", Ipv4Addr::from(prefix(number)));
        lists.list(prefix.parse().map_err(anyhow::Error::msg)?, Listing::banned(FOREVER))?;
    }
    let view = kernel.view()?;
    Ok(Enforcer { program, view, kernel, loading })
}

/// Banned /24s between those of the sources: first in their own blocks, then everywhere.
fn prefix(number: u32) -> u32 {
    const BETWEEN: u32 = 0x100;
    let (known, banned) = (KNOWN >> 8, BANNED >> 8);
    let (base, index) = if number < known {
        (KNOWN_BASE, number)
    } else if number < known + banned {
        (BANNED_BASE, number - known)
    } else {
        (FRESH_BASE, number.wrapping_mul(0x9e37_79b1) >> 10)
    };
    base | index << 9 | BETWEEN
}

fn limits(all: Option<RateLimit>) -> KernelLimits {
    KernelLimits { packets: all, connections: all, hellos: all, max_sources: SLOTS, ..plain().limits }
}

/// Makes the known sources known, and then the limits so wide that nothing measured here exceeds them.
fn fill(full: &mut Enforcer, targets: &Map, frame: &[u8]) -> Result<()> {
    let mut code = Code::default();
    let filler = Program::load(code.next_key(Keys::Rising, KNOWN - 1).source(KNOWN_BASE).call(targets))?;
    filler.run(&seeded(frame, 0), KNOWN).context("filling the limiter")?;
    let wide = RateLimit { events: 1_000_000, period: Duration::from_secs(1), burst: 4_000_000_000 };
    full.kernel.apply(&config::Kernel { limits: limits(Some(wide)), ..plain() })
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
