//! What a ClientHello costs that comes in two segments, one segment after the other: the SYN that takes its flow up, the first segment,
//! the same again, and the last one.
//!
//! A test run repeats one frame, and what a segment costs depends on what came before it. So many flows are walked through together:
//! the SYN of each, then the first segment of each, and so on, round by round, and each step is measured by itself. Few flows stay in the
//! cache; many do not.

use super::*;

/// Flows that stay in the cache.
const FEW: u32 = 16;
/// Flows that do not: each has an entry and a copy of its first segment. Fewer than are kept, with two CPUs at work, or repetitions could not be compared.
const MANY: u32 = 1 << 9;
/// Rounds of a run, at most: each is a call of the kernel for each line, which waits for all CPUs to have let go of the program before.
const ROUNDS: u32 = 8;
/// Of a hello with a post-quantum key share a segment of Ethernet holds so much beside the options that are usual.
const FIRST: usize = 1_428;
/// The client's initial sequence number.
const INITIAL: u32 = 1_000;
/// Bits of a source's address that a CPU has for its own flows.
const OWN: u32 = 12;

/// What is measured in a round: each step with a callee that does nothing and with the program, and what they are compared with.
const STEPS: [&str; 4] = ["SYN", "first segment", "first segment again", "last segment"];
const LINES: usize = 2 * STEPS.len() + 3;

impl Bench {
    pub(super) fn split(&mut self, full: &Enforcer, target: &Target, units: &Units) -> Result<()> {
        // Longer than one segment, and decided in the second: the versions come last.
        let hello = Hello { session: 32, ..Hello::legacy(0x0303) }
            .with(0, b"\0\x12\0\0\x0fapi.example.com")
            .with(51, &[7; 1_263 + 32])
            .with(21, &[0; 200])
            .with(43, &version_list(&[0x7a7a, 0x0304, 0x0303]))
            .bytes();
        ensure!(hello.len() > FIRST, "the hello fits into one segment");
        let segment = |sequence, flags, data: &[u8]| tcp_at(SOURCE_V4.into(), 443, sequence, flags, data);
        let first = segment(INITIAL + 1, DATA, &hello[..FIRST]);
        let frames = [
            segment(INITIAL, SYN, &[]),
            first.clone(),
            first,
            segment(INITIAL + 1 + FIRST as u32, DATA, &hello[FIRST..]),
        ];
        for flows in [FEW, MANY] {
            for set in self.cpu_sets() {
                self.walk(full, target, units, &frames, flows, &set)?;
            }
        }
        Ok(())
    }

    fn walk(
        &mut self,
        full: &Enforcer,
        target: &Target,
        units: &Units,
        frames: &[Vec<u8>; STEPS.len()],
        flows: u32,
        set: &[usize],
    ) -> Result<()> {
        // Each CPU has flows of its own: on one flow only one can work at a time.
        let senders: Vec<Senders> = (0..set.len() as u32)
            .map(|cpu| Senders::new(target, Keys::Rising, flows, KNOWN_BASE | cpu << OWN))
            .collect::<Result<_>>()?;
        let lines = |cpu: usize| {
            let line = |program, frame| Line { program, frame, action: None };
            let Senders { real, floor } = &senders[cpu];
            let [syn, first, again, last] = frames.each_ref().map(|frame| &**frame);
            [
                line(floor, syn),
                line(real, syn),
                line(floor, first),
                line(real, first),
                line(floor, again),
                line(real, again),
                line(floor, last),
                line(real, last),
                line(&units.pass, first),
                line(&units.chooses, first),
                line(&units.looks, first),
            ]
        };
        let expected = [PassReason::HelloIncomplete, PassReason::HelloAccepted].map(Reason::Pass);
        let counted = || -> Result<[u64; 2]> {
            let counters = full.view.counters()?;
            Ok(expected.map(|reason| packets(&counters, reason)))
        };
        let before = counted()?;
        let rounds = (self.effort.repeat / flows).clamp(1, ROUNDS);
        let samples: [Sample; LINES] = self.effort.in_rounds(rounds, flows, lines, set)?;
        let after = counted()?;
        let sent = u64::from(rounds * flows) * (self.effort.runs as u64 + 1) * set.len() as u64;
        for ((before, after), reason) in before.into_iter().zip(after).zip(expected) {
            ensure!(after - before == sent, "{} of {sent} packets ended as {reason:?}", after - before);
        }
        let random = flows == MANY;
        let [empty, chooses, looks] = [8, 9, 10].map(|line| samples[line].median);
        for (number, step) in STEPS.iter().enumerate() {
            let (floor, real) = (samples[2 * number], samples[2 * number + 1]);
            let net = real.median - floor.median;
            let row = Row::plain(&format!("ClientHello in two: {step}"), random, set.len(), real, net);
            self.rows.push(match random {
                true => row.against(Unit::R, net, looks - chooses, None),
                // As if it were called at once, like the lines in one segment.
                false => row.against(Unit::Empty, net + empty, empty, None),
            });
        }
        Ok(())
    }

    /// Two CPUs on one source take no more from its budget than one does.
    pub(super) fn exact(&mut self, full: &mut Enforcer, frame: &[u8]) -> Result<()> {
        const BURST: u32 = 4_000;
        let rate = RateLimit { events: 1, period: Duration::from_secs(3600), burst: BURST.into() };
        full.kernel.apply(&config::Kernel { limits: limits(Some(rate)), ..plain() })?;
        let clean = Reason::Pass(PassReason::Clean);
        let passed = |set: &[usize], key: u32| -> Result<u64> {
            let source: Ipv4Addr = address(EXACT_BASE, key).into();
            let frame = tcp_frame(source.into(), 443, DATA, &frame[54..]);
            let before = packets(&full.view.counters()?, clean);
            let line = Line { program: &full.program, frame: &frame, action: None };
            Effort { repeat: 20 * BURST, runs: 1 }.measure([line], set)?;
            Ok(packets(&full.view.counters()?, clean) - before)
        };
        let (alone, together) = (passed(&self.all[..1], 1)?, passed(&self.all, 2)?);
        self.checks.push(Check {
            name: format!(
                "packets of one source on {} CPUs beyond what passes on one ({alone})",
                self.all.len()
            ),
            value: together.abs_diff(alone) as f64,
            bar: 0.0,
        });
        full.kernel.apply(&config::Kernel { limits: wide(), ..plain() })
    }
}

/// Sources that are used for nothing else.
const EXACT_BASE: u32 = 12 << 24;
