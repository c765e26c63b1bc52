//! Which server of an upstream gets a request, and whether one may be sent once more.
//!
//! Of two servers drawn by lot the one with fewer requests in hand is taken: close to the best choice, and workers that decide
//! at the same moment do not all run to the same server.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, Weak},
};

use super::pool::Server;
use crate::{
    clock::KernelTime,
    config,
    policy::{Upstream, upstream::Servers},
    random,
};

/// What one request adds to the budget of repetitions, and what one repetition costs: a fifth of all requests may be
/// repeated, so that a group of servers that fails is not buried under a second load.
const SAVED: u32 = 1;
/// See [`SAVED`].
const COST: u32 = 5;
/// Repetitions that may come at once.
const MOST_SAVED: u32 = 20 * COST;

/// One worker's view of an upstream.
pub(super) struct Group {
    /// What it belongs to, unless that is no longer configured.
    origin: Weak<Upstream>,
    upstream: Arc<Servers>,
    servers: Vec<Rc<Server>>,
    lots: Cell<u64>,
    budget: Cell<u32>,
}

impl Group {
    pub(super) fn new(origin: &Arc<Upstream>, workers: usize) -> Self {
        Self::over(Arc::downgrade(origin), Arc::clone(origin.servers()), workers)
    }

    fn over(origin: Weak<Upstream>, upstream: Arc<Servers>, workers: usize) -> Self {
        let addresses = upstream.config.servers.iter().cloned().enumerate();
        let servers = addresses
            .map(|(index, address)| Rc::new(Server::new(Arc::clone(&upstream), index, address, workers)))
            .collect();
        // Without randomness servers are drawn in an order that is known; nothing depends on that.
        let seed = random::bytes::<8>().unwrap_or_default();
        let lots = Cell::new(u64::from_ne_bytes(seed) | 1);
        Self { origin, servers, lots, budget: Cell::new(MOST_SAVED), upstream }
    }

    /// The server for the next attempt: none of `tried`; one that is out only if there is no other.
    pub(super) fn choose(&self, tried: &[usize], now: KernelTime) -> Option<&Rc<Server>> {
        let health = &self.upstream.health;
        let good = |server: &&Rc<Server>| !tried.contains(&server.index) && !health.is_out(server.index, now);
        let count = self.servers.len();
        let (first, second) = match count {
            0 => return None,
            1 => (0, 0),
            _ => {
                let first = self.lot(count);
                (first, (first + 1 + self.lot(count - 1)) % count)
            }
        };
        let one = self.servers.get(first).filter(good);
        let other = self.servers.get(second).filter(good);
        match (one, other) {
            (Some(one), Some(other)) => {
                let fewer = health.in_flight(other.index) < health.in_flight(one.index);
                Some(if fewer { other } else { one })
            }
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) => {
                let from = |step: usize| self.servers.get((first + step) % count);
                let left = || (0..count).filter_map(from).filter(|server| !tried.contains(&server.index));
                left().find(good).or_else(|| left().next())
            }
        }
    }

    /// A number below `bound` (xorshift, Marsaglia 2003).
    fn lot(&self, bound: usize) -> usize {
        let mut lots = self.lots.get();
        lots ^= lots << 13;
        lots ^= lots >> 7;
        lots ^= lots << 17;
        self.lots.set(lots);
        usize::try_from(lots >> 33).unwrap_or_default() % bound
    }

    /// A request begins.
    pub(super) fn save(&self) {
        self.budget.set((self.budget.get() + SAVED).min(MOST_SAVED));
    }

    /// Whether a request may be sent once more.
    pub(super) fn spend(&self) -> bool {
        let left = self.budget.get().checked_sub(COST);
        self.budget.set(left.unwrap_or(self.budget.get()));
        left.is_some()
    }

    /// Whether it belongs to this upstream.
    pub(super) fn is_of(&self, upstream: &Arc<Upstream>) -> bool {
        Weak::as_ptr(&self.origin) == Arc::as_ptr(upstream)
    }

    /// Whether no policy has it any more. Its connections are closed once they have rested for their time.
    pub(super) fn is_over(&self) -> bool {
        self.origin.strong_count() == 0
    }

    /// How the servers are spoken to.
    pub(super) fn config(&self) -> &config::Upstream {
        &self.upstream.config
    }

    /// The upstream's name.
    pub(super) fn name(&self) -> &str {
        &self.upstream.name
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::health::Health;

    fn group(servers: usize) -> Group {
        let servers: Vec<http::Uri> =
            (0..servers).map(|n| format!("http://192.0.2.{n}:80").parse().unwrap()).collect();
        let health = Arc::new(Health::new(servers.len()));
        let config = config::Upstream::of(servers);
        let servers = Servers { name: "api".to_owned(), config, encryption: None, health };
        Group::over(Weak::new(), Arc::new(servers), 1)
    }

    #[test]
    fn the_less_loaded_of_two_is_taken_and_the_rest_is_fair() {
        let now = KernelTime(1);
        let group = group(4);
        let mut taken = [0_u32; 4];
        for _ in 0..4_000 {
            let server = group.choose(&[], now).unwrap().index;
            group.upstream.health.count_request(server, true);
            taken[server] += 1;
        }
        assert!(taken.iter().all(|count| (980..=1020).contains(count)), "{taken:?}");
        for _ in 0..100 {
            group.upstream.health.count_request(2, true);
        }
        let others = (0..300).filter(|_| group.choose(&[], now).unwrap().index != 2).count();
        assert_eq!(others, 300, "whichever it is drawn with has less");
    }

    #[test]
    fn what_is_out_is_chosen_last_and_what_was_tried_never() {
        let now = KernelTime(1);
        let group = group(3);
        group.upstream.health.unreachable(0, Duration::from_secs(5), now);
        for _ in 0..50 {
            assert_ne!(group.choose(&[], now).unwrap().index, 0);
            assert_eq!(group.choose(&[1], now).unwrap().index, 2);
            assert_eq!(group.choose(&[1, 2], now).unwrap().index, 0, "better than none");
            assert!(group.choose(&[0, 1, 2], now).is_none());
        }
        assert!(self::group(0).choose(&[], now).is_none());
    }

    #[test]
    fn repetitions_are_a_share_of_requests() {
        let group = group(1);
        let spent = |group: &Group| (0..1_000).filter(|_| group.spend()).count();
        assert_eq!(spent(&group), 20);
        for _ in 0..50 {
            group.save();
        }
        assert_eq!(spent(&group), 10);
    }
}
