//! What is said of devices, by operators and to them.

use serde::{Deserialize, Serialize};

/// What can be asked about devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DeviceCommand {
    /// Some of them, in the order of their names.
    List {
        /// Those that come after this one.
        #[serde(default)]
        after: Option<String>,
        /// At most so many; absent: 100.
        #[serde(default)]
        most: Option<usize>,
        /// Only blocked ones.
        #[serde(default)]
        blocked: bool,
    },
    /// Everything that is known of one.
    Show {
        /// Its name.
        device: String,
    },
    /// Refuse one from now on.
    Block {
        /// Its name.
        device: String,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// Take that back.
    Unblock {
        /// Its name.
        device: String,
    },
    /// Know one no longer.
    Forget {
        /// Its name.
        device: String,
    },
}

/// A page of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicesRow {
    /// All devices, blocked ones among them.
    pub devices: usize,
    /// Blocked ones.
    pub blocked: usize,
    /// Room for devices.
    pub most: usize,
    /// Devices that were refused for want of room.
    pub refused: u64,
    /// Whether they outlive the daemon.
    pub is_kept: bool,
    /// Those of this page.
    pub rows: Vec<DeviceRow>,
    /// The name after which the next page begins; absent: this is the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Its name: SHA-256 of its key, in base64url.
    pub device: String,
    /// `ios`, `android`.
    pub platform: String,
    /// `app-attest`.
    pub provider: String,
    /// `production`, `development`.
    pub environment: String,
    /// The app's identifier.
    pub app: String,
    /// `device`, `strong`.
    pub level: String,
    /// Of its last assertion.
    pub counter: u32,
    /// When it enrolled, seconds since 1970.
    pub enrolled: u64,
    /// When it showed last what it is.
    pub seen: u64,
    /// Keys that were attested on it within 30 days, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<u32>,
    /// Since when it is blocked, seconds since 1970; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_since: Option<u64>,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
}
