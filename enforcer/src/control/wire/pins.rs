//! What is said of pins, by operators and to them.

use serde::{Deserialize, Serialize};

/// What can be asked about pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PinsCommand {
    /// Serve the hosts of a set by its backup certificate, or no longer.
    Switch {
        /// The set's name.
        set: String,
        /// Whether that is taken back.
        #[serde(default)]
        back: bool,
    },
    /// Fingerprints of hellos: those that are declared, and others that came.
    Seen,
}

/// Which fingerprints apps are expected to have, and which came besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRow {
    /// Those of `[suspicion.app.NAME]`.
    pub declared: Vec<DeclaredRow>,
    /// Others, of requests to routes that name apps; the most frequent ones first.
    pub others: Vec<OtherRow>,
}

/// A fingerprint that is expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredRow {
    /// The app's name.
    pub app: String,
    /// Of which kind its devices are, if that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// JA4, as it is configured.
    pub ja4: String,
    /// Requests that had it since it was configured.
    pub requests: u64,
}

/// A fingerprint that is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherRow {
    /// JA4.
    pub ja4: String,
    /// Requests that had it, at most.
    pub requests: u64,
    /// Seconds since the last one.
    pub seconds_ago: u64,
}

/// A set of pins, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsRow {
    /// Its name.
    pub set: String,
    /// The hosts that it is about.
    pub hosts: Vec<String>,
    /// Pins of the keys that are served.
    pub serving: Vec<String>,
    /// Whether that is the backup's.
    pub switched: bool,
    /// What is wrong, or will be.
    pub remarks: Vec<String>,
}
