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
        /// Only such.
        #[serde(default)]
        only: DeviceFilter,
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
    /// Refuse all from now on whose key is vouched for through one certificate.
    BlockAll {
        /// Its serial number, in hexadecimal digits.
        serial: String,
        /// Why.
        #[serde(default)]
        reason: String,
        /// Refuse none where there are more than so many.
        most: usize,
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

/// What devices of a list have in common; absent: any will do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceFilter {
    /// `ios`, `android`.
    pub platform: Option<String>,
    /// `device`, `strong`.
    pub level: Option<String>,
    /// The app's identifier.
    pub app: Option<String>,
    /// The serial number of a certificate above their key's own, in hexadecimal digits.
    pub serial: Option<String>,
    /// Not seen since, seconds since 1970.
    pub seen_before: Option<u64>,
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
    /// Names whose rows in the store cannot be understood; they are refused.
    #[serde(default)]
    pub unreadable: usize,
    /// Devices that were not seen for long and will be forgotten, but not all at once.
    #[serde(default)]
    pub overdue: usize,
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
    /// When Google Play was asked last whether all is well, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<u64>,
    /// The app's version, as far as it is known: a bundle version or a `versionCode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How the app came to a device of Apple: the number that it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<u32>,
    /// What an Android device's hardware said when it enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<HardwareRow>,
    /// The code with which the policy in force refuses it, although it is not blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What the policy finds wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What an Android device's hardware has said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareRow {
    /// `trusted_environment`, `strong_box`.
    pub security: String,
    /// `verified`, `self_signed`.
    pub boot: String,
    /// What verified that, in hexadecimal digits.
    pub boot_key: String,
    /// Whether the boot loader is locked.
    pub locked: bool,
    /// Patch level of the system, year and month.
    pub os_patch: Option<u32>,
    /// That of the vendor's part.
    pub vendor_patch: Option<u32>,
    /// That of the boot loader.
    pub boot_patch: Option<u32>,
    /// `factory`, `remote`.
    pub provisioning: String,
    /// Serial numbers of its certificates, its key's own first.
    pub serials: Vec<String>,
}
