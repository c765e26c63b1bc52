//! Google Play Integrity: what Google says of an app and its device.
//!
//! Tokens of *classic* requests are opened here, with the app's own keys ([`token`]). Tokens of *standard* ones can be opened by Google
//! alone, who is asked by `keys::play`; how often is decided by [`budget`] and [`breaker`], and what that comes to is an [`Outcome`].
//! Either way the verdict comes to [`verdict`], which reads it, and to [`judge`](judge()), which decides.

pub mod account;
pub mod breaker;
pub mod budget;
mod judge;
pub mod outcome;
pub mod token;
pub mod verdict;

pub use judge::{Expected, Genuine, Risk, Rules, judge};
pub use outcome::{Cause, Outcome, Unavailable};
pub use token::Keys;
pub use verdict::Verdict;

use super::{Refused, Steps};

/// What a classic token says, if it is one, is meant for this request and satisfies the rules. `now`: milliseconds since 1970.
pub fn verify(
    token: &str,
    keys: &Keys,
    rules: &Rules,
    expected: &Expected<'_>,
    now: u64,
    steps: Steps<'_>,
) -> Result<Genuine, Refused> {
    let payload = token::open(token, keys, steps)?;
    let verdict = Verdict::read(&payload)?;
    judge(&verdict, rules, expected, now, steps)
}
