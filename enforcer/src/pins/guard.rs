//! Whether a key may be served to apps that pin: it is in their set, and has been for long enough that apps without it are gone. Called
//! by the policy for every key that a pinned host could be shown; the time is an argument.

use std::fmt;

use super::{Pin, Published, day};

/// What apps know of a host.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'s> {
    /// Every pin that was published and not withdrawn.
    pub pins: &'s [Published],
    /// Seconds between a pin's publication and the first use of its key.
    pub min_overlap: u64,
    /// Pins that may be served whatever the other two say.
    pub force: &'s [Pin],
}

/// What is thought of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be served.
    Good,
    /// It may be served because it is named, and would not be otherwise.
    Forced(Fault),
    /// It may not be served.
    Refused(Fault),
}

/// Why a key may not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No app knows it.
    Outside,
    /// Apps that do not know it yet may be in use until then, seconds since 1970.
    TooYoung {
        /// Since when it is published.
        published: u64,
        /// When it may be served.
        ready: u64,
    },
    /// Its pin was read from a file, which may have been replaced together with the key: then no app knows it.
    Read {
        /// The pin.
        pin: Pin,
        /// Since when the one that the file held then is published.
        published: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str("is in no published pin: every app that pins would refuse it"),
            Self::TooYoung { published, ready } => write!(
                f,
                "is published since {} only, and may be served from {}: apps that do not know it are in use",
                day(*published),
                day(*ready)
            ),
            Self::Read { pin, published } => write!(
                f,
                "has its pin from a `file`, which may have been replaced together with the key: only if apps have this very pin since {}, write `sha256 = \"{pin}\"` in place of `file`",
                day(*published)
            ),
        }
    }
}

impl Rules<'_> {
    /// Judges the key that `pin` is of.
    pub fn judge(&self, pin: Pin, now: u64) -> Verdict {
        let Some(fault) = self.fault(pin, now) else { return Verdict::Good };
        if self.force.contains(&pin) { Verdict::Forced(fault) } else { Verdict::Refused(fault) }
    }

    /// Pins whose keys could be served and are not among `served`: what is left if the serving key is lost.
    pub fn spares(&self, served: &[Pin], now: u64) -> usize {
        let mut ready: Vec<Pin> = self.pins.iter().map(|published| published.pin).collect();
        ready.sort_unstable();
        ready.dedup();
        ready.into_iter().filter(|pin| !served.contains(pin) && self.fault(*pin, now).is_none()).count()
    }

    fn fault(&self, pin: Pin, now: u64) -> Option<Fault> {
        let Some(published) = self.pins.iter().find(|published| published.pin == pin) else {
            return Some(Fault::Outside);
        };
        if published.is_read {
            return Some(Fault::Read { pin, published: published.at });
        }
        let ready = published.at.saturating_add(self.min_overlap);
        (now < ready).then_some(Fault::TooYoung { published: published.at, ready })
    }
}

/// A policy is refused because of a pinned key. The text is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The name of the pin set.
    pub set: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn a_key_is_good_once_its_pin_is_out_for_long_enough() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|key| Pin::of_public_key(key));
        let published = |pin, day: u64, is_read| Published { pin, at: day * DAY, is_read };
        let pins = [published(a, 0, false), published(b, 100, false)];
        let rules = Rules { pins: &pins, min_overlap: 30 * DAY, force: &[] };
        let at = |day: u64| day * DAY;
        assert_eq!(rules.judge(a, at(100)), Verdict::Good);
        let young = Fault::TooYoung { published: at(100), ready: at(130) };
        assert_eq!(rules.judge(b, at(130) - 1), Verdict::Refused(young));
        assert_eq!(rules.judge(b, at(130)), Verdict::Good);
        assert_eq!(rules.judge(c, at(1_000)), Verdict::Refused(Fault::Outside));
        let forced = Rules { force: &[b, c], ..rules };
        assert_eq!(forced.judge(b, at(100)), Verdict::Forced(young));
        assert_eq!(forced.judge(b, at(130)), Verdict::Good);
        assert_eq!(forced.judge(c, at(0)), Verdict::Forced(Fault::Outside));
        assert_eq!((rules.spares(&[a], at(129)), rules.spares(&[a], at(130))), (0, 1));
        assert_eq!(rules.spares(&[], at(30)), 1);
        // What a file holds today says nothing of the day when it was published.
        let read = [published(a, 0, false), published(b, 100, true)];
        let (rules, fault) = (Rules { pins: &read, ..rules }, Fault::Read { pin: b, published: at(100) });
        assert_eq!(rules.judge(b, at(1_000)), Verdict::Refused(fault));
        assert_eq!(rules.spares(&[a], at(1_000)), 0);
        assert_eq!(Rules { force: &[b], ..rules }.judge(b, at(1_000)), Verdict::Forced(fault));
    }
}
