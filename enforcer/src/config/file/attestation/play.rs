//! Sections about Google Play.

use std::time::Duration;

use serde::Deserialize;

use crate::config::{
    file::{Key, List, Number, Text},
    value::Size,
};

/// `[attestation.play]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PlaySection {
    pub(in crate::config) packages: List<Text<String>>,
    pub(in crate::config) certificates: List<Text<String>>,
    pub(in crate::config) min_version: Key<Number>,
    pub(in crate::config) keys: Key<Text<String>>,
    pub(in crate::config) licensed: Key<bool>,
    pub(in crate::config) max_age: Key<Text<Duration>>,
    pub(in crate::config) verdict_lifetime: Key<Text<Duration>>,
    pub(in crate::config) labels: List<Text<String>>,
    pub(in crate::config) testing: Key<bool>,
    pub(in crate::config) max_activity: Key<Number>,
    pub(in crate::config) refuse_play_protect: List<Text<String>>,
    pub(in crate::config) refuse_app_access: List<Text<String>>,
    pub(in crate::config) unevaluated: Key<bool>,
    pub(in crate::config) remote: Key<PlayRemoteSection>,
}

/// `[attestation.play.remote]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PlayRemoteSection {
    pub(in crate::config) account: Key<Text<String>>,
    pub(in crate::config) api: Key<Text<String>>,
    pub(in crate::config) token_url: Key<Text<String>>,
    pub(in crate::config) authorities: Key<Text<String>>,
    pub(in crate::config) private_addresses: Key<bool>,
    pub(in crate::config) timeout: Key<Text<Duration>>,
    pub(in crate::config) max_calls: Key<Number>,
    pub(in crate::config) calls_per_day: Key<Number>,
    pub(in crate::config) burst: Key<Number>,
    pub(in crate::config) reserve: Key<Number>,
    pub(in crate::config) unavailable: Key<UnavailableSection>,
}

/// `"deny"`, `"allow-and-flag"`, `{ require-cached-verdict-younger-than = "15m" }`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum UnavailableSection {
    Deny,
    AllowAndFlag,
    RequireCachedVerdictYoungerThan(Text<Duration>),
}

/// `play = { unavailable = "deny", reuse = "0s" }` of a route's `attestation`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PlayDemandSection {
    pub(in crate::config) unavailable: Key<UnavailableSection>,
    pub(in crate::config) reuse: Key<Text<Duration>>,
    pub(in crate::config) max_body_bytes: Key<Size>,
}
