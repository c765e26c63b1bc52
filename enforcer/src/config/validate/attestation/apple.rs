//! Rules for what `[attestation.app_attest]` asks of the way that an app came to its device, for its receipts, and for assertions and risk
//! metrics that a `[[route]]` asks for.

use std::{ops::Range, time::Duration};

use http::Uri;
use toml::Spanned;

use super::{Rules, entries, file};
use crate::config::{
    Assertion, Receipts, TlsFile,
    file::{DemandSection, Key, List, ReceiptsSection, RouteSection},
    value::Text,
};

/// What `apple_validation_category_01` can say, in Apple's words.
const CATEGORIES: [(&str, u32); 7] = [
    ("platform", 1),
    ("testflight", 2),
    ("development", 3),
    ("app-store", 4),
    ("enterprise", 5),
    ("developer-id", 6),
    ("none", 10),
];

/// Words, or their numbers.
pub(super) fn categories(value: &List<Text<String>>, rules: &mut Rules<'_, '_>) -> Vec<String> {
    for entry in entries(value) {
        let text = &entry.get_ref().0;
        let is_known = |(name, number): &(&str, u32)| text == name || *text == number.to_string();
        if !text.is_empty() && !CATEGORIES.iter().any(is_known) {
            let problem = format!("`{}` is no category", text.escape_debug());
            let names = CATEGORIES.map(|(name, _)| name).join(", ");
            let remedy = format!("write one of {names}, or its number");
            rules.refuse_entry(entry.span(), "categories", problem, remedy);
        }
    }
    if let Some(list) = value.as_ref().filter(|list| list.get_ref().is_empty()) {
        let remedy = "list one, or remove the key to take what the environment allows";
        rules.refuse(list.span(), "categories", "empty", remedy);
    }
    rules.texts("categories", value)
}

/// Numbers with dots between, as `CFBundleVersion` has them.
pub(super) fn minimum_version(value: &Key<Text<String>>, rules: &mut Rules<'_, '_>) -> Option<String> {
    let written = value.as_ref()?;
    let remedy = "write numbers with dots between, like \"4.2\", or remove the key";
    let text = rules.text("minimum_version", value, remedy);
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u64>().is_ok();
    if !text.is_empty() && !text.split('.').all(is_number) {
        let problem = format!("`{}` is no version", text.escape_debug());
        rules.refuse(written.span(), "minimum_version", problem, remedy);
    }
    Some(text)
}

pub(super) fn receipts(
    section: &Key<ReceiptsSection>,
    apps: &[String],
    rules: &mut Rules<'_, '_>,
) -> Option<Receipts> {
    let written = section.as_ref()?;
    let section = written.get_ref();
    let mut rules = rules.section("receipts");
    let mut teams: Vec<&str> = apps.iter().filter_map(|app| Some(app.split_once('.')?.0)).collect();
    teams.sort_unstable();
    teams.dedup();
    if teams.len() > 1 {
        let problem = "the apps are of more than one team, and a key is of one";
        rules.refuse(written.span(), "key", problem, "serve one team here, or remove the section");
    }
    let key = file("key", &section.key, TlsFile::DeviceCheckKey, &mut rules);
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Some(Receipts {
        key: key.unwrap_or_else(|| {
            rules.file("key", &None, "name the .p8 file with the DeviceCheck key of your developer account")
        }),
        key_id: key_id(section, &mut rules),
        team: teams.first().copied().unwrap_or_default().to_owned(),
        api: api(section, &mut rules),
        authorities: file("authorities", &section.authorities, TlsFile::ServerAuthorities, &mut rules),
        private_addresses: section.private_addresses.as_ref().is_some_and(|one| *one.get_ref()),
        timeout: rules.duration("timeout", &section.timeout, Duration::from_secs(10), 100..=60_000),
        every: rules.duration("every", &section.every, Duration::from_secs(86_400), 60_000..=2_592_000_000),
        calls_per_day: number(rules.number("calls_per_day", &section.calls_per_day, 10_000, 10..=10_000_000)),
        max_receipts: number(rules.number("max_receipts", &section.max_receipts, 100_000, 1..=10_000_000)),
        root: file("root", &section.root, TlsFile::AttestationRoot, &mut rules),
    })
}

fn key_id(section: &ReceiptsSection, rules: &mut Rules<'_, '_>) -> String {
    let id = rules.text("key_id", &section.key_id, "write the key's id, as the developer account shows it");
    let good = id.len() == 10 && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if let Some(value) = section.key_id.as_ref().filter(|_| !id.is_empty() && !good) {
        let problem = format!("`{}` is no id of a key", id.escape_debug());
        rules.refuse(value.span(), "key_id", problem, "write its ten capital letters and digits");
    }
    id
}

fn api(section: &ReceiptsSection, rules: &mut Rules<'_, '_>) -> Option<Uri> {
    let value = section.api.as_ref()?;
    let remedy = "write one like \"https://data.appattest.apple.com\", or remove the key";
    let text = rules.text("api", &section.api, remedy);
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let is_https = uri.scheme_str() == Some("https") && uri.host().is_some();
        is_https && uri.path() == "/" && uri.query().is_none() && !text.contains(['@', '#'])
    });
    if uri.is_none() && !text.is_empty() {
        let problem = format!("`{}` is no https address without a path", text.escape_debug());
        rules.refuse(value.span(), "api", problem, remedy);
    }
    uri
}

pub(super) fn assertion(
    section: &RouteSection,
    demand: &DemandSection,
    rules: &mut Rules<'_, '_>,
) -> Option<Assertion> {
    let Some(value) = &demand.assertion else {
        let without = [
            ("group", demand.group.as_ref().map(Spanned::span)),
            ("max_body_bytes", demand.max_body_bytes.as_ref().map(Spanned::span)),
        ];
        for (key, span) in without {
            let Some(span) = span else { continue };
            let problem = "is about assertions, and this route asks for none";
            rules.refuse(span, key, problem, format!("add `assertion` or remove `{key}`"));
        }
        return None;
    };
    of_one_request(section, "assertion", value.span(), rules);
    Some(*value.get_ref())
}

/// Refuses what is about one request, once, beside what lets more follow, or lets it come twice.
pub(super) fn of_one_request(
    section: &RouteSection,
    key: &str,
    span: Range<usize>,
    rules: &mut Rules<'_, '_>,
) {
    let upgrade = section.upgrade.as_ref().is_some_and(|list| !list.get_ref().is_empty());
    let early = section.early_data.as_ref().is_some_and(|value| *value.get_ref());
    for (is_there, problem) in [
        (upgrade, "beside `upgrade`: nothing that follows would be signed"),
        (early, "beside `early_data`: what is signed is good once, and early data may come twice"),
    ] {
        if is_there {
            rules.refuse(span.clone(), key, problem, "remove one of the two");
        }
    }
}

/// By default the route's own.
pub(super) fn group(demand: &DemandSection, name: &str, rules: &mut Rules<'_, '_>) -> String {
    let Some(value) = &demand.group else { return name.to_owned() };
    let group = rules.text("group", &demand.group, "write a name, or remove the key");
    if group.len() > 64 || !group.bytes().all(|b| b.is_ascii_graphic()) {
        let problem = format!("`{}` is not a usable name", group.escape_debug());
        rules.refuse(value.span(), "group", problem, "use 1 to 64 visible characters of ASCII");
    }
    group
}

pub(super) fn max_risk(demand: &DemandSection, rules: &mut Rules<'_, '_>) -> Option<u32> {
    if demand.max_risk.is_none() {
        if let Some(value) = &demand.over_risk {
            let problem = "is about a risk metric above `max_risk`, which is not there";
            rules.refuse(value.span(), "over_risk", problem, "add `max_risk` or remove the key");
        }
        return None;
    }
    let most = rules.number("max_risk", &demand.max_risk, 0, 1..=1_000_000);
    u32::try_from(most).ok()
}
