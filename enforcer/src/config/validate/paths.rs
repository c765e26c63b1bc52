//! Rules for the paths that are answered here, on every host, before any route: no two answers have one.

use std::collections::BTreeMap;

use toml::Spanned;

use super::{Rules, quote};
use crate::config::{AttestationPaths, Payload, Pins, file::File};

const REMEDY: &str = "give each its own path: one would hide the other";

pub(super) fn distinct(
    file: &File,
    (attestation, pins): (Option<&AttestationPaths>, &Pins),
    payloads: &BTreeMap<String, Payload>,
    rules: &mut Rules<'_, '_>,
) {
    let mut taken: Vec<(&str, &str)> = Vec::new();
    if let Some(AttestationPaths { challenge, enrol, session, keys }) = attestation {
        taken.extend([
            ("attestation.challenge_path", &**challenge),
            ("attestation.enrol_path", enrol),
            ("attestation.session_path", session),
            ("attestation.keys_path", keys),
        ]);
    }
    let problem = |taken: &[(&str, &str)], path: &str| {
        let (whose, _) = taken.iter().find(|(_, other)| *other == path)?;
        Some(format!("`{path}` is `{whose}` already"))
    };
    if let (Some(document), Some(section)) = (&pins.document, &file.pins.document) {
        if let Some(problem) = problem(&taken, &document.path) {
            let span = section.get_ref().path.as_ref().map_or(section.span(), Spanned::span);
            rules.within("pins.document".to_owned(), section.span()).refuse(span, "path", problem, REMEDY);
        }
        taken.push(("pins.document.path", &document.path));
    }
    for (name, section) in &file.payload {
        let found = payloads.get(name).and_then(|payload| problem(&taken, &payload.keys_path));
        if let Some(problem) = found {
            let span = section.get_ref().keys_path.as_ref().map_or(section.span(), Spanned::span);
            let prefix = format!("payload.{}", quote(name));
            rules.within(prefix, section.span()).refuse(span, "keys_path", problem, REMEDY);
        }
    }
}
