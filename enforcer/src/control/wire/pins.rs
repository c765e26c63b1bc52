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
