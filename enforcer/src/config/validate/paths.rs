//! Rules for the paths that are answered here, on every host, before any route: no two answers have one.

use std::{collections::BTreeMap, ops::Range};

use toml::Spanned;

use super::{Rules, quote};
use crate::config::{AttestationPaths, Payload, Pins, Suspicion, file::File};

const REMEDY: &str = "give each its own path: one would hide the other";

/// `own`: what answers devices, tells pins, and takes reports.
pub(super) fn distinct(
    file: &File,
    own: (Option<&AttestationPaths>, &Pins, Option<&Suspicion>),
    payloads: &BTreeMap<String, Payload>,
    rules: &mut Rules<'_, '_>,
) {
    let (attestation, pins, suspicion) = own;
    let mut taken: Vec<(&str, String)> = Vec::new();
    if let Some(AttestationPaths { challenge, enrol, session, keys }) = attestation {
        let endpoints = [("challenge", challenge), ("enrol", enrol), ("session", session), ("keys", keys)];
        taken.extend(endpoints.map(|(name, path)| (&**path, format!("attestation.{name}_path"))));
    }
    let mut take =
        |path, (section, key): (&str, &str), span: &Range<usize>, written: Option<Range<usize>>| {
            if let Some((_, whose)) = taken.iter().find(|(other, _)| *other == path) {
                let problem = format!("`{path}` is `{whose}` already");
                let mut rules = rules.within(section.to_owned(), span.clone());
                rules.refuse(written.unwrap_or_else(|| span.clone()), key, problem, REMEDY);
            }
            taken.push((path, format!("{section}.{key}")));
        };
    if let (Some(document), Some(section)) = (&pins.document, &file.pins.document) {
        let written = section.get_ref().path.as_ref().map(Spanned::span);
        take(&document.path, ("pins.document", "path"), &section.span(), written);
    }
    for (name, section) in &file.payload {
        let Some(payload) = payloads.get(name) else { continue };
        let written = section.get_ref().keys_path.as_ref().map(Spanned::span);
        let prefix = format!("payload.{}", quote(name));
        take(&payload.keys_path, (&prefix, "keys_path"), &section.span(), written);
    }
    let section = file.suspicion.as_ref().and_then(|section| section.get_ref().reports.as_ref());
    if let (Some(reports), Some(section)) = (suspicion.and_then(|all| all.reports.as_ref()), section) {
        let written = section.get_ref().path.as_ref().map(Spanned::span);
        take(&reports.path, ("suspicion.reports", "path"), &section.span(), written);
    }
}
