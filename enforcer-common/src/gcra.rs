//! Generic cell rate algorithm: the one rate arithmetic of the product, for packets and for requests.
//!
//! State is one `u64`, the theoretical arrival time (TAT) in nanoseconds; 0 means "never seen". There is no
//! division and no clock here: the caller passes `now`. The formula is that of ITU-T I.371 in its virtual
//! scheduling form.

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What a rate's increment and tolerance are at most, in nanoseconds: 73 years, so that no TAT reaches the bit that tells a ban from
/// a debt, [`crate::limiter::BAN`].
const LONGEST: u64 = 1 << 61;

/// Debt beyond what a rate tolerates that is taken for the caller's late clock: a second. More stems from a stricter rate
/// that was in force before; see [`settle`].
const LATE: u64 = NANOS_PER_SECOND;

/// The coarsest step of a coarse clock, in nanoseconds: a tick at HZ=100, the slowest that Linux is built with.
pub const TICK: u64 = 10_000_000;

/// Bytes that are one event of a rate of bytes: at 100 Gbit/s one byte costs less than a nanosecond.
pub const UNIT: u64 = 1 << 10;

/// What an event weighs at most, in bytes, a power of two. The product with any increment of a rate of bytes, which is at least 1 KiB
/// per second, fits into 64 bits.
const MOST_BYTES: u64 = 1 << 20;

/// A rate in the form that `step` needs. All-zero means "no limit".
///
/// In any window of length `w` at most `burst + w / increment` events are admitted. By a clock that moves in steps of
/// [`TICK`], events of up to a tick earlier or later look simultaneous: `burst + (w + TICK) / increment`.
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
        let increment = if increment > LONGEST { LONGEST } else { increment };
        let tolerance = increment.saturating_mul(if burst == 0 { 1 } else { burst });
        Self { increment, tolerance: if tolerance > LONGEST { LONGEST } else { tolerance } }
    }

    /// `events` per second with at most `burst` at once.
    pub const fn per_second(events: u64, burst: u64) -> Self {
        Self::new(events, NANOS_PER_SECOND, burst)
    }

    /// `bytes` per second with at most `burst` at once: an event of such a rate is [`UNIT`] bytes, see [`Rate::costing`].
    pub const fn bytes_per_second(bytes: u64, burst: u64) -> Self {
        let rate = Self::new(bytes, NANOS_PER_SECOND.saturating_mul(UNIT), 1);
        let tolerance = rate.increment as u128 * burst as u128 / UNIT as u128;
        let tolerance = if tolerance > LONGEST as u128 { LONGEST } else { tolerance as u64 };
        Self { tolerance, ..rate }
    }

    /// The rate of an event that weighs so many bytes, where [`UNIT`] of them are one. Frames are shorter than 2^20 bytes.
    #[inline(always)]
    #[must_use]
    pub const fn costing(self, bytes: u64) -> Self {
        let increment = self.increment.wrapping_mul(bytes & (MOST_BYTES - 1)) / UNIT;
        let free = self.increment == 0 || increment != 0;
        Self { increment: if free { increment } else { 1 }, tolerance: self.tolerance }
    }

    /// What each of `shares` holders of the rate gets of it; at least `least` bytes, or events, at once.
    #[must_use]
    pub const fn shared_by(self, shares: u64, least: u64) -> Self {
        let increment = self.increment.saturating_mul(shares);
        let increment = if increment > LONGEST { LONGEST } else { increment };
        let least = increment.saturating_mul(least);
        let tolerance = if least > self.tolerance { least } else { self.tolerance };
        Self { increment, tolerance: if tolerance > LONGEST { LONGEST } else { tolerance } }
    }

    /// Whether events are counted at all.
    pub const fn is_limited(&self) -> bool {
        self.increment != 0
    }

    /// Whether a coarse clock would refuse events that come exactly at the rate. It shows an event up to a tick earlier than it
    /// came; what comes too early is forgiven up to the tolerance less the event's own cost.
    pub const fn needs_fine_clock(&self) -> bool {
        self.is_limited() && self.tolerance.saturating_sub(self.increment) < TICK
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

/// The state to go on from: `tat`, unless no event under `rate` can have left it. Then it stems from a stricter rate that the
/// operator has loosened since, and counts as the most that `rate` tolerates; else the source would go on paying the old debt.
///
/// Under one rate and a clock that callers read at most [`LATE`] before they charge, the state never changes here.
#[inline(always)]
pub const fn settle(tat: u64, now: u64, rate: Rate) -> u64 {
    let latest = now.saturating_add(rate.tolerance);
    if tat > latest.saturating_add(LATE) { latest } else { tat }
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
                prop_assert_eq!(settle(tat, now, rate), tat, "debt of this rate is kept");
                if let Ok(next) = step(tat, now, rate) { tat = next; admitted.push(now); }
            }
            for (i, start) in admitted.iter().enumerate() {
                for (j, end) in admitted.iter().enumerate().skip(i) {
                    let count = (j - i + 1) as u64;
                    prop_assert!(count <= burst + (end - start) / rate.increment);
                }
            }
        }

        /// Events that are due once per increment are never refused, however early within the tolerance, or late, they come.
        #[test]
        fn always_admits_a_conforming_sequence(
            events in 1u64..100_000, burst in 1u64..100,
            jitter in proptest::collection::vec((0.0f64..=1.0, any::<bool>()), 1..300),
        ) {
            let rate = Rate::per_second(events, burst);
            let early = rate.tolerance - rate.increment;
            let (mut tat, mut now, mut due) = (0, 0, 10_000_000_000_000u64);
            for (part, extreme) in jitter {
                let part = if extreme { part.round() } else { part };
                // Arrivals keep their order.
                now = (due - early + (early as f64 * part) as u64).max(now);
                let next = step(tat, now, rate);
                prop_assert!(next.is_ok(), "due {due}, came {now}: {next:?}");
                tat = next.unwrap();
                due += rate.increment;
            }
        }

        /// Frames of any length: what is admitted in any window weighs no more than the burst and what the rate is worth in it; and
        /// who waits until what he sent before is paid is never refused.
        #[test]
        fn frames_are_admitted_by_their_weight(
            bytes in 1u64 << 10..20 << 30, burst in 64u64 << 10..1 << 30,
            frames in proptest::collection::vec((60u64..65_536, 0u64..2_000_000), 1..200),
        ) {
            let rate = Rate::bytes_per_second(bytes, burst);
            let (mut now, mut tat, mut patient, mut due) = (1_000_000_000u64, 0, 0, 1_000_000_000u64);
            let mut admitted = Vec::new();
            for (length, gap) in frames {
                let cost = rate.costing(length);
                prop_assert!(cost.increment > 0 && cost.tolerance == rate.tolerance);
                now += gap;
                if let Ok(next) = step(tat, now, cost) { tat = next; admitted.push((now, cost.increment)); }
                let kept = step(patient, due, cost);
                prop_assert!(kept.is_ok(), "{length} bytes: {kept:?}");
                patient = kept.unwrap();
                due += cost.increment;
            }
            for (i, (start, _)) in admitted.iter().enumerate() {
                let mut weight = 0;
                for (end, cost) in &admitted[i..] {
                    weight += cost;
                    prop_assert!(weight <= rate.tolerance + (end - start));
                }
            }
        }

        /// A share is a part of the rate, and lets a frame of any length, or one event, through at once.
        #[test]
        fn a_share_is_a_part_that_lets_one_event_through(
            events in 1u64..10_000_000, burst in 1u64..10_000_000, shares in 1u64..10_000, length in 60u64..65_536,
        ) {
            let whole = Rate::per_second(events, burst);
            let share = whole.shared_by(shares, 1);
            prop_assert_eq!(share.increment, whole.increment * shares);
            prop_assert!(step(0, 1, share).is_ok());
            let bytes = Rate::bytes_per_second(events + 1_024, burst + 65_536).shared_by(shares, 64);
            prop_assert!(step(0, 1, bytes.costing(length)).is_ok());
        }

        /// What is early by more than the tolerance is refused, so that the test above says something.
        #[test]
        fn refuses_what_comes_a_nanosecond_too_early(events in 1u64..100_000, burst in 1u64..100) {
            let rate = Rate::per_second(events, burst);
            let due = 10_000_000_000_000u64;
            let tat = step(0, due, rate).unwrap();
            let earliest = tat + rate.increment - rate.tolerance;
            prop_assert!(step(tat, earliest, rate).is_ok());
            prop_assert_eq!(step(tat, earliest - 1, rate), Err(1));
        }

        /// Whatever was owed under another rate, after a second and an increment the new one admits again.
        #[test]
        fn a_loosened_rate_forgets_the_debt_of_the_stricter_one(
            events in 1u64..100_000, burst in 1u64..100, owed in any::<u64>(),
        ) {
            let rate = Rate::per_second(events, burst);
            let now = 1_000_000_000;
            let tat = settle(owed, now, rate);
            prop_assert!(tat <= now + rate.tolerance + LATE);
            prop_assert!(step(tat, now + LATE + rate.increment, rate).is_ok());
        }
    }

    #[test]
    fn a_coarse_clock_needs_a_tick_of_jitter() {
        assert!(Rate::per_second(20_000, 4).needs_fine_clock());
        assert!(Rate::per_second(1, 1).needs_fine_clock(), "exactly on time leaves no jitter");
        assert!(!Rate::per_second(1, 2).needs_fine_clock());
        assert!(Rate::per_second(100, 1).needs_fine_clock());
        assert!(!Rate::per_second(100, 2).needs_fine_clock());
        assert!(!Rate::UNLIMITED.needs_fine_clock());
    }
}
