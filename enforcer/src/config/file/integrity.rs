//! Sections about proofs and signatures of requests.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{Key, List, Number, Size, Text};
use crate::config::{SignatureScheme, TokenAlgorithm};

/// `[replay]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ReplaySection {
    pub(in crate::config) max_entries: Key<Number>,
    pub(in crate::config) store: Key<Text<String>>,
}

/// `[dpop]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct DpopSection {
    pub(in crate::config) algorithms: List<TokenAlgorithm>,
    pub(in crate::config) max_age: Key<Text<Duration>>,
    pub(in crate::config) leeway: Key<Text<Duration>>,
    pub(in crate::config) nonce: Key<bool>,
    pub(in crate::config) nonce_lifetime: Key<Text<Duration>>,
}

/// `[signature.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct SignatureSection {
    pub(in crate::config) scheme: Key<SignatureScheme>,
    pub(in crate::config) keys: Key<BTreeMap<String, Spanned<Text<String>>>>,
    pub(in crate::config) window: Key<Text<Duration>>,
    pub(in crate::config) max_body_bytes: Key<Size>,
    pub(in crate::config) components: List<Text<String>>,
    pub(in crate::config) tag: Key<Text<String>>,
}
