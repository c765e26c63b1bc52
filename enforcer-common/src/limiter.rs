//! Per-source rate limits in a set-associative table: which slot a source gets, and what one event costs it.
//!
//! A bucket is one cache line of four slots `{key, TAT}`. A slot whose TAT has passed holds no information, so
//! taking it over loses nothing: a flood of new sources can never evict a source that still owes. The kernel
//! implements [`Bucket`] over its map, the daemon over atomics, the tests over a plain array.
//!
//! A ban is a debt: a slot whose word has the bit [`BAN`], and whose TAT is the ban's end. So it costs no lookup of its own, ends by
//! itself, and nothing evicts it before. How the daemon writes one beside the program that charges is in [`debt`].

use crate::{
    ban,
    gcra::{self, Rate},
};

pub mod carry;
pub mod debt;
#[cfg(not(target_arch = "bpf"))]
mod shared;

#[cfg(not(target_arch = "bpf"))]
pub use shared::SharedBucket;

/// Slots in a bucket: 4 x 16 bytes fill a cache line.
pub const SLOTS: usize = 4;

/// Attempts to charge before contention counts as a breach (fails closed): with two CPUs at one bucket the second attempt
/// finds the first one's work done; more of them have a chance each.
const ATTEMPTS: usize = 4;

/// The key of a slot that is being taken over.
const CLAIMED: u64 = u64::MAX;

/// Says of a slot's word that its source is banned; what is left of the word is the ban's end. No TAT reaches it: 2^63 ns are
/// 292 years, see [`Rate::new`].
pub const BAN: u64 = 1 << 63;

/// The instant in a slot's word: its TAT, or the end of its ban.
#[inline(always)]
const fn time(word: u64) -> u64 {
    word & !BAN
}

/// Whether a slot's word is a ban that holds at `now`.
#[inline(always)]
const fn holds(word: u64, now: u64) -> bool {
    word & BAN != 0 && time(word) > now
}

/// The key of a budget that all sources share, in a bucket of its own.
pub const SHARED: u64 = 1;

/// A bucket as it lies in memory: key and TAT alternate.
pub type RawBucket = [u64; SLOTS * 2];

/// Shared access to one bucket. Implementations are atomic and sequentially consistent.
pub trait Bucket {
    /// The key in slot `slot`; 0 means that it was never used.
    fn key(&self, slot: usize) -> u64;
    /// The word in slot `slot`: a TAT, or the end of a ban with the bit [`BAN`].
    fn tat(&self, slot: usize) -> u64;
    /// Compare-and-set of the key; `Err` carries what was found.
    fn swap_key(&self, slot: usize, old: u64, new: u64) -> Result<(), u64>;
    /// Compare-and-set of the word; `Err` carries what was found.
    fn swap_tat(&self, slot: usize, old: u64, new: u64) -> Result<(), u64>;
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Within the limit, and charged.
    Within,
    /// Over the limit, not charged; the same event would be admitted after so many nanoseconds.
    Exceeded(u64),
    /// Every slot of the bucket belongs to a source that still owes; nothing was charged.
    Full,
    /// The source is banned until then; nothing was charged.
    Banned(u64),
}

/// Which bucket a key belongs to. `mask` is the number of buckets, a power of two, less one.
#[inline(always)]
pub fn bucket_index(key: u64, seed: u64, mask: u32) -> u32 {
    (mix(key ^ seed) as u32) & mask
}

/// Charges one event of `key` at `now`. Keys are never 0. Without a limit it only looks whether the source is banned.
///
/// Whatever other CPUs do meanwhile, under one rate and one clock: every event that is admitted is charged once, to its own
/// source; none that is refused is charged; and no source holds two slots. So the bound of [`Rate`] holds exactly, and
/// contention can only refuse. Who charges by a time that lies behind may find his expired slot taken, and begins
/// anew: that is worth as many events as the time was late. The test `interleavings` walks through every order of two calls.
#[inline(always)]
pub fn charge<B: Bucket>(bucket: &B, key: u64, now: u64, rate: Rate) -> Charge {
    let mut attempt = 0;
    // No source has a multicast address, which this one would be (RFC 4291 section 2.7).
    while attempt < ATTEMPTS && key != CLAIMED {
        let mut slot = 0;
        let mut free = SLOTS;
        let mut claimed = false;
        while slot < SLOTS {
            let held = bucket.key(slot);
            if held == key {
                break;
            }
            if held == CLAIMED {
                claimed = true;
            } else if free == SLOTS && time(bucket.tat(slot)) <= now {
                free = slot;
            }
            slot += 1;
        }
        if slot < SLOTS {
            let tat = bucket.tat(slot);
            // Only a TAT that was read while the slot was the source's own may be replaced: a takeover moves it on, so
            // that replacing it fails.
            if bucket.key(slot) == key {
                if holds(tat, now) {
                    return Charge::Banned(ban_end(tat));
                }
                if !rate.is_limited() {
                    return Charge::Within;
                }
                // Of a ban that has ended its end is left, which has passed.
                let settled = gcra::settle(time(tat), now, rate);
                match gcra::step(settled, now, rate) {
                    Err(wait) => {
                        if settled != tat {
                            // Whoever came in between has settled it, or will.
                            let _ = bucket.swap_tat(slot, tat, settled);
                        }
                        return Charge::Exceeded(wait);
                    }
                    Ok(next) => {
                        if bucket.swap_tat(slot, tat, next).is_ok() {
                            return Charge::Within;
                        }
                    }
                }
            }
        } else if !rate.is_limited() {
            return Charge::Within;
        } else if !claimed {
            // While a slot is claimed, the source's own may be the one.
            if free == SLOTS {
                return Charge::Full;
            }
            if take(bucket, free, key, now, gcra::step(0, now, rate)) {
                return Charge::Within;
            }
        }
        attempt += 1;
    }
    Charge::Exceeded(rate.increment)
}

/// What a first look at a bucket came to, see [`charge_known`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Within the limit, and charged.
    Within,
    /// Banned; nothing was charged.
    Banned,
    /// Over the limit; nothing was charged.
    Exceeded,
    /// It has no slot, and a limit: [`charge`] finds one for it. Nothing was charged.
    New,
    /// Anything else: [`charge`] says what. Nothing was charged.
    Other,
}

/// [`charge`] for nearly all events: of a source that has a slot, or no limit, while nobody else is at work. What is costly is asked
/// only when something hangs on it: the time, and whether the source may have another ban that has `spilled`.
#[inline(always)]
pub fn charge_known<B: Bucket>(
    bucket: &B,
    key: u64,
    rate: Rate,
    now: impl FnOnce() -> u64,
    spilled: impl FnOnce() -> bool,
) -> Known {
    if key == CLAIMED {
        return Known::Other;
    }
    let mut slot = 0;
    while slot < SLOTS {
        if bucket.key(slot) == key {
            break;
        }
        slot += 1;
    }
    if slot == SLOTS {
        return if rate.is_limited() {
            Known::New
        } else if spilled() {
            Known::Other
        } else {
            Known::Within
        };
    }
    let word = bucket.tat(slot);
    // As in a charge: the word must have been read while the slot was the source's own.
    if bucket.key(slot) != key {
        return Known::Other;
    }
    if word & BAN != 0 {
        let banned = word == ban::FOREVER || time(word) > now();
        return if banned { Known::Banned } else { Known::Other };
    }
    if spilled() {
        return Known::Other;
    }
    if !rate.is_limited() {
        return Known::Within;
    }
    let now = now();
    // A word that has to be settled first is never within the limit.
    match gcra::step(word, now, rate) {
        Ok(next) if bucket.swap_tat(slot, word, next).is_ok() => Known::Within,
        Err(_) if gcra::settle(word, now, rate) == word => Known::Exceeded,
        Ok(_) | Err(_) => Known::Other,
    }
}

/// Takes a slot over and writes the source's first word; `false`: somebody else was at work, and all is as it was.
///
/// The claim hides the slot from its owner, so only a charge that began before can still move its TAT, and then the claim is
/// given back. Of two who claim at once, at least one sees the other.
#[inline(always)]
fn take<B: Bucket>(bucket: &B, slot: usize, key: u64, now: u64, first: Result<u64, u64>) -> bool {
    let held = bucket.key(slot);
    if held == CLAIMED || held == key || bucket.swap_key(slot, held, CLAIMED).is_err() {
        return false;
    }
    let tat = bucket.tat(slot);
    let mut alone = time(tat) <= now;
    let mut other = 0;
    while other < SLOTS {
        if other != slot {
            let seen = bucket.key(other);
            if seen == CLAIMED || seen == key {
                alone = false;
            }
        }
        other += 1;
    }
    let mut taken = false;
    if alone && let Ok(next) = first {
        taken = bucket.swap_tat(slot, tat, next).is_ok();
    }
    // Nobody changes a claimed key.
    let _ = bucket.swap_key(slot, CLAIMED, if taken { key } else { held });
    taken
}

/// What `charge` would answer, without charging.
#[inline(always)]
pub fn peek<B: Bucket>(bucket: &B, key: u64, now: u64, rate: Rate) -> Charge {
    let mut slot = 0;
    let mut free = false;
    while slot < SLOTS {
        let tat = bucket.tat(slot);
        if bucket.key(slot) == key {
            if holds(tat, now) {
                return Charge::Banned(ban_end(tat));
            }
            return match gcra::step(gcra::settle(time(tat), now, rate), now, rate) {
                Ok(_) => Charge::Within,
                Err(wait) => Charge::Exceeded(wait),
            };
        }
        free |= time(tat) <= now;
        slot += 1;
    }
    if free || !rate.is_limited() { Charge::Within } else { Charge::Full }
}

/// The TAT, or the end of the ban, that is kept for `key`, if a slot holds it.
#[inline(always)]
pub fn find<B: Bucket>(bucket: &B, key: u64) -> Option<u64> {
    (0..SLOTS).find(|slot| bucket.key(*slot) == key).map(|slot| time(bucket.tat(slot)))
}

/// The end that a banned source's word tells.
#[inline(always)]
const fn ban_end(word: u64) -> u64 {
    if word == ban::FOREVER { ban::FOREVER } else { time(word) }
}

/// The finalizer of MurmurHash3 (public domain): every input bit reaches every output bit.
#[inline(always)]
pub(crate) const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod interleavings;

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[derive(Default)]
    pub(super) struct Plain(RefCell<RawBucket>);

    impl Bucket for Plain {
        fn key(&self, slot: usize) -> u64 {
            self.0.borrow()[slot * 2]
        }
        fn tat(&self, slot: usize) -> u64 {
            self.0.borrow()[slot * 2 + 1]
        }
        fn swap_key(&self, slot: usize, _old: u64, new: u64) -> Result<(), u64> {
            self.0.borrow_mut()[slot * 2] = new;
            Ok(())
        }
        fn swap_tat(&self, slot: usize, _old: u64, new: u64) -> Result<(), u64> {
            self.0.borrow_mut()[slot * 2 + 1] = new;
            Ok(())
        }
    }

    #[test]
    fn a_full_bucket_refuses_new_sources_and_keeps_the_old_ones() {
        let bucket = Plain::default();
        let rate = Rate::per_second(1, 1);
        for key in 1..=4 {
            assert_eq!(charge(&bucket, key, 10, rate), Charge::Within);
        }
        assert_eq!(charge(&bucket, 5, 10, rate), Charge::Full);
        assert_eq!(peek(&bucket, 5, 10, rate), Charge::Full);
        assert_eq!(charge(&bucket, 1, 10, rate), Charge::Exceeded(1_000_000_000));
    }

    #[test]
    fn an_expired_slot_is_taken_over() {
        let bucket = Plain::default();
        let rate = Rate::per_second(1, 1);
        for key in 1..=4 {
            charge(&bucket, key, 10, rate);
        }
        assert_eq!(charge(&bucket, 5, 1_000_000_010, rate), Charge::Within);
        assert_eq!(find(&bucket, 5), Some(2_000_000_010));
        assert_eq!(find(&bucket, 1), None);
    }

    #[test]
    fn a_loosened_limit_does_not_collect_the_old_debt() {
        let bucket = Plain::default();
        let strict = Rate::new(1, 3_600_000_000_000, 1);
        let loose = Rate::per_second(1_000, 10);
        let now = 1_000_000_000;
        assert_eq!(charge(&bucket, 7, now, strict), Charge::Within);
        assert_eq!(charge(&bucket, 7, now, loose), Charge::Exceeded(loose.increment));
        assert_eq!(charge(&bucket, 7, now + loose.increment, loose), Charge::Within);
    }

    #[test]
    fn contention_that_never_ends_counts_as_a_breach() {
        struct Contended;
        impl Bucket for Contended {
            fn key(&self, _: usize) -> u64 {
                1
            }
            fn tat(&self, _: usize) -> u64 {
                0
            }
            fn swap_key(&self, _: usize, _: u64, _: u64) -> Result<(), u64> {
                Err(2)
            }
            fn swap_tat(&self, _: usize, _: u64, _: u64) -> Result<(), u64> {
                Err(0)
            }
        }
        assert_eq!(charge(&Contended, 1, 5, Rate::per_second(10, 10)), Charge::Exceeded(100_000_000));
    }
}
