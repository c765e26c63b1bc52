//! Which servers of an upstream refused their last connection, for all workers alike.
//!
//! `upstream` reports what it met and asks before it chooses. A server is never given up: it only rests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::clock::KernelTime;

/// Seconds for which a server that refused a connection is passed over while another one is left: long enough that few
/// requests pay for the attempt, short enough that a restarted server is back soon.
const REST: u64 = 5;
/// Seconds between two warnings about one server; one that comes and goes is told of once.
const QUIET: u64 = 10;

/// The servers of one upstream, in the order of the configuration.
#[derive(Debug)]
pub struct Health(Box<[Server]>);

#[derive(Debug, Default)]
struct Server {
    /// End of its rest, in nanoseconds of the kernel's clock; 0: it is up.
    rests_until: AtomicU64,
    quiet_until: AtomicU64,
    told: AtomicBool,
}

impl Health {
    /// So many servers, all of them up.
    pub fn new(servers: usize) -> Self {
        Self((0..servers).map(|_| Server::default()).collect())
    }

    /// Whether to pass a server over.
    pub fn rests(&self, server: usize, now: KernelTime) -> bool {
        self.0.get(server).is_some_and(|server| server.rests_until.load(Relaxed) > now.0)
    }

    /// A server could not be reached; says whether the operator is to be told.
    pub fn failed(&self, server: usize, now: KernelTime) -> bool {
        let Some(server) = self.0.get(server) else { return false };
        let was_up = server.rests_until.swap(now.plus_seconds(REST).0, Relaxed) == 0;
        if !was_up || server.quiet_until.load(Relaxed) > now.0 {
            return false;
        }
        server.quiet_until.store(now.plus_seconds(QUIET).0, Relaxed);
        server.told.store(true, Relaxed);
        true
    }

    /// A server was reached; says whether the operator is to be told.
    pub fn reached(&self, server: usize) -> bool {
        let Some(server) = self.0.get(server) else { return false };
        if server.rests_until.load(Relaxed) == 0 {
            return false;
        }
        server.rests_until.store(0, Relaxed);
        server.told.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_rests_for_a_while_and_is_told_of_once_each_way() {
        let health = Health::new(2);
        let start = KernelTime(1);
        assert!(!health.rests(0, start) && !health.reached(0), "nothing happened yet");
        assert!(health.failed(0, start));
        assert!(!health.failed(0, start), "known already");
        assert!(health.rests(0, start) && !health.rests(1, start));
        assert!(!health.rests(0, start.plus_seconds(REST)));
        assert!(health.reached(0) && !health.reached(0));
        assert!(!health.failed(0, start.plus_seconds(QUIET - 1)), "too soon after the last warning");
        assert!(!health.reached(0), "nobody was told that it was gone");
        assert!(health.failed(0, start.plus_seconds(QUIET)));
    }
}
