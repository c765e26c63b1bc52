//! What happens to a request whose verdict cannot be had: the budget is used up, or Google does not answer. Declared for each route;
//! and verdicts of before, by device, which one of the answers needs. Pure.

use std::{sync::Arc, time::Duration};

use quick_cache::unsync::Cache;

use super::Genuine;

/// What names a device: SHA-256 of its key, or of whatever its session is bound to. Nothing that it merely says.
pub type DeviceKey = [u8; 32];

/// What a route declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ladder {
    /// `deny`: the request is refused.
    #[default]
    Deny,
    /// `allow-and-flag`: it passes, and whoever is behind is told that nothing is known.
    AllowAndFlag,
    /// `require-cached-verdict-younger-than`: it passes if the device had a good verdict within this time.
    Cached(Duration),
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Refused.
    Deny,
    /// Passed by name, with nothing known.
    Flagged,
    /// Passed by what was known before.
    Cached(Known),
}

/// A verdict of before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What was found.
    pub facts: Arc<Genuine>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Ladder {
    /// Decides. `known`: what the device had before. `now`: milliseconds since 1970.
    pub fn decide(self, known: Option<&Known>, now: u64) -> Decision {
        match (self, known) {
            (Self::Deny, _) | (Self::Cached(_), None) => Decision::Deny,
            (Self::AllowAndFlag, _) => Decision::Flagged,
            (Self::Cached(limit), Some(known)) => {
                // A clock that stepped back makes nothing younger.
                let age = now.checked_sub(known.at_ms).map(Duration::from_millis);
                match age.is_some_and(|age| age < limit) {
                    true => Decision::Cached(known.clone()),
                    false => Decision::Deny,
                }
            }
        }
    }
}

/// Good verdicts by device, the last of each. Bounded: what was not used for long goes first, and is asked for again.
#[derive(Debug)]
pub struct Verdicts {
    cache: Cache<DeviceKey, Known>,
}

impl Verdicts {
    /// For at most so many devices.
    pub fn new(most: usize) -> Self {
        Self { cache: Cache::new(most) }
    }

    /// The device has passed.
    pub fn keep(&mut self, device: DeviceKey, facts: Arc<Genuine>, at_ms: u64) {
        self.cache.insert(device, Known { facts, at_ms });
    }

    /// What it had; younger than `limit`, if that is given.
    pub fn get(&self, device: &DeviceKey, limit: Option<Duration>, now: u64) -> Option<Known> {
        let known = self.cache.get(device)?;
        let young = |limit: Duration| {
            now.checked_sub(known.at_ms).is_some_and(|age| Duration::from_millis(age) < limit)
        };
        limit.is_none_or(young).then(|| known.clone())
    }

    /// The device did not pass, or is blocked.
    pub fn forget(&mut self, device: &DeviceKey) {
        self.cache.remove(device);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Arc<Genuine> {
        Arc::new(Genuine {
            package: "com.example.app".to_owned(),
            version: 1,
            level: None,
            labels: Vec::new(),
            licensing: None,
            activity: None,
            play_protect: None,
            access: Vec::new(),
            sdk: None,
            timestamp_ms: 0,
            testing: false,
        })
    }

    #[test]
    fn nothing_opens_but_what_is_declared() {
        let known = Known { facts: facts(), at_ms: 10_000 };
        let cached = Ladder::Cached(Duration::from_secs(60));
        assert_eq!(Ladder::default(), Ladder::Deny);
        for (ladder, known, now, expected) in [
            (Ladder::Deny, Some(&known), 10_001, Decision::Deny),
            (Ladder::AllowAndFlag, None, 10_001, Decision::Flagged),
            (cached, None, 10_001, Decision::Deny),
            (cached, Some(&known), 10_000, Decision::Cached(known.clone())),
            (cached, Some(&known), 69_999, Decision::Cached(known.clone())),
            (cached, Some(&known), 70_000, Decision::Deny),
            (cached, Some(&known), 9_999, Decision::Deny),
        ] {
            assert_eq!(ladder.decide(known, now), expected, "{ladder:?} {now}");
        }
    }

    #[test]
    fn verdicts_are_bounded_and_forgotten() {
        let mut verdicts = Verdicts::new(8);
        for device in 0..100 {
            verdicts.keep([device; 32], facts(), 1_000);
        }
        assert!(verdicts.len() <= 8 && !verdicts.is_empty());
        verdicts.keep([7; 32], facts(), 2_000);
        let minute = Some(Duration::from_secs(60));
        assert!(verdicts.get(&[7; 32], minute, 61_999).is_some());
        assert!(verdicts.get(&[7; 32], minute, 62_000).is_none());
        assert!(verdicts.get(&[7; 32], None, 62_000).is_some());
        verdicts.forget(&[7; 32]);
        assert!(verdicts.get(&[7; 32], None, 2_000).is_none());
    }
}
