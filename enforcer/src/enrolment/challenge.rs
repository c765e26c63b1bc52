//! Challenges: what a device has to answer, so that nothing it shows can have been made before, or for something else.
//!
//! Nothing is remembered of one that is given out: it is its end, random bytes, and a MAC over both and over what it is for. Only
//! those that were used are remembered, until they have run out, so that a flood of requests for challenges costs no memory. A
//! challenge is used up when it is read, whatever comes of what it came with.
//!
//! The keys lie in memory alone and are replaced every hour. A challenge that was given out before the start is unknown, whatever
//! became of it: whoever has one asks for another.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use arc_swap::ArcSwap;
use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::DeviceId;
use crate::{
    random,
    replay::{Replay, Spent, Token},
};

/// Seconds for which a key makes challenges; longer than any of them lasts.
const PERIOD: u64 = 3_600;
/// Random bytes of a challenge: nobody guesses one, and no two are one.
const RANDOM: usize = 16;
/// Bytes of its MAC.
const TAG: usize = 16;
/// The number of the key, the end, and the random bytes.
const HEAD: usize = 1 + 8 + RANDOM;
/// Characters of a challenge.
pub const LENGTH: usize = ((HEAD + TAG) * 4).div_ceil(3);

/// What a challenge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Enrolling a device.
    Enrol,
    /// Beginning a session.
    Session,
    /// A request, where its route asks for an assertion with each.
    Request,
}

impl Purpose {
    /// By which it is asked for.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Enrol => "enrol",
            Self::Session => "session",
            Self::Request => "request",
        }
    }

    /// The one that is asked for.
    pub fn of_label(label: &str) -> Option<Self> {
        [Self::Enrol, Self::Session, Self::Request].into_iter().find(|one| one.label() == label)
    }
}

/// What a challenge is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Bond<'a> {
    /// What for.
    pub purpose: Purpose,
    /// For requests of which routes: those of a group take one another's challenges, and nobody else's. `None` where it is for none.
    pub group: Option<&'a str>,
    /// Whose, if that is known.
    pub device: Option<DeviceId>,
}

/// Why a challenge cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is none, was given out for something else or by an earlier process.
    Unknown,
    /// It has run out.
    Late,
    /// It was used.
    Before,
    /// There is no room to remember that it was.
    Full,
}

/// The keys, and what was used.
pub struct Challenges {
    keys: ArcSwap<Keys>,
    spent: Replay,
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenges").field("spent", &self.spent).finish_non_exhaustive()
    }
}

struct Keys {
    /// Since when, seconds since 1970.
    since: u64,
    number: u8,
    current: hmac::Key,
    /// The one with the number before.
    previous: Option<hmac::Key>,
}

impl Challenges {
    /// Room for about so many that were used; `now`: seconds since 1970.
    pub fn new(most: u32, now: u64) -> Result<Self> {
        let current = draw().ok_or_else(|| anyhow!("no randomness for the key of challenges"))?;
        let keys = Keys { since: now, number: 0, current, previous: None };
        Ok(Self { keys: ArcSwap::from_pointee(keys), spent: Replay::new(most, now) })
    }

    /// A new challenge that can be used for so many seconds; `None` without randomness.
    pub fn issue(&self, bond: Bond<'_>, now: u64, lifetime: u64) -> Option<String> {
        self.renew(now);
        let keys = self.keys.load();
        let mut challenge = Vec::with_capacity(HEAD + TAG);
        challenge.push(keys.number);
        challenge.extend_from_slice(&now.saturating_add(lifetime).to_be_bytes());
        challenge.extend_from_slice(&random::bytes::<RANDOM>()?);
        let tag = tag(&keys.current, &challenge, bond);
        challenge.extend_from_slice(&tag);
        Some(URL_SAFE_NO_PAD.encode(challenge))
    }

    /// Uses a challenge up, once. `bond`: what it has to be for; one that was given out before its device was known is for every one.
    pub fn spend(&self, challenge: &str, bond: Bond<'_>, now: u64) -> Result<(), Unusable> {
        let bytes = URL_SAFE_NO_PAD.decode(challenge).ok().filter(|bytes| bytes.len() == HEAD + TAG);
        let bytes = bytes.ok_or(Unusable::Unknown)?;
        let (head, said) = bytes.split_at_checked(HEAD).ok_or(Unusable::Unknown)?;
        let (number, rest) = head.split_first().ok_or(Unusable::Unknown)?;
        let until = rest.first_chunk().copied().map(u64::from_be_bytes).ok_or(Unusable::Unknown)?;
        let keys = self.keys.load();
        let key = match number.wrapping_sub(keys.number) {
            0 => Some(&keys.current),
            u8::MAX => keys.previous.as_ref(),
            _ => None,
        };
        let key = key.ok_or(Unusable::Unknown)?;
        let is_for = |bond| verify_slices_are_equal(&tag(key, head, bond), said).is_ok();
        if !is_for(bond) && !is_for(Bond { device: None, ..bond }) {
            return Err(Unusable::Unknown);
        }
        self.spent.spend(Token::of("challenge", &[head]), until, now).map_err(|spent| match spent {
            Spent::Before => Unusable::Before,
            Spent::Late => Unusable::Late,
            Spent::Full => Unusable::Full,
        })
    }

    /// How many that were used are remembered.
    pub fn spent(&self) -> usize {
        self.spent.len()
    }

    /// Draws a new key when it is time. The one before goes on for what it has made.
    fn renew(&self, now: u64) {
        let keys = self.keys.load();
        if now < keys.since.saturating_add(PERIOD) {
            return;
        }
        // Without randomness the old one goes on; there is no TLS then either.
        let Some(current) = draw() else { return };
        let new = Keys {
            since: now,
            number: keys.number.wrapping_add(1),
            current,
            previous: Some(keys.current.clone()),
        };
        // Of several threads one wins; the others' keys have made nothing.
        self.keys.compare_and_swap(&keys, Arc::new(new));
    }
}

fn draw() -> Option<hmac::Key> {
    let mut secret = [0; 32];
    rand::fill(&mut secret).ok()?;
    Some(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

fn tag(key: &hmac::Key, head: &[u8], bond: Bond<'_>) -> [u8; TAG] {
    let mut context = hmac::Context::with_key(key);
    context.update(b"enforcer challenge 2");
    context.update(head);
    context.update(&[bond.purpose as u8, u8::from(bond.device.is_some())]);
    if let Some(device) = bond.device {
        context.update(device.bytes());
    }
    // The last part, so its length need not be told; no group at all is not one without a name.
    context.update(&[u8::from(bond.group.is_some())]);
    context.update(bond.group.unwrap_or_default().as_bytes());
    let whole = context.sign();
    let mut tag = [0; TAG];
    for (to, from) in tag.iter_mut().zip(whole.as_ref()) {
        *to = *from;
    }
    tag
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn bond(purpose: Purpose, device: Option<&[u8]>) -> Bond<'static> {
        Bond { purpose, group: None, device: device.map(DeviceId::of_key) }
    }

    #[test]
    fn a_challenge_is_good_once_for_what_it_is_for_until_it_ends() {
        let challenges = Challenges::new(1 << 20, NOW).unwrap();
        let enrol = bond(Purpose::Enrol, None);
        let one = challenges.issue(enrol, NOW, 120).unwrap();
        assert_eq!(one.len(), LENGTH);
        assert_ne!(Some(one.clone()), challenges.issue(enrol, NOW, 120));
        assert_eq!(challenges.spent(), 0, "nothing is remembered of what is given out");
        let session = bond(Purpose::Session, None);
        assert_eq!(challenges.spend(&one, session, NOW), Err(Unusable::Unknown), "for something else");
        assert_eq!(challenges.spend(&one, enrol, NOW), Ok(()));
        assert_eq!(challenges.spend(&one, enrol, NOW + 1), Err(Unusable::Before));
        let late = challenges.issue(enrol, NOW, 120).unwrap();
        assert_eq!(challenges.spend(&late, enrol, NOW + 120), Err(Unusable::Late));
        let last = challenges.issue(enrol, NOW, 120).unwrap();
        assert_eq!(challenges.spend(&last, enrol, NOW + 119), Ok(()));
        // A clock that steps back revives nothing.
        assert_eq!(challenges.spend(&one, enrol, NOW - 500), Err(Unusable::Before));
    }

    #[test]
    fn a_challenge_of_a_device_is_nobody_elses() {
        let challenges = Challenges::new(1 << 20, NOW).unwrap();
        let mine = bond(Purpose::Session, Some(b"mine"));
        let other = bond(Purpose::Session, Some(b"other"));
        let own = challenges.issue(mine, NOW, 120).unwrap();
        assert_eq!(challenges.spend(&own, other, NOW), Err(Unusable::Unknown));
        assert_eq!(challenges.spend(&own, bond(Purpose::Session, None), NOW), Err(Unusable::Unknown));
        assert_eq!(challenges.spend(&own, mine, NOW), Ok(()));
        let any = challenges.issue(bond(Purpose::Session, None), NOW, 120).unwrap();
        assert_eq!(challenges.spend(&any, other, NOW), Ok(()), "given out before anybody was known");
    }

    #[test]
    fn a_challenge_of_a_group_is_no_other_groups() {
        let challenges = Challenges::new(1 << 20, NOW).unwrap();
        let of = |group| Bond { group, ..bond(Purpose::Request, None) };
        let mine = Bond { group: Some("pay"), ..bond(Purpose::Request, Some(b"mine")) };
        for (given, taken, good) in [
            (of(Some("pay")), of(Some("pay")), true),
            (of(Some("pay")), mine, true),
            (mine, mine, true),
            (of(Some("pay")), of(Some("read")), false),
            (of(Some("pay")), of(Some("payments")), false),
            (of(Some("pay")), of(Some("pa")), false),
            (of(Some("pay")), of(Some("")), false),
            (of(Some("pay")), of(None), false),
            (of(None), of(Some("")), false),
            (mine, Bond { group: Some("read"), ..mine }, false),
            (mine, Bond { purpose: Purpose::Session, ..mine }, false),
        ] {
            let one = challenges.issue(given, NOW, 120).unwrap();
            let expected = if good { Ok(()) } else { Err(Unusable::Unknown) };
            assert_eq!(challenges.spend(&one, taken, NOW), expected, "{given:?} for {taken:?}");
        }
    }

    #[test]
    fn what_was_not_given_out_here_is_unknown() {
        let challenges = Challenges::new(1 << 20, NOW).unwrap();
        let enrol = bond(Purpose::Enrol, None);
        let one = challenges.issue(enrol, NOW, 120).unwrap();
        let restarted = Challenges::new(1 << 20, NOW).unwrap();
        assert_eq!(restarted.spend(&one, enrol, NOW), Err(Unusable::Unknown), "of an earlier process");
        let bytes = URL_SAFE_NO_PAD.decode(&one).unwrap();
        for position in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[position] ^= 1;
            let forged = URL_SAFE_NO_PAD.encode(forged);
            assert_eq!(challenges.spend(&forged, enrol, NOW), Err(Unusable::Unknown), "{position}");
        }
        for text in ["", "x", &one[1..], &format!("{one}="), &format!("{one}A"), &one.to_ascii_lowercase()] {
            assert_eq!(challenges.spend(text, enrol, NOW), Err(Unusable::Unknown), "{text}");
        }
        assert_eq!(challenges.spend(&one, enrol, NOW), Ok(()), "no guess has used it up");
    }

    #[test]
    fn keys_are_replaced_and_nothing_is_lost_by_that() {
        let challenges = Challenges::new(1 << 20, NOW).unwrap();
        let enrol = bond(Purpose::Enrol, None);
        let before = challenges.issue(enrol, NOW + PERIOD - 1, 600).unwrap();
        let after = challenges.issue(enrol, NOW + PERIOD, 600).unwrap();
        let key = |challenge: &str| URL_SAFE_NO_PAD.decode(challenge).unwrap()[0];
        assert_ne!(key(&before), key(&after), "another key");
        assert_eq!(challenges.spend(&before, enrol, NOW + PERIOD + 500), Ok(()));
        assert_eq!(challenges.spend(&after, enrol, NOW + PERIOD + 500), Ok(()));
        let old = challenges.issue(enrol, NOW + PERIOD, 600).unwrap();
        for hour in 2..300 {
            challenges.issue(enrol, NOW + hour * PERIOD, 600).unwrap();
            assert_eq!(
                challenges.spend(&old, enrol, NOW + hour * PERIOD),
                Err(if hour == 2 { Unusable::Late } else { Unusable::Unknown }),
                "the {hour}th key"
            );
        }
    }

    #[test]
    fn one_of_many_at_once_is_the_first_and_a_full_set_refuses() {
        let challenges = Challenges::new(1 << 20, NOW).unwrap();
        let enrol = bond(Purpose::Enrol, None);
        let one = challenges.issue(enrol, NOW, 120).unwrap();
        let barrier = Barrier::new(8);
        let wins = std::thread::scope(|scope| {
            let ask = || {
                barrier.wait();
                challenges.spend(&one, enrol, NOW).is_ok()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|won| *won).count()
        });
        assert_eq!(wins, 1);
        // One place for each shard.
        let small = Challenges::new(64, NOW).unwrap();
        let outcomes: Vec<_> =
            (0..1_000).map(|_| small.spend(&small.issue(enrol, NOW, 120).unwrap(), enrol, NOW)).collect();
        assert!(outcomes.contains(&Err(Unusable::Full)) && small.spent() <= 64);
        let later = small.issue(enrol, NOW + 200, 120).unwrap();
        assert_eq!(small.spend(&later, enrol, NOW + 200), Ok(()), "what has run out makes room");
    }
}
