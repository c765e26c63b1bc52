//! Sections about devices.

use std::time::Duration;

use serde::Deserialize;

use super::{Key, LimitSection, List, Number, Text};
use crate::config::{Environment, Level, Platform, UnknownDevices};

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
    pub(in crate::config) session_lifetime: Key<Text<Duration>>,
    pub(in crate::config) session_keys: Key<Text<String>>,
    pub(in crate::config) facts_key: Key<Text<String>>,
    pub(in crate::config) facts_issuer: Key<Text<String>>,
    pub(in crate::config) facts_lifetime: Key<Text<Duration>>,
    pub(in crate::config) store: Key<Text<String>>,
    pub(in crate::config) max_devices: Key<Number>,
    pub(in crate::config) forget_after: Key<Text<Duration>>,
    pub(in crate::config) unknown_devices: Key<UnknownDevices>,
    pub(in crate::config) app_attest: Key<AppAttestSection>,
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
}

/// `attestation = { max_age = "15m", level = "device", platform = ["ios"] }` of a route
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct DemandSection {
    pub(in crate::config) max_age: Key<Text<Duration>>,
    pub(in crate::config) level: Key<Level>,
    pub(in crate::config) platform: List<Platform>,
}
