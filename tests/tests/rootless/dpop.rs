//! DPoP (RFC 9449): every line of the checklist as a case with the code that it must get.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use enforcer::{
    checks::facts::{Client, ClientAddr},
    config::{Binding, ForwardedBy, TokenAlgorithm},
    denial::Denial,
};
use enforcer_tests::tokens::{SigningKey, assemble, encode, signing_input};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{
    admit::NOW,
    till::{Till, URL, ask, ask_host, ath, bare, thumbprint, unique},
};

#[test]
fn dpop_every_line_of_the_checklist_gets_its_code() -> Result<()> {
    use Denial::{
        DpopAlgorithm, DpopBadSignature, DpopKey, DpopMalformed, DpopStale, DpopWrongKey, DpopWrongRequest,
        DpopWrongToken,
    };
    let till = Till::new()?;
    let key = &till.key;
    let other = SigningKey::p256("other")?;
    let mut private = bare(key);
    private["d"] = json!(encode(&[7; 32]));
    let mut off_curve = bare(key);
    off_curve["y"] = off_curve["x"].clone();
    let moved = till.draft().header("jwk", bare(&other)).sign(key);
    let draft = till.draft();
    let htu = |url: &str| draft.clone().claim("htu", json!(url)).claim("jti", json!(unique())).sign(key);
    let forged = {
        let proof = draft.sign(key);
        let signature = other.sign(proof.rsplit_once('.').unwrap().0.as_bytes())?;
        assemble(proof.rsplit_once('.').unwrap().0, &signature)
    };
    let by_hmac = |secret: &[u8]| {
        let header = draft.clone().header("alg", json!("HS256")).header.to_string();
        let input = signing_input(&header, &draft.claims.to_string());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
        assemble(&input, tag.as_ref())
    };
    let with = |name: &str, value: Value| draft.clone().header(name, value).sign(key);
    let claim = |name: &str, value: Value| {
        let fresh = draft.clone().claim("jti", json!(unique()));
        fresh.claim(name, value).sign(key)
    };
    let none = draft.clone().header("alg", json!("none"));
    let unsigned = format!("{}.", signing_input(&none.header.to_string(), &none.claims.to_string()));
    let text = draft.claims.to_string();
    let cases: Vec<(&str, String, Option<Denial>)> = vec![
        ("good", claim("x", json!(1)), None),
        ("htu with another query", htu("https://api.example.com/api/x?page=3"), None),
        ("htu with a fragment", htu("https://api.example.com/api/x#top"), None),
        ("htu in capitals", htu("HTTPS://API.EXAMPLE.COM/api/x"), None),
        ("htu with the default port", htu("https://api.example.com:443/api/x"), None),
        ("htu with an encoded letter", htu("https://api.example.com/%61pi/x"), None),
        ("htu of another path", htu("https://api.example.com/api/y"), Some(DpopWrongRequest)),
        ("htu of another case", htu("https://api.example.com/API/x"), Some(DpopWrongRequest)),
        ("htu with a slash more", htu("https://api.example.com/api/x/"), Some(DpopWrongRequest)),
        ("htu of another port", htu("https://api.example.com:8443/api/x"), Some(DpopWrongRequest)),
        ("htu of another scheme", htu("http://api.example.com/api/x"), Some(DpopWrongRequest)),
        ("htu of another host", htu("https://api.example.org/api/x"), Some(DpopWrongRequest)),
        ("htu of an address", htu("https://[2001:db8::1]/api/x"), Some(DpopWrongRequest)),
        ("htu with a user", htu("https://api.example.com@evil.example/api/x"), Some(DpopWrongRequest)),
        ("htu relative", htu("/api/x"), Some(DpopWrongRequest)),
        ("htu empty", htu(""), Some(DpopWrongRequest)),
        ("htu missing", claim("htu", Value::Null), Some(DpopMalformed)),
        ("htu a list", claim("htu", json!([URL])), Some(DpopMalformed)),
        ("htm of another method", claim("htm", json!("POST")), Some(DpopWrongRequest)),
        ("htm in small letters", claim("htm", json!("get")), Some(DpopWrongRequest)),
        ("htm missing", claim("htm", Value::Null), Some(DpopMalformed)),
        ("ath missing", claim("ath", Value::Null), Some(DpopWrongToken)),
        ("ath of another token", claim("ath", json!(ath("other"))), Some(DpopWrongToken)),
        ("ath with padding", claim("ath", json!(format!("{}=", ath(&till.token)))), Some(DpopWrongToken)),
        ("ath a number", claim("ath", json!(1)), Some(DpopMalformed)),
        ("iat at the window's end", claim("iat", json!(NOW - 120)), None),
        ("iat beyond it", claim("iat", json!(NOW - 121)), Some(DpopStale)),
        ("iat as far ahead as clocks may be", claim("iat", json!(NOW + 60)), None),
        ("iat further ahead", claim("iat", json!(NOW + 61)), Some(DpopStale)),
        ("iat in milliseconds", claim("iat", json!(NOW * 1000)), Some(DpopStale)),
        ("iat missing", claim("iat", Value::Null), Some(DpopMalformed)),
        ("iat a string", claim("iat", json!(NOW.to_string())), Some(DpopMalformed)),
        ("iat fractional", claim("iat", json!(NOW as f64 + 0.5)), Some(DpopMalformed)),
        ("iat negative", claim("iat", json!(-1)), Some(DpopMalformed)),
        ("jti missing", claim("jti", Value::Null), Some(DpopMalformed)),
        ("jti empty", claim("jti", json!("")), Some(DpopMalformed)),
        ("jti too long", claim("jti", json!("j".repeat(257))), Some(DpopMalformed)),
        ("jti a number", claim("jti", json!(7)), Some(DpopMalformed)),
        ("a private key in jwk", with("jwk", private), Some(DpopKey)),
        ("a symmetric key in jwk", with("jwk", json!({"kty": "oct", "k": encode(&[1; 32])})), Some(DpopKey)),
        ("a point off the curve", with("jwk", off_curve), Some(DpopKey)),
        ("an RSA key under ES256", with("jwk", bare(&till.desk.rsa)), Some(DpopKey)),
        ("jwk missing", with("jwk", Value::Null), Some(DpopMalformed)),
        ("jwk a string", with("jwk", json!("key")), Some(DpopKey)),
        ("another key in jwk", moved, Some(DpopWrongKey)),
        ("another key altogether", till.draft_of(&other).sign(&other), Some(DpopWrongKey)),
        ("another key's signature", forged, Some(DpopBadSignature)),
        ("alg none", unsigned, Some(DpopAlgorithm)),
        ("HS256 by the public key", by_hmac(&key.public_bytes()), Some(DpopAlgorithm)),
        ("RS256, which is not in the list", with("alg", json!("RS256")), Some(DpopAlgorithm)),
        ("alg missing", with("alg", Value::Null), Some(DpopMalformed)),
        ("alg of another curve", with("alg", json!("EdDSA")), Some(DpopKey)),
        ("typ missing", with("typ", Value::Null), Some(DpopMalformed)),
        ("typ JWT", with("typ", json!("JWT")), Some(DpopMalformed)),
        ("typ of an access token", with("typ", json!("at+jwt")), Some(DpopMalformed)),
        ("crit", with("crit", json!(["exp"])), Some(DpopMalformed)),
        ("jku", with("jku", json!("https://evil.example/")), Some(DpopMalformed)),
        ("not three parts", "a.b".to_owned(), Some(DpopMalformed)),
        ("the token itself", till.token.clone(), Some(DpopMalformed)),
        ("too long", claim("x", json!("x".repeat(4096))), Some(DpopMalformed)),
        (
            "a member twice",
            key.mint_raw(&draft.header.to_string(), &text.replacen('{', "{\"htm\":\"POST\",", 1))?,
            Some(DpopMalformed),
        ),
        ("a nonce that is not ours", claim("nonce", json!("x")), Some(Denial::DpopNonce)),
        ("a nonce that is no text", claim("nonce", json!(1)), Some(DpopMalformed)),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .map(|(name, proof, expected)| (name, till.judge(proof), expected))
        .filter(|(_, got, expected)| got != *expected)
        .map(|(name, got, expected)| format!("{name}: expected {expected:?}, got {got:?}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn dpop_schemes_do_not_mix() -> Result<()> {
    let till = Till::with(|site| {
        let mut strict = site.config.routes[1].clone();
        strict.path = "/strict/".to_owned();
        strict.bindings.dpop = Binding::Required;
        site.config.routes.push(strict);
    })?;
    let denial = |path: &str, headers: &HeaderMap| {
        till.ask_at(path, headers, NOW).err().map(|refusal| {
            (refusal.denial, refusal.challenge.map(|value| value.to_str().unwrap().to_owned()))
        })
    };
    let dpop = |error: &str| Some(format!("DPoP realm=\"main\"{error}, algs=\"ES256 EdDSA\""));
    let invalid = ", error=\"invalid_token\"";
    let proof = || till.draft().sign(&till.key);
    // A bound token as Bearer: the downgrade that a thief would try, with a proof or without.
    for path in ["/api/x", "/strict/x"] {
        for proofs in [vec![], vec![proof()]] {
            let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
            let headers = till.headers("Bearer", &proofs);
            assert_eq!(denial(path, &headers), Some((Denial::DpopMissing, dpop(invalid))), "{path}");
        }
    }
    assert_eq!(denial("/api/x", &till.headers("DPoP", &[])), Some((Denial::DpopMissing, dpop(invalid))));
    let two = (proof(), proof());
    let invalid_proof = Some((Denial::DpopMalformed, dpop(", error=\"invalid_dpop_proof\"")));
    assert_eq!(denial("/api/x", &till.headers("DPoP", &[&two.0, &two.1])), invalid_proof, "two proofs");
    assert_eq!(denial("/api/x", &till.headers("DPoP", &[&format!("{}, {}", two.0, two.1)])), invalid_proof);
    assert_eq!(denial("/api/x", &till.headers("dPoP", &[&proof()])), None, "schemes know no case");
    // A token that is bound to nothing.
    let plain = till.desk.ec.mint(&till.desk.claims())?;
    let mut headers = till.headers("DPoP", &[&proof()]);
    headers.insert("authorization", format!("DPoP {plain}").parse()?);
    assert_eq!(denial("/api/x", &headers), Some((Denial::DpopUnbound, dpop(invalid))));
    headers.insert("authorization", format!("Bearer {plain}").parse()?);
    assert_eq!(denial("/api/x", &headers), None, "a proof that nobody asked for is nobody's concern");
    assert_eq!(denial("/strict/x", &headers), Some((Denial::DpopMissing, dpop(invalid))));
    // No token, no error (RFC 6750 section 3.1).
    let nothing = HeaderMap::new();
    assert_eq!(denial("/strict/x", &nothing), Some((Denial::TokenMissing, dpop(""))));
    let bearer = Some("Bearer realm=\"main\"".to_owned());
    assert_eq!(denial("/api/x", &nothing), Some((Denial::TokenMissing, bearer)));
    Ok(())
}

#[test]
fn dpop_every_challenge_is_in_the_scheme_of_the_request() -> Result<()> {
    let till = Till::with(|site| {
        let demands = &mut site.config.routes[1].demands;
        demands.scopes = vec!["admin".to_owned()];
        let mut recent = site.config.routes[1].clone();
        recent.path = "/recent/".to_owned();
        recent.demands = enforcer::config::Demands {
            max_auth_age: Some(std::time::Duration::from_secs(60)),
            ..Default::default()
        };
        site.config.routes.push(recent);
    })?;
    let plain = till.desk.ec.mint(&till.desk.claims())?;
    for (path, begins) in [
        ("/api/x", " realm=\"main\", error=\"insufficient_scope\", scope=\"admin\""),
        ("/recent/x", " realm=\"main\", error=\"insufficient_user_authentication\""),
    ] {
        let url = format!("https://api.example.com{path}");
        let proof = till.draft().claim("htu", json!(url)).sign(&till.key);
        let challenge = |headers: &HeaderMap| {
            let refusal = till.ask_at(path, headers, NOW).unwrap_err();
            refusal.challenge.unwrap().to_str().unwrap().to_owned()
        };
        let by_dpop = challenge(&till.headers("DPoP", &[&proof]));
        assert!(by_dpop.starts_with(&format!("DPoP{begins}")), "{by_dpop}");
        assert!(by_dpop.ends_with(", algs=\"ES256 EdDSA\""), "{by_dpop}");
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {plain}").parse()?);
        let by_bearer = challenge(&headers);
        assert!(
            by_bearer.starts_with(&format!("Bearer{begins}")) && !by_bearer.contains("algs"),
            "{by_bearer}"
        );
    }
    Ok(())
}

#[test]
fn dpop_every_algorithm_of_the_list_is_taken() -> Result<()> {
    let till = Till::with(|site| {
        use TokenAlgorithm::{EdDsa, Es256, Ps256, Rs256};
        site.config.dpop.algorithms = vec![Rs256, Es256, Ps256, EdDsa];
    })?;
    let (rsa, pss, ed) = (SigningKey::rsa("r")?, SigningKey::pss("p")?, SigningKey::ed25519("e")?);
    let mut desk = till.desk;
    for key in [rsa, pss, ed] {
        let token = desk.ec.mint(&desk.claims_but("cnf", json!({"jkt": thumbprint(&key)})))?;
        let till = Till { desk, key, token };
        assert_eq!(till.judge(&till.draft().sign(&till.key)), None, "{}", till.key.alg());
        desk = till.desk;
    }
    Ok(())
}

#[test]
fn dpop_what_trusted_proxies_say_of_the_address_counts_where_they_are_asked() -> Result<()> {
    for (by, fields, other) in [
        (
            ForwardedBy::XForwardedFor,
            vec![("x-forwarded-proto", "http"), ("x-forwarded-host", "Front.example:8080")],
            ("x-forwarded-host", "evil.example"),
        ),
        (
            ForwardedBy::Forwarded,
            vec![("forwarded", "for=203.0.113.9;proto=http;host=\"front.example:8080\"")],
            ("forwarded", "host=evil.example"),
        ),
    ] {
        for asked in [true, false] {
            let till = Till::with(|site| {
                site.config.http.trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
                site.config.http.forwarded_by = by;
                site.config.http.forwarded_origin = asked;
            })?;
            let judge = |from: &str, url: &str, more: &[(&'static str, &str)]| {
                let proof = till.draft().claim("htu", json!(url)).sign(&till.key);
                let mut headers = till.headers("DPoP", &[&proof]);
                for (name, value) in more {
                    headers.append(*name, value.parse().unwrap());
                }
                let client = Client::at(ClientAddr::new(from.parse().unwrap()));
                ask(&till.desk.policy, &client, "/api/x", &headers, NOW).err().map(|refusal| refusal.denial)
            };
            let (wrong, front) = (Some(Denial::DpopWrongRequest), "http://front.example:8080/api/x");
            let expected = |right: bool| if right { None } else { wrong };
            assert_eq!(judge("192.0.2.7", front, &fields), expected(asked), "{by:?} {asked}");
            assert_eq!(judge("192.0.2.7", URL, &fields), expected(!asked), "{by:?} {asked}");
            assert_eq!(judge("198.51.100.1", front, &fields), wrong, "a stranger");
            assert_eq!(judge("198.51.100.1", URL, &fields), None, "a stranger");
            assert_eq!(judge("192.0.2.7", URL, &[]), None, "a proxy that changes nothing");
            let mut twice = fields.clone();
            twice.push(other);
            assert_eq!(judge("192.0.2.7", front, &twice), wrong, "two that differ");
            assert_eq!(judge("192.0.2.7", "https://evil.example/api/x", &twice), wrong, "two that differ");
        }
    }
    Ok(())
}

#[test]
fn dpop_a_proof_for_another_host_is_not_relayed_under_its_name() -> Result<()> {
    let till = Till::with(|site| {
        let mut named = site.config.routes[1].clone();
        (named.path, named.hosts) = ("/named/".to_owned(), vec!["edge.internal.example".to_owned()]);
        site.config.routes.push(named);
    })?;
    let client = Client::at(ClientAddr::new("192.0.2.7".parse()?));
    let wrong = Some(Denial::DpopWrongRequest);
    for (host, path, expected) in [
        (enforcer_tests::edge::NAME, "/api/x", None),
        // By the certificate.
        ("api.example.org", "/api/x", None),
        ("a.b.example.org", "/api/x", wrong),
        // Whom the client meant to prove itself to sends the proof on, under its own name.
        ("evil.example", "/api/x", wrong),
        ("192.0.2.66", "/api/x", wrong),
        // By the route.
        ("edge.internal.example", "/named/x", None),
        ("edge.internal.example", "/api/x", wrong),
    ] {
        let proof = till.draft().claim("htu", json!(format!("https://{host}{path}"))).sign(&till.key);
        let headers = till.headers("DPoP", &[&proof]);
        let outcome = ask_host(&till.desk.policy, &client, host, path, &headers, NOW);
        assert_eq!(outcome.err().map(|refusal| refusal.denial), expected, "{host}{path}");
    }
    Ok(())
}

#[test]
fn dpop_the_examples_of_rfc_9449_are_judged_as_it_says() -> Result<()> {
    // Section 7.1, with the token and the key of section 4.1.
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let proof = concat!(
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklD",
        "UkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2",
        "R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6",
        "Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8y",
        "cjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemA",
        "gR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA",
    );
    use enforcer::checks::{
        origin::Origin,
        token::proof::{Expected, verify},
    };
    let config = enforcer::config::Dpop {
        algorithms: vec![TokenAlgorithm::Es256],
        max_age: std::time::Duration::from_secs(60),
        leeway: std::time::Duration::from_secs(0),
        nonce: false,
        nonce_lifetime: std::time::Duration::from_secs(300),
    };
    let rules = enforcer::policy::dpop::Dpop::new(&config, None)?;
    let (origin, hash) = (Origin::new("https", "resource.example.org"), digest(&SHA256, token.as_bytes()));
    let good = Expected {
        rules: &rules,
        method: &Method::GET,
        origin: origin.as_ref(),
        path: "/protectedresource",
        key: Some(jkt),
        token: Some(hash.as_ref()),
        now: 1_562_262_618,
    };
    let judged = verify(proof.as_bytes(), &good, &mut |_| ()).unwrap();
    assert_eq!((&*judged.id, judged.issued), ("e1j3V_bKic8-LAEB", 1_562_262_618));
    let other = digest(&SHA256, b"another token");
    for (name, expected, denial) in [
        ("token", Expected { token: Some(other.as_ref()), ..good }, Denial::DpopWrongToken),
        ("method", Expected { method: &Method::POST, ..good }, Denial::DpopWrongRequest),
        ("path", Expected { path: "/", ..good }, Denial::DpopWrongRequest),
        ("origin", Expected { origin: None, ..good }, Denial::DpopWrongRequest),
        ("key", Expected { key: Some("x"), ..good }, Denial::DpopWrongKey),
        ("time", Expected { now: good.now + 61, ..good }, Denial::DpopStale),
    ] {
        assert_eq!(verify(proof.as_bytes(), &expected, &mut |_| ()), Err(denial), "{name}");
    }
    Ok(())
}
