//! Bans in the limiter's table, beside the program that charges it: written and lifted by the daemon, its only writer.
//!
//! It follows the protocol of [`super::charge`]: a word is replaced only by compare-and-set, a slot changes hands only by a
//! claim. From the moment that a ban is written, every charge that begins finds it.

use super::{BAN, Bucket, CLAIMED, SLOTS, holds, take, time};

/// Slots of a bucket that bans may fill: one is left for the limits of those that are not banned.
const BAN_SLOTS: usize = SLOTS - 1;

/// Attempts before a ban goes elsewhere. Each one that fails has seen the program make progress, which is soon over.
const ATTEMPTS: usize = 8;

/// Bans `key` until `until`, or moves the end of its ban. `false`: the bucket has no room, and the ban belongs into the map for those
/// that spill over.
pub fn ban<B: Bucket>(bucket: &B, key: u64, until: u64, now: u64) -> bool {
    let word = BAN | time(until);
    for _ in 0..ATTEMPTS {
        let (mut own, mut free) = (None, None);
        let (mut claimed, mut bans) = (false, 0);
        for slot in 0..SLOTS {
            let (held, tat) = (bucket.key(slot), bucket.tat(slot));
            if held == key {
                own = Some(slot);
            } else if held == CLAIMED {
                claimed = true;
            } else if holds(tat, now) {
                bans += 1;
            } else if free.is_none() && time(tat) <= now {
                free = Some(slot);
            }
        }
        if let Some(slot) = own {
            let tat = bucket.tat(slot);
            if bans >= BAN_SLOTS && !holds(tat, now) {
                return false;
            }
            // As in a charge: read while the slot was the source's own, so that a takeover makes the exchange fail.
            if bucket.key(slot) == key && bucket.swap_tat(slot, tat, word).is_ok() {
                return true;
            }
        } else if !claimed {
            let Some(slot) = free.filter(|_| bans < BAN_SLOTS) else { return false };
            if take(bucket, slot, key, now, Ok(word)) {
                return true;
            }
        }
    }
    false
}

/// Whether a slot is being taken over.
pub fn is_claimed<B: Bucket>(bucket: &B, slot: usize) -> bool {
    bucket.key(slot) == CLAIMED
}

/// Frees a slot whose claim nobody will end: a daemon that was killed while it wrote a ban. As long as it is claimed, no source
/// finds a place in the bucket. To be called by the only writer beside the program, for a claim that has outlasted every packet.
pub fn release<B: Bucket>(bucket: &B, slot: usize, now: u64) -> bool {
    let word = bucket.tat(slot);
    // The word first, which may be that of a ban: nobody else has its key. See [`lift`] for the instant.
    is_claimed(bucket, slot)
        && (time(word) <= now || bucket.swap_tat(slot, word, now).is_ok())
        && bucket.swap_key(slot, CLAIMED, 0).is_ok()
}

/// Lifts the ban of `key`, if a slot holds one. What is left is a debt that has just passed: an instant, because it was in no slot
/// before, so that no charge that is late takes it for what it has read.
pub fn lift<B: Bucket>(bucket: &B, key: u64, now: u64) {
    for slot in (0..SLOTS).filter(|slot| bucket.key(*slot) == key) {
        let word = bucket.tat(slot);
        if word & BAN != 0 && bucket.key(slot) == key {
            // Whoever came in between has found the ban ended.
            let _ = bucket.swap_tat(slot, word, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Plain;
    use super::*;
    use crate::{
        ban::FOREVER,
        gcra::Rate,
        limiter::{Charge, charge},
    };

    #[test]
    fn a_claim_that_nobody_ends_is_released() {
        let (now, rate) = (1_000_000_000, Rate::per_second(1, 1));
        // Killed before the word was written, and after.
        for word in [0, BAN | time(FOREVER)] {
            let bucket = Plain::default();
            let _ = (bucket.swap_key(0, 0, CLAIMED), bucket.swap_tat(0, 0, word));
            assert!(!ban(&bucket, 7, now + 5, now));
            assert!(matches!(charge(&bucket, 7, now, rate), Charge::Exceeded(_)));
            assert!((0..SLOTS).filter(|slot| is_claimed(&bucket, *slot)).eq([0]));
            assert!(release(&bucket, 0, now) && !release(&bucket, 0, now));
            for key in 7..11 {
                assert_eq!(charge(&bucket, key, now, rate), Charge::Within, "every slot can be had again");
            }
        }
    }
}
