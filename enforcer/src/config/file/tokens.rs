//! Sections about tokens: what is revoked, who is asked, what an authorization server behind is sent.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{Key, LimitSection, List};
use crate::config::{
    Binding, Endpoint,
    value::{DurationOrOff, Names, Number, Text},
};

/// `introspection = { ... }` of an issuer
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct IntrospectionSection {
    pub(in crate::config) url: Key<Text<String>>,
    pub(in crate::config) client_id: Key<Text<String>>,
    pub(in crate::config) secret_file: Key<Text<String>>,
    pub(in crate::config) authorities: Key<Text<String>>,
    pub(in crate::config) private_addresses: Key<bool>,
    pub(in crate::config) timeout: Key<Text<Duration>>,
    pub(in crate::config) cache: Key<Text<Duration>>,
    pub(in crate::config) negative_cache: Key<Text<Duration>>,
    pub(in crate::config) max_entries: Key<Number>,
    pub(in crate::config) max_calls: Key<Number>,
    pub(in crate::config) without_audience: Key<bool>,
}

/// `[revocation]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RevocationSection {
    pub(in crate::config) store: Key<Text<String>>,
    pub(in crate::config) max_entries: Key<Number>,
    pub(in crate::config) max_refresh_tokens: Key<Number>,
    pub(in crate::config) file: Key<Text<String>>,
    pub(in crate::config) client_id: Key<Text<String>>,
    pub(in crate::config) secret_file: Key<Text<String>>,
}

/// `oauth = { ... }` of a route
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct OauthSection {
    pub(in crate::config) endpoint: Key<Endpoint>,
    pub(in crate::config) clients: Key<BTreeMap<String, Spanned<Names>>>,
    pub(in crate::config) grants: List<Text<String>>,
    pub(in crate::config) client_limit: Key<LimitSection>,
    pub(in crate::config) refresh_rotation: Key<Text<DurationOrOff>>,
    pub(in crate::config) refresh_lifetime: Key<Text<DurationOrOff>>,
    pub(in crate::config) dpop: Key<Binding>,
}
