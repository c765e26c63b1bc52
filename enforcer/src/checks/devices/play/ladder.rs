//! What happens to a request whose verdict cannot be had: the budget is used up, or Google does not answer. Pure.

use crate::config::PlayUnavailable;

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Refused.
    Deny,
    /// Passed by name, with nothing known.
    Flagged,
    /// Passed by what was known before, seconds ago.
    Cached(u64),
}

/// Decides. `verdict`: when the device had a good one last; `now`: likewise, seconds since 1970.
pub(super) fn decide(declared: PlayUnavailable, verdict: Option<u64>, now: u64) -> Decision {
    match declared {
        PlayUnavailable::Deny => Decision::Deny,
        PlayUnavailable::AllowAndFlag => Decision::Flagged,
        PlayUnavailable::Cached(limit) => {
            age_within(verdict, limit.as_secs(), now).map_or(Decision::Deny, Decision::Cached)
        }
    }
}

/// Seconds since a verdict that is younger than `limit`. A clock that stepped back makes nothing younger.
pub(super) fn age_within(verdict: Option<u64>, limit: u64, now: u64) -> Option<u64> {
    verdict.and_then(|at| now.checked_sub(at)).filter(|age| *age < limit)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_opens_but_what_is_declared() {
        let cached = PlayUnavailable::Cached(Duration::from_secs(60));
        assert_eq!(PlayUnavailable::default(), PlayUnavailable::Deny);
        for (declared, verdict, now, expected) in [
            (PlayUnavailable::Deny, Some(1_000), 1_001, Decision::Deny),
            (PlayUnavailable::AllowAndFlag, None, 1_001, Decision::Flagged),
            (cached, None, 1_001, Decision::Deny),
            (cached, Some(1_000), 1_000, Decision::Cached(0)),
            (cached, Some(1_000), 1_059, Decision::Cached(59)),
            (cached, Some(1_000), 1_060, Decision::Deny),
            (cached, Some(1_000), 999, Decision::Deny),
        ] {
            assert_eq!(decide(declared, verdict, now), expected, "{declared:?} {now}");
        }
    }
}
