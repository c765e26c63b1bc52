//! What the daemon answers instead of what was asked for.

use serde::{Deserialize, Serialize};

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// One line: what, where, what to do.
    pub message: String,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The line is no request.
    Malformed,
    /// The request is of another version of the language.
    Version,
    /// The caller may not use the socket.
    Permission,
    /// The request was understood and is refused.
    Refused,
    /// Carrying it out failed.
    Failed,
    /// Too many connections.
    Busy,
    /// The configuration to be loaded is wrong.
    Configuration,
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
