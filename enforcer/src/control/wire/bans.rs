//! Bans and allowances, as operators are told of them.

use serde::{Deserialize, Serialize};

use crate::prefix::Prefix;

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRow {
    /// Whom it holds for.
    pub prefix: Prefix,
    /// `offence` or `operator`.
    pub origin: String,
    /// A denial's code, or the operator's reason.
    pub cause: String,
    /// Seconds since it began.
    pub age_seconds: u64,
    /// Seconds until it ends; absent: by hand only.
    pub remaining_seconds: Option<u64>,
    /// Offences that led to it or came in since.
    pub offences: u32,
    /// The allowed prefix that makes it ineffective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadowed_by: Option<Prefix>,
}

/// An allowance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowanceRow {
    /// Whom it holds for.
    pub prefix: Prefix,
    /// `configuration`, `operator`, or `both`.
    pub origin: String,
    /// The operator's reason.
    pub reason: String,
    /// Seconds since it began.
    pub age_seconds: u64,
}
