//! The token reader and the path reader against inputs that nobody wrote by hand: random ones, damaged ones, and public
//! vectors where a checkout has them beside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{path::Path, time::Duration};

use anyhow::Result;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use enforcer::{
    checks::{target, token},
    config::{self, TokenAlgorithm},
    denial::Denial,
    policy::issuer::Issuer,
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use super::admit::Desk;

/// Cases are named in the failure; nothing is written beside the sources.
fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn a_damaged_token_is_never_believed() -> Result<()> {
    let desk = Desk::new()?;
    let good = desk.ec.mint(&desk.claims())?;
    assert_eq!(desk.judge(&good), None);
    let damage = (0..good.len(), any::<u8>());
    runner(256).run(&damage, |(at, byte)| {
        let mut bytes = good.clone().into_bytes();
        prop_assume!(bytes[at] != byte && (byte.is_ascii_graphic()));
        bytes[at] = byte;
        prop_assert!(desk.judge(std::str::from_utf8(&bytes).unwrap()).is_some());
        Ok(())
    })?;
    runner(256).run(&"[A-Za-z0-9_.-]{0,200}", |text| {
        prop_assert!(desk.judge(&text).is_some());
        Ok(())
    })?;
    // Whatever the claims are, a good signature alone is not enough, and nothing panics.
    runner(256).run(&any::<String>(), |claims| {
        let token = desk.ec.mint_raw(&desk.ec.header().to_string(), &claims).unwrap();
        prop_assert!(desk.judge(&token).is_some());
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_path_that_is_routed_has_nothing_left_to_resolve() -> Result<()> {
    let piece = prop_oneof![
        Just("/"),
        Just("."),
        Just(".."),
        Just("%2e"),
        Just("%2F"),
        Just("%5c"),
        Just("%"),
        Just("%25"),
        Just("2e"),
        Just("%20"),
        Just("%00"),
        Just("%C3%A9"),
        Just("%61"),
        Just(";"),
        Just("a"),
        Just("api"),
        Just(":"),
    ];
    let path = proptest::collection::vec(piece, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()));
    let mut runner = runner(5000);
    runner.run(&path, |path| {
        let request = http::Request::get(&path).header("host", "api.example.com").body(());
        let Ok(request) = request else { return Ok(()) };
        let (head, ()) = request.into_parts();
        if let Ok(decoded) = target::check(&head) {
            prop_assert!(decoded.starts_with('/') && !decoded.contains("//") && !decoded.contains('\\'));
            prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert!(!decoded.contains(char::is_control) && !path.contains(';'));
            prop_assert_eq!(decoded.matches('/').count(), path.matches('/').count());
        }
        Ok(())
    })?;
    Ok(())
}

/// JSON Web Signature vectors of the Wycheproof project. Their payloads are no claims, so a token whose signature is good
/// ends there, as malformed; every other one must end before. Keys and tokens of other algorithms are counted apart.
#[test]
fn public_vectors_are_judged_as_they_are_labelled() -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/vectors/wycheproof/json_web_signature_test.json");
    let Ok(text) = std::fs::read(&file) else {
        eprintln!("SKIPPED: 0 vectors judged, no {}", file.display());
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let (mut believed, mut refused, mut elsewhere) = (0, 0, 0);
    let vectors: Value = serde_json::from_slice(&text)?;
    for group in vectors["testGroups"].as_array().unwrap() {
        let issuer = issuer_of(&group["public"], &dir.path().join("jwks.json"));
        for test in group["tests"].as_array().unwrap() {
            let Ok(issuer) = &issuer else {
                elsewhere += 1;
                continue;
            };
            let token = test["jws"].as_str().unwrap_or_default();
            let denial = token::verify(issuer, token.as_bytes(), 1_800_000_000).err();
            let signed = denial == Some(Denial::TokenMalformed) && is_well_formed(token);
            let (valid, name) = (test["result"] == "valid", &test["tcId"]);
            if is_well_formed(token) && !is_refused_by_choice(token) {
                assert_eq!(signed, valid, "tcId {name}: {denial:?}");
            }
            assert!(denial.is_some(), "tcId {name}");
            if signed { believed += 1 } else { refused += 1 }
        }
    }
    eprintln!("{believed} signatures believed, {refused} refused, {elsewhere} for other algorithms");
    assert_eq!((believed, refused), (10, 262), "another edition of the vectors: count again");
    Ok(())
}

fn issuer_of(public: &Value, jwks: &Path) -> Result<Issuer> {
    std::fs::write(jwks, json!({"keys": [public]}).to_string())?;
    let token = config::Token {
        issuer: "https://id.example.com/".to_owned(),
        audience: vec!["api".to_owned()],
        jwks: jwks.to_owned(),
        algorithms: vec![TokenAlgorithm::Rs256, TokenAlgorithm::Es256],
        leeway: Duration::from_secs(60),
        max_lifetime: Duration::from_secs(3600),
    };
    Issuer::load("vectors", &token)
}

fn header_of(token: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?).ok()
}

/// An own, simpler reading of RFC 7515: three strict parts and a header with a string `alg`.
fn is_well_formed(token: &str) -> bool {
    let parts: Vec<&str> = token.split('.').collect();
    parts.len() == 3
        && parts.iter().all(|part| URL_SAFE_NO_PAD.decode(part).is_ok())
        && header_of(token).is_some_and(|header| header["alg"].is_string())
}

/// Headers that we refuse whatever the signature is worth.
fn is_refused_by_choice(token: &str) -> bool {
    let header = header_of(token).unwrap_or_default();
    !matches!(header["alg"].as_str(), Some("RS256" | "ES256"))
        || ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"]
            .iter()
            .any(|name| header.get(name).is_some())
}
