//! Rules for `[payload.NAME]`, and for the routes that name one. What only the named files tell (curves, thumbprints) is judged when they
//! are read.

use std::{collections::BTreeMap, time::Duration};

use toml::Spanned;

use super::{Rules, attestation, entries, quote, routes::meant};
use crate::config::{
    Http, Payload, PayloadFormat, PayloadKey, TlsFile,
    file::{File, PayloadKeySection, PayloadSection, RouteSection},
    named::Named,
};

/// Where keys are published unless told otherwise.
pub(super) const PATH: &str = "/.well-known/enforcer/payload-keys";
/// Characters of a key's id, as [`crate::sealed`] and whoever writes JWE have them.
const LONGEST_ID: usize = 64;
/// Keys of a section; apps read all of them.
const MOST_KEYS: usize = 16;
/// Bytes of a body, at most: a worker that opens it does nothing else meanwhile.
const MOST_BYTES: u64 = 16 << 20;

pub(super) fn payloads(file: &File, http: &Http, rules: &mut Rules<'_, '_>) -> BTreeMap<String, Payload> {
    let mut payloads = BTreeMap::new();
    for (name, section) in &file.payload {
        let mut rules = rules.within(format!("payload.{}", quote(name)), section.span());
        rules.name(name);
        payloads.insert(name.clone(), payload(section.get_ref(), http, &mut rules));
    }
    payloads
}

fn payload(section: &PayloadSection, http: &Http, rules: &mut Rules<'_, '_>) -> Payload {
    let mut formats: Vec<PayloadFormat> = entries(&section.formats).map(|format| *format.get_ref()).collect();
    if section.formats.is_some() {
        let remedy = "list \"jwe\", \"hpke\" or \"layout\", or remove the key to accept the first two";
        rules.not_empty("formats", &section.formats, remedy);
        let names = entries(&section.formats).map(|format| (format.span(), format.get_ref().name()));
        rules.distinct("formats", names);
    } else {
        formats = vec![PayloadFormat::Jwe, PayloadFormat::Hpke];
    }
    let seconds = Duration::from_secs;
    let mut size = |key, value, default| rules.size(key, value, default, 1..=MOST_BYTES);
    let max_body_bytes = size("max_body_bytes", &section.max_body_bytes, 1 << 20);
    let max_answer_bytes = size("max_answer_bytes", &section.max_answer_bytes, 1 << 20);
    bounds(section, max_body_bytes, http, rules);
    Payload {
        formats,
        keys: keys(section, rules),
        keys_path: path(section, rules),
        keys_max_age: rules.duration("keys_max_age", &section.keys_max_age, seconds(300), 0..=86_400_000),
        max_body_bytes,
        max_answer_bytes,
        window: rules.duration("window", &section.window, seconds(120), 1_000..=3_600_000),
        clock_skew: rules.duration("clock_skew", &section.clock_skew, seconds(60), 0..=900_000),
        content_type: content_type(section, rules),
        plain: section.plain.as_ref().is_some_and(|plain| *plain.get_ref()),
    }
}

/// A body that is allowed here must not be refused by what holds for all bodies.
fn bounds(section: &PayloadSection, most: u64, http: &Http, rules: &mut Rules<'_, '_>) {
    let span = section.max_body_bytes.as_ref().map_or(rules.span.clone(), Spanned::span);
    if http.max_body_bytes > 0 && most > http.max_body_bytes {
        let problem = format!("{most} bytes are more than http.max_body_bytes, which holds here as well");
        rules.refuse(span, "max_body_bytes", problem, "write less here, or more there");
    } else if most.saturating_mul(4) / 3 > http.max_held_bytes {
        let problem = format!("{most} bytes, encrypted, are more than http.max_held_bytes");
        rules.refuse(span, "max_body_bytes", problem, "write less here, or more there");
    }
}

fn keys(section: &PayloadSection, rules: &mut Rules<'_, '_>) -> Vec<PayloadKey> {
    let remedy = "name a private key, as `openssl genpkey -algorithm X25519` makes it, like [{ file = \"payload.pem\" }]";
    rules.not_empty("keys", &section.keys, remedy);
    if let Some(list) = section.keys.as_ref().filter(|list| list.get_ref().len() > MOST_KEYS) {
        let problem = format!("{} keys are too many", list.get_ref().len());
        rules.refuse(list.span(), "keys", problem, format!("list {MOST_KEYS} at most"));
    }
    let ids = entries(&section.keys).filter_map(|key| {
        let id = key.get_ref().id.as_ref()?;
        Some((id.span(), id.get_ref().0.as_str()))
    });
    rules.distinct("keys", ids);
    let keys = entries(&section.keys).enumerate().map(|(i, key)| {
        let prefix = rules.path(&format!("keys[{i}]"));
        self::key(i, key.get_ref(), &mut rules.within(prefix, key.span()))
    });
    keys.collect()
}

fn key(i: usize, section: &PayloadKeySection, rules: &mut Rules<'_, '_>) -> PayloadKey {
    let id = section.id.as_ref().map(|value| {
        let id = value.get_ref().0.clone();
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(good) {
            let problem = format!("`{}` is no key id", id.escape_debug());
            let remedy = format!("use 1 to {LONGEST_ID} letters, digits, `-` and `_`, or remove the key");
            rules.refuse(value.span(), "id", problem, remedy);
        }
        id
    });
    let until = section.until.as_ref().map(|day| day.get_ref().0.0);
    if let Some(value) = section.until.as_ref().filter(|_| i == 0) {
        let problem = "the first key is the one that apps are to use, and has no end";
        rules.refuse(
            value.span(),
            "until",
            problem,
            "put the key that follows it in front, and then give it an end",
        );
    }
    if let Some((place, path)) = rules.named_file("file", &section.file) {
        rules.errors.named.push((place, Named::TlsFile(path, TlsFile::PayloadKey)));
    }
    let file = rules.file("file", &section.file, "name the PEM file with a private key of P-256 or X25519");
    PayloadKey { file, id, until }
}

fn path(section: &PayloadSection, rules: &mut Rules<'_, '_>) -> String {
    let Some(value) = &section.keys_path else { return PATH.to_owned() };
    let path = value.get_ref().0.clone();
    if !attestation::is_endpoint(&path) {
        let problem = format!("`{}` is no path of one endpoint", path.escape_debug());
        rules.refuse(value.span(), "keys_path", problem, attestation::ENDPOINT);
    }
    path
}

fn content_type(section: &PayloadSection, rules: &mut Rules<'_, '_>) -> String {
    let Some(value) = &section.content_type else { return "application/json".to_owned() };
    let kind =
        rules.text("content_type", &section.content_type, "write a media type like \"application/json\"");
    let good = |b: u8| b.is_ascii_graphic() || b == b' ';
    if !kind.is_empty() && (!kind.contains('/') || kind.len() > 127 || !kind.bytes().all(good)) {
        let problem = format!("`{}` is no media type", kind.escape_debug());
        rules.refuse(value.span(), "content_type", problem, "write one like \"application/json\"");
    }
    kind
}

/// How bodies of a route are encrypted.
pub(super) fn of_route(section: &RouteSection, file: &File, rules: &mut Rules<'_, '_>) -> Option<String> {
    let value = section.payload.as_ref()?;
    let name = rules.text("payload", &section.payload, "name a [payload.NAME], or remove the key");
    if !name.is_empty()
        && !file.payload.contains_key(&name)
        && !rules.errors.knows_section("payload", &quote(&name))
    {
        let problem = format!("there is no [payload.{}]", quote(&name));
        rules.refuse(value.span(), "payload", problem, meant(&name, &file.payload));
    }
    let upgrade = section.upgrade.as_ref().filter(|list| !list.get_ref().is_empty()).map(Spanned::span);
    let early = section.early_data.as_ref().filter(|value| *value.get_ref()).map(Spanned::span);
    for (key, span, problem) in [
        ("upgrade", upgrade, "beside `payload`: nothing that follows would be encrypted"),
        (
            "early_data",
            early,
            "beside `payload`: what is encrypted is good once, and early data may come twice",
        ),
        (
            "oauth",
            section.oauth.as_ref().map(Spanned::span),
            "beside `payload`: clients of OAuth encrypt nothing",
        ),
    ] {
        if let Some(span) = span {
            rules.refuse(span, key, problem, "remove one of the two");
        }
    }
    Some(name)
}
