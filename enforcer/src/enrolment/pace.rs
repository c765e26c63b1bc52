//! How fast devices may be forgotten, and by which time: a wall clock that is wrong for a moment must not cost everybody's enrolment.
//!
//! Two things hold it up. The time by which devices are old is the wall's less whatever the wall has leapt ahead of the machine's own
//! clock since the start; stepping back takes from that again. And in any time no larger part of the devices is forgotten than would
//! empty the registry within a sixteenth of `forget_after`: whoever is not seen for long goes much slower than that, and a clock that was wrong already
//! at the start leaves days to notice it. Pure: times are arguments.

use std::time::Duration;

/// Seconds by which the wall clock may be ahead at one look without that being a leap: clocks are slewed by less.
const SLACK: u64 = 5;
/// All devices at once would take this part of `forget_after`.
const PART: u128 = 16;
/// What may be forgotten at one look after a long while: one device, or this part of all.
const BURST: u64 = 256;

/// Times of the last look, and what was found since.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<(u64, Duration)>,
    /// Seconds by which the wall has leapt ahead.
    leapt: u64,
    /// What may be forgotten, in devices times nanoseconds of `forget_after`.
    credit: u128,
}

impl Pace {
    /// The time by which devices are old, seconds since 1970; and how many of `devices` may be forgotten now. `now`: the wall clock, seconds
    /// since 1970; `machine`: the machine's own, since whenever.
    pub(super) fn look(
        &mut self,
        now: u64,
        machine: Duration,
        forget_after: Duration,
        devices: usize,
    ) -> (u64, usize) {
        let (before, then) = self.last.replace((now, machine)).unwrap_or((now, machine));
        let passed = machine.saturating_sub(then);
        let wall = i128::from(now) - i128::from(before);
        let surplus = wall - i128::from(passed.as_secs());
        if surplus.unsigned_abs() > u128::from(SLACK) {
            let leapt = (i128::from(self.leapt) + surplus).max(0);
            self.leapt = u64::try_from(leapt).unwrap_or(u64::MAX);
        }
        let devices = devices as u128;
        let one = forget_after.as_nanos().max(1);
        let most = (devices / u128::from(BURST)).max(1).saturating_mul(one);
        let gained = passed.as_nanos().saturating_mul(devices).saturating_mul(PART);
        self.credit = self.credit.saturating_add(gained).min(most);
        let may = usize::try_from(self.credit / one).unwrap_or(usize::MAX);
        (now.saturating_sub(self.leapt), may)
    }

    /// So many were forgotten.
    pub(super) fn took(&mut self, count: usize, forget_after: Duration) {
        self.credit = self.credit.saturating_sub((count as u128).saturating_mul(forget_after.as_nanos()));
    }

    /// Seconds by which the wall has leapt ahead since the start, and has not come back.
    pub(super) const fn leapt(&self) -> u64 {
        self.leapt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const HALF_YEAR: Duration = Duration::from_secs(180 * 86_400);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_wall_that_leaps_ahead_makes_nothing_older_until_it_comes_back() {
        let mut pace = Pace::default();
        let mut at = |now, machine| pace.look(now, seconds(machine), HALF_YEAR, 1_000).0;
        assert_eq!(at(NOW, 100), NOW);
        assert_eq!(at(NOW + 60, 160), NOW + 60);
        // Ten years ahead, for a while.
        let far = NOW + 315_360_000;
        assert_eq!(at(far + 61, 161), NOW + 61);
        assert_eq!(at(far + 3_600, 3_700), NOW + 3_600);
        assert_eq!(at(NOW + 3_601, 3_701), NOW + 3_601, "it is right again");
        // Behind, which makes nothing old either, and right again.
        assert_eq!(at(NOW - 86_400, 3_702), NOW - 86_400);
        assert_eq!(at(NOW + 3_603, 3_703), NOW - 86_399, "as a leap, it waits for a start");
        // What clocks are slewed by is none.
        let mut pace = Pace::default();
        let last = (0..1_000).map(|n| pace.look(NOW + 3 * n, seconds(2 * n), HALF_YEAR, 1_000).0).last();
        assert_eq!(last, Some(NOW + 2_997));
        assert_eq!(pace.leapt(), 0);
    }

    #[test]
    fn no_more_is_forgotten_at_once_than_a_part_and_all_of_it_takes_long() {
        let mut pace = Pace::default();
        assert_eq!(pace.look(NOW, seconds(0), HALF_YEAR, 1_000_000).1, 0);
        // However long nobody looked.
        assert_eq!(pace.look(NOW, seconds(86_400), HALF_YEAR, 1_000_000).1, 3_906);
        pace.took(3_906, HALF_YEAR);
        let (mut left, mut looks) = (1_000_000_usize, 0_u64);
        while left > 0 {
            looks += 1;
            let may = pace.look(NOW, seconds(86_400 + looks), HALF_YEAR, 1_000_000).1.min(left);
            pace.took(may, HALF_YEAR);
            left -= may;
        }
        assert!(looks > 11 * 86_400, "{looks} s, where a sixteenth of half a year are 11 days");
        // One of few goes, too.
        let mut pace = Pace::default();
        pace.look(NOW, seconds(0), seconds(3_600), 3);
        assert_eq!(pace.look(NOW, seconds(74), seconds(3_600), 3).1, 0);
        assert_eq!(pace.look(NOW, seconds(75), seconds(3_600), 3).1, 1);
    }
}
