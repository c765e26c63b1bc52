//! How often Google is asked. The quota is per app and day (10,000 unless Google grants more); whoever uses it up in a minute, by asking
//! with invented tokens, would have every device refused until the next day.
//!
//! So calls are spread: a burst, then a steady rate, such that no 24 hours, whenever they begin, have more calls than the quota. A part of
//! it is a reserve, for devices that are known already: invented ones cannot use that up. Pure; what was used is forgotten at a restart, which
//! costs at most one burst more.

use enforcer_common::gcra::{self, Rate};

use crate::clock::KernelTime;

/// What a budget is by default.
pub const DEFAULT: Quota = Quota { per_day: 10_000, burst: 500, reserve: 1_000 };

const DAY: u64 = 86_400_000_000_000;

/// Calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// In any 24 hours.
    pub per_day: u32,
    /// At once, after a pause.
    pub burst: u32,
    /// Of `per_day`, for devices that are known.
    pub reserve: u32,
}

impl Quota {
    /// What is wrong with it.
    pub fn problem(&self) -> Option<String> {
        let Self { per_day, burst, reserve } = *self;
        if burst == 0 || u64::from(burst) + u64::from(reserve) >= u64::from(per_day) {
            return Some(format!(
                "a burst of {burst} and a reserve of {reserve} leave nothing of {per_day} calls a day to spread"
            ));
        }
        None
    }
}

/// Who wants to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A device that has passed before.
    Known,
    /// Another one.
    New,
}

/// Calls that may be made, and were.
#[derive(Debug)]
pub struct Budget {
    common: Rate,
    reserve: Option<Rate>,
    common_tat: u64,
    reserve_tat: u64,
    /// Calls that were granted, since the beginning.
    pub granted: u64,
    /// Calls that were not.
    pub refused: u64,
}

impl Budget {
    /// All of it is left. A quota that has a [`Quota::problem`] is taken as far as it goes.
    pub fn new(quota: Quota) -> Self {
        let burst = quota.burst.max(1);
        let reserve = quota.reserve.min(quota.per_day.saturating_sub(1));
        // In 24 hours: the burst, and what the rate gives meanwhile.
        let steady = quota.per_day.saturating_sub(reserve).saturating_sub(burst).max(1);
        // A reserve is for the same calls, and bursts with a tenth of it.
        let own = (reserve / 10).max(1);
        let rate = |steady: u32, burst: u32| Rate::new(steady.into(), DAY, burst.into());
        Self {
            common: rate(steady, burst),
            reserve: (reserve > 1).then(|| rate(reserve - own, own)),
            common_tat: 0,
            reserve_tat: 0,
            granted: 0,
            refused: 0,
        }
    }

    /// Takes one call, or says after how many seconds there will be one.
    pub fn take(&mut self, who: Who, now: KernelTime) -> Result<(), u64> {
        let refused = match gcra::step(self.common_tat, now.0, self.common) {
            Ok(tat) => {
                self.common_tat = tat;
                self.granted += 1;
                return Ok(());
            }
            Err(wait) => wait,
        };
        if let (Who::Known, Some(reserve)) = (who, self.reserve)
            && let Ok(tat) = gcra::step(self.reserve_tat, now.0, reserve)
        {
            self.reserve_tat = tat;
            self.granted += 1;
            return Ok(());
        }
        self.refused += 1;
        Err(refused.div_ceil(1_000_000_000))
    }

    /// Calls that a new device could make at once.
    pub fn left(&self, now: KernelTime) -> u64 {
        let ahead = self.common_tat.saturating_sub(now.0);
        self.common.tolerance.saturating_sub(ahead).checked_div(self.common.increment).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Calls that get through when somebody asks as fast as he can.
    fn greedy(budget: &mut Budget, who: Who, from: u64, to: u64) -> u64 {
        (from..to)
            .step_by(SECOND as usize)
            .map(|at| (0..20).filter(|_| budget.take(who, KernelTime(at)).is_ok()).count() as u64)
            .sum()
    }

    #[test]
    fn no_day_has_more_calls_than_the_quota_and_a_minute_has_not_all() {
        let mut budget = Budget::new(DEFAULT);
        let minute = greedy(&mut budget, Who::New, SECOND, 61 * SECOND);
        assert!((500..600).contains(&minute), "{minute}");
        let day = minute + greedy(&mut budget, Who::New, 61 * SECOND, DAY);
        assert!((8_900..=9_000).contains(&day), "{day}");
        // The second day, whenever it is said to begin, has no burst of its own.
        let second = greedy(&mut budget, Who::Known, DAY, 2 * DAY);
        assert!(second <= 10_000, "{second}");
    }

    #[test]
    fn known_devices_have_a_reserve_that_new_ones_cannot_use_up() {
        let mut budget = Budget::new(Quota { per_day: 1_000, burst: 10, reserve: 100 });
        let now = KernelTime(DAY);
        while budget.take(Who::New, now).is_ok() {}
        assert_eq!(budget.left(now), 0);
        let wait = budget.take(Who::New, now).unwrap_err();
        assert!((1..=98).contains(&wait), "{wait}");
        assert_eq!((0..20).filter(|_| budget.take(Who::Known, now).is_ok()).count(), 10);
        assert!(budget.take(Who::New, KernelTime(DAY + wait * SECOND)).is_ok());
        assert_eq!(budget.granted, 21);
    }

    #[test]
    fn quotas_that_leave_nothing_to_spread_are_named() {
        assert_eq!(DEFAULT.problem(), None);
        for (per_day, burst, reserve) in [(0, 1, 0), (10, 0, 0), (10, 10, 0), (100, 50, 50)] {
            assert!(Quota { per_day, burst, reserve }.problem().is_some(), "{per_day} {burst} {reserve}");
        }
        // What has a problem still grants something, and no more than it says.
        let mut budget = Budget::new(Quota { per_day: 1, burst: 1, reserve: 5 });
        assert!(budget.take(Who::New, KernelTime(1)).is_ok());
        assert!(budget.take(Who::Known, KernelTime(1)).is_err());
    }
}
