//! What app developers are told is what the code does: names and texts of the blocks in `docs/app-developers.md`, and its codes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
};

use anyhow::Result;
use enforcer::{
    checks::{
        devices::{self, client_data, key_data, play::request},
        facts::Target,
        payload,
        token::binding,
    },
    config::{self, Assertion},
    denial::Denial,
    enrolment::{DeviceId, Provider, Purpose},
    pins,
    sealed::{hpke, layout},
};
use enforcer_tests::{
    edge::{self, NAME},
    tokens::encode,
};
use http::{HeaderMap, HeaderName, Method};
use serde_json::{Map, Value};

use super::{
    admit::NOW,
    shop::{PATH, Shop},
    till::{ath, bare, unique},
};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text() -> String {
    fs::read_to_string(folder().join("docs/app-developers.md")).unwrap()
}

/// The blocks between fences: language and content.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    text.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap()).collect()
}

/// Every run of such characters that begins with `start`, wherever it stands.
fn runs<'a>(text: &'a str, start: &str, more: impl Fn(char) -> bool) -> BTreeSet<&'a str> {
    let begins = text.match_indices(start).map(|(at, _)| &text[at..]);
    begins.map(|rest| rest.split(|c| !more(c)).next().unwrap()).collect()
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

/// What stands between quotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

/// The members of the object that a line makes in Kotlin or Swift, with their values where these are texts.
fn members<'a>(block: &'a str, of: &str) -> Vec<(&'a str, Option<&'a str>)> {
    let line = block.lines().find(|line| line.contains(of)).unwrap_or_else(|| panic!("no {of} in {block}"));
    let (_, object) = line.split_once(of).unwrap();
    let (_, object) = object.split_once('"').unwrap();
    let parts = object.split(", \"");
    let read = |part: &'a str| {
        let (name, rest) = part.split_once('"').unwrap();
        let value = rest.trim_start_matches(" to ").trim_start_matches(": ").strip_prefix('"');
        (name, value.map(|value| value.split('"').next().unwrap()))
    };
    parts.map(read).collect()
}

/// An object of the members that a sample names; what is no text there has its value from `of`.
fn object(block: &str, line: &str, of: &dyn Fn(&str) -> Value) -> Map<String, Value> {
    let all = members(block, line);
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value.map_or_else(|| of(name), Value::from)))
        .collect()
}

/// A sample that names a field, a text or a path that the code has not, or no longer, is found here.
#[test]
fn names_in_the_samples_are_those_of_the_code() -> Result<()> {
    let text = text();
    let blocks: Vec<&str> = blocks(&text).into_iter().map(|(_, block)| block).collect();
    let all = blocks.join("\n");
    // Fields. The three that no constant names are tried by requests: two above, and the time here.
    let shop = Shop::with(|site| {
        let demand = config::AttestationDemand { assertion: Some(Assertion::Time), ..edge::demand() };
        let route = config::Route { attestation: Some(demand), ..edge::route("/timed/", None, &[]) };
        site.config.routes.push(route);
    })?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let mut fields: HashSet<HeaderName> = ["Enforcer-", "DPoP-"]
        .into_iter()
        .flat_map(|start| runs(&all, start, is_of_name))
        .map(|name| name.parse().unwrap())
        .collect();
    let mut headers = super::shop::fields(&session, &shop.proof_of("/timed/x", &session, NOW));
    for name in headers.keys() {
        assert!(fields.remove(name), "{name} is in no block");
    }
    headers.insert(devices::ASSERTION, "AAAA".parse()?);
    let time: HeaderName = "Enforcer-Time".parse()?;
    headers.insert(&time, "1".parse()?);
    assert_eq!(shop.admit("/timed/x", &headers, NOW).unwrap_err().denial, Denial::AssertionStale);
    assert!(fields.remove(&time), "{time} is in no block");
    let known = [devices::ASSERTION, devices::CHALLENGE, devices::DEVICE, request::TOKEN, request::NONCE];
    let known = known.into_iter().chain([binding::DPOP_NONCE]);
    assert_eq!(fields, known.collect());
    // Those of bodies stand in a table.
    let named = runs(&text, "Payload-", is_of_name).into_iter().filter(|name| *name != "Payload-");
    let named: HashSet<HeaderName> = named.map(|name| name.parse().unwrap()).collect();
    assert_eq!(named, [payload::KEY, payload::SEALED, payload::SESSION, payload::TIME].into());
    // First lines of what is signed, and labels of keys.
    let first = |text: String| text.lines().next().unwrap().to_owned();
    let target = Target { path: "/", query: None };
    let of_request = first(client_data("x", &Method::POST, target, b""));
    let of_key = first(key_data("x", DeviceId::of_bytes([0; 32])));
    let ends = |text: &str| text.ends_with(|c: char| c.is_ascii_digit());
    let mut layouts = runs(&all, "enforcer-", is_of_name);
    layouts.retain(|layout| ends(layout));
    assert_eq!(layouts, [&*of_request, &*of_key].into());
    let labels = runs(&text, "enforcer payload ", |c| is_of_name(c) || c == ' ');
    let known = [hpke::REQUEST, hpke::ANSWER, layout::NAME.as_bytes()];
    let known = known.map(|label| std::str::from_utf8(label).unwrap());
    assert_eq!(labels, known.into());
    assert!(text.contains(&format!("`{}`", pins::document::TYPE)));
    // Purposes and providers.
    let after = |name: &str| -> BTreeSet<&str> {
        let (name, len) = (format!("\"{name}\": \""), name.len() + 5);
        all.match_indices(&name).map(|(at, _)| all[at + len..].split('"').next().unwrap()).collect()
    };
    assert!(!after("purpose").is_empty());
    for purpose in after("purpose").into_iter().chain(["enrol", "session", "request"]) {
        assert_eq!(Purpose::of_label(purpose).map(Purpose::label), Some(purpose));
    }
    for purpose in [Purpose::Enrol, Purpose::Session, Purpose::Request] {
        assert!(text.contains(&format!("`{}`", purpose.label())), "{}", purpose.label());
    }
    let providers: BTreeSet<&str> = Provider::ALL.into_iter().map(Provider::name).collect();
    assert_eq!(after("provider"), providers);
    Ok(())
}

#[test]
fn paths_in_the_samples_are_the_default_ones() {
    let text = text();
    let base = fs::read_to_string(folder().join("tests/configs/valid/smallest.toml")).unwrap();
    let more =
        "[attestation]\n[payload.a]\nkeys = [{ file = \"a.pem\" }]\n[suspicion]\n[suspicion.reports]\n";
    let config = config::parse(&format!("{base}\n{more}"), Path::new("x.toml")).unwrap();
    let attestation = config.attestation.unwrap().paths;
    let reports = config.suspicion.unwrap().reports.unwrap().path;
    let known = [attestation.challenge, attestation.enrol, attestation.session, reports];
    let mut known: BTreeSet<String> =
        known.into_iter().chain([config.payloads["a"].keys_path.clone()]).collect();
    let pins = [encode(&[1; 32]), encode(&[2; 32])]
        .map(|pin| format!("{{ sha256 = \"{pin}=\", published = \"2026-01-01\" }}"));
    let set = format!("[pins.set.a]\nhosts = [\"api.example.com\"]\npins = [{}]\n", pins.join(", "));
    let document = format!("{set}[pins.document]\nkey = \"d.key\"\nversion = 1\n");
    let document = config::parse(&format!("{base}\n{document}"), Path::new("x.toml"));
    known.insert(document.unwrap().pins.document.unwrap().path);
    let named = runs(&text, "/.well-known/enforcer/", |c| is_of_name(c) || "/.".contains(c));
    assert_eq!(named, known.iter().map(String::as_str).collect());
}

/// Codes that an app with a device, a session, a proof, an assertion, a token of Google Play or an encrypted body can meet.
fn can_be_met(denial: &Denial) -> bool {
    const OF: [&str; 8] =
        ["app_", "assertion_", "attestation_", "certificate_", "device_", "dpop_", "integrity_", "payload_"];
    const MORE: [&str; 14] = [
        "banned",
        "body_timeout",
        "body_too_large",
        "limiter_full",
        "method_not_allowed",
        "overloaded",
        "pin_report_malformed",
        "proxy_suspected",
        "rate_limited",
        "replay_full",
        "replay_store",
        "request_timeout",
        "route_not_found",
        "too_early",
    ];
    let code = denial.code();
    // Of access tokens alone.
    let is_of_tokens = matches!(denial, Denial::DpopUnbound | Denial::CertificateUnbound);
    !is_of_tokens && (OF.iter().any(|start| code.starts_with(start)) || MORE.contains(&code))
}

#[test]
fn every_code_that_an_app_meets_is_explained() {
    let text = text();
    let (_, section) = text.split_once("\n## When it is refused\n").unwrap();
    let first =
        |line: &str| line.strip_prefix("| `").and_then(|rest| rest.split(" | ").next().map(str::to_owned));
    let cells: Vec<String> = section.lines().filter_map(first).collect();
    let told: BTreeSet<&str> = cells
        .iter()
        .flat_map(|cell| cell.split('`').step_by(2).chain(cell.split('`').skip(1).step_by(2)))
        .map(|code| code.trim_matches([',', ' ']))
        .filter(|code| code.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    for code in &told {
        assert!(*code == "fault" || Denial::from_code(code).is_some(), "{code} is no code");
    }
    let met: Vec<&str> =
        Denial::ALL.iter().filter(|denial| can_be_met(denial)).map(|one| one.code()).collect();
    assert!(met.len() > 60, "{met:?}");
    let missing: Vec<&&str> = met.iter().filter(|code| !told.contains(*code)).collect();
    assert!(missing.is_empty(), "not explained: {missing:?}");
    let odd: Vec<&&str> = told.iter().filter(|code| **code != "fault" && !met.contains(code)).collect();
    assert!(odd.is_empty(), "explained, and nobody meets them: {odd:?}");
}

#[test]
fn a_proof_made_by_the_samples_is_taken() -> Result<()> {
    let text = text();
    let mut seen = Vec::new();
    for (language, block) in blocks(&text) {
        if !block.contains("dpop+jwt") {
            continue;
        }
        let [header_line, claims_line, jwk_line] = match language {
            "kotlin" => ["val header = ", "val claims = ", "val jwk = "],
            "swift" => ["let header: [String: Any] = ", "var claims: [String: Any] = ", "return ["],
            _ => panic!("{block}"),
        };
        seen.push(language);
        let shop = Shop::new()?;
        shop.enrol(NOW).unwrap();
        let session = shop.session(1, NOW).unwrap();
        let key = bare(&shop.key);
        let jwk = object(block, jwk_line, &|name| key[name].clone());
        let header = object(block, header_line, &|name| {
            assert_eq!(name, "jwk");
            jwk.clone().into()
        });
        let url = format!("https://{NAME}{PATH}");
        let claims = |nonce: Option<&str>| {
            let mut claims = object(block, claims_line, &|name| match name {
                "jti" => unique().into(),
                "htm" => "GET".into(),
                "htu" => url.as_str().into(),
                "iat" => NOW.into(),
                "ath" => ath(&session).into(),
                _ => panic!("nobody asks for {name}"),
            });
            if let Some(nonce) = nonce {
                // The name that the sample puts it under.
                let line =
                    block.lines().find(|line| line.contains("claims.put(") || line.contains("claims[\""));
                claims.insert(quoted(line.unwrap())[0].to_owned(), nonce.into());
            }
            Value::from(claims)
        };
        let fields: Vec<HeaderName> =
            runs(block, "Enforcer-", is_of_name).iter().map(|name| name.parse().unwrap()).collect();
        let [proof_field, session_field] = &fields[..] else { panic!("{fields:?}") };
        let ask = |claims: &Value| {
            let proof = shop.key.mint_raw(&Value::from(header.clone()).to_string(), &claims.to_string());
            let mut headers = HeaderMap::new();
            headers.insert(session_field, session.parse().unwrap());
            headers.insert(proof_field, proof.unwrap().parse().unwrap());
            shop.admit(PATH, &headers, NOW)
        };
        ask(&claims(None)).unwrap_or_else(|refusal| panic!("{language}: {:?}", refusal.denial));
        // A nonce is judged under the name that the sample gives it, and the answer brings another in the field that it reads.
        let refusal = ask(&claims(Some("none of ours"))).err().unwrap();
        assert_eq!(refusal.denial, Denial::DpopNonce, "{language}");
        assert!(quoted(block).contains(&refusal.denial.code()), "{language}");
        let names = runs(block, "DPoP-", is_of_name);
        let names: Vec<HeaderName> = names.iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(names, [binding::DPOP_NONCE], "{language}");
        let (name, nonce) = *refusal.field.unwrap();
        assert_eq!(name, names[0], "{language}");
        ask(&claims(Some(nonce.to_str()?)))
            .unwrap_or_else(|refusal| panic!("{language}: {:?}", refusal.denial));
    }
    assert_eq!(seen, ["kotlin", "swift"]);
    Ok(())
}
