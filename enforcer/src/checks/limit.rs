//! Whether a request is within the limits of its route, and whether it has to wait for its turn.
//!
//! Limits that are asked together are charged all or not at all, as nginx `limit_req` does it with several zones: a request
//! that one of them refuses costs nothing in the others. A request without the key of a limit is not counted by it, again as there.

use std::time::Duration;

use enforcer_common::{limiter::Charge, source::SourceKey};
use http::HeaderValue;

use super::{Refusal, facts::RequestFacts};
use crate::{
    clock::KernelTime,
    config::LimitKey,
    denial::Denial,
    policy::{
        route::{
            Route,
            limits::{Limit, MOST, MOST_OF_ALL},
        },
        suspicion::Score,
    },
};

/// What the limits of a route made of a request, and what speaks against it.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// How long it has to wait.
    pub delay: Duration,
    /// What to count, by the numbers of limits.
    pub marks: Marks,
    /// What speaks against it, if its route looks for that.
    pub suspicion: Option<Score>,
    /// The members of `RateLimit` so far.
    text: String,
}

/// One bit for each limit of a route, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Was exceeded.
    pub refused: u64,
    /// Had no room for the key.
    pub full: u64,
    /// Makes the request wait.
    pub delayed: u64,
    /// Was exceeded in a dry run.
    pub would_refuse: u64,
    /// Would make it wait, but for a dry run.
    pub would_delay: u64,
    /// Does not apply: the request has no key.
    pub no_key: u64,
}

impl Marks {
    /// Everything that happened, with the label that counts it.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &'static str)> {
        let groups = [
            (self.refused, "refused"),
            (self.full, "full"),
            (self.delayed, "delayed"),
            (self.would_refuse, "would_refuse"),
            (self.would_delay, "would_delay"),
            (self.no_key, "no_key"),
        ];
        groups.into_iter().flat_map(|(bits, label)| {
            (0..MOST_OF_ALL).filter(move |number| bits & 1 << number != 0).map(move |number| (number, label))
        })
    }
}

impl Standing {
    /// The `RateLimit` of the answer, if there is anything to tell.
    pub fn field(&mut self) -> Option<HeaderValue> {
        let text = std::mem::take(&mut self.text);
        (!text.is_empty()).then(|| HeaderValue::try_from(text).ok()).flatten()
    }

    /// `r` requests are left, and after `t` seconds it is as if none had come (draft-ietf-httpapi-ratelimit-headers-10 section 4).
    fn tell(&mut self, limit: &Limit, left: u64, reset: u64) {
        let mut digits = itoa::Buffer::new();
        self.text.reserve(limit.name.len() + 32);
        self.text.push_str(if self.text.is_empty() { "\"" } else { ", \"" });
        self.text.push_str(&limit.name);
        self.text.push_str("\";r=");
        self.text.push_str(digits.format(left));
        self.text.push_str(";t=");
        self.text.push_str(digits.format(reset.div_ceil(1_000_000_000)));
    }
}

/// Who is charged.
pub(super) struct Payer<'a> {
    /// See [`enforcer_common::source::v6_mask`].
    pub(super) v6_mask: u64,
    pub(super) facts: &'a RequestFacts<'a>,
    /// `sub` of a good token.
    pub(super) subject: Option<&'a str>,
    /// A device that has shown what it is.
    pub(super) device: Option<&'a str>,
}

impl Payer<'_> {
    fn key(&self, limit: &Limit) -> Option<u64> {
        let hash = |text: &[u8]| (!text.is_empty()).then(|| limit.limiter.hash(text));
        match &limit.key {
            LimitKey::Address => Some(SourceKey::of(self.facts.address.get(), self.v6_mask).get()),
            LimitKey::Subject => self.subject.and_then(|subject| hash(subject.as_bytes())),
            LimitKey::Device => {
                let certificate = || Some(&*self.facts.client.identity.as_deref()?.thumbprint);
                hash(self.device.or_else(certificate)?.as_bytes())
            }
            LimitKey::Header(name) => {
                let mut values = self.facts.headers.get_all(name).iter();
                let first = values.next()?;
                match values.next() {
                    None => hash(first.as_bytes()),
                    // Which one counts is the server's to say; whoever sends two has a key of his own.
                    Some(_) => {
                        let all: Vec<&[u8]> =
                            self.facts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
                        hash(&all.join(&b'\n'))
                    }
                }
            }
            LimitKey::Route => Some(1),
        }
    }
}

/// Charges one request to a group of limits, whose first has the number `first`; none of them costs nothing.
pub(super) fn check(
    (limits, first): (&[Limit], usize),
    route: &Route,
    payer: &Payer<'_>,
    now: KernelTime,
    standing: &mut Standing,
) -> Result<(), Refusal> {
    // Whom to charge, and of whom to tell.
    let (mut keys, mut asked) = ([None; MOST], [None; MOST]);
    let mut refusal = None;
    for (number, limit) in limits.iter().enumerate() {
        let bit = 1u64 << (first + number);
        let Some(key) = payer.key(limit) else {
            standing.marks.no_key |= bit;
            continue;
        };
        // With a single one the charge itself tells.
        let told =
            if limits.len() > 1 || limit.dry_run { limit.limiter.peek(key, now) } else { Charge::Within };
        asked[number] = Some(key).filter(|_| told != Charge::Full);
        match settle(told, limit, bit, standing) {
            Ok(true) => keys[number] = Some(key),
            Ok(false) => {}
            Err(refused) => refusal = worse(refusal, refused),
        }
    }
    let mut charged = 0;
    while refusal.is_none() && charged < limits.len() {
        if let (Some(key), Some(limit)) = (keys[charged], limits.get(charged)) {
            match settle(limit.limiter.charge(key, now), limit, 1u64 << (first + charged), standing) {
                Ok(true) => {}
                Ok(false) => keys[charged] = None,
                // Somebody else was faster.
                Err(refused) => {
                    for (limit, key) in limits.iter().zip(keys).take(charged) {
                        key.into_iter().for_each(|key| limit.limiter.refund(key));
                    }
                    refusal = Some(refused);
                }
            }
        }
        charged += 1;
    }
    let show = route.limits.policy.is_some();
    for (number, limit) in limits.iter().enumerate() {
        let Some(key) = asked[number] else { continue };
        let (debt, rate) = (limit.limiter.debt(key, now), limit.limiter.rate());
        if refusal.is_none() && keys[number].is_some() && debt > limit.free {
            let bit = 1u64 << (first + number);
            if limit.dry_run {
                standing.marks.would_delay |= bit;
            } else {
                standing.marks.delayed |= bit;
                standing.delay = standing.delay.max(Duration::from_nanos(debt - limit.free));
            }
        }
        if show && limit.is_shown {
            let left = rate.tolerance.saturating_sub(debt).checked_div(rate.increment).unwrap_or(0);
            standing.tell(limit, left, debt);
        }
    }
    match refusal {
        None => Ok(()),
        Some((denial, wait)) => Err(Refusal {
            // Whole seconds, rounded up: an answer of 0 would invite a retry that fails again.
            retry_after: Some(wait.div_ceil(1_000_000_000).max(1)),
            ..Refusal::plain(denial)
        }),
    }
}

/// What a charge means: whether it counts, or why not and for how many nanoseconds.
fn settle(charge: Charge, limit: &Limit, bit: u64, standing: &mut Standing) -> Result<bool, (Denial, u64)> {
    let marks = &mut standing.marks;
    match charge {
        Charge::Within => Ok(true),
        Charge::Exceeded(_) if limit.dry_run => {
            marks.would_refuse |= bit;
            Ok(false)
        }
        Charge::Exceeded(wait) => {
            marks.refused |= bit;
            Err((Denial::RateLimited, wait))
        }
        // Nobody bans in a route's own table.
        Charge::Full | Charge::Banned(_) => {
            marks.full |= bit;
            if limit.dry_run { Ok(false) } else { Err((Denial::LimiterFull, 1)) }
        }
    }
}

/// The one that lasts longer; the client's own fault, where there is one.
fn worse(one: Option<(Denial, u64)>, other: (Denial, u64)) -> Option<(Denial, u64)> {
    match one {
        Some(one) if one.1 >= other.1 => Some(one),
        _ => Some(other),
    }
}
