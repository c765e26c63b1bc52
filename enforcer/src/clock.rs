//! The only place that reads a clock. Everything else takes the time as an argument.
#![allow(clippy::disallowed_methods, reason = "this is clock.rs")]

use std::{
    fs, io,
    time::{Duration, Instant, SystemTime},
};

/// Nanoseconds of `CLOCK_MONOTONIC`: what `bpf_ktime_get_ns` and its coarse sibling count, so that the ends of bans mean the same
/// to the daemon and to the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelTime(pub u64);

impl KernelTime {
    /// The time `seconds` later; saturates at "forever".
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000_000)))
    }

    /// The time so much later, likewise.
    pub const fn plus(self, duration: Duration) -> Self {
        let nanoseconds = duration.as_nanos();
        Self(self.0.saturating_add(if nanoseconds > u64::MAX as u128 {
            u64::MAX
        } else {
            nanoseconds as u64
        }))
    }

    /// Whole seconds until `self`, rounded up; 0 once it has passed.
    pub const fn seconds_from(self, now: Self) -> u64 {
        self.0.saturating_sub(now.0).div_ceil(1_000_000_000)
    }
}

/// `CLOCK_MONOTONIC` now.
pub fn kernel_now() -> KernelTime {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(|t| {
            KernelTime((t.tv_sec() as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec() as u64))
        })
        .unwrap_or(KernelTime(0))
}

/// Nanoseconds since 1970-01-01T00:00:00Z at an instant of `CLOCK_MONOTONIC` not long ago, for people.
pub fn unix_ns(at: KernelTime) -> u64 {
    let now = system_now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(kernel_now().0.saturating_sub(at.0))
}

/// Now in both times that outlive the daemon, and which run of the machine it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// `CLOCK_MONOTONIC`.
    pub now: KernelTime,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub now_unix_ms: u64,
    /// Names the run of the machine: the kernel's own time begins anew with each.
    pub boot: String,
}

impl Calendar {
    /// Now.
    pub fn read() -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let mut calendar = Self { now: KernelTime(0), now_unix_ms: 0, boot };
        calendar.renew();
        Ok(calendar)
    }

    /// Takes the time again.
    pub fn renew(&mut self) {
        let since = system_now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.now_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.now = kernel_now();
    }

    /// The date of a moment of this run of the machine, past or to come.
    pub const fn unix_ms(&self, time: KernelTime) -> u64 {
        let ahead = time.0.saturating_sub(self.now.0) / 1_000_000;
        let behind = self.now.0.saturating_sub(time.0) / 1_000_000;
        self.now_unix_ms.saturating_add(ahead).saturating_sub(behind)
    }

    /// The moment of a date; what was before this run of the machine was at its beginning.
    pub const fn kernel(&self, unix_ms: u64) -> KernelTime {
        let ahead = unix_ms.saturating_sub(self.now_unix_ms).saturating_mul(1_000_000);
        let behind = self.now_unix_ms.saturating_sub(unix_ms).saturating_mul(1_000_000);
        KernelTime(self.now.0.saturating_add(ahead).saturating_sub(behind))
    }
}

/// A monotonic instant, for durations inside the daemon.
pub fn instant_now() -> Instant {
    Instant::now()
}

/// Wall-clock time, for token claims and for people.
pub fn system_now() -> SystemTime {
    SystemTime::now()
}

/// Whole seconds since 1970-01-01T00:00:00Z; 0 for a clock before that.
pub fn unix_now() -> u64 {
    system_now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
