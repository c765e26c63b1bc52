//! Whether somebody who does not answer is asked again: after a few failures in a row not for a while, then by one call alone. Pure.

use std::time::Duration;

use crate::clock::KernelTime;

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// How long it stays open at first; twice as long each time that the call after that fails.
const FIRST: Duration = Duration::from_secs(1);
/// And at most.
const LONGEST: Duration = Duration::from_secs(60);

/// How a call ended, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an answer, whatever it said.
    Answered,
    /// Without one.
    Failed,
    /// With the wish to be left alone, for so long if that is said.
    Refused(Option<Duration>),
}

/// Leave to make one call, which has to be given back by [`Breaker::end`] or [`Breaker::cancel`].
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Leave {
    /// Whether it is the one call that finds out if the pause was long enough.
    probes: bool,
}

/// The state of one whom calls go to.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    pause: Duration,
    open_until: Option<KernelTime>,
    probing: bool,
}

impl Breaker {
    /// Whether a call may be made. Otherwise: seconds until one may.
    pub fn admit(&mut self, now: KernelTime) -> Result<Leave, u64> {
        match self.open_until {
            None => Ok(Leave { probes: false }),
            Some(until) if until > now => Err(until.seconds_from(now)),
            Some(_) if self.probing => Err(1),
            Some(_) => {
                self.probing = true;
                Ok(Leave { probes: true })
            }
        }
    }

    /// A call has ended. Those that were under way when it opened end late, and often together: they say once more what is known, so
    /// they make no pause longer, and nothing of the call that probes.
    pub fn end(&mut self, leave: Leave, ended: Ended, now: KernelTime) {
        self.cancel(leave);
        let is_news = leave.probes || self.open_until.is_none();
        match ended {
            Ended::Answered => *self = Self::default(),
            Ended::Failed if is_news => {
                self.failures = self.failures.saturating_add(1);
                if leave.probes || self.failures >= FAILURES {
                    self.open(None, now);
                }
            }
            Ended::Failed => {}
            Ended::Refused(wish) if is_news => self.open(wish, now),
            Ended::Refused(wish) => self.stay_open(wish.unwrap_or_default(), now),
        }
    }

    /// A call that was admitted is not made after all.
    pub fn cancel(&mut self, leave: Leave) {
        if leave.probes {
            self.probing = false;
        }
    }

    /// Whether calls are held back.
    pub fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    fn open(&mut self, wish: Option<Duration>, now: KernelTime) {
        self.pause = if self.pause.is_zero() { FIRST } else { (self.pause * 2).min(LONGEST) };
        self.stay_open(wish.unwrap_or_default().max(self.pause), now);
    }

    /// At least for so long; what was decided before is not shortened.
    fn stay_open(&mut self, pause: Duration, now: KernelTime) {
        let until = now.plus(pause.min(LONGEST));
        self.open_until = Some(self.open_until.map_or(until, |before| before.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_call_through_at_a_time() {
        let (mut breaker, now) = (Breaker::default(), KernelTime(SECOND));
        for _ in 0..4 {
            let leave = breaker.admit(now).unwrap();
            breaker.end(leave, Ended::Failed, now);
        }
        let leave = breaker.admit(now).unwrap();
        breaker.end(leave, Ended::Answered, now);
        for _ in 0..5 {
            let leave = breaker.admit(now).unwrap();
            breaker.end(leave, Ended::Failed, now);
        }
        assert_eq!(breaker.admit(now).err(), Some(1));
        let later = KernelTime(2 * SECOND);
        let probe = breaker.admit(later).unwrap();
        assert_eq!(breaker.admit(later).err(), Some(1), "a second one");
        breaker.end(probe, Ended::Failed, later);
        assert_eq!(breaker.admit(later).err(), Some(2));
        let later = KernelTime(4 * SECOND);
        let probe = breaker.admit(later).unwrap();
        breaker.end(probe, Ended::Answered, later);
        assert!(!breaker.is_open());
        assert!(breaker.admit(later).is_ok() && breaker.admit(later).is_ok());
    }

    #[test]
    fn whoever_wants_to_be_left_alone_is_within_limits() {
        for (wish, seconds) in [(None, 1), (Some(30), 30), (Some(0), 1), (Some(86_400), 60)] {
            let (mut breaker, now) = (Breaker::default(), KernelTime(SECOND));
            let leave = breaker.admit(now).unwrap();
            breaker.end(leave, Ended::Refused(wish.map(Duration::from_secs)), now);
            assert_eq!(breaker.admit(now).err(), Some(seconds));
        }
        let (mut breaker, mut now) = (Breaker::default(), KernelTime(SECOND));
        for _ in 0..20 {
            match breaker.admit(now) {
                Ok(leave) => breaker.end(leave, Ended::Failed, now),
                Err(wait) => {
                    assert!(wait <= 60);
                    now = now.plus_seconds(wait);
                }
            }
        }
        assert_eq!(breaker.pause, LONGEST);
    }

    #[test]
    fn calls_that_fail_together_count_once_and_take_nothing_from_the_one_that_probes() {
        let (mut breaker, now) = (Breaker::default(), KernelTime(SECOND));
        let calls: Vec<_> = (0..25).map(|_| breaker.admit(now).unwrap()).collect();
        for leave in &calls[..20] {
            breaker.end(*leave, Ended::Failed, now);
        }
        assert_eq!(breaker.admit(now).err(), Some(1), "as after five");
        let later = KernelTime(2 * SECOND);
        let probe = breaker.admit(later).unwrap();
        for leave in &calls[20..] {
            breaker.end(*leave, Ended::Failed, later);
        }
        assert_eq!(breaker.admit(later).err(), Some(1), "one probes already");
        breaker.end(probe, Ended::Answered, later);
        assert!(!breaker.is_open());
    }
}
