//! What is said of tiers, by operators and to them.

use serde::{Deserialize, Serialize};

use crate::prefix::Prefix;

/// What can be asked about tiers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TierCommand {
    /// Put a prefix into a tier.
    Set {
        /// Whom.
        prefix: Prefix,
        /// Which, by name.
        tier: String,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// Take that back.
    Del {
        /// Whose.
        prefix: Prefix,
    },
    /// Everything that is said of tiers.
    List,
}

/// A prefix in a tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierRow {
    /// Whose.
    pub prefix: Prefix,
    /// Which.
    pub tier: String,
    /// `configuration` or `operator`.
    pub origin: String,
    /// The operator's reason.
    pub reason: String,
    /// Since when; absent for the configuration's.
    #[serde(default)]
    pub age_seconds: Option<u64>,
    /// Whether it counts: an operator's word on the same prefix is stronger than the configuration's, and a tier that the configuration
    /// has no more counts for nothing.
    pub holds: bool,
}
