//! The state of one route's request limit: the buckets of the common limiter over atomics.
//!
//! Part of the policy so that it survives a reload; charged by the limit check alone. Memory is fixed: 16 bytes per
//! source, allocated once.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use aws_lc_rs::rand;
use enforcer_common::{
    gcra::Rate,
    limiter::{self, Bucket, Charge, SLOTS},
    source::SourceKey,
};

use crate::{clock::KernelTime, config::RateLimit};

/// A limit per source and what every source has used of it.
#[derive(Debug)]
pub struct RequestLimiter {
    limit: RateLimit,
    max_sources: u32,
    rate: Rate,
    seed: u64,
    buckets: Box<[Cells]>,
}

impl RequestLimiter {
    /// An empty table for `max_sources` sources (rounded up to a power of two).
    pub fn new(limit: RateLimit, max_sources: u32) -> Self {
        let mut seed = [0; 8];
        // Without a seed the limit holds as well; somebody could only aim at a bucket.
        let seed = rand::fill(&mut seed).map_or(0, |()| u64::from_ne_bytes(seed));
        let buckets = max_sources.div_ceil(SLOTS as u32).next_power_of_two();
        Self {
            limit,
            max_sources,
            rate: rate(limit),
            seed,
            buckets: (0..buckets).map(|_| Cells::default()).collect(),
        }
    }

    /// Whether this table can go on under a new configuration.
    pub fn serves(&self, limit: RateLimit, max_sources: u32) -> bool {
        self.limit == limit && self.max_sources == max_sources
    }

    /// Charges one request.
    pub fn charge(&self, source: SourceKey, now: KernelTime) -> Charge {
        let mask = (self.buckets.len() - 1) as u32;
        let index = limiter::bucket_index(source.get(), self.seed, mask);
        limiter::charge(&self.buckets[index as usize], source.get(), now.0, self.rate)
    }
}

/// nginx `limit_req rate=... burst=B nodelay` admits the first request and B more at once from an idle source, then one
/// per increment: in GCRA terms a tolerance of B + 1 increments.
pub fn rate(limit: RateLimit) -> Rate {
    let period = u64::try_from(limit.period.as_nanos()).unwrap_or(u64::MAX);
    Rate::new(limit.events, period, limit.burst.saturating_add(1))
}

/// One bucket in one cache line, so that two sources' CPUs meet only when they share it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells([AtomicU64; SLOTS * 2]);

impl Bucket for Cells {
    fn key(&self, slot: usize) -> u64 {
        self.0[slot * 2].load(SeqCst)
    }
    fn tat(&self, slot: usize) -> u64 {
        self.0[slot * 2 + 1].load(SeqCst)
    }
    fn swap_key(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.0[slot * 2].compare_exchange(old, new, SeqCst, SeqCst).map(drop)
    }
    fn swap_tat(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.0[slot * 2 + 1].compare_exchange(old, new, SeqCst, SeqCst).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn five_per_second(burst: u64) -> RateLimit {
        RateLimit { events: 5, period: Duration::from_secs(1), burst }
    }

    /// The schedule of nginx 1.22 `limit_req` with `rate=5r/s burst=10 nodelay`: eleven at once, then one per 200 ms.
    #[test]
    fn admits_what_nginx_would() {
        let limiter = RequestLimiter::new(five_per_second(10), 1024);
        let source = SourceKey::v4([192, 0, 2, 7]);
        let start = 1_000_000_000_000;
        let at = |ms: u64| KernelTime(start + ms * 1_000_000);
        let admitted = (0..20).filter(|_| limiter.charge(source, at(0)) == Charge::Within).count();
        assert_eq!(admitted, 11);
        assert_eq!(limiter.charge(source, at(199)), Charge::Exceeded(1_000_000));
        assert_eq!(limiter.charge(source, at(200)), Charge::Within);
        assert_eq!(limiter.charge(source, at(200)), Charge::Exceeded(200_000_000));
        assert_eq!(limiter.charge(SourceKey::v4([192, 0, 2, 8]), at(200)), Charge::Within, "others are free");
        let admitted = (0..20).filter(|_| limiter.charge(source, at(60_000)) == Charge::Within).count();
        assert_eq!(admitted, 11, "idle again: the whole burst");
    }

    #[test]
    fn without_burst_the_second_request_at_once_is_refused() {
        let limiter = RequestLimiter::new(five_per_second(0), 1024);
        let source = SourceKey::v4([192, 0, 2, 7]);
        assert_eq!(limiter.charge(source, KernelTime(5)), Charge::Within);
        assert_eq!(limiter.charge(source, KernelTime(5)), Charge::Exceeded(200_000_000));
    }

    #[test]
    fn a_table_without_room_says_so_and_evicts_nobody() {
        let limiter = RequestLimiter::new(five_per_second(0), 4);
        for last in 1..=4 {
            assert_eq!(limiter.charge(SourceKey::v4([192, 0, 2, last]), KernelTime(5)), Charge::Within);
        }
        assert_eq!(limiter.charge(SourceKey::v4([192, 0, 2, 5]), KernelTime(5)), Charge::Full);
        assert!(matches!(limiter.charge(SourceKey::v4([192, 0, 2, 1]), KernelTime(5)), Charge::Exceeded(_)));
    }
}
