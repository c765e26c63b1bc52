//! What is answered to one part of an import of bans. [`super::super::bulk`] makes and sums it.

use serde::{Deserialize, Serialize};

use crate::prefix::Prefix;

/// What came of many bans, or of lifting many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Many {
    /// Bans that began.
    pub banned: u64,
    /// Bans that replaced one on the same prefix.
    pub replaced: u64,
    /// Of both, those that have no effect while a prefix around them is allowed.
    pub ineffective: u64,
    /// Bans that were lifted.
    pub lifted: u64,
    /// Prefixes without a ban of their own that could have been lifted.
    pub not_banned: u64,
    /// Entries that were named before.
    pub repeated: u64,
    /// Entries that were refused, by kind; the others were not kept from being done.
    pub refused: Vec<RefusedRow>,
    /// What the operator should know about it.
    pub remarks: Vec<String>,
}

/// Entries that were refused for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// A stable name of the reason.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// Which was the first.
    pub first: Prefix,
    /// Why that one was, and what to do.
    pub message: String,
}
