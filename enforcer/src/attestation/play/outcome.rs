//! What asking Google can come to.

use super::Verdict;
use crate::{attestation::Refused, denial::Denial};

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Our own budget for the day allows no call now.
    Budget,
    /// As many calls are under way as may be.
    Busy,
    /// Google has not answered lately, and is left alone.
    Resting,
    /// 429: Google's quota.
    Quota,
    /// 401, 403, 404, or no token for the account: it, its project or its app is not set up.
    Account,
    /// 5xx.
    Server,
    /// No answer in time.
    Slow,
    /// No connection.
    Unreachable,
    /// An answer that is none.
    Garbage,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Budget,
        Self::Busy,
        Self::Resting,
        Self::Quota,
        Self::Account,
        Self::Server,
        Self::Slow,
        Self::Unreachable,
        Self::Garbage,
    ];

    /// The label of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Busy => "busy",
            Self::Resting => "resting",
            Self::Quota => "quota",
            Self::Account => "account",
            Self::Server => "server",
            Self::Slow => "slow",
            Self::Unreachable => "unreachable",
            Self::Garbage => "garbage",
        }
    }
}

/// No verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Why.
    pub cause: Cause,
    /// The same, for operators.
    pub why: String,
    /// Seconds after which there may be one.
    pub retry_after: Option<u64>,
}

impl Unavailable {
    /// What follows where nothing else is declared.
    pub fn refused(&self) -> Refused {
        Refused::new(Denial::AttestationUnavailable, "google", format!("{}: {}", self.cause.name(), self.why))
    }
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What Google says. It is not judged yet.
    Verdict(Box<Verdict>),
    /// Google does not know the token, or not as one of this app: 400.
    Foreign(Refused),
    /// Nothing.
    Unavailable(Unavailable),
}

impl Outcome {
    /// The label of metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Verdict(_) => "verdict",
            Self::Foreign(_) => "foreign",
            Self::Unavailable(unavailable) => unavailable.cause.name(),
        }
    }
}
