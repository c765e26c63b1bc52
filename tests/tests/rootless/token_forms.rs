//! The token reader and the path reader against inputs that nobody wrote by hand: random ones, damaged ones, and public
//! vectors where a checkout has them beside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::Result;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use enforcer::{
    checks::{target, token},
    config::TokenAlgorithm,
    denial::Denial,
    policy::issuer::Issuer,
    revoked::Revoked,
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use super::admit::Desk;

/// Whatever can be accepted.
const ALL: [TokenAlgorithm; 4] =
    [TokenAlgorithm::Rs256, TokenAlgorithm::Es256, TokenAlgorithm::Ps256, TokenAlgorithm::EdDsa];

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
            let issuers = std::slice::from_ref(issuer);
            let denial = token::verify(issuers, token.as_bytes(), 1_800_000_000, &mut |_| ()).err();
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
    assert_eq!((believed, refused), (16, 306), "another edition of the vectors: count again");
    Ok(())
}

/// Examples of RFC 7520 section 4 and RFC 8037 appendix A.4, whose payloads are no claims either. The ones of other
/// algorithms, with detached or unencoded content, or of several signatures, must not even be understood.
#[test]
fn examples_of_the_standards_are_judged_as_they_should() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/jose/rfc7520-cookbook");
    if !folder.exists() {
        eprintln!("SKIPPED: 0 examples judged, no {}", folder.display());
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    for (name, expected) in [
        ("jws/4_1.rsa_v15_signature.json", Some(Denial::TokenMalformed)),
        ("curve25519/jws.json", Some(Denial::TokenMalformed)),
        ("jws/4_2.rsa-pss_signature.json", Some(Denial::TokenAlgorithm)),
        ("jws/4_3.ecdsa_signature.json", None),
        ("jws/4_4.hmac-sha2_integrity_protection.json", None),
    ] {
        let example: Value = serde_json::from_slice(&std::fs::read(folder.join(name))?)?;
        let mut key = example["input"]["key"].clone();
        for secret in ["d", "p", "q", "dp", "dq", "qi"] {
            key.as_object_mut().unwrap().remove(secret);
        }
        let Ok(issuer) = issuer_of(&key, &dir.path().join("jwks.json")) else {
            assert_eq!(expected, None, "{name}: the key is refused");
            continue;
        };
        let token = example["output"]["compact"].as_str().unwrap();
        let judge = |token: &str| {
            let issuers = std::slice::from_ref(&issuer);
            token::verify(issuers, token.as_bytes(), 1_800_000_000, &mut |_| ()).err()
        };
        assert_eq!(judge(token), expected, "{name}");
        if expected == Some(Denial::TokenMalformed) {
            let (input, signature) = token.rsplit_once('.').unwrap();
            let other = if signature.starts_with('A') { "B" } else { "A" };
            let forged = format!("{input}.{other}{}", &signature[1..]);
            assert_eq!(judge(&forged), Some(Denial::TokenBadSignature), "{name}, forged");
        }
    }
    Ok(())
}

fn issuer_of(public: &Value, jwks: &Path) -> Result<Arc<Issuer>> {
    std::fs::write(jwks, json!({"keys": [public]}).to_string())?;
    let mut token = enforcer_tests::edge::token("https://id.example.com/", jwks.to_owned());
    token.algorithms = ALL.to_vec();
    Issuer::load("vectors", &token, BTreeSet::new(), &Revoked::new(16)?, None)
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
    !header["alg"].as_str().is_some_and(|name| ALL.iter().any(|known| known.name() == name))
        || ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"]
            .iter()
            .any(|name| header.get(name).is_some())
}
