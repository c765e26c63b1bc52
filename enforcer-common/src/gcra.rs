//! Generic cell rate algorithm: the one rate arithmetic of the product, for packets and for requests.
//!
//! State is one `u64`, the theoretical arrival time (TAT) in nanoseconds; 0 means "never seen". There is no
//! division and no clock here: the caller passes `now`. The formula is that of ITU-T I.371 in its virtual
//! scheduling form.

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A rate in the form that `step` needs. All-zero means "no limit".
///
/// In any window of length `w` at most `burst + w / increment` events are admitted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that one event costs: 1e9 / rate.
    pub increment: u64,
    /// Nanoseconds of debt that are tolerated: burst x increment.
    pub tolerance: u64,
}

impl Rate {
    /// No limit at all.
    pub const UNLIMITED: Self = Self { increment: 0, tolerance: 0 };

    /// `events` per `period_ns`, with at most `burst` events at once from an idle source.
    ///
    /// `burst` below 1 would admit nothing, so it counts as 1. `events == 0` gives [`Rate::UNLIMITED`]; callers
    /// refuse a configured rate of zero before they come here.
    pub const fn new(events: u64, period_ns: u64, burst: u64) -> Self {
        if events == 0 {
            return Self::UNLIMITED;
        }
        let increment = if period_ns / events == 0 { 1 } else { period_ns / events };
        let burst = if burst == 0 { 1 } else { burst };
        Self { increment, tolerance: increment.saturating_mul(burst) }
    }

    /// `events` per second with at most `burst` at once.
    pub const fn per_second(events: u64, burst: u64) -> Self {
        Self::new(events, NANOS_PER_SECOND, burst)
    }

    /// Whether events are counted at all.
    pub const fn is_limited(&self) -> bool {
        self.increment != 0
    }
}

/// Charges one event to a source whose state is `tat`.
///
/// `Ok` carries the new state; `Err` carries the nanoseconds after which the same event would be admitted, and
/// the state stays as it was. Saturates instead of wrapping, and then refuses.
#[inline(always)]
pub fn step(tat: u64, now: u64, rate: Rate) -> Result<u64, u64> {
    let base = if tat > now { tat } else { now };
    let next = base.saturating_add(rate.increment);
    let latest = now.saturating_add(rate.tolerance);
    if next > latest { Err(next - latest) } else { Ok(next) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn burst_is_admitted_at_once_and_the_next_one_waits_one_increment() {
        let rate = Rate::per_second(5, 3);
        let mut tat = 0;
        for _ in 0..3 {
            tat = step(tat, 1_000, rate).unwrap();
        }
        assert_eq!(step(tat, 1_000, rate), Err(200_000_000));
        assert!(step(tat, 200_001_000, rate).is_ok());
    }

    #[test]
    fn a_time_at_the_end_of_the_range_refuses_instead_of_wrapping() {
        let rate = Rate { increment: 10, tolerance: u64::MAX };
        assert_eq!(step(u64::MAX, 5, rate), Ok(u64::MAX), "debt within tolerance saturates");
        let rate = Rate { increment: 10, tolerance: 10 };
        assert!(step(u64::MAX, 5, rate).is_err());
    }

    proptest! {
        /// Over any arrival sequence, any window admits at most burst + elapsed / increment.
        #[test]
        fn never_admits_more_than_rate_times_time_plus_burst(
            events in 1u64..100_000, burst in 1u64..200,
            gaps in proptest::collection::vec(0u64..50_000_000, 1..400),
        ) {
            let rate = Rate::per_second(events, burst);
            let mut now = 1_000_000_000u64;
            let mut tat = 0;
            let mut admitted = Vec::new();
            for gap in gaps {
                now += gap;
                if let Ok(next) = step(tat, now, rate) { tat = next; admitted.push(now); }
            }
            for (i, start) in admitted.iter().enumerate() {
                for (j, end) in admitted.iter().enumerate().skip(i) {
                    let count = (j - i + 1) as u64;
                    prop_assert!(count <= burst + (end - start) / rate.increment);
                }
            }
        }

        /// A source that never exceeds its rate is never refused, whatever the jitter within its burst.
        #[test]
        fn always_admits_a_conforming_sequence(
            events in 1u64..100_000, burst in 1u64..100, jitter in proptest::collection::vec(0u64..1_000, 1..300),
        ) {
            let rate = Rate::per_second(events, burst);
            let (mut tat, mut now) = (0, 1_000_000_000u64);
            for j in jitter {
                now += rate.increment + j;
                let next = step(tat, now, rate);
                prop_assert!(next.is_ok());
                tat = next.unwrap();
            }
        }
    }
}
