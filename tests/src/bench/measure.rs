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

impl Effort {
    /// One warm-up, then the runs. All `cpus` begin each run at the same time, and the run's time is their mean; `action` is
    /// what the program must return, where every packet ends the same.
    pub fn measure(
        &self,
        program: &Program,
        frame: &[u8],
        action: Option<u32>,
        cpus: &[usize],
    ) -> Result<Sample> {
        ensure!(self.runs > 0 && self.repeat > 0, "--runs and --repeat must be at least 1");
        let barrier = Barrier::new(cpus.len());
        let mut by_cpu = thread::scope(|scope| {
            let threads: Vec<_> = cpus
                .iter()
                .map(|cpu| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        // An error must not keep the others waiting, so it is told at the end.
                        let pinned = pin(*cpu);
                        let times = (0..=self.runs).map(|_| {
                            let state = NEXT.fetch_add(u64::from(self.repeat), Ordering::Relaxed);
                            let frame = seeded(frame, state);
                            barrier.wait();
                            let outcome = program.run(&frame, self.repeat)?;
                            let found = outcome.action;
                            ensure!(
                                action.is_none_or(|action| action == found),
                                "returned {found}, not {action:?}"
                            );
                            Ok(outcome.duration.as_nanos() as f64)
                        });
                        let times: Vec<Result<f64>> = times.collect();
                        pinned?;
                        times.into_iter().skip(1).collect::<Result<Vec<f64>>>()
                    })
                })
                .collect();
            let joined =
                threads.into_iter().map(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?);
            joined.collect::<Result<Vec<Vec<f64>>>>()
        })?;
        let mut runs = by_cpu.pop().context("no CPU to run on")?;
        let more = by_cpu.len();
        for (index, time) in runs.iter_mut().enumerate() {
            *time += by_cpu.iter().map(|times| times.get(index).copied().unwrap_or(0.0)).sum::<f64>();
            *time /= (more + 1) as f64;
        }
        runs.sort_by(f64::total_cmp);
        let (first, last) = (runs.first().copied(), runs.last().copied());
        Ok(Sample {
            median: runs.get(runs.len() / 2).copied().unwrap_or(0.0),
            fastest: first.unwrap_or(0.0),
            slowest: last.unwrap_or(0.0),
        })
    }

    /// Packets that [`Effort::measure`] sends.
    pub fn packets(&self, cpus: &[usize]) -> u64 {
        u64::from(self.repeat) * (self.runs as u64 + 1) * cpus.len() as u64
    }
}
