//! Rules for proofs and signatures of requests: `[replay]`, `[dpop]`, `[signature.NAME]`, and what a `[[route]]` asks for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{Rules, entries, quote, routes::meant};
use crate::config::{
    Binding, Bindings, Dpop, Replay, Signature, SignatureScheme, TlsFile, TokenAlgorithm,
    file::{DpopSection, File, HttpSection, ReplaySection, RouteSection, SignatureSection},
    named::Named,
};

/// Key ids have to fit in a line of a log.
const LONGEST_ID: usize = 256;
/// Parts of a request that a signature has to cover, at most.
const MOST_COMPONENTS: usize = 32;
/// What is covered unless told otherwise: which request it is. `content-digest` comes by itself where there is a body.
const COMPONENTS: [&str; 4] = ["@method", "@authority", "@path", "@query"];
/// Derived components of requests (RFC 9421 section 2.2) that can be required; `@query-param` needs a parameter.
const DERIVED: [&str; 7] =
    ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"];

pub(super) fn replay(section: &ReplaySection, bans: Option<&Path>, rules: &mut Rules<'_, '_>) -> Replay {
    let mut rules = rules.section("replay");
    let entries = rules.number("max_entries", &section.max_entries, 1_000_000, 1_024..=100_000_000);
    let store = match &section.store {
        None => bans.map(|bans| bans.with_file_name("replay.redb")),
        Some(value) if value.get_ref().0 == "off" => None,
        Some(_) => Some(rules.file("store", &section.store, "write a path, or \"off\"")),
    };
    Replay { max_entries: u32::try_from(entries).unwrap_or(u32::MAX), store }
}

pub(super) fn dpop(section: &DpopSection, rules: &mut Rules<'_, '_>) -> Dpop {
    let mut rules = rules.section("dpop");
    let mut algorithms: Vec<_> = entries(&section.algorithms).map(|name| *name.get_ref()).collect();
    if section.algorithms.is_some() {
        let remedy = "list one, or remove the key to accept ES256 and EdDSA";
        rules.not_empty("algorithms", &section.algorithms, remedy);
    } else {
        algorithms = vec![TokenAlgorithm::Es256, TokenAlgorithm::EdDsa];
    }
    algorithms.sort_unstable();
    algorithms.dedup();
    let seconds = Duration::from_secs;
    Dpop {
        algorithms,
        max_age: rules.duration("max_age", &section.max_age, seconds(120), 1_000..=3_600_000),
        leeway: rules.duration("leeway", &section.leeway, seconds(60), 0..=300_000),
        nonce: section.nonce.as_ref().is_some_and(|wanted| *wanted.get_ref()),
        nonce_lifetime: rules.duration(
            "nonce_lifetime",
            &section.nonce_lifetime,
            seconds(300),
            1_000..=86_400_000,
        ),
    }
}

/// What trusted proxies say is believed only where it is written that it shall be.
pub(super) fn forwarded_origin(section: &HttpSection, rules: &mut Rules<'_, '_>) -> bool {
    let Some(value) = &section.forwarded_origin else { return false };
    if *value.get_ref() && entries(&section.trusted_proxies).next().is_none() {
        let problem = "nobody is trusted to say it";
        rules.refuse(value.span(), "forwarded_origin", problem, "list those that are in `trusted_proxies`");
    }
    *value.get_ref()
}

pub(super) fn signatures(file: &File, rules: &mut Rules<'_, '_>) -> BTreeMap<String, Signature> {
    let read = |(name, signature): (&String, &Spanned<SignatureSection>)| {
        let mut rules = rules.within(format!("signature.{}", quote(name)), signature.span());
        rules.name(name);
        (name.clone(), self::signature(signature.get_ref(), &mut rules))
    };
    file.signature.iter().map(read).collect()
}

fn signature(section: &SignatureSection, rules: &mut Rules<'_, '_>) -> Signature {
    let scheme = section.scheme.as_ref().map(|scheme| *scheme.get_ref());
    if scheme.is_none() {
        rules.missing("scheme", "write \"rfc9421\", or \"hmac-sha256\"");
    }
    let scheme = scheme.unwrap_or(SignatureScheme::Message);
    let message = scheme == SignatureScheme::Message;
    let of_messages = [
        ("components", section.components.as_ref().map(Spanned::span)),
        ("tag", section.tag.as_ref().map(Spanned::span)),
    ];
    for (key, span) in of_messages {
        if let Some(span) = span.filter(|_| !message) {
            let problem = "is for HTTP Message Signatures, and this scheme covers what it covers";
            rules.refuse(span, key, problem, format!("remove `{key}`, or write scheme = \"rfc9421\""));
        }
    }
    let tag = section.tag.as_ref().map(|value| {
        let tag = rules.text("tag", &section.tag, "write the `tag` of signatures, or remove the key");
        if !tag.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            rules.refuse(value.span(), "tag", "no text of visible ASCII", "write one");
        }
        tag
    });
    Signature {
        scheme,
        keys: keys(section, scheme, rules),
        window: rules.duration("window", &section.window, Duration::from_secs(300), 1_000..=3_600_000),
        max_body_bytes: rules.size("max_body_bytes", &section.max_body_bytes, 1 << 20, 0..=64 << 20),
        components: components(section, rules),
        tag,
    }
}

fn keys(
    section: &SignatureSection,
    scheme: SignatureScheme,
    rules: &mut Rules<'_, '_>,
) -> BTreeMap<String, PathBuf> {
    let mut keys = BTreeMap::new();
    for (id, file) in section.keys.iter().flat_map(|keys| keys.get_ref()) {
        let key = format!("keys.{}", quote(id));
        if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(|b| b.is_ascii_graphic() && b != b'"') {
            let problem = format!("`{}` is no key id", id.escape_debug());
            let remedy = format!("use 1 to {LONGEST_ID} visible characters of ASCII without quotes");
            rules.refuse(file.span(), &key, problem, remedy);
        }
        let file = Some(file.clone());
        if let Some((place, path)) = rules.named_file(&key, &file) {
            rules.errors.named.push((place, Named::TlsFile(path, TlsFile::SignatureKey(scheme))));
        }
        keys.insert(id.clone(), rules.file(&key, &file, "name the file with the key"));
    }
    match &section.keys {
        None => rules.missing("keys", "name the file of each key by its id, like { app-1 = \"app-1.key\" }"),
        Some(keys) if keys.get_ref().is_empty() => {
            rules.refuse(keys.span(), "keys", "empty", "nothing could be signed: name a key");
        }
        Some(_) => {}
    }
    keys
}

fn components(section: &SignatureSection, rules: &mut Rules<'_, '_>) -> Vec<String> {
    let Some(list) = &section.components else { return COMPONENTS.map(str::to_owned).to_vec() };
    if list.get_ref().is_empty() || list.get_ref().len() > MOST_COMPONENTS {
        let problem = format!("{} components", list.get_ref().len());
        rules.refuse(list.span(), "components", problem, format!("list 1 to {MOST_COMPONENTS}"));
    }
    for entry in entries(&section.components) {
        let name = entry.get_ref().0.as_str();
        let field = name.parse::<http::HeaderName>().is_ok_and(|parsed| parsed.as_str() == name);
        if !DERIVED.contains(&name) && !field {
            let problem = format!("`{}` is no component", name.escape_debug());
            let remedy = "write a field's name in small letters, or @method, @target-uri, @authority, @scheme, @request-target, @path, @query";
            rules.refuse_entry(entry.span(), "components", problem, remedy);
        }
    }
    rules.texts("components", &section.components)
}

pub(super) fn bindings(section: &RouteSection, certified: bool, rules: &mut Rules<'_, '_>) -> Bindings {
    let read = |key: &Option<Spanned<Binding>>| key.as_ref().map_or(Binding::Optional, |one| *one.get_ref());
    let bindings = Bindings { dpop: read(&section.dpop), certificate: read(&section.certificate_bound) };
    let keys = [("dpop", &section.dpop), ("certificate_bound", &section.certificate_bound)];
    if section.token.is_none() && !rules.errors.knows(&rules.path("token")) {
        for (key, value) in keys {
            let Some(value) = value else { continue };
            let problem = "is about the route's tokens, and it asks for none";
            rules.refuse(value.span(), key, problem, format!("add `token` or remove `{key}`"));
        }
    }
    if let Some(value) =
        section.certificate_bound.as_ref().filter(|value| *value.get_ref() == Binding::Required)
        && !certified
    {
        let problem = "no listener asks for client certificates";
        let remedy = "write `client_certificates` in a listener, or remove the key";
        rules.refuse(value.span(), "certificate_bound", problem, remedy);
    }
    bindings
}

/// Whose signatures a route needs.
pub(super) fn of_route(section: &RouteSection, file: &File, rules: &mut Rules<'_, '_>) -> Option<String> {
    let value = section.signature.as_ref()?;
    let name = rules.text("signature", &section.signature, "name a [signature.NAME], or remove the key");
    if !name.is_empty()
        && !file.signature.contains_key(&name)
        && !rules.errors.knows_section("signature", &quote(&name))
    {
        let problem = format!("there is no [signature.{}]", quote(&name));
        rules.refuse(value.span(), "signature", problem, meant(&name, &file.signature));
    }
    if let Some(upgrade) = section.upgrade.as_ref().filter(|list| !list.get_ref().is_empty()) {
        let problem = "beside `signature`: nothing that follows would be signed";
        rules.refuse(upgrade.span(), "upgrade", problem, "remove one of the two");
    }
    Some(name)
}
