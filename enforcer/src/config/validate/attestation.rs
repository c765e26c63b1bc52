//! Rules for `[attestation]`, and for what a `[[route]]` asks for of devices.

mod apple;
mod google;
mod play;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{LimitRules, Rules, entries};
use crate::config::{
    AppAttest, Attestation, AttestationDemand, AttestationPaths, Environment, Level, OverRisk, RateLimit,
    TlsFile, UnknownDevices,
    file::{AppAttestSection, AttestationSection, File, Key, RouteSection},
    named::Named,
    value::Text,
};

/// Below it nothing of the paths is configured.
const BASE: &str = "/.well-known/enforcer";

/// Keys that are published beside the one that signs, at most.
const MOST_PREVIOUS: usize = 4;

const LIMIT: LimitRules = LimitRules {
    default: RateLimit { events: 60, period: Duration::from_secs(60), burst: 60 },
    may_be_off: false,
    least_burst: 1,
};

pub(super) fn attestation(
    section: &Key<AttestationSection>,
    bans: Option<&Path>,
    rules: &mut Rules<'_, '_>,
) -> Option<Attestation> {
    let section = section.as_ref()?.get_ref();
    let mut rules = rules.section("attestation");
    let paths = paths(section, &mut rules);
    let store = match &section.store {
        None => bans.map(|bans| bans.with_file_name("devices.redb")),
        Some(value) if value.get_ref().0 == "off" => None,
        Some(_) => Some(rules.file("store", &section.store, "write a path, or \"off\"")),
    };
    if let Some(value) = &section.store
        && store.is_some()
        && store.as_deref() == bans
    {
        rules.refuse(value.span(), "store", "is bans.store", "name another file");
    }
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let days = |count: u64| Duration::from_secs(86_400 * count);
    let challenges = rules.number("max_challenges", &section.max_challenges, 262_144, 1_024..=16_777_216);
    let devices = rules.number("max_devices", &section.max_devices, 1_000_000, 1..=50_000_000);
    let issuer = match &section.facts_issuer {
        None => "enforcer".to_owned(),
        Some(_) => rules.text("facts_issuer", &section.facts_issuer, "write the `iss` that servers expect"),
    };
    let session_lifetime =
        rules.duration("session_lifetime", &section.session_lifetime, minutes(15), 10_000..=86_400_000);
    let forget_after =
        rules.duration("forget_after", &section.forget_after, days(180), 3_600_000..=315_360_000_000);
    if let Some(value) = section.forget_after.as_ref().filter(|_| forget_after < session_lifetime) {
        let problem =
            "is shorter than session_lifetime: devices would be forgotten while their sessions are good";
        rules.refuse(value.span(), "forget_after", problem, "write more, or lower session_lifetime");
    }
    Some(Attestation {
        paths,
        limit: rules.limit("limit", &section.limit, LIMIT).unwrap_or(LIMIT.default),
        challenge_lifetime: rules.duration(
            "challenge_lifetime",
            &section.challenge_lifetime,
            minutes(2),
            5_000..=600_000,
        ),
        max_challenges: u32::try_from(challenges).unwrap_or(u32::MAX),
        assertion_window: rules.duration(
            "assertion_window",
            &section.assertion_window,
            minutes(1),
            5_000..=600_000,
        ),
        session_lifetime,
        session_keys: file("session_keys", &section.session_keys, TlsFile::SessionKeys, &mut rules),
        facts_key: file("facts_key", &section.facts_key, TlsFile::FactsKey, &mut rules),
        facts_previous_keys: previous_keys(section, &mut rules),
        facts_issuer: issuer,
        facts_audience: section.facts_audience.as_ref().map(|_| {
            let remedy = "write the `aud` that servers expect, or remove the key";
            rules.text("facts_audience", &section.facts_audience, remedy)
        }),
        facts_lifetime: rules.duration(
            "facts_lifetime",
            &section.facts_lifetime,
            minutes(1),
            5_000..=3_600_000,
        ),
        store,
        max_devices: u32::try_from(devices).unwrap_or(u32::MAX),
        forget_after,
        unknown_devices: unknown(section, &mut rules),
        app_attest: app_attest(&section.app_attest, &mut rules),
        android_key: google::android_key(&section.android_key, section.play.is_some(), &mut rules),
        play: play::play(&section.play, &mut rules),
    })
}

/// Keys that are published beside the one that signs.
fn previous_keys(section: &AttestationSection, rules: &mut Rules<'_, '_>) -> Vec<PathBuf> {
    const KEY: &str = "facts_previous_keys";
    let texts = rules.texts(KEY, &section.facts_previous_keys);
    if let Some(list) = &section.facts_previous_keys {
        if texts.len() > MOST_PREVIOUS {
            let problem = format!("{} entries are too many", texts.len());
            rules.refuse(list.span(), KEY, problem, format!("list {MOST_PREVIOUS} at most"));
        }
        if section.facts_key.is_none() {
            let problem = "without `facts_key` the key that signs is drawn at each start";
            rules.refuse(list.span(), KEY, problem, "name that file, too, or remove the key");
        }
    }
    for (n, entry) in entries(&section.facts_previous_keys).enumerate() {
        let path = rules.folder.join(&entry.get_ref().0);
        rules.name_outside(&format!("{KEY}[{n}]"), entry.span(), Named::TlsFile(path, TlsFile::FactsKey));
    }
    texts.iter().map(|text| rules.folder.join(text)).collect()
}

/// Whoever takes sessions of others has to have their keys.
fn unknown(section: &AttestationSection, rules: &mut Rules<'_, '_>) -> UnknownDevices {
    let Some(value) = &section.unknown_devices else { return UnknownDevices::Refuse };
    if *value.get_ref() == UnknownDevices::BySession && section.session_keys.is_none() {
        let problem = "without `session_keys` nobody else makes sessions that are good here";
        rules.refuse(value.span(), "unknown_devices", problem, "name the file that the daemons share");
    }
    *value.get_ref()
}

/// Characters of a path, at most.
const LONGEST_PATH: usize = 1_024;

/// What to do about a path that is none.
pub(super) const ENDPOINT: &str =
    "begin it with `/`, end it without, and use letters, digits, `-`, `.`, `_`, `~`, 1024 characters at most";

/// Whether requests can come to a path as it is written: what they ask for is put in order before it is compared.
pub(super) fn is_endpoint(path: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    path.starts_with('/')
        && path.len() <= LONGEST_PATH
        && !path.ends_with('/')
        && !path.contains("//")
        && !path.split('/').any(|segment| segment == "." || segment == "..")
        && path.bytes().all(good)
}

fn paths(section: &AttestationSection, rules: &mut Rules<'_, '_>) -> AttestationPaths {
    let mut seen: Vec<String> = Vec::new();
    let mut path = |name: &str, value: &Key<Text<String>>| {
        let key = format!("{name}_path");
        let path = match value {
            None => format!("{BASE}/{name}"),
            Some(_) => rules.text(&key, value, "write a path like \"/.well-known/enforcer/challenge\""),
        };
        let span = value.as_ref().map_or(rules.span.clone(), Spanned::span);
        if !is_endpoint(&path) {
            let problem = format!("`{}` is no path of one endpoint", path.escape_debug());
            rules.refuse(span.clone(), &key, problem, ENDPOINT);
        }
        if seen.contains(&path) {
            rules.refuse(span, &key, "is another endpoint's", "give each its own path");
        }
        seen.push(path.clone());
        path
    };
    AttestationPaths {
        challenge: path("challenge", &section.challenge_path),
        enrol: path("enrol", &section.enrol_path),
        session: path("session", &section.session_path),
        keys: path("keys", &section.keys_path),
    }
}

fn file(
    key: &str,
    value: &Key<Text<String>>,
    kind: TlsFile,
    rules: &mut Rules<'_, '_>,
) -> Option<std::path::PathBuf> {
    value.as_ref()?;
    if let Some((place, path)) = rules.named_file(key, value) {
        rules.errors.named.push((place, Named::TlsFile(path, kind)));
    }
    Some(rules.file(key, value, "name a file, or remove the key"))
}

fn app_attest(section: &Key<AppAttestSection>, rules: &mut Rules<'_, '_>) -> Option<AppAttest> {
    let section = section.as_ref()?.get_ref();
    let mut rules = rules.section("app_attest");
    rules.not_empty("apps", &section.apps, "list apps, like \"ABCDE12345.com.example.app\"");
    for entry in entries(&section.apps) {
        let app = &entry.get_ref().0;
        let (team, bundle) = app.split_once('.').unwrap_or((app, ""));
        let is_team = team.len() == 10 && team.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let is_bundle = !bundle.is_empty()
            && bundle.len() <= 155
            && bundle.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if !(app.is_empty() || is_team && is_bundle) {
            let problem = format!("`{}` is no identifier of an app", app.escape_debug());
            let remedy = "write the team's ten characters, a dot, and the bundle identifier, like \"ABCDE12345.com.example.app\"";
            rules.refuse_entry(entry.span(), "apps", problem, remedy);
        }
    }
    let apps = rules.texts("apps", &section.apps);
    Some(AppAttest {
        receipts: apple::receipts(&section.receipts, &apps, &mut rules),
        apps,
        environment: section.environment.as_ref().map_or(Environment::Production, |one| *one.get_ref()),
        categories: apple::categories(&section.categories, &mut rules),
        minimum_version: apple::minimum_version(&section.minimum_version, &mut rules),
        require_distribution: section.require_distribution.as_ref().is_some_and(|one| *one.get_ref()),
        root: file("root", &section.root, TlsFile::AttestationRoot, &mut rules),
    })
}

/// What a route asks for of devices.
pub(super) fn of_route(
    section: &RouteSection,
    file: &File,
    name: &str,
    rules: &mut Rules<'_, '_>,
) -> Option<AttestationDemand> {
    let written = section.attestation.as_ref()?;
    let demand = written.get_ref();
    let Some(by) = &file.attestation else {
        let problem = "there is no [attestation]: nothing could attest a device";
        rules.refuse(written.span(), "attestation", problem, "add the section, or remove the key");
        return None;
    };
    let lifetime = by.get_ref().session_lifetime.as_ref().map(|lifetime| lifetime.get_ref().0);
    let lifetime = lifetime.unwrap_or(Duration::from_secs(900));
    let mut rules = rules.within(rules.path("attestation"), written.span());
    let max_age = rules.duration("max_age", &demand.max_age, lifetime, 1_000..=86_400_000);
    if let Some(value) = demand.max_age.as_ref().filter(|_| max_age > lifetime) {
        let problem = "is longer than attestation.session_lifetime, after which sessions end";
        rules.refuse(value.span(), "max_age", problem, "write less, or raise session_lifetime");
    }
    if let Some(list) = demand.platform.as_ref().filter(|list| list.get_ref().is_empty()) {
        let remedy = "list one, or remove the key to take every platform";
        rules.refuse(list.span(), "platform", "empty", remedy);
    }
    let mut platforms: Vec<_> = entries(&demand.platform).map(|platform| *platform.get_ref()).collect();
    platforms.sort_unstable();
    platforms.dedup();
    Some(AttestationDemand {
        max_age,
        level: demand.level.as_ref().map_or(Level::Device, |level| *level.get_ref()),
        platforms,
        assertion: apple::assertion(section, demand, &mut rules),
        group: apple::group(demand, name, &mut rules),
        max_body_bytes: rules.size("max_body_bytes", &demand.max_body_bytes, 1 << 20, 0..=64 << 20),
        max_risk: apple::max_risk(demand, &mut rules),
        over_risk: demand.over_risk.as_ref().map_or(OverRisk::Deny, |one| *one.get_ref()),
        play: play::of_route(section, &demand.play, by.get_ref(), &mut rules),
    })
}
