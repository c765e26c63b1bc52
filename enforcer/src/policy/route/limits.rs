//! The limits of a route, in the order in which they are asked, and the fields of answers that tell of them.
//!
//! `checks::limit` charges them. Their state outlives a reload that leaves them as they are.

use std::{fmt::Write as _, ops::Range, sync::Arc};

use http::HeaderValue;

use crate::{
    config::{self, LimitKey},
    policy::limiter::RequestLimiter,
};

/// All limits of a route.
#[derive(Debug, Default)]
pub struct Limits {
    all: Box<[Limit]>,
    /// How many of them are asked before the token.
    early: usize,
    /// How many are the route's; the others are those of its operations.
    of_route: usize,
    /// The `RateLimit-Policy` of its answers, if they shall have one.
    pub policy: Option<HeaderValue>,
}

/// One limit.
#[derive(Debug)]
pub struct Limit {
    /// The label in metrics, and the name in fields of answers.
    pub name: Box<str>,
    /// What is counted together.
    pub key: LimitKey,
    /// Whether requests beyond it pass nevertheless.
    pub dry_run: bool,
    /// Whether answers tell of it: it holds for every request of the route.
    pub is_shown: bool,
    /// Nanoseconds of debt up to which a request need not wait.
    pub free: u64,
    /// Who has used how much.
    pub limiter: Arc<RequestLimiter>,
}

/// Limits that are asked together at most: each one is asked for every request.
pub const MOST: usize = 8;
/// Limits of a route and of its operations at most: each one has a bit.
pub const MOST_OF_ALL: usize = 64;
/// Slots for the one key of a limit by route.
const ONE: u32 = 1;

impl Limits {
    /// The limits of a route with the state that `old` has of them. Without a token or a device all of them are one group.
    pub fn new(route: &config::Route, http: &config::Http, old: Option<&Self>) -> Self {
        let public = route.tokens.is_empty() && route.attestation.is_none();
        let build = |limit: &config::Limit, is_shown: bool| {
            let max_keys = if limit.key == LimitKey::Route { ONE } else { http.max_sources };
            let kept = old.and_then(|old| {
                let same = |kept: &&Limit| *kept.name == *limit.name && kept.key == limit.key;
                let kept = old.all.iter().find(same)?;
                kept.limiter.serves(limit.rate, max_keys).then(|| Arc::clone(&kept.limiter))
            });
            let limiter = kept.unwrap_or_else(|| Arc::new(RequestLimiter::new(limit.rate, max_keys)));
            // The first request is none of the burst.
            let free = limit
                .delay
                .map_or(u64::MAX, |delay| limiter.rate().increment.saturating_mul(delay.saturating_add(1)));
            Limit {
                name: limit.name.as_str().into(),
                key: limit.key.clone(),
                dry_run: limit.dry_run,
                is_shown: is_shown && !limit.dry_run,
                free,
                limiter,
            }
        };
        let mut all: Vec<Limit> = route.limits.iter().map(|limit| build(limit, true)).collect();
        // Stable: the order of the file within each group.
        all.sort_by_key(|limit| !public && !limit.is_early());
        let early = all.iter().take_while(|limit| public || limit.is_early()).count();
        let of_route = all.len();
        let operations = route.graphql.iter().flat_map(|graphql| &graphql.operations);
        all.extend(operations.flat_map(|operation| &operation.limits).map(|limit| build(limit, false)));
        let policy = http.ratelimit_headers.then(|| policy(&all)).flatten();
        Self { all: all.into(), early, of_route, policy }
    }

    /// Those that are asked before the token, and the number of the first.
    pub fn early(&self) -> (&[Limit], usize) {
        (&self.all[..self.early], 0)
    }

    /// Those that are asked after it, and the number of the first.
    pub fn late(&self) -> (&[Limit], usize) {
        (&self.all[self.early..self.of_route], self.early)
    }

    /// Those of an operation, by their numbers.
    pub fn some(&self, numbers: &Range<usize>) -> (&[Limit], usize) {
        (self.all.get(numbers.clone()).unwrap_or_default(), numbers.start)
    }

    /// All of them, by their numbers.
    pub fn all(&self) -> &[Limit] {
        &self.all
    }
}

impl Limit {
    /// A source beyond its limit must not be able to buy CPU time with bad tokens. All other keys wait for the token:
    /// who has none must not spend what belongs to those who have.
    fn is_early(&self) -> bool {
        self.key == LimitKey::Address
    }
}

/// `RateLimit-Policy`, a list of structured fields: `q` requests within `w` seconds (draft-ietf-httpapi-ratelimit-headers-10
/// section 3).
fn policy(limits: &[Limit]) -> Option<HeaderValue> {
    let mut text = String::new();
    for limit in limits.iter().filter(|limit| limit.is_shown) {
        let rate = limit.limiter.rate();
        let quota = rate.tolerance.checked_div(rate.increment).unwrap_or(0);
        let window = rate.tolerance.div_ceil(1_000_000_000);
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}\"{}\";q={quota};w={window}", limit.name);
    }
    (!text.is_empty()).then(|| HeaderValue::try_from(text).ok()).flatten()
}
