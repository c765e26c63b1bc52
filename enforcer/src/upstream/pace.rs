//! How slowly a client may send a body: so long between two pieces, and on the whole not slower than a rate. Only the time counts in
//! which the client is waited for, so a slow server is nobody's fault here.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use crate::clock;

/// What a client is given.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two pieces; and before the rate counts.
    pub between: Duration,
    /// Bytes a second, on the whole; 0: any.
    pub rate: u64,
}

/// How it uses it.
#[derive(Debug)]
pub(super) struct Pace {
    patience: Patience,
    unhurried: bool,
    received: u64,
    waited: Duration,
    /// Since when it is waited for, and until when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Pace {
    /// Nothing came yet.
    pub(super) const fn new(patience: Patience) -> Self {
        Self { patience, unhurried: false, received: 0, waited: Duration::ZERO, waiting: None }
    }

    /// Whether it may take its time from here on.
    pub(super) const fn may_pause(&mut self, unhurried: bool) {
        self.unhurried = unhurried;
    }

    /// Something came.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
        if let Some((since, _)) = self.waiting.take() {
            self.waited += clock::instant_now().duration_since(since);
        }
    }

    /// Nothing is there; ready once it was waited for too long.
    pub(super) fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.unhurried {
            return Poll::Pending;
        }
        let left = self.patience.left(self.received, self.waited);
        let wait = || (clock::instant_now(), Box::pin(tokio::time::sleep(left)));
        let (_, end) = self.waiting.get_or_insert_with(wait);
        end.as_mut().poll(context)
    }
}

impl Patience {
    /// How long a client is waited for that has sent so much while it was waited for so long.
    fn left(self, received: u64, waited: Duration) -> Duration {
        let Self { between, rate } = self;
        let Some(milliseconds) = received.saturating_mul(1_000).checked_div(rate) else { return between };
        let earned = between.saturating_add(Duration::from_millis(milliseconds));
        between.min(earned.saturating_sub(waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_runs_out_of_time_and_a_slow_line_does_not() {
        let seconds = Duration::from_secs;
        let patience = Patience { between: seconds(30), rate: 64 };
        assert_eq!(patience.left(0, Duration::ZERO), seconds(30));
        assert_eq!(patience.left(1, seconds(29)), Duration::from_millis(1_015));
        assert_eq!(patience.left(2, seconds(31)), Duration::ZERO);
        assert_eq!(patience.left(64 * 60, seconds(60)), seconds(30));
        assert_eq!(patience.left(64 * 60, seconds(80)), seconds(10));
        let any = Patience { rate: 0, ..patience };
        assert_eq!(any.left(1, seconds(3_600)), seconds(30));
    }
}
