//! Sections about pins.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Key, List, Number, ServerName, Text};
use crate::{
    config::pins::{Day, Days},
    pins::Pin,
};

/// `[pins]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PinsSection {
    pub(in crate::config) set: BTreeMap<String, Spanned<PinSetSection>>,
    pub(in crate::config) document: Key<PinDocumentSection>,
    pub(in crate::config) switches: Key<Text<String>>,
}

/// `[pins.set.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PinSetSection {
    pub(in crate::config) hosts: List<Text<ServerName>>,
    pub(in crate::config) pins: List<PinSection>,
    pub(in crate::config) min_overlap: Key<Text<Days>>,
    pub(in crate::config) backup: Key<BackupSection>,
    pub(in crate::config) force: List<Text<Pin>>,
}

/// An entry of `pins`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PinSection {
    pub(in crate::config) sha256: Key<Text<Pin>>,
    pub(in crate::config) file: Key<Text<String>>,
    pub(in crate::config) published: Key<Text<Day>>,
}

/// `backup`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct BackupSection {
    pub(in crate::config) chain: Key<Text<String>>,
    pub(in crate::config) key: Key<Text<String>>,
}

/// `[pins.document]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PinDocumentSection {
    pub(in crate::config) key: Key<Text<String>>,
    pub(in crate::config) path: Key<Text<String>>,
    pub(in crate::config) version: Key<Number>,
    pub(in crate::config) lifetime: Key<Text<Days>>,
}
