//! How the servers of an upstream are, and how much each of them has in hand: for all workers alike.
//!
//! `upstream` reports what it met and asks before it chooses; `status` and metrics look. A server is never given up: where
//! every one is out, they are asked nevertheless.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{
    clock::KernelTime,
    config::{Ejection, HealthCheck},
};

/// Seconds between two warnings about one server; one that comes and goes is told of once.
const QUIET: u64 = 10;

/// The servers of one upstream, in the order of the configuration.
#[derive(Debug)]
pub struct Health(Box<[Server]>);

/// On a cache line of its own: workers count requests there.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Server {
    /// End of its rest, in nanoseconds of the kernel's clock; 0: it is up.
    rests_until: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    /// Answers to checks in a row that speak against what holds.
    against: AtomicU32,
    /// By checks.
    down: AtomicBool,
    in_flight: AtomicU32,
    connections: AtomicU32,
    ejections: AtomicU64,
    retries: AtomicU64,
    quiet_until: AtomicU64,
    told: AtomicBool,
}

/// One server, for `status` and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether requests go there.
    pub state: State,
    /// Requests under way, with those that wait for a connection.
    pub in_flight: u32,
    /// Connections that stand or are being made.
    pub connections: u32,
    /// How often it was given a rest.
    pub ejections: u64,
    /// Requests that were sent once more because of it.
    pub retries: u64,
}

/// Whether requests go to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// They do.
    Up,
    /// Not for a while: it could not be reached, or failed too often.
    Resting,
    /// Not until checks succeed.
    Down,
}

impl State {
    /// For people and labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Resting => "resting",
            Self::Down => "down",
        }
    }
}

impl Health {
    /// So many servers, all of them up.
    pub fn new(servers: usize) -> Self {
        Self((0..servers).map(|_| Server::default()).collect())
    }

    /// How a server is.
    pub fn look(&self, server: usize, now: KernelTime) -> Option<Look> {
        let server = self.0.get(server)?;
        let state = if server.down.load(Relaxed) {
            State::Down
        } else if server.rests_until.load(Relaxed) > now.0 {
            State::Resting
        } else {
            State::Up
        };
        Some(Look {
            state,
            in_flight: server.in_flight.load(Relaxed),
            connections: server.connections.load(Relaxed),
            ejections: server.ejections.load(Relaxed),
            retries: server.retries.load(Relaxed),
        })
    }

    /// Whether to pass a server over.
    pub fn is_out(&self, server: usize, now: KernelTime) -> bool {
        self.0
            .get(server)
            .is_some_and(|server| server.down.load(Relaxed) || server.rests_until.load(Relaxed) > now.0)
    }

    /// Requests that a server has in hand.
    pub fn in_flight(&self, server: usize) -> u32 {
        self.0.get(server).map_or(0, |server| server.in_flight.load(Relaxed))
    }

    /// A request was given to a server, or has ended.
    pub fn count_request(&self, server: usize, begins: bool) {
        if let Some(server) = self.0.get(server) {
            count(&server.in_flight, begins);
        }
    }

    /// A connection to a server is being made, or has ended.
    pub fn count_connection(&self, server: usize, begins: bool) {
        if let Some(server) = self.0.get(server) {
            count(&server.connections, begins);
        }
    }

    /// A request is sent once more.
    pub fn count_retry(&self, server: usize) {
        if let Some(server) = self.0.get(server) {
            server.retries.fetch_add(1, Relaxed);
        }
    }

    /// A server could not be reached, and rests; says whether the operator is to be told.
    pub fn unreachable(&self, server: usize, rest: Duration, now: KernelTime) -> bool {
        self.0.get(server).is_some_and(|server| server.rest(rest, now))
    }

    /// A server failed a request; says whether it rests now and the operator is to be told.
    pub fn failed(&self, server: usize, ejection: &Ejection, now: KernelTime) -> bool {
        let Some(server) = self.0.get(server) else { return false };
        let failures = server.failures.fetch_add(1, Relaxed).saturating_add(1);
        ejection.failures > 0 && failures >= ejection.failures && server.rest(ejection.rest, now)
    }

    /// A server did what it was asked; says whether the operator is to be told.
    pub fn succeeded(&self, server: usize) -> bool {
        let Some(server) = self.0.get(server) else { return false };
        if server.failures.load(Relaxed) > 0 {
            server.failures.store(0, Relaxed);
        }
        if server.rests_until.load(Relaxed) == 0 {
            return false;
        }
        server.rests_until.store(0, Relaxed);
        server.told.swap(false, Relaxed)
    }

    /// A check ended; says what holds from now on, if that is something else. One task alone checks a server.
    pub fn checked(&self, server: usize, good: bool, check: &HealthCheck) -> Option<State> {
        let server = self.0.get(server)?;
        let down = server.down.load(Relaxed);
        if good != down {
            server.against.store(0, Relaxed);
            return None;
        }
        let against = server.against.fetch_add(1, Relaxed).saturating_add(1);
        if against < if down { check.healthy } else { check.unhealthy } {
            return None;
        }
        server.against.store(0, Relaxed);
        server.down.store(!down, Relaxed);
        Some(if down { State::Up } else { State::Down })
    }
}

impl Server {
    fn rest(&self, rest: Duration, now: KernelTime) -> bool {
        let until = now.0.saturating_add(u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX));
        let before = self.rests_until.swap(until, Relaxed);
        if before <= now.0 {
            self.ejections.fetch_add(1, Relaxed);
        }
        if before != 0 || self.quiet_until.load(Relaxed) > now.0 {
            return false;
        }
        self.quiet_until.store(now.plus_seconds(QUIET).0, Relaxed);
        self.told.store(true, Relaxed);
        true
    }
}

fn count(counter: &AtomicU32, begins: bool) {
    if begins {
        counter.fetch_add(1, Relaxed);
    } else {
        counter.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(5);

    #[test]
    fn a_server_rests_for_a_while_and_is_told_of_once_each_way() {
        let health = Health::new(2);
        let start = KernelTime(1);
        assert!(!health.is_out(0, start) && !health.succeeded(0), "nothing happened yet");
        assert!(health.unreachable(0, REST, start));
        assert!(!health.unreachable(0, REST, start), "known already");
        assert!(health.is_out(0, start) && !health.is_out(1, start));
        assert!(!health.is_out(0, start.plus_seconds(5)));
        assert!(health.succeeded(0) && !health.succeeded(0));
        assert!(
            !health.unreachable(0, REST, start.plus_seconds(QUIET - 1)),
            "too soon after the last warning"
        );
        assert!(!health.succeeded(0), "nobody was told that it was gone");
        assert!(health.unreachable(0, REST, start.plus_seconds(QUIET)));
        assert_eq!(health.look(0, start).unwrap().ejections, 3);
    }

    #[test]
    fn failures_in_a_row_lead_to_a_rest_and_others_do_not() {
        let health = Health::new(1);
        let ejection = Ejection { failures: 3, rest: REST };
        let now = KernelTime(1);
        for _ in 0..5 {
            assert!(!health.failed(0, &ejection, now) && !health.failed(0, &ejection, now));
            assert!(!health.is_out(0, now));
            health.succeeded(0);
        }
        for told in [false, false, true] {
            assert_eq!(health.failed(0, &ejection, now), told);
        }
        assert_eq!(health.look(0, now).unwrap().state, State::Resting);
        let later = now.plus_seconds(6);
        assert_eq!(health.look(0, later).unwrap().state, State::Up);
        health.failed(0, &ejection, later);
        assert!(health.is_out(0, later), "it has not answered since");
        let never = Health::new(1);
        for _ in 0..100 {
            assert!(!never.failed(0, &Ejection { failures: 0, rest: REST }, now));
        }
        assert!(!never.is_out(0, now));
    }

    #[test]
    fn checks_take_a_server_out_and_bring_it_back_by_their_own_counts() {
        let health = Health::new(1);
        let check = HealthCheck { healthy: 2, unhealthy: 3, ..HealthCheck::of("/".to_owned()) };
        let bad = |_| health.checked(0, false, &check);
        assert_eq!([0, 1].map(bad), [None, None]);
        assert_eq!(health.checked(0, true, &check), None);
        assert_eq!([0, 1, 2, 3].map(bad), [None, None, Some(State::Down), None], "in a row");
        assert!(health.is_out(0, KernelTime(1)));
        assert!(!health.succeeded(0), "a request that got through does not end it");
        assert!(health.is_out(0, KernelTime(1)));
        assert_eq!(health.checked(0, true, &check), None);
        assert_eq!(health.checked(0, true, &check), Some(State::Up));
    }
}
