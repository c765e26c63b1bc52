//! `graphql` of a route.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Key, List, Number, RouteLimitSection, Size, Text};
use crate::config::OperationKind;

/// `graphql = { ... }` of a route
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct GraphQlSection {
    pub(in crate::config) max_body_bytes: Key<Size>,
    pub(in crate::config) max_document_bytes: Key<Size>,
    pub(in crate::config) max_depth: Key<Number>,
    pub(in crate::config) max_aliases: Key<Number>,
    pub(in crate::config) max_batch: Key<Number>,
    pub(in crate::config) introspection: Key<bool>,
    pub(in crate::config) kinds: List<OperationKind>,
    pub(in crate::config) others: Key<bool>,
    pub(in crate::config) operations: Key<BTreeMap<String, Spanned<OperationSection>>>,
}

/// `{ scopes = [...], limits = [...] }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct OperationSection {
    pub(in crate::config) scopes: List<Text<String>>,
    pub(in crate::config) limits: List<RouteLimitSection>,
}
