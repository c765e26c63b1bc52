//! The limits of a route, in the order in which they are asked, and the fields of answers that tell of them.
//!
//! `checks::limit` charges them. Their state outlives a reload that leaves them as they are.

use std::{fmt::Write as _, sync::Arc};

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
    /// Nanoseconds of debt up to which a request need not wait.
    pub free: u64,
    /// Who has used how much.
    pub limiter: Arc<RequestLimiter>,
}

/// Limits of a route at most: each one is asked for every request.
pub const MOST: usize = 8;
/// Slots for the one key of a limit by route.
const ONE: u32 = 1;

impl Limits {
    /// Limits with the state that `old` has of them. `public`: nobody is asked for a token, and all of them are one group.
    pub fn new(configured: &[config::Limit], http: &config::Http, public: bool, old: Option<&Self>) -> Self {
        let build = |limit: &config::Limit| {
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
                free,
                limiter,
            }
        };
        let mut all: Vec<Limit> = configured.iter().map(build).collect();
        // Stable: the order of the file within each group.
        all.sort_by_key(|limit| !public && !limit.is_early());
        let early = all.iter().take_while(|limit| public || limit.is_early()).count();
        let policy = http.ratelimit_headers.then(|| policy(&all)).flatten();
        Self { all: all.into(), early, policy }
    }

    /// Those that are asked before the token, and the number of the first.
    pub fn early(&self) -> (&[Limit], usize) {
        (&self.all[..self.early], 0)
    }

    /// Those that are asked after it, and the number of the first.
    pub fn late(&self) -> (&[Limit], usize) {
        (&self.all[self.early..], self.early)
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
    for limit in limits.iter().filter(|limit| !limit.dry_run) {
        let rate = limit.limiter.rate();
        let quota = rate.tolerance.checked_div(rate.increment).unwrap_or(0);
        let window = rate.tolerance.div_ceil(1_000_000_000);
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}\"{}\";q={quota};w={window}", limit.name);
    }
    (!text.is_empty()).then(|| HeaderValue::try_from(text).ok()).flatten()
}
