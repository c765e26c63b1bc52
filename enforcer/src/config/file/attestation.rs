//! Sections about devices.

mod play;

use std::time::Duration;

use serde::Deserialize;

use super::{Key, LimitSection, List, Number, Size, Text};
use crate::config::{
    Assertion, BootState, Environment, KeySecurity, Level, OverRisk, Platform, UnknownDevices,
};
pub(in crate::config) use play::{PlayDemandSection, PlayRemoteSection, PlaySection, UnavailableSection};

/// `[attestation]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct AttestationSection {
    pub(in crate::config) challenge_path: Key<Text<String>>,
    pub(in crate::config) enrol_path: Key<Text<String>>,
    pub(in crate::config) session_path: Key<Text<String>>,
    pub(in crate::config) keys_path: Key<Text<String>>,
    pub(in crate::config) limit: Key<LimitSection>,
    pub(in crate::config) challenge_lifetime: Key<Text<Duration>>,
    pub(in crate::config) max_challenges: Key<Number>,
    pub(in crate::config) assertion_window: Key<Text<Duration>>,
    pub(in crate::config) session_lifetime: Key<Text<Duration>>,
    pub(in crate::config) session_keys: Key<Text<String>>,
    pub(in crate::config) facts_key: Key<Text<String>>,
    pub(in crate::config) facts_previous_keys: List<Text<String>>,
    pub(in crate::config) facts_issuer: Key<Text<String>>,
    pub(in crate::config) facts_audience: Key<Text<String>>,
    pub(in crate::config) facts_lifetime: Key<Text<Duration>>,
    pub(in crate::config) store: Key<Text<String>>,
    pub(in crate::config) max_devices: Key<Number>,
    pub(in crate::config) forget_after: Key<Text<Duration>>,
    pub(in crate::config) unknown_devices: Key<UnknownDevices>,
    pub(in crate::config) app_attest: Key<AppAttestSection>,
    pub(in crate::config) android_key: Key<AndroidKeySection>,
    pub(in crate::config) play: Key<PlaySection>,
}

/// `[attestation.app_attest]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct AppAttestSection {
    pub(in crate::config) apps: List<Text<String>>,
    pub(in crate::config) environment: Key<Environment>,
    pub(in crate::config) categories: List<Text<String>>,
    pub(in crate::config) minimum_version: Key<Text<String>>,
    pub(in crate::config) require_distribution: Key<bool>,
    pub(in crate::config) root: Key<Text<String>>,
    pub(in crate::config) receipts: Key<ReceiptsSection>,
}

/// `[attestation.app_attest.receipts]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ReceiptsSection {
    pub(in crate::config) key: Key<Text<String>>,
    pub(in crate::config) key_id: Key<Text<String>>,
    pub(in crate::config) api: Key<Text<String>>,
    pub(in crate::config) authorities: Key<Text<String>>,
    pub(in crate::config) private_addresses: Key<bool>,
    pub(in crate::config) timeout: Key<Text<Duration>>,
    pub(in crate::config) every: Key<Text<Duration>>,
    pub(in crate::config) calls_per_day: Key<Number>,
    pub(in crate::config) max_receipts: Key<Number>,
    pub(in crate::config) root: Key<Text<String>>,
}

/// `[attestation.android_key]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct AndroidKeySection {
    pub(in crate::config) packages: List<Text<String>>,
    pub(in crate::config) certificates: List<Text<String>>,
    pub(in crate::config) min_version: Key<Number>,
    pub(in crate::config) security: Key<KeySecurity>,
    pub(in crate::config) boot: Key<BootState>,
    pub(in crate::config) boot_keys: List<Text<String>>,
    pub(in crate::config) min_patch: Key<Number>,
    pub(in crate::config) expired_factory: Key<bool>,
    pub(in crate::config) require_play: Key<bool>,
    pub(in crate::config) revocations: Key<Text<String>>,
    pub(in crate::config) root: Key<Text<String>>,
}

/// `attestation = { max_age = "15m", level = "device", platform = ["ios"] }` of a route
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct DemandSection {
    pub(in crate::config) max_age: Key<Text<Duration>>,
    pub(in crate::config) level: Key<Level>,
    pub(in crate::config) platform: List<Platform>,
    pub(in crate::config) assertion: Key<Assertion>,
    pub(in crate::config) group: Key<Text<String>>,
    pub(in crate::config) max_body_bytes: Key<Size>,
    pub(in crate::config) max_risk: Key<Number>,
    pub(in crate::config) over_risk: Key<OverRisk>,
    pub(in crate::config) play: Key<PlayDemandSection>,
}
