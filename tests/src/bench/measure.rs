//! Nanoseconds per packet of one program, on one CPU or on several at once.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{sched, unistd::Pid};

use crate::bpf::Program;

/// How long is measured, and where.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Packets per run and CPU.
    pub repeat: u32,
    /// Runs; the median counts.
    pub runs: usize,
}

/// What was measured, in nanoseconds per packet.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Sample {
    /// Half of the runs were faster.
    pub median: f64,
    /// The fastest run.
    pub fastest: f64,
    /// The slowest run.
    pub slowest: f64,
}

impl Sample {
    fn of(mut runs: Vec<f64>) -> Self {
        runs.sort_by(f64::total_cmp);
        let at = |index: usize| runs.get(index).copied().unwrap_or(0.0);
        Self { median: at(runs.len() / 2), fastest: at(0), slowest: at(runs.len().saturating_sub(1)) }
    }
}

/// The CPUs that this process may use.
pub fn cpus() -> Result<Vec<usize>> {
    let set = sched::sched_getaffinity(Pid::from_raw(0)).context("asking for the CPUs")?;
    Ok((0..sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Moves the calling thread to one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = sched::CpuSet::new();
    set.set(cpu)?;
    sched::sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("running on CPU {cpu}"))
}

/// Where the generators of keys begin: no two runs of this process share a stretch of rising keys.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// `frame` with a generator's state in its first eight bytes.
pub fn seeded(frame: &[u8], state: u64) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(first) = frame.get_mut(..8) {
        first.copy_from_slice(&state.to_ne_bytes());
    }
    frame
}

/// One of several programs that are measured together.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// What runs.
    pub program: &'a Program,
    /// On what.
    pub frame: &'a [u8],
    /// What it must return, where every packet ends the same.
    pub action: Option<u32>,
}

impl Effort {
    /// One warm-up, then the runs; in each run one line after the other, so that a machine that gets slower, or faster,
    /// does so for all of them. All `cpus` begin each line of each run at the same time, and its time is their mean.
    pub fn measure<const N: usize>(&self, lines: [Line<'_>; N], cpus: &[usize]) -> Result<[Sample; N]> {
        ensure!(self.runs > 0 && self.repeat > 0, "--runs and --repeat must be at least 1");
        let barrier = Barrier::new(cpus.len());
        let by_cpu = thread::scope(|scope| {
            let threads: Vec<_> = cpus
                .iter()
                .map(|cpu| {
                    let (barrier, lines) = (&barrier, &lines);
                    scope.spawn(move || {
                        // An error must not keep the others waiting, so it is told at the end.
                        let pinned = pin(*cpu);
                        let runs: Vec<Result<f64>> = (0..=self.runs)
                            .flat_map(|_| lines.iter())
                            .map(|line| {
                                barrier.wait();
                                self.once(line)
                            })
                            .collect();
                        pinned?;
                        runs.into_iter().skip(N).collect::<Result<Vec<f64>>>()
                    })
                })
                .collect();
            let joined =
                threads.into_iter().map(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?);
            joined.collect::<Result<Vec<Vec<f64>>>>()
        })?;
        Ok(std::array::from_fn(|line| {
            let mean = |run: usize| {
                let times = by_cpu.iter().filter_map(|times| times.get(run * N + line));
                times.sum::<f64>() / by_cpu.len() as f64
            };
            Sample::of((0..self.runs).map(mean).collect())
        }))
    }

    /// The same for lines that only make sense one after the other: each run is so many rounds, in which each line runs `repeat` times.
    /// The CPUs begin a run together and may have other lines, for the CPU with this place among them.
    pub fn in_rounds<'a, const N: usize>(
        &self,
        rounds: u32,
        repeat: u32,
        lines: impl Fn(usize) -> [Line<'a>; N] + Sync,
        cpus: &[usize],
    ) -> Result<[Sample; N]> {
        ensure!(rounds > 0 && repeat > 0, "nothing to measure");
        let short = Self { repeat, runs: self.runs };
        let (barrier, short, lines) = (&Barrier::new(cpus.len()), &short, &lines);
        let run = move |place: usize, cpu: usize| -> Result<Vec<[f64; N]>> {
            let pinned = pin(cpu);
            let lines = lines(place);
            let runs = (0..=short.runs).map(|_| {
                barrier.wait();
                let mut sums = [0.0; N];
                for _ in 0..rounds {
                    for (sum, line) in sums.iter_mut().zip(&lines) {
                        *sum += short.once(line)?;
                    }
                }
                Ok(sums.map(|sum| sum / f64::from(rounds)))
            });
            let runs: Vec<Result<[f64; N]>> = runs.collect();
            pinned?;
            runs.into_iter().skip(1).collect()
        };
        let by_cpu = thread::scope(|scope| {
            let threads: Vec<_> =
                cpus.iter().enumerate().map(|(place, cpu)| scope.spawn(move || run(place, *cpu))).collect();
            let joined =
                threads.into_iter().map(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?);
            joined.collect::<Result<Vec<_>>>()
        })?;
        Ok(std::array::from_fn(|line| {
            let mean = |run: usize| {
                let times = by_cpu.iter().filter_map(|runs| Some(runs.get(run)?[line]));
                times.sum::<f64>() / by_cpu.len() as f64
            };
            Sample::of((0..self.runs).map(mean).collect())
        }))
    }

    fn once(&self, line: &Line<'_>) -> Result<f64> {
        let frame = seeded(line.frame, NEXT.fetch_add(u64::from(self.repeat), Ordering::Relaxed));
        let outcome = line.program.run(&frame, self.repeat)?;
        let found = outcome.action;
        ensure!(line.action.is_none_or(|action| action == found), "returned {found}, not {:?}", line.action);
        Ok(outcome.duration.as_nanos() as f64)
    }

    /// Packets that [`Effort::measure`] sends.
    pub fn packets(&self, cpus: &[usize]) -> u64 {
        u64::from(self.repeat) * (self.runs as u64 + 1) * cpus.len() as u64
    }
}
