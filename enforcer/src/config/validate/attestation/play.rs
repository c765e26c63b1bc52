//! Rules for `[attestation.play]`, and for what a `[[route]]` asks for of Google Play.

use std::time::Duration;

use toml::Spanned;

use super::{Rules, apple, entries, file, google};
use crate::config::{
    Play, PlayDemand, PlayRemote, PlayRisk, PlayUnavailable, TlsFile,
    file::{
        AttestationSection, Key, List, PlaySection, RouteSection,
        attestation::{PlayDemandSection, PlayRemoteSection, UnavailableSection},
    },
    value::Text,
};

/// Where Google is.
const API: &str = "https://playintegrity.googleapis.com";
/// Labels of devices that can be asked for.
pub(in crate::config) const LABELS: [&str; 3] =
    ["MEETS_BASIC_INTEGRITY", "MEETS_DEVICE_INTEGRITY", "MEETS_STRONG_INTEGRITY"];
/// What Play Protect can say.
const PLAY_PROTECT: [&str; 6] =
    ["NO_ISSUES", "NO_DATA", "POSSIBLE_RISK", "MEDIUM_RISK", "HIGH_RISK", "UNEVALUATED"];
/// What other apps can be able to do.
const APP_ACCESS: [&str; 8] = [
    "KNOWN_INSTALLED",
    "KNOWN_CAPTURING",
    "KNOWN_OVERLAYS",
    "KNOWN_CONTROLLING",
    "UNKNOWN_INSTALLED",
    "UNKNOWN_CAPTURING",
    "UNKNOWN_OVERLAYS",
    "UNKNOWN_CONTROLLING",
];

const DAY: u64 = 86_400;

pub(super) fn play(section: &Key<PlaySection>, rules: &mut Rules<'_, '_>) -> Option<Play> {
    let section = section.as_ref()?.get_ref();
    let mut rules = rules.section("play");
    let keys = file("keys", &section.keys, TlsFile::PlayKeys, &mut rules);
    if keys.is_none() && section.remote.is_none() {
        let remedy = "name a file with the keys that the Play Console shows for classic requests, or add [attestation.play.remote]";
        rules.missing("keys", remedy);
    }
    let labels = words("labels", &section.labels, &LABELS, &mut rules);
    if let Some(list) = section.labels.as_ref().filter(|list| list.get_ref().is_empty()) {
        let remedy = "list one, or remove the key to ask for MEETS_DEVICE_INTEGRITY";
        rules.refuse(list.span(), "labels", "empty", remedy);
    }
    let most =
        section.max_activity.as_ref().map(|_| rules.number("max_activity", &section.max_activity, 4, 1..=4));
    Some(Play {
        apps: google::apps(&section.packages, &section.certificates, &section.min_version, &mut rules),
        keys,
        licensed: section.licensed.as_ref().is_none_or(|one| *one.get_ref()),
        max_age: rules.duration("max_age", &section.max_age, Duration::from_secs(120), 10_000..=3_600_000),
        verdict_lifetime: rules.duration(
            "verdict_lifetime",
            &section.verdict_lifetime,
            Duration::from_secs(DAY),
            60_000..=30 * DAY * 1_000,
        ),
        labels: if section.labels.is_some() { labels } else { vec!["MEETS_DEVICE_INTEGRITY".to_owned()] },
        testing: is(&section.testing),
        risk: PlayRisk {
            max_activity: most.and_then(|most| u8::try_from(most).ok()),
            play_protect: words(
                "refuse_play_protect",
                &section.refuse_play_protect,
                &PLAY_PROTECT,
                &mut rules,
            ),
            app_access: words("refuse_app_access", &section.refuse_app_access, &APP_ACCESS, &mut rules),
            unevaluated: is(&section.unevaluated),
        },
        remote: remote(&section.remote, &mut rules),
    })
}

fn remote(section: &Key<PlayRemoteSection>, rules: &mut Rules<'_, '_>) -> Option<PlayRemote> {
    let section = section.as_ref()?.get_ref();
    let mut rules = rules.section("remote");
    let u32_of = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let calls = rules.number("calls_per_day", &section.calls_per_day, 10_000, 10..=1_000_000_000);
    let burst = rules.number("burst", &section.burst, calls / 20, 0..=calls);
    let burst = if section.burst.is_none() { burst.max(1) } else { burst };
    let reserve = rules.number("reserve", &section.reserve, calls / 10, 0..=calls);
    // What is left is spread over the day.
    if burst == 0 || burst.saturating_add(reserve) >= calls {
        let written = section.burst.as_ref().or(section.reserve.as_ref()).or(section.calls_per_day.as_ref());
        let span = written.map_or(rules.span.clone(), Spanned::span);
        let problem = format!(
            "a burst of {burst} and a reserve of {reserve} leave nothing of {calls} calls a day to spread"
        );
        rules.refuse(
            span,
            "burst",
            problem,
            "write at least 1, and less than calls_per_day without the reserve",
        );
    }
    let unavailable = unavailable(&section.unavailable, &mut rules);
    if let Some(value) = section.unavailable.as_ref().filter(|_| unavailable == PlayUnavailable::AllowAndFlag)
    {
        let problem = "a session cannot begin with nothing known of its device";
        let remedy =
            "write \"deny\" or { require-cached-verdict-younger-than = \"48h\" }; routes may allow and flag";
        rules.refuse(value.span(), "unavailable", problem, remedy);
    }
    let account = file("account", &section.account, TlsFile::PlayAccount, &mut rules);
    Some(PlayRemote {
        account: account.unwrap_or_else(|| {
            rules.file("account", &None, "name the JSON key file of the service account that may ask Google")
        }),
        api: https("api", &section.api, &mut rules).unwrap_or_else(|| http::Uri::from_static(API)),
        token_url: https("token_url", &section.token_url, &mut rules),
        authorities: file("authorities", &section.authorities, TlsFile::ServerAuthorities, &mut rules),
        private_addresses: is(&section.private_addresses),
        timeout: rules.duration("timeout", &section.timeout, Duration::from_secs(3), 100..=30_000),
        max_calls: u32_of(rules.number("max_calls", &section.max_calls, 64, 1..=1_024)),
        calls_per_day: u32_of(calls),
        burst: u32_of(burst),
        reserve: u32_of(reserve),
        unavailable,
    })
}

/// What a route asks for of Google Play.
pub(super) fn of_route(
    route: &RouteSection,
    section: &Key<PlayDemandSection>,
    by: &AttestationSection,
    rules: &mut Rules<'_, '_>,
) -> Option<PlayDemand> {
    let written = section.as_ref()?;
    apple::of_one_request(route, "play", written.span(), rules);
    let demand = written.get_ref();
    let play = by.play.as_ref();
    if play.is_none_or(|play| play.get_ref().remote.is_none()) {
        let problem = "there is no [attestation.play.remote]: Google alone knows what tokens of requests say";
        rules.refuse(written.span(), "play", problem, "add the section, or remove the key");
    }
    let lifetime = play.and_then(|play| play.get_ref().verdict_lifetime.as_ref());
    let lifetime = lifetime.map_or(Duration::from_secs(DAY), |lifetime| lifetime.get_ref().0);
    let mut rules = rules.within(rules.path("play"), written.span());
    let unavailable = unavailable(&demand.unavailable, &mut rules);
    let reuse = rules.duration("reuse", &demand.reuse, Duration::ZERO, 0..=30 * DAY * 1_000);
    if let Some(value) = demand.reuse.as_ref().filter(|_| reuse > lifetime) {
        let problem =
            "is longer than attestation.play.verdict_lifetime, after which a verdict counts no longer";
        rules.refuse(value.span(), "reuse", problem, "write less");
    }
    let max_body_bytes = rules.size("max_body_bytes", &demand.max_body_bytes, 1 << 20, 0..=64 << 20);
    Some(PlayDemand { unavailable, reuse, max_body_bytes })
}

fn unavailable(section: &Key<UnavailableSection>, rules: &mut Rules<'_, '_>) -> PlayUnavailable {
    let Some(written) = section else { return PlayUnavailable::Deny };
    match written.get_ref() {
        UnavailableSection::Deny => PlayUnavailable::Deny,
        UnavailableSection::AllowAndFlag => PlayUnavailable::AllowAndFlag,
        UnavailableSection::RequireCachedVerdictYoungerThan(Text(limit)) => {
            if limit.is_zero() || *limit > Duration::from_secs(30 * DAY) {
                let problem = "no verdict is younger than 0s, and none is remembered for more than 720h";
                rules.refuse(written.span(), "unavailable", problem, "write a time from 1s to 720h");
            }
            PlayUnavailable::Cached(*limit)
        }
    }
}

/// Words of Google's.
fn words(key: &str, list: &List<Text<String>>, known: &[&str], rules: &mut Rules<'_, '_>) -> Vec<String> {
    for entry in entries(list) {
        let word = &entry.get_ref().0;
        if !known.contains(&word.as_str()) {
            let problem = format!("`{}` is none of Google's words", word.escape_debug());
            rules.refuse_entry(entry.span(), key, problem, format!("write one of {}", known.join(", ")));
        }
    }
    rules.texts(key, list)
}

/// An address; `None` if it is not written.
fn https(key: &str, value: &Key<Text<String>>, rules: &mut Rules<'_, '_>) -> Option<http::Uri> {
    let written = value.as_ref()?;
    let text = rules.text(key, value, "write an address, or remove the key to take Google's");
    match text.parse::<http::Uri>() {
        Ok(uri) if uri.scheme_str() == Some("https") && !text.contains(['@', '#']) => Some(uri),
        Ok(_) | Err(_) => {
            if !text.is_empty() {
                let problem = format!("`{}` is no https address", text.escape_debug());
                rules.refuse(
                    written.span(),
                    key,
                    problem,
                    "write one like \"https://playintegrity.googleapis.com\"",
                );
            }
            None
        }
    }
}

fn is(key: &Key<bool>) -> bool {
    key.as_ref().is_some_and(|value| *value.get_ref())
}
