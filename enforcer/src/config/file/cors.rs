//! `cors` of a route, as it is written.

use std::time::Duration;

use serde::Deserialize;

use super::{Key, List};
use crate::config::value::Text;

/// `cors = { ... }` of a route
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct CorsSection {
    pub(in crate::config) origins: List<Text<String>>,
    pub(in crate::config) methods: List<Text<String>>,
    pub(in crate::config) headers: List<Text<String>>,
    pub(in crate::config) expose: List<Text<String>>,
    pub(in crate::config) credentials: Key<bool>,
    pub(in crate::config) max_age: Key<Text<Duration>>,
}
