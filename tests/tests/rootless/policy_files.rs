//! Files that a policy names: what is refused, and that the error says which file and why.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use aws_lc_rs::rand;
use enforcer::{
    config::{Limit, RateLimit, TokenAlgorithm},
    policy::{Policy, jwks},
};
use enforcer_tests::{
    edge::{Site, route},
    pki::KeyKind,
    tokens::{self, SigningKey, encode},
};
use serde_json::{Value, json};

const BOTH: [TokenAlgorithm; 2] = [TokenAlgorithm::Rs256, TokenAlgorithm::Es256];

fn error_of(keys: Value) -> String {
    let set = json!({ "keys": keys }).to_string();
    jwks::parse(set.as_bytes(), &BOTH)
        .err()
        .map_or_else(|| "accepted".to_owned(), |error| format!("{error:#}"))
}

fn but(mut key: Value, name: &str, value: Value) -> Value {
    if value.is_null() {
        key.as_object_mut().unwrap().remove(name);
    } else {
        key[name] = value;
    }
    key
}

#[test]
fn dangerous_key_sets_are_refused_whole() -> Result<()> {
    let (rsa, ec) = (SigningKey::rsa("r")?.jwk(), SigningKey::p256("e")?.jwk());
    let (x, y) = (ec["x"].clone(), ec["y"].clone());
    let mut small = [0; 128];
    rand::fill(&mut small)?;
    small[0] |= 0x80;
    small[127] |= 1;
    for (name, keys, expected) in [
        ("symmetric", json!([ec, {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}]), "secret member `k`"),
        ("symmetric without its value", json!([ec, {"kty": "oct", "kid": "s"}]), "symmetric"),
        ("symmetric algorithm", json!([but(rsa.clone(), "alg", json!("HS256"))]), "symmetric"),
        ("private EC", json!([but(ec.clone(), "d", json!("AAAA"))]), "secret member `d`"),
        ("private RSA", json!([but(rsa.clone(), "p", json!("AAAA"))]), "secret member `p`"),
        ("two of one kid", json!([ec, but(rsa.clone(), "kid", json!("e"))]), "second key with the kid `e`"),
        ("RSA-1024", json!([but(rsa.clone(), "n", json!(encode(&small)))]), "below 2048"),
        ("RSA with exponent 1", json!([but(rsa.clone(), "e", json!("AQ"))]), "exponent"),
        ("RSA with an even exponent", json!([but(rsa.clone(), "e", json!("Ag"))]), "exponent"),
        ("RSA without modulus", json!([but(rsa.clone(), "n", Value::Null)]), "no `n`"),
        ("a point off the curve", json!([but(ec.clone(), "x", y.clone())]), "not on P-256"),
        ("a short coordinate", json!([but(ec.clone(), "x", json!("AQ"))]), "32 bytes"),
        (
            "a padded coordinate",
            json!([but(ec.clone(), "x", json!(format!("{}=", x.as_str().unwrap())))]),
            "base64url",
        ),
        ("ES256 on P-384", json!([but(ec.clone(), "crv", json!("P-384"))]), "ES256"),
        ("ES256 on RSA", json!([but(rsa.clone(), "alg", json!("ES256"))]), "ES256"),
        ("RS256 on EC", json!([but(ec.clone(), "alg", json!("RS256"))]), "RS256"),
        ("PS256 on EC", json!([but(ec.clone(), "alg", json!("PS256"))]), "PS256"),
        ("kid a number", json!([but(ec.clone(), "kid", json!(1))]), "`kid` is not a string"),
        ("key_ops a string", json!([but(ec.clone(), "key_ops", json!("verify"))]), "key_ops"),
        ("a key that is a string", json!(["x"]), "not an object"),
        ("no key of use", json!([but(ec.clone(), "use", json!("enc"))]), "no key for the configured"),
        ("only keys for encryption", json!([but(ec.clone(), "key_ops", json!(["encrypt"]))]), "no key for"),
        ("none", json!([]), "no key for the configured"),
        ("101 keys", Value::Array(vec![but(ec.clone(), "kid", Value::Null); 101]), "more than 100 keys"),
    ] {
        let error = error_of(keys);
        assert!(error.contains(expected), "{name}: {error}");
    }
    for (name, bytes, expected) in [
        ("not JSON", b"{\n  keys".to_vec(), "not JSON: key must be a string at line 2 column 3"),
        ("no object", b"[]".to_vec(), "not a JSON object"),
        ("keys twice", br#"{"keys":[],"keys":[]}"#.to_vec(), "duplicate"),
        ("no keys", b"{}".to_vec(), "no `keys`"),
        ("more than 1 MiB", vec![b' '; (1 << 20) + 1], "1 MiB"),
    ] {
        let error = format!("{:#}", jwks::parse(&bytes, &BOTH).unwrap_err());
        assert!(error.contains(expected), "{name}: {error}");
    }
    Ok(())
}

#[test]
fn keys_of_no_use_are_left_out() -> Result<()> {
    let (rsa, ec) = (SigningKey::rsa("r")?.jwk(), SigningKey::p256("e")?.jwk());
    let others = json!([
        rsa,
        ec,
        {"kty": "OKP", "crv": "X25519", "kid": "o", "x": "AAAA"},
        SigningKey::ed25519("d")?.jwk(),
        SigningKey::pss("s")?.jwk(),
        {"kty": "EC", "crv": "P-521", "kid": "p", "x": "AAAA", "y": "AAAA"},
        but(but(rsa.clone(), "kid", json!("oaep")), "alg", json!("RSA-OAEP")),
        but(but(ec.clone(), "kid", json!("enc")), "use", json!("enc")),
    ]);
    let set = json!({"keys": others, "unknown": true}).to_string();
    let kids = |algorithms: &[TokenAlgorithm]| -> Result<Vec<String>> {
        Ok(jwks::parse(set.as_bytes(), algorithms)?.into_iter().filter_map(|key| key.kid).collect())
    };
    assert_eq!(kids(&BOTH)?, ["r", "e"]);
    assert_eq!(kids(&[TokenAlgorithm::Es256])?, ["e"]);
    assert_eq!(kids(&[TokenAlgorithm::EdDsa])?, ["d"]);
    assert_eq!(kids(&[TokenAlgorithm::Ps256, TokenAlgorithm::Es256])?, ["e", "s"]);
    let nameless = json!({"keys": [but(rsa, "alg", Value::Null)]}).to_string();
    for algorithm in [TokenAlgorithm::Rs256, TokenAlgorithm::Ps256] {
        let keys = jwks::parse(nameless.as_bytes(), &[algorithm])?;
        assert_eq!(keys[0].algorithm, algorithm, "an RSA key without `alg` serves what is allowed");
    }
    Ok(())
}

#[test]
fn every_bad_file_is_named_with_its_reason() -> Result<()> {
    let refused = |change: &dyn Fn(&mut Site) -> Result<()>| -> Result<String> {
        let mut site = Site::new("127.0.0.1:9".parse()?)?;
        change(&mut site)?;
        Ok(Policy::load(&site.config)
            .err()
            .map_or_else(|| "accepted".to_owned(), |error| format!("{error:#}")))
    };
    let expect = |change: &dyn Fn(&mut Site) -> Result<()>, parts: &[&str]| -> Result<()> {
        let error = refused(change)?;
        for part in parts {
            assert!(error.contains(part), "{error}: no `{part}`");
        }
        Ok(())
    };
    assert_eq!(refused(&|_| Ok(()))?, "accepted");
    let remove =
        |name: &'static str| move |site: &mut Site| Ok(std::fs::remove_file(site.dir.path().join(name))?);
    expect(&remove("api.pem"), &["listener 127.0.0.1:0", "api.pem", "cannot read certificates"])?;
    expect(&remove("api.key"), &["api.key", "cannot read a private key"])?;
    expect(&remove("jwks.json"), &["token.main", "cannot read the JWK set", "jwks.json"])?;
    let write = |name: &'static str, text: &'static str| {
        move |site: &mut Site| Ok(std::fs::write(site.dir.path().join(name), text)?)
    };
    expect(&write("api.pem", "nothing"), &["api.pem", "no certificate in PEM form"])?;
    expect(&write("api.key", "nothing"), &["api.key", "cannot read a private key"])?;
    expect(&write("jwks.json", "{"), &["token.main", "jwks.json", "not JSON: EOF"])?;
    expect(
        &|site| {
            let other = site.authority.issue(&["api.example.com"], KeyKind::P256)?;
            Ok(std::fs::write(site.dir.path().join("api.key"), other.key_pem)?)
        },
        &["api.key", "does not belong", "api.pem"],
    )?;
    let add = |route: enforcer::config::Route| {
        move |site: &mut Site| {
            site.config.routes.push(route.clone());
            Ok(())
        }
    };
    expect(&add(route("/api/", None, &[])), &["two routes for /api/"])?;
    expect(&add(route("/x/", Some("nobody"), &[])), &["route /x/", "[token.nobody]"])?;
    expect(&add(route("/x/", Some("main"), &["a\"b"])), &["route /x/", "is no scope"])?;
    expect(&add(route("/x/", None, &["read"])), &["route /x/", "without `token`"])?;
    Ok(())
}

#[test]
fn a_limit_of_a_huge_rate_does_not_overflow() -> Result<()> {
    let mut site = Site::new("127.0.0.1:9".parse()?)?;
    site.config.routes[0].limits = vec![Limit::by_address(RateLimit {
        events: u64::MAX,
        period: std::time::Duration::from_secs(3600),
        burst: u64::MAX,
    })];
    Policy::load(&site.config)?;
    Ok(())
}

#[test]
fn a_file_that_went_bad_holds_up_no_other() -> Result<()> {
    let site = Site::new("127.0.0.1:9".parse()?)?;
    let (config, folder) = (&site.config, site.dir.path());
    let first = Policy::load(config)?;
    let keys = config.tokens["main"].keys.file().unwrap();
    let known = |policy: &Policy, kid: &str| {
        let issuer = policy.issuers().find(|issuer| issuer.name == "main").unwrap();
        issuer.keyring().set().key(Some(kid), TokenAlgorithm::Es256).is_some()
    };
    let text = |errors: &[anyhow::Error]| {
        errors.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n")
    };

    assert!(known(&first, "key-1"));
    // A key is taken back while a certificate is bad.
    std::fs::write(folder.join("api.pem"), "no certificate")?;
    let new = SigningKey::p256("new")?;
    std::fs::write(keys, tokens::jwks(&[&new]))?;
    assert!(first.reload(config).is_err(), "who asks gets all or nothing");
    let (second, errors) = first.renew(config)?;
    assert!(known(&second, "new") && !known(&second, "key-1"), "the keys are the new ones");
    let said = text(&errors);
    assert!(errors.len() == 1 && said.contains("listener ") && said.contains("api.pem"), "{said}");
    assert!(second.serves("api.example.com"), "the certificate is the old one");

    // A certificate comes while the keys are bad; it stays bad until it is good.
    std::fs::write(keys, "{}")?;
    let (third, errors) = second.renew(config)?;
    let said = text(&errors);
    assert!(errors.len() == 2 && said.contains("token.main: JWK set ") && said.contains("api.pem"), "{said}");
    let ends = |policy: &Policy| policy.expiries().map(|(_, expiry)| expiry.name.clone()).collect::<Vec<_>>();
    assert_eq!(ends(&third), ends(&first));
    site.authority.issue(&["other.example.com"], KeyKind::P256)?.write(folder, "api")?;
    let (fourth, errors) = third.renew(config)?;
    let said = text(&errors);
    assert!(errors.len() == 1 && said.contains("token.main"), "{said}");
    assert!(known(&fourth, "new") && fourth.serves("other.example.com"));
    std::fs::write(keys, tokens::jwks(&[&new]))?;
    let (_, errors) = fourth.renew(config)?;
    assert!(errors.is_empty(), "{}", text(&errors));
    Ok(())
}
