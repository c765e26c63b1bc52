//! File descriptors: asks for as many as the process may have, and holds connections to what they suffice for.
//!
//! Without a bound of this kind a flood of connections takes the last descriptor, and neither `/readyz` nor the control
//! socket can answer then.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use crate::config::Http;

/// A client's connection and the one to an upstream that its request may need.
const PER_CONNECTION: u64 = 2;

/// For metrics and probes (32 connections), the control socket (16), the program's tables, files that a reload reads,
/// and each thread's own.
const RESERVE: u64 = 192;

/// For a worker: its runtime, and its share of the listening sockets.
const PER_WORKER: u64 = 8;

/// What the process can afford.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Connections that may be open: `http.max_connections`, or fewer.
    pub(super) connections: u32,
    limit: u64,
    needed: u64,
}

impl Budget {
    /// Raises the soft limit to the hard one and reckons.
    pub(super) fn claim(http: &Http) -> Self {
        let limit = raise();
        let workers = match http.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            configured => configured,
        };
        let reserve = RESERVE.saturating_add(PER_WORKER.saturating_mul(workers as u64));
        Self {
            connections: affordable(limit, reserve, http.max_connections),
            limit,
            needed: PER_CONNECTION * u64::from(http.max_connections) + reserve,
        }
    }

    /// Warns if it is less than was asked for.
    pub(super) fn tell(self, http: &Http) {
        if self.connections < http.max_connections {
            warn!(
                limit = self.limit,
                needed = self.needed,
                max_connections = self.connections,
                configured = http.max_connections,
                "too few file descriptors for http.max_connections: set LimitNOFILE= (systemd) or `ulimit -Hn` to what is needed, or lower http.max_connections"
            );
        }
    }
}

/// The limit that holds afterwards.
fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    if soft >= hard {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            warn!(%error, soft, hard, "the limit of file descriptors cannot be raised");
            soft
        }
    }
}

/// At least one, so that a tight limit shows in the log and not as an outage.
fn affordable(limit: u64, reserve: u64, configured: u32) -> u32 {
    let most = limit.saturating_sub(reserve) / PER_CONNECTION;
    u32::try_from(most).unwrap_or(u32::MAX).clamp(1, configured.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_reserve_alone() {
        assert_eq!(affordable(524_288, 200, 20_000), 20_000);
        assert_eq!(affordable(1_024, 200, 20_000), 412);
        assert_eq!(affordable(100, 200, 20_000), 1);
        assert_eq!(affordable(u64::MAX, 200, 7), 7);
    }
}
