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
