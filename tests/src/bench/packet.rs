//! The program's cost per packet with full tables, in units that hold on every machine.
//!
//! A test run sees one frame, so packets of many sources come from a small program in front: it writes the next source
//! address into the frame and calls the enforcer's program. Its cost is measured with a callee that returns at once, and is
//! taken off.

use anyhow::{Context as _, Result, ensure};
use enforcer::{
    clock,
    config::{self, Fingerprint, Hellos, KernelLimits, RateLimit, ServerName},
    kernel::{Counters, Kernel, Reason, View},
};
use enforcer_common::{
    ban::{Ban, FOREVER, Listing},
    reason::{DropReason, PassReason},
    source::{SourceKey, v6_mask},
};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

mod split;

use super::{
    designs,
    measure::{Effort, Line, Sample, cpus, seeded},
    report::{Check, Report, Row, Unit},
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
const OTHERS_BASE: u32 = 3 << 30;
/// Sources that were never seen, before they repeat.
const FRESH: u32 = 1 << 30;
/// The same, for another line: none of them meets what the other has left.
const OTHERS: u32 = 1 << 29;

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
    let mut bench = Bench { effort, rows: Vec::new(), all, checks: Vec::new(), notes: Vec::new() };
    bench.everything(scale)?;
    Ok(Report { rows: bench.rows, checks: bench.checks, notes: bench.notes })
}

struct Bench {
    effort: Effort,
    all: Vec<usize>,
    rows: Vec<Row>,
    checks: Vec<Check>,
    notes: Vec<String>,
}

/// What others are compared with.
struct Units {
    pass: Program,
    drop: Program,
    /// Chooses a key, and looks it up in a hash.
    looks: Program,
    /// Chooses a key.
    chooses: Program,
}

impl Units {
    fn new() -> Result<Self> {
        let hash = Map::hash(BANNED)?;
        let mut looks = Code::default();
        looks.next_key(Keys::Random, BANNED - 1).look_up(&hash).constant(XDP_PASS);
        let mut chooses = Code::default();
        chooses.next_key(Keys::Random, BANNED - 1).constant(XDP_PASS);
        Ok(Self {
            pass: Program::constant(XDP_PASS)?,
            drop: Program::constant(XDP_DROP)?,
            looks: Program::load(&looks)?,
            chooses: Program::load(&chooses)?,
        })
    }

    /// The program that returns at once what is expected.
    fn empty(&self, expected: Reason) -> &Program {
        if matches!(expected, Reason::Pass(_)) { &self.pass } else { &self.drop }
    }
}

/// A sender's floor, the sender, and the two programs that make R; or those of another sender.
type Four = [Sample; 4];

/// What remains of the second without the first, and of the fourth without the third.
fn nets(four: &Four) -> (f64, f64) {
    (four[1].median - four[0].median, four[3].median - four[2].median)
}

impl Bench {
    fn everything(&mut self, scale: &Scale) -> Result<()> {
        let frame = data_frame();
        let units = Units::new()?;
        self.floors(&units, &frame)?;
        let mut full = load(scale, true)?;
        self.checks.push(Check {
            name: format!("seconds to load {BANNED} bans"),
            value: full.loading.as_secs_f64(),
            bar: LOAD_SECONDS,
        });
        let target = Target::new(&full.program, Frames::InParts)?;
        fill(&mut full, &target.real, &frame)?;
        self.hot(&full, &frame, &units)?;
        self.listed(&mut full, &target)?;
        self.cold(&full, &target, &frame, &units)?;
        // A flow is remembered after its hello, and what it repeats is not followed anew: these lines need flows of their own each round.
        if let Err(error) = self.split(&full, &target, &units) {
            self.notes.push(format!("NOT MEASURED: hellos in two segments: {error:#}"));
        }
        self.exact(&mut full, &frame)?;
        drop((full, target));
        self.beside_xdp_filter(scale, &frame)?;
        self.rows.extend(designs::rows(&self.effort, &frame, self.all[0], scale.prefixes)?);
        self.notes.push(
            "net: without what the test run, the choice of the source and the call cost; hot lines are compared as they are.\n\
             R: one random hit in a hash of 1048576 entries, net, on as many CPUs, in turns with the line that it is compared with.\n\
             empty: the program that returns the verdict at once, likewise. In two: a hello of two segments, of 16 flows (hot) or 512\n\
             (random), each CPU with its own; every step of a round is measured by itself, net, and hot ones as if called at once. Medians; the kernel measures in whole nanoseconds."
                .to_owned(),
        );
        Ok(())
    }

    fn cpu_sets(&self) -> Vec<Vec<usize>> {
        let one = self.all.iter().copied().take(1).collect();
        if self.all.len() > 1 { vec![one, self.all.clone()] } else { vec![one] }
    }

    fn floors(&mut self, units: &Units, frame: &[u8]) -> Result<()> {
        for set in self.cpu_sets() {
            let line = |program, action| Line { program, frame, action: Some(action) };
            let lines = [
                line(&units.pass, XDP_PASS),
                line(&units.drop, XDP_DROP),
                line(&units.chooses, XDP_PASS),
                line(&units.looks, XDP_PASS),
            ];
            let [pass, drop, chooses, looks] = self.effort.measure(lines, &set)?;
            self.rows.push(Row::plain("returns XDP_PASS", false, set.len(), pass, 0.0));
            self.rows.push(Row::plain("returns XDP_DROP", false, set.len(), drop, 0.0));
            let hit = looks.median - chooses.median;
            let row = Row::plain("R: a hit in a hash of 1048576 entries", true, set.len(), looks, hit);
            self.rows.push(row.against(Unit::R, hit, hit, None));
        }
        Ok(())
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
        let established = "established TCP, 1 KiB of data";
        let lines: [(&str, Vec<u8>, Reason, Option<f64>); 6] = [
            (established, data.to_vec(), clean, Some(9.0)),
            ("banned source", banned, Reason::Drop(DropReason::Banned), Some(3.0)),
            ("ClientHello in one segment, TLS 1.3", frame(DATA, &client_hello()), accepted, Some(25.0)),
            ("ClientHello, TLS 1.0", frame(DATA, &old), refused, None),
            ("SYN", frame(SYN, &[]), clean, None),
            ("established TCP, IPv6", v6, clean, None),
        ];
        for (name, frame, expected, bar) in lines {
            let mut alone = None;
            for set in self.cpu_sets() {
                // Of two CPUs that take up one flow at once, one is told to try again: no connection has its SYN on both.
                if name == "SYN" && set.len() > 1 {
                    continue;
                }
                let line = |program| Line { program, frame: &frame, action: None };
                let lines = [line(units.empty(expected)), line(&full.program)];
                let ([floor, sample], share) = self.judged(full, lines, expected, &set)?;
                let row = Row::plain(name, false, set.len(), sample, sample.median - floor.median);
                let mut row = match alone {
                    None => row.against(Unit::Empty, sample.median, floor.median, bar),
                    // What several CPUs pay for sharing one source.
                    Some(alone) => {
                        let bar = (name == established).then_some(3.0);
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

    /// What it costs to read a hello to its end and to compare it with lists, none of which it meets. It comes with its SYN (fast open),
    /// each from another source: what a flow repeats of a hello that was accepted is not read again.
    fn listed(&mut self, full: &mut Enforcer, target: &Target) -> Result<()> {
        let name = |number: usize| ServerName {
            name: format!("n{number}.example.com"),
            below: number.is_multiple_of(2),
        };
        let lists = Hellos {
            refuse_names: (0..1_000).map(name).collect(),
            refuse_fingerprints: (1..1_000).map(Fingerprint).collect(),
            ..Hellos::default()
        };
        let frame = tcp_frame(SOURCE_V4.into(), 443, SYN, &client_hello());
        let accepted = Reason::Pass(PassReason::HelloAccepted);
        let one = self.all[..1].to_vec();
        let senders = Senders::new(target, Keys::Rising, OTHERS, OTHERS_BASE)?;
        for (name, hellos) in [
            ("SYN with a ClientHello, a new source each time", Hellos::default()),
            ("the same, 1,999 names and fingerprints listed", lists),
        ] {
            full.kernel.apply(&config::Kernel { limits: wide(), hellos, ..plain() })?;
            let line = |program| Line { program, frame: &frame, action: None };
            let lines = [line(&senders.floor), line(&senders.real)];
            let ([floor, sample], share) = self.judged(full, lines, accepted, &one)?;
            let mut row = Row::plain(name, true, 1, sample, sample.median - floor.median);
            row.expected = share;
            self.rows.push(row);
        }
        full.kernel.apply(&config::Kernel { limits: wide(), ..plain() })
    }

    /// Another source each time, and tables far larger than any cache.
    fn cold(&mut self, full: &Enforcer, target: &Target, frame: &[u8], units: &Units) -> Result<()> {
        let known = Senders::new(target, Keys::Random, KNOWN, KNOWN_BASE)?;
        let banned = Senders::new(target, Keys::Random, BANNED, BANNED_BASE)?;
        let fresh = Senders::new(target, Keys::Rising, FRESH, FRESH_BASE)?;
        let clean = Reason::Pass(PassReason::Clean);
        let dropped = Reason::Drop(DropReason::Banned);
        let hit = [&units.chooses, &units.looks];
        let seen = [&known.floor, &known.real];
        for (name, senders, unit, others, expected, bar) in [
            ("known source, TCP data, all checks", &known, Unit::R, hit, clean, 1.3),
            ("banned source", &banned, Unit::R, hit, dropped, 0.8),
            ("a new source each time (flood)", &fresh, Unit::Known, seen, clean, 1.2),
        ] {
            for set in self.cpu_sets() {
                let line = |program| Line { program, frame, action: None };
                let [floor, real] = [&senders.floor, &senders.real].map(line);
                let [other_floor, other] = others.map(line);
                // The known sources' packets would be counted along with those of new ones: they end the same.
                let (four, share) = self.judged(full, [floor, real, other_floor, other], expected, &set)?;
                let (net, unit_net) = nets(&four);
                let bar = (set.len() == 1).then_some(bar);
                let mut row =
                    Row::plain(name, true, set.len(), four[1], net).against(unit, net, unit_net, bar);
                row.expected = share;
                self.rows.push(row);
            }
        }
        Ok(())
    }

    /// Measures, and holds the program's counters against what was expected of it; answers the share that was. Of the lines
    /// the second is the program, and others only where they end the same.
    fn judged<const N: usize>(
        &mut self,
        enforcer: &Enforcer,
        lines: [Line<'_>; N],
        expected: Reason,
        set: &[usize],
    ) -> Result<([Sample; N], f64)> {
        let before = packets(&enforcer.view.counters()?, expected);
        let everything = judged_packets(&enforcer.view.counters()?);
        let samples = self.effort.measure(lines, set)?;
        let counted = packets(&enforcer.view.counters()?, expected) - before;
        let sent = judged_packets(&enforcer.view.counters()?) - everything;
        ensure!(sent >= self.effort.packets(set), "only {sent} packets were counted");
        // A source whose bucket is full is dropped, which is right, and at this load rare.
        ensure!(counted * 100 >= sent * 97, "{counted} of {sent} packets ended as {expected:?}");
        let share = counted as f64 / sent as f64;
        if share < 0.999 {
            self.notes.push(format!(
                "{:.1} % of the packets for {expected:?} ended otherwise",
                100.0 * (1.0 - share)
            ));
        }
        Ok((samples, share))
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
        let one = self.all[..1].to_vec();
        let hot_banned: Ipv4Addr = address(BANNED_BASE, 77).into();
        let hot_banned = tcp_frame(hot_banned.into(), 443, DATA, &frame[54..]);
        let names = ["lists alone, unlisted source", "lists alone, banned source"];
        for (name, frame, reason, action) in
            [(names[0], frame, clean, XDP_PASS), (names[1], &*hot_banned, dropped, XDP_DROP)]
        {
            let line = |program| Line { program, frame, action: Some(action) };
            let lines = [line(&filter.program), line(&lists.program)];
            let ([other, sample], _) = self.judged(&lists, lines, reason, &one)?;
            self.rows.push(Row::plain(&format!("xdp-filter, {name}"), false, 1, other, other.median));
            let row = Row::plain(name, false, 1, sample, sample.median);
            self.rows.push(row.against(Unit::Filter, sample.median, other.median, Some(1.5)));
        }
        for (name, count, base, reason) in
            [(names[0], KNOWN, KNOWN_BASE, clean), (names[1], BANNED, BANNED_BASE, dropped)]
        {
            let us = Senders::new(&ours, Keys::Random, count, base)?;
            let them = Senders::new(&theirs, Keys::Random, count, base)?;
            let lines = [&us.floor, &us.real, &them.floor, &them.real];
            let lines = lines.map(|program| Line { program, frame, action: None });
            let (four, _) = self.judged(&lists, lines, reason, &one)?;
            let (net, their_net) = nets(&four);
            self.rows.push(Row::plain(&format!("xdp-filter, {name}"), true, 1, four[3], their_net));
            let row = Row::plain(name, true, 1, four[1], net);
            self.rows.push(row.against(Unit::Filter, net, their_net, Some(1.5)));
        }
        Ok(())
    }
}

fn judged_packets(counters: &Counters) -> u64 {
    counters.iter().map(|count| count.counter.packets).sum()
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
    full.kernel.apply(&config::Kernel { limits: wide(), ..plain() })
}

/// Wider than anything measured here.
fn wide() -> KernelLimits {
    limits(Some(RateLimit { events: 1_000_000, period: Duration::from_secs(1), burst: 4_000_000_000 }))
}

/// A hello of the size and shape that a phone's TLS library sends without post-quantum key shares: 517 bytes, fourteen
/// extensions, the versions near the end.
fn client_hello() -> Vec<u8> {
    let extensions: [(u16, usize); 10] =
        [(0x7a7a, 0), (23, 0), (65281, 1), (10, 10), (11, 2), (35, 0), (16, 14), (5, 5), (13, 18), (51, 43)];
    let hello = Hello { session: 32, suites: 16, extensions: Some(vec![]), ..Hello::legacy(0x0303) };
    let name = b"\0\x12\0\0\x0fapi.example.com";
    let hello = hello.with(0, name);
    let hello = extensions.iter().fold(hello, |hello, (kind, length)| hello.with(*kind, &vec![0; *length]));
    let hello = hello.with(45, &[1, 1]).with(43, &version_list(&[0x7a7a, 0x0304, 0x0303]));
    /// Clients pad to this (RFC 7685), record header included.
    const PADDED: usize = 517;
    let padding = PADDED.saturating_sub(hello.bytes().len() + 4);
    hello.with(21, &vec![0; padding]).bytes()
}
