//! Changes of configuration and files, and what came of them.

use serde::{Deserialize, Serialize};

/// A reload in the past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRow {
    /// Seconds ago.
    pub age_seconds: u64,
    /// Why it was refused; the state from before was kept.
    pub error: Option<String>,
    /// What takes effect only with a restart.
    pub needs_restart: Vec<String>,
}

/// A change of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesRow {
    /// Seconds ago.
    pub age_seconds: u64,
    /// Why they were refused; what was read before stays in force.
    pub error: Option<String>,
}

/// A reload that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What takes effect only with a restart.
    pub needs_restart: Vec<String>,
}
