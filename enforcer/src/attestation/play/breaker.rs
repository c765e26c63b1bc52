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

/// The state of one whom calls go to.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    pause: Duration,
    open_until: Option<KernelTime>,
    probing: bool,
}

impl Breaker {
    /// Whether a call may be made; who is told so has to [`end`](Self::end) it. Otherwise: seconds until one may.
    pub fn admit(&mut self, now: KernelTime) -> Result<(), u64> {
        match self.open_until {
            None => Ok(()),
            Some(until) if until > now => Err(until.seconds_from(now)),
            Some(_) if self.probing => Err(1),
            Some(_) => {
                self.probing = true;
                Ok(())
            }
        }
    }

    /// A call has ended.
    pub fn end(&mut self, ended: Ended, now: KernelTime) {
        let probe = std::mem::take(&mut self.probing);
        match ended {
            Ended::Answered => *self = Self::default(),
            Ended::Failed => {
                self.failures = self.failures.saturating_add(1);
                if probe || self.failures >= FAILURES {
                    self.open(None, now);
                }
            }
            Ended::Refused(wish) => self.open(wish, now),
        }
    }

    /// A call that was admitted is not made after all.
    pub fn cancel(&mut self) {
        self.probing = false;
    }

    /// Whether calls are held back.
    pub fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    fn open(&mut self, wish: Option<Duration>, now: KernelTime) {
        self.pause = if self.pause.is_zero() { FIRST } else { (self.pause * 2).min(LONGEST) };
        let pause = wish.unwrap_or_default().clamp(self.pause, LONGEST);
        let until = now.plus(pause);
        // Calls that were under way when it opened do not shorten it.
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
            breaker.admit(now).unwrap();
            breaker.end(Ended::Failed, now);
        }
        breaker.end(Ended::Answered, now);
        for _ in 0..5 {
            breaker.admit(now).unwrap();
            breaker.end(Ended::Failed, now);
        }
        assert_eq!(breaker.admit(now), Err(1));
        let later = KernelTime(2 * SECOND);
        breaker.admit(later).unwrap();
        assert_eq!(breaker.admit(later), Err(1), "a second one");
        breaker.end(Ended::Failed, later);
        assert_eq!(breaker.admit(later), Err(2));
        let later = KernelTime(4 * SECOND);
        breaker.admit(later).unwrap();
        breaker.end(Ended::Answered, later);
        assert!(!breaker.is_open());
        assert!(breaker.admit(later).is_ok() && breaker.admit(later).is_ok());
    }

    #[test]
    fn whoever_wants_to_be_left_alone_is_within_limits() {
        for (wish, seconds) in [(None, 1), (Some(30), 30), (Some(0), 1), (Some(86_400), 60)] {
            let (mut breaker, now) = (Breaker::default(), KernelTime(SECOND));
            breaker.admit(now).unwrap();
            breaker.end(Ended::Refused(wish.map(Duration::from_secs)), now);
            assert_eq!(breaker.admit(now), Err(seconds));
        }
        let (mut breaker, mut now) = (Breaker::default(), KernelTime(SECOND));
        for _ in 0..20 {
            breaker.end(Ended::Failed, now);
            if let Err(wait) = breaker.admit(now) {
                assert!(wait <= 60);
                now = now.plus_seconds(wait);
                breaker.admit(now).unwrap();
            }
        }
    }
}
