//! What is written of Google Play and of asking Google, and what is refused there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{path::Path, time::Duration};

use enforcer::{
    attestation::play::verdict::{AppAccess, Label, PlayProtect},
    config::{self, PlayRisk, PlayUnavailable},
};

use super::config_devices::{REST, errors};

const PLAY: &str = "[attestation.play]\npackages = [\"com.example.app\"]\ncertificates = [\"CERT\"]\n";

fn written(text: &str) -> String {
    text.replace("PLAY", PLAY)
        .replace("REMOTE", "[attestation.play.remote]\naccount = \"a.json\"")
        .replace("CERT", &"3c".repeat(32))
}

#[test]
fn what_is_not_written_is_the_safer_one() {
    let text = format!("{REST}attestation = {{ play = {{}} }}\n{}", written("PLAY\nREMOTE"));
    let config = config::parse(&text, Path::new("x.toml")).unwrap();
    let demand = config.routes[0].attestation.clone().unwrap().play.unwrap();
    assert_eq!((demand.unavailable, demand.reuse), (PlayUnavailable::Deny, Duration::ZERO));
    assert_eq!(demand.max_body_bytes, 1 << 20);
    let play = config.attestation.unwrap().play.unwrap();
    assert_eq!((play.keys, play.labels), (None, vec!["MEETS_DEVICE_INTEGRITY".to_owned()]));
    assert_eq!((play.testing, play.risk), (false, PlayRisk::default()));
    let remote = play.remote.unwrap();
    assert_eq!(remote.api, "https://playintegrity.googleapis.com/");
    assert_eq!((remote.calls_per_day, remote.burst, remote.reserve), (10_000, 500, 1_000));
    assert_eq!((remote.timeout, remote.max_calls), (Duration::from_secs(3), 64));
    assert_eq!((remote.private_addresses, remote.unavailable), (false, PlayUnavailable::Deny));
}

#[test]
fn each_rung_is_chosen_by_its_name() {
    for (text, expected) in [
        ("\"deny\"", PlayUnavailable::Deny),
        ("\"allow-and-flag\"", PlayUnavailable::AllowAndFlag),
        (
            "{ require-cached-verdict-younger-than = \"15m\" }",
            PlayUnavailable::Cached(Duration::from_secs(900)),
        ),
    ] {
        let route = format!("attestation = {{ play = {{ unavailable = {text} }} }}");
        let text = format!("{REST}{route}\n{}", written("PLAY\nREMOTE"));
        let config = config::parse(&text, Path::new("x.toml")).unwrap();
        let demand = config.routes[0].attestation.clone().unwrap().play.unwrap();
        assert_eq!(demand.unavailable, expected, "{text}");
    }
}

#[test]
fn what_cannot_be_meant_of_google_is_refused() {
    for (route, sections, expected) in [
        ("play = {}", "[attestation]", "there is no [attestation.play.remote]"),
        ("play = {}", "PLAY\nkeys = \"k\"", "there is no [attestation.play.remote]"),
        ("play = { reuse = \"25h\" }", "PLAY\nREMOTE", "longer than attestation.play.verdict_lifetime"),
        ("play = { unavailable = \"allow\" }", "PLAY\nREMOTE", "attestation.play.unavailable"),
        (
            "play = { unavailable = { require-cached-verdict-younger-than = \"0s\" } }",
            "PLAY\nREMOTE",
            "no verdict is younger",
        ),
        ("", "PLAY", "attestation.play.keys: missing"),
        ("", "PLAY\nkeys = \"k\"\nlabels = []", "attestation.play.labels: empty"),
        ("", "PLAY\nkeys = \"k\"\nlabels = [\"MEETS_VIRTUAL_INTEGRITY\"]", "none of Google's words"),
        ("", "PLAY\nkeys = \"k\"\nrefuse_play_protect = [\"high_risk\"]", "none of Google's words"),
        ("", "PLAY\nkeys = \"k\"\nrefuse_app_access = [\"CONTROLLING\"]", "none of Google's words"),
        ("", "PLAY\nkeys = \"k\"\nmax_activity = 5", "out of range"),
        ("", "PLAY\n[attestation.play.remote]", "attestation.play.remote.account: missing"),
        ("", "PLAY\nREMOTE\napi = \"http://x\"", "no https address"),
        ("", "PLAY\nREMOTE\ntoken_url = \"x\"", "no https address"),
        ("", "PLAY\nREMOTE\nburst = 0", "leave nothing of 10000 calls"),
        ("", "PLAY\nREMOTE\nburst = 9000", "leave nothing of 10000 calls"),
        ("", "PLAY\nREMOTE\nunavailable = \"allow-and-flag\"", "with nothing known"),
        ("", "PLAY\nREMOTE\nmax_calls = 0", "out of range"),
        ("play = {} }\nupgrade = [\"websocket\"] #", "PLAY\nREMOTE", "attestation.play: beside `upgrade`"),
        ("play = {} }\nearly_data = true #", "PLAY\nREMOTE", "attestation.play: beside `early_data`"),
    ] {
        let route = if route.is_empty() { String::new() } else { format!("attestation = {{ {route} }}") };
        let errors = errors(&route, &written(sections));
        assert!(errors.iter().any(|error| error.contains(expected)), "{route} {sections}: {errors:?}");
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}

/// Words that can be written are those that verdicts are read by.
#[test]
fn every_word_of_googles_can_be_written() {
    let list = |words: Vec<&str>| format!("{words:?}");
    let labels: Vec<&str> =
        Label::ALL.iter().filter(|one| **one != Label::Virtual).map(|one| one.name()).collect();
    let protect = PlayProtect::ALL.iter().map(|one| one.name()).collect();
    let access = AppAccess::ALL.iter().map(|one| one.name()).collect();
    let sections = format!(
        "PLAY\nkeys = \"k\"\nlabels = {}\nrefuse_play_protect = {}\nrefuse_app_access = {}",
        list(labels),
        list(protect),
        list(access)
    );
    assert_eq!(errors("", &written(&sections)), Vec::<String>::new());
}
