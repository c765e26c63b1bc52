//! What a device has shown besides its key, as far as it may count otherwise one day: rules become stricter, and certificates are revoked.
//!
//! It is kept as it was shown; what it is worth is judged by the policy in force (`checks::devices::again`), and never here.

use serde::{Deserialize, Serialize};

use crate::{attestation::android_key::state::State, config::Level};

/// By whom it was shown. What devices showed that enrolled before it was kept is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What an Android device's hardware said when the key was enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Box<State>>,
    /// What Apple's system said last of the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distributed: Option<Box<Distributed>>,
    /// The `versionCode` of the app that Google Play said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub play_version: Option<u64>,
}

impl Evidence {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How an app came to a device of Apple, and which version it is; systems before iOS and macOS 27 say neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distributed {
    /// `apple_validation_category_01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<u32>,
    /// `apple_bundle_version_01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Box<str>>,
}

/// What Google Play has said of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How good it is.
    pub level: Level,
    /// When Google was asked, seconds since 1970: its own time, so that what was kept back is no younger for that.
    pub at: u64,
    /// The app's `versionCode`.
    pub version: u64,
}
