//! Servers behind, as `status` shows them.

use serde::{Deserialize, Serialize};

/// A server behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamRow {
    /// The upstream's name in the configuration.
    pub upstream: String,
    /// The server as configured.
    pub server: String,
    /// `up`, `resting` or `down`.
    pub state: String,
    /// Requests under way, with those that wait for a connection.
    pub requests: u32,
    /// Connections that stand or are being made.
    pub connections: u32,
    /// How often it was given a rest.
    pub ejections: u64,
    /// Requests that were sent once more because of it.
    pub retries: u64,
}
