//! Sections about encrypted bodies.

use std::time::Duration;

use serde::Deserialize;

use super::{Key, List, Size, Text};
use crate::config::{PayloadFormat, pins::Day};

/// `[payload.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PayloadSection {
    pub(in crate::config) formats: List<PayloadFormat>,
    pub(in crate::config) keys: List<PayloadKeySection>,
    pub(in crate::config) keys_path: Key<Text<String>>,
    pub(in crate::config) keys_max_age: Key<Text<Duration>>,
    pub(in crate::config) max_body_bytes: Key<Size>,
    pub(in crate::config) max_answer_bytes: Key<Size>,
    pub(in crate::config) window: Key<Text<Duration>>,
    pub(in crate::config) clock_skew: Key<Text<Duration>>,
    pub(in crate::config) content_type: Key<Text<String>>,
    pub(in crate::config) plain: Key<bool>,
}

/// An entry of `keys`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PayloadKeySection {
    pub(in crate::config) file: Key<Text<String>>,
    pub(in crate::config) id: Key<Text<String>>,
    pub(in crate::config) until: Key<Text<Day>>,
}
