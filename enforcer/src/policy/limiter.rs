//! The state of one request limit: the buckets of the common limiter over atomics.
//!
//! Part of the policy so that it survives a reload; charged by the limit check alone. Memory is fixed: 16 bytes per
//! key, allocated once.

use std::hash::{BuildHasher as _, RandomState};

use aws_lc_rs::rand;
use enforcer_common::{
    gcra::Rate,
    limiter::{self, Bucket as _, Charge, SLOTS, SharedBucket},
};

use crate::{clock::KernelTime, config::RateLimit};

/// A limit per key and what every key has used of it. Keys are those of sources, or [`RequestLimiter::hash`] of a text.
#[derive(Debug)]
pub struct RequestLimiter {
    limit: RateLimit,
    max_keys: u32,
    rate: Rate,
    seed: u64,
    hasher: RandomState,
    buckets: Box<[Cells]>,
}

impl RequestLimiter {
    /// An empty table for `max_keys` keys (rounded up to a power of two).
    pub fn new(limit: RateLimit, max_keys: u32) -> Self {
        let mut seed = [0; 8];
        // Without a seed the limit holds as well; somebody could only aim at a bucket.
        let seed = rand::fill(&mut seed).map_or(0, |()| u64::from_ne_bytes(seed));
        let buckets = max_keys.div_ceil(SLOTS as u32).next_power_of_two();
        Self {
            limit,
            max_keys,
            rate: rate(limit),
            seed,
            hasher: RandomState::new(),
            buckets: (0..buckets).map(|_| Cells::default()).collect(),
        }
    }

    /// Whether this table can go on under a new configuration.
    pub fn serves(&self, limit: RateLimit, max_keys: u32) -> bool {
        self.limit == limit && self.max_keys == max_keys
    }

    /// The key of a text. 64 bits of a keyed hash that nobody outside can compute: two texts that share one share their
    /// limit, which happens to one pair in a million texts with a probability of 3 in 100 million.
    pub fn hash(&self, text: &[u8]) -> u64 {
        // 0 is an empty slot, the largest number one that is being taken over.
        self.hasher.hash_one(text).clamp(1, u64::MAX - 1)
    }

    /// Charges one request.
    pub fn charge(&self, key: u64, now: KernelTime) -> Charge {
        limiter::charge(self.bucket(key), key, now.0, self.rate)
    }

    /// What [`RequestLimiter::charge`] would say.
    pub fn peek(&self, key: u64, now: KernelTime) -> Charge {
        limiter::peek(self.bucket(key), key, now.0, self.rate)
    }

    /// Takes one charge back. Where somebody else is at the slot at the same moment, the charge stands: that can only refuse.
    pub fn refund(&self, key: u64) {
        let bucket = self.bucket(key);
        if let Some(slot) = (0..SLOTS).find(|slot| bucket.key(*slot) == key) {
            let tat = bucket.tat(slot);
            // As in `charge`: only a time that was read while the slot was the key's own may be replaced.
            if bucket.key(slot) == key {
                let _ = bucket.swap_tat(slot, tat, tat.saturating_sub(self.rate.increment));
            }
        }
    }

    /// What a key owes: nanoseconds until it is as if it had never come.
    pub fn debt(&self, key: u64, now: KernelTime) -> u64 {
        limiter::find(self.bucket(key), key).unwrap_or(0).saturating_sub(now.0)
    }

    /// What one request costs and how much is tolerated.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    fn bucket(&self, key: u64) -> &SharedBucket {
        let mask = (self.buckets.len() - 1) as u32;
        &self.buckets[limiter::bucket_index(key, self.seed, mask) as usize].0
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
struct Cells(SharedBucket);

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_common::source::SourceKey;
    use std::time::Duration;

    fn five_per_second(burst: u64) -> RateLimit {
        RateLimit { events: 5, period: Duration::from_secs(1), burst }
    }

    fn source(last: u8) -> u64 {
        SourceKey::v4([192, 0, 2, last]).get()
    }

    /// The schedule of nginx 1.22 `limit_req` with `rate=5r/s burst=10 nodelay`: eleven at once, then one per 200 ms.
    #[test]
    fn admits_what_nginx_would() {
        let limiter = RequestLimiter::new(five_per_second(10), 1024);
        let start = 1_000_000_000_000;
        let at = |ms: u64| KernelTime(start + ms * 1_000_000);
        let admitted = (0..20).filter(|_| limiter.charge(source(7), at(0)) == Charge::Within).count();
        assert_eq!(admitted, 11);
        assert_eq!(limiter.charge(source(7), at(199)), Charge::Exceeded(1_000_000));
        assert_eq!(limiter.charge(source(7), at(200)), Charge::Within);
        assert_eq!(limiter.charge(source(7), at(200)), Charge::Exceeded(200_000_000));
        assert_eq!(limiter.charge(source(8), at(200)), Charge::Within, "others are free");
        let admitted = (0..20).filter(|_| limiter.charge(source(7), at(60_000)) == Charge::Within).count();
        assert_eq!(admitted, 11, "idle again: the whole burst");
    }

    #[test]
    fn without_burst_the_second_request_at_once_is_refused() {
        let limiter = RequestLimiter::new(five_per_second(0), 1024);
        assert_eq!(limiter.charge(source(7), KernelTime(5)), Charge::Within);
        assert_eq!(limiter.charge(source(7), KernelTime(5)), Charge::Exceeded(200_000_000));
    }

    #[test]
    fn a_table_without_room_says_so_and_evicts_nobody() {
        let limiter = RequestLimiter::new(five_per_second(0), 4);
        for last in 1..=4 {
            assert_eq!(limiter.charge(source(last), KernelTime(5)), Charge::Within);
        }
        assert_eq!(limiter.charge(source(5), KernelTime(5)), Charge::Full);
        assert!(matches!(limiter.charge(source(1), KernelTime(5)), Charge::Exceeded(_)));
    }

    #[test]
    fn a_charge_that_is_taken_back_leaves_what_was_there() {
        let limiter = RequestLimiter::new(five_per_second(1), 1024);
        let now = KernelTime(1_000_000_000);
        let key = limiter.hash(b"somebody");
        assert_eq!(limiter.charge(key, now), Charge::Within);
        let owed = limiter.debt(key, now);
        assert_eq!(limiter.charge(key, now), Charge::Within);
        assert!(matches!(limiter.peek(key, now), Charge::Exceeded(_)));
        limiter.refund(key);
        assert_eq!((limiter.debt(key, now), owed), (owed, 200_000_000));
        limiter.refund(key);
        assert_eq!(limiter.debt(key, now), 0);
        limiter.refund(limiter.hash(b"somebody else"));
    }

    #[test]
    fn a_million_keys_keep_within_the_memory_that_was_there_at_first() {
        let limiter = RequestLimiter::new(five_per_second(0), 65_536);
        let mut outcomes = [0; 2];
        for n in 0..1_000_000u32 {
            let key = limiter.hash(&n.to_ne_bytes());
            match limiter.charge(key, KernelTime(5)) {
                Charge::Within => outcomes[0] += 1,
                Charge::Full => outcomes[1] += 1,
                other @ (Charge::Exceeded(_) | Charge::Banned(_)) => panic!("{n}: {other:?}"),
            }
        }
        assert_eq!(limiter.buckets.len() * SLOTS, 65_536);
        assert_eq!(outcomes[0] + outcomes[1], 1_000_000);
        assert!(outcomes[0] > 65_000, "{outcomes:?}: nearly every slot is used");
    }
}
