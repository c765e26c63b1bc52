//! Sections about proxies between apps and here.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{Key, LimitSection, List, Number, Text};
use crate::config::{Ja4Pattern, Platform};

/// `[suspicion]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct SuspicionSection {
    pub(in crate::config) weights: Key<WeightsSection>,
    pub(in crate::config) app: BTreeMap<String, Spanned<AppSection>>,
    pub(in crate::config) reports: Key<ReportsSection>,
}

/// `weights = { ... }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct WeightsSection {
    pub(in crate::config) fingerprint: Key<Number>,
    pub(in crate::config) no_fingerprint: Key<Number>,
    pub(in crate::config) hops: Key<Number>,
    pub(in crate::config) reports: Key<Number>,
}

/// `[suspicion.app.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct AppSection {
    pub(in crate::config) platform: Key<Platform>,
    pub(in crate::config) ja4: List<Text<Ja4Pattern>>,
}

/// `[suspicion.reports]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ReportsSection {
    pub(in crate::config) path: Key<Text<String>>,
    pub(in crate::config) remember: Key<Text<Duration>>,
    pub(in crate::config) limit: Key<LimitSection>,
    pub(in crate::config) max_entries: Key<Number>,
}

/// `suspicion = { apps = ["android"], refuse_above = 60, dry_run = true }` of a route
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct SuspicionOfRoute {
    pub(in crate::config) apps: List<Text<String>>,
    pub(in crate::config) refuse_above: Key<Number>,
    pub(in crate::config) dry_run: Key<bool>,
}
