//! From one table to another, whose program may charge meanwhile: what is still owed when tables get another size.
//!
//! Called by the daemon alone. A debt is never made smaller, and nobody is charged twice: of two that are known of a source
//! the later one counts. So a source gains at most what its limit admits while the tables change.

use super::{BAN, Bucket, CLAIMED, SLOTS, ban_end, holds, take, time};

/// Attempts before a debt is given up: each one that fails has seen the program make progress.
const ATTEMPTS: usize = 8;

/// What a slot says of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debt {
    /// It owes until then.
    Owes(u64),
    /// It is banned until then.
    Banned(u64),
}

/// The sources in a bucket that owe something at `now`, or are banned.
pub fn debts<B: Bucket>(bucket: &B, now: u64) -> impl Iterator<Item = (u64, Debt)> {
    (0..SLOTS).filter_map(move |slot| {
        let (key, word) = (bucket.key(slot), bucket.tat(slot));
        if key == 0 || key == CLAIMED {
            None
        } else if holds(word, now) {
            Some((key, Debt::Banned(ban_end(word))))
        } else {
            (word & BAN == 0 && word > now).then_some((key, Debt::Owes(word)))
        }
    })
}

/// Makes `key` owe until `tat` at least. `false`: the bucket has no room, and the debt is forgotten.
pub fn carry<B: Bucket>(bucket: &B, key: u64, tat: u64, now: u64) -> bool {
    for _ in 0..ATTEMPTS {
        let (mut own, mut free, mut claimed) = (None, None, false);
        for slot in 0..SLOTS {
            let held = bucket.key(slot);
            if held == key {
                own = Some(slot);
            } else if held == CLAIMED {
                claimed = true;
            } else if free.is_none() && time(bucket.tat(slot)) <= now {
                free = Some(slot);
            }
        }
        if let Some(slot) = own {
            let word = bucket.tat(slot);
            // A ban is worth more than any debt.
            if holds(word, now) || word & BAN == 0 && word >= tat {
                return true;
            }
            // As in a charge: read while the slot was the source's own, so that a takeover makes the exchange fail.
            if bucket.key(slot) == key && bucket.swap_tat(slot, word, tat).is_ok() {
                return true;
            }
        } else if !claimed {
            let Some(slot) = free else { return false };
            if take(bucket, slot, key, now, Ok(tat)) {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::tests::Plain;
    use super::*;
    use crate::{
        ban::FOREVER,
        gcra::Rate,
        limiter::{Charge, charge, debt},
    };

    const NOW: u64 = 1_000_000_000;

    #[test]
    fn debts_and_bans_are_told_and_what_is_over_is_not() {
        let bucket = Plain::default();
        let rate = Rate::per_second(1, 5);
        assert_eq!(charge(&bucket, 7, NOW, rate), Charge::Within);
        assert!(debt::ban(&bucket, 8, NOW + 5, NOW) && debt::ban(&bucket, 9, FOREVER, NOW));
        let told: Vec<_> = debts(&bucket, NOW).collect();
        let owes = Debt::Owes(NOW + 1_000_000_000);
        assert_eq!(told, [(7, owes), (8, Debt::Banned(NOW + 5)), (9, Debt::Banned(FOREVER))]);
        assert_eq!(debts(&bucket, NOW + 2_000_000_000).collect::<Vec<_>>(), [(9, Debt::Banned(FOREVER))]);
    }

    #[test]
    fn a_carried_debt_counts_and_the_later_one_wins() {
        let bucket = Plain::default();
        let rate = Rate::per_second(1, 3);
        let tat = NOW + 2_000_000_000;
        assert!(carry(&bucket, 7, tat, NOW));
        assert_eq!(charge(&bucket, 7, NOW, rate), Charge::Within);
        assert!(matches!(charge(&bucket, 7, NOW, rate), Charge::Exceeded(_)), "two were owed before");
        // What was charged meanwhile is more than what is carried again.
        assert!(carry(&bucket, 7, tat, NOW));
        assert!(matches!(charge(&bucket, 7, NOW, rate), Charge::Exceeded(_)));
    }

    #[test]
    fn a_ban_stays_and_a_full_bucket_says_so() {
        let bucket = Plain::default();
        assert!(debt::ban(&bucket, 7, FOREVER, NOW));
        assert!(carry(&bucket, 7, NOW + 5, NOW));
        assert_eq!(debts(&bucket, NOW).next(), Some((7, Debt::Banned(FOREVER))));
        for key in 8..11 {
            assert!(carry(&bucket, key, NOW + 5, NOW));
        }
        assert!(!carry(&bucket, 11, NOW + 5, NOW));
        assert!(carry(&bucket, 11, NOW + 50, NOW + 6), "those debts are over");
    }
}
