//! A token that was verified once is not verified again, and yet outlives nothing: not its own end, no key, no rule, no issuer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::Result;
use enforcer::{
    checks::{Now, facts::ClientAddr, token::KnownTokens},
    clock::KernelTime,
    denial::Denial,
};
use enforcer_tests::{
    edge::{Site, route, token},
    tokens::{self, SigningKey},
};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::admit::{Desk, NOW, admit_from};

/// A desk that remembers.
struct Counter {
    desk: Desk,
    known: KnownTokens,
}

impl Counter {
    fn new(most: usize) -> Result<Self> {
        Self::with(most, |_| ())
    }

    fn with(most: usize, change: impl FnOnce(&mut Site)) -> Result<Self> {
        Ok(Self { desk: Desk::with(change)?, known: KnownTokens::new(most) })
    }

    /// Whether the token had to be verified, or why it is refused.
    fn ask(&mut self, path: &str, token: &str, unix: u64) -> Result<bool, Denial> {
        self.ask_as(&Method::GET, path, token, unix)
    }

    fn ask_as(&mut self, method: &Method, path: &str, token: &str, unix: u64) -> Result<bool, Denial> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let now = Now { monotonic: KernelTime(unix * 1_000_000_000), unix };
        let from = ClientAddr::new("192.0.2.7".parse().unwrap());
        let outcome = admit_from(&self.desk.policy, from, method, path, &headers, now, &mut self.known);
        // The age is told of a token that is seen for the first time, which `iat` makes possible.
        outcome.map(|grant| grant.token_age().is_some()).map_err(|refusal| refusal.denial)
    }

    fn reload(&mut self) -> Result<()> {
        self.desk.policy = self.desk.policy.reload(&self.desk.site.config)?;
        Ok(())
    }

    fn write_keys(&self, keys: &[&SigningKey]) -> Result<()> {
        Ok(std::fs::write(self.desk.site.config.tokens["main"].keys.file().unwrap(), tokens::jwks(keys))?)
    }
}

#[test]
fn a_token_is_verified_once() -> Result<()> {
    let mut counter = Counter::new(16)?;
    let good = counter.desk.ec.mint(&counter.desk.claims())?;
    assert_eq!(counter.ask("/api/x", &good, NOW), Ok(true));
    assert_eq!(counter.ask("/api/x", &good, NOW), Ok(false));
    assert_eq!(counter.known.len(), 1);
    // One character of the signature further is another token, and no good one.
    let mut forged = good.clone().into_bytes();
    let at = forged.len() - 5;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged)?;
    assert_eq!(counter.ask("/api/x", &forged, NOW), Err(Denial::TokenBadSignature));
    assert_eq!(counter.known.len(), 1, "only good tokens get in");
    Ok(())
}

#[test]
fn a_known_token_ends_when_it_ends() -> Result<()> {
    let mut counter = Counter::new(16)?;
    let good = counter.desk.ec.mint(&counter.desk.claims())?;
    let end = NOW + 600 + 60;
    for (at, expected) in [
        (NOW, Ok(true)),
        (NOW - 60, Ok(false)),
        // A clock that steps back.
        (NOW - 61, Err(Denial::TokenNotYetValid)),
        (NOW, Ok(true)),
        (end - 1, Ok(false)),
        (end, Err(Denial::TokenExpired)),
        (end + 86_400, Err(Denial::TokenExpired)),
    ] {
        assert_eq!(counter.ask("/api/x", &good, at), expected, "at {at}");
    }
    assert!(counter.known.is_empty(), "what has ended is forgotten");
    Ok(())
}

#[test]
fn a_known_token_does_not_outlive_its_key() -> Result<()> {
    let mut counter = Counter::new(16)?;
    let good = counter.desk.ec.mint(&counter.desk.claims())?;
    assert_eq!(counter.ask("/api/x", &good, NOW), Ok(true));
    counter.write_keys(&[&counter.desk.rsa])?;
    assert_eq!(counter.ask("/api/x", &good, NOW), Ok(false), "not read yet");
    counter.reload()?;
    assert_eq!(counter.ask("/api/x", &good, NOW), Err(Denial::TokenUnknownKey));
    // Another key of the same id.
    let other = SigningKey::p256("ec-1")?;
    counter.write_keys(&[&other])?;
    counter.reload()?;
    assert_eq!(counter.ask("/api/x", &good, NOW), Err(Denial::TokenBadSignature));
    counter.write_keys(&[&counter.desk.ec])?;
    counter.reload()?;
    assert_eq!(counter.ask("/api/x", &good, NOW), Ok(true), "its key is back");
    Ok(())
}

#[test]
fn a_known_token_does_not_outlive_a_rule() -> Result<()> {
    type Change = fn(&mut Site);
    let changes: [(&str, Change, Denial); 6] = [
        (
            "issuer",
            |site| site.config.tokens.get_mut("main").unwrap().issuer = "https://other.example/".to_owned(),
            Denial::TokenWrongIssuer,
        ),
        (
            "audience",
            |site| site.config.tokens.get_mut("main").unwrap().audience = vec!["other".to_owned()],
            Denial::TokenWrongAudience,
        ),
        (
            "lifetime",
            |site| site.config.tokens.get_mut("main").unwrap().max_lifetime = Duration::from_secs(599),
            Denial::TokenClaims,
        ),
        (
            "algorithms",
            |site| site.config.tokens.get_mut("main").unwrap().algorithms.truncate(1),
            Denial::TokenAlgorithm,
        ),
        (
            "scopes",
            |site| site.config.routes[1].demands.scopes = vec!["admin".to_owned()],
            Denial::ScopeMissing,
        ),
        (
            "claims",
            |site| drop(site.config.routes[1].demands.claims.insert("tenant".to_owned(), vec![json!("a")])),
            Denial::ClaimMissing,
        ),
    ];
    for (name, change, denial) in changes {
        let mut counter = Counter::new(16)?;
        let good = counter.desk.ec.mint(&counter.desk.claims())?;
        assert_eq!(counter.ask("/api/x", &good, NOW), Ok(true), "{name}");
        change(&mut counter.desk.site);
        counter.reload()?;
        assert_eq!(counter.ask("/api/x", &good, NOW), Err(denial), "{name}");
    }
    Ok(())
}

#[test]
fn a_reload_that_changes_nothing_for_an_issuer_forgets_nothing() -> Result<()> {
    let mut counter = Counter::new(16)?;
    let good = counter.desk.ec.mint(&counter.desk.claims())?;
    assert_eq!(counter.ask("/api/x", &good, NOW), Ok(true));
    counter.desk.site.config.http.max_body_bytes = 1;
    counter.desk.site.config.routes.push(route("/more/", Some("main"), &[]));
    counter.reload()?;
    assert_eq!(counter.ask("/api/x", &good, NOW), Ok(false));
    assert_eq!(counter.ask("/more/x", &good, NOW), Ok(false), "what it was verified by holds there too");
    Ok(())
}

#[test]
fn a_token_that_one_route_knows_does_not_open_another_issuers_route() -> Result<()> {
    let mut counter = Counter::with(16, |site| {
        let twin = token("https://twin.example/", site.config.tokens["main"].keys.file().unwrap().to_owned());
        site.config.tokens.insert("twin".to_owned(), twin);
        site.config.routes.push(route("/twin/", Some("twin"), &[]));
        let mut both = route("/both/", Some("main"), &[]);
        both.tokens.push("twin".to_owned());
        site.config.routes.push(both);
    })?;
    let main = counter.desk.ec.mint(&counter.desk.claims())?;
    let twin = counter.desk.ec.mint(&counter.desk.claims_but("iss", json!("https://twin.example/")))?;
    let stranger = counter.desk.ec.mint(&counter.desk.claims_but("iss", json!("https://no.example/")))?;
    let nameless = counter.desk.ec.mint(&counter.desk.claims_but("iss", Value::Null))?;
    for (path, token, expected) in [
        ("/api/x", &main, Ok(true)),
        ("/twin/x", &main, Err(Denial::TokenWrongIssuer)),
        ("/twin/x", &twin, Ok(true)),
        ("/api/x", &twin, Err(Denial::TokenWrongIssuer)),
        ("/both/x", &main, Ok(false)),
        ("/both/x", &twin, Ok(false)),
        ("/both/x", &stranger, Err(Denial::TokenWrongIssuer)),
        ("/both/x", &nameless, Err(Denial::TokenClaims)),
    ] {
        assert_eq!(counter.ask(path, token, NOW), expected, "{path}");
    }
    Ok(())
}

#[test]
fn no_more_are_remembered_than_may_be() -> Result<()> {
    let mut counter = Counter::new(8)?;
    let mint = |counter: &Counter, n: u64| {
        counter.desk.ec.mint(&counter.desk.claims_but("sub", json!(format!("subject-{n}"))))
    };
    for n in 0..40 {
        let good = mint(&counter, n)?;
        assert_eq!(counter.ask("/api/x", &good, NOW), Ok(true), "{n}");
        assert!(counter.known.len() <= 8, "{n}: {}", counter.known.len());
    }
    let mut none = Counter::new(0)?;
    let good = mint(&none, 0)?;
    for _ in 0..2 {
        assert_eq!(none.ask("/api/x", &good, NOW), Ok(true), "each time");
    }
    assert!(none.known.is_empty());
    Ok(())
}

#[test]
fn every_algorithm_verifies_its_own_and_no_other() -> Result<()> {
    use enforcer::config::TokenAlgorithm::{EdDsa, Es256, Ps256, Rs256};
    let (pss, ed) = (SigningKey::pss("pss-1")?, SigningKey::ed25519("ed-1")?);
    let mut counter = Counter::with(16, |site| {
        site.config.tokens.get_mut("main").unwrap().algorithms = vec![Rs256, Es256, Ps256, EdDsa];
    })?;
    counter.write_keys(&[&counter.desk.rsa, &counter.desk.ec, &pss, &ed])?;
    counter.reload()?;
    let claims = counter.desk.claims();
    let raw = claims.to_string();
    let keys = [&counter.desk.rsa, &counter.desk.ec, &pss, &ed];
    let mut cases = Vec::new();
    for key in keys {
        cases.push((format!("{} honest", key.alg()), key.mint(&claims)?, Ok(true)));
        for other in keys.iter().filter(|other| other.kid() != key.kid()) {
            let header = json!({"alg": other.alg(), "kid": key.kid()}).to_string();
            let name = format!("{} called {}", key.alg(), other.alg());
            cases.push((name, key.mint_raw(&header, &raw)?, Err(Denial::TokenUnknownKey)));
            let name = format!("{} under the name of {}", key.alg(), other.kid());
            let token = key.mint_raw(&other.header().to_string(), &raw)?;
            cases.push((name, token, Err(Denial::TokenBadSignature)));
        }
    }
    for (name, token, expected) in cases {
        assert_eq!(counter.ask("/api/x", &token, NOW), expected, "{name}");
    }
    Ok(())
}

#[test]
fn a_type_that_is_asked_for_must_be_there() -> Result<()> {
    let mut counter = Counter::with(16, |site| {
        site.config.tokens.get_mut("main").unwrap().kind = enforcer::config::TokenType::AccessToken;
    })?;
    let raw = counter.desk.claims().to_string();
    for (typ, expected) in [
        (Some("at+jwt"), Ok(true)),
        (Some("application/at+jwt"), Ok(true)),
        (Some("JWT"), Err(Denial::TokenHeader)),
        (None, Err(Denial::TokenHeader)),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "ec-1"});
        if let Some(typ) = typ {
            header["typ"] = json!(typ);
        }
        let token = counter.desk.ec.mint_raw(&header.to_string(), &raw)?;
        assert_eq!(counter.ask("/api/x", &token, NOW), expected, "{typ:?}");
    }
    Ok(())
}

#[test]
fn what_a_route_demands_is_asked_of_known_tokens_too() -> Result<()> {
    let mut counter = Counter::with(64, |site| {
        let demands = &mut site.config.routes[1].demands;
        demands.any_scope = vec!["staff".to_owned(), "customer".to_owned()];
        demands.method_scopes.insert("POST".to_owned(), vec!["write".to_owned()]);
        demands.claims.insert("tier".to_owned(), vec![json!("gold"), json!(2)]);
        demands.acr = vec!["loa-2".to_owned(), "loa-3".to_owned()];
        demands.max_auth_age = Some(Duration::from_secs(300));
    })?;
    let mut good = counter.desk.claims_but("scope", json!("read customer"));
    good["tier"] = json!("gold");
    good["acr"] = json!("loa-2");
    good["auth_time"] = json!(NOW - 360);
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    use Denial::{AuthenticationInsufficient as StepUp, ClaimMissing, ScopeMissing};
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    for (name, method, claims, denial) in [
        ("good", &get, good.clone(), None),
        ("other method", &delete, good.clone(), None),
        ("POST without write", &post, good.clone(), Some(ScopeMissing)),
        ("POST with write", &post, but("scope", json!("read customer write")), None),
        ("none of any", &get, but("scope", json!("read write")), Some(ScopeMissing)),
        ("not all", &get, but("scope", json!("staff customer")), Some(ScopeMissing)),
        ("tier 2", &get, but("tier", json!(2)), None),
        ("tier as text", &get, but("tier", json!("2")), Some(ClaimMissing)),
        ("tier in a list", &get, but("tier", json!(["basic", "gold"])), None),
        ("tier in no list", &get, but("tier", json!([])), Some(ClaimMissing)),
        ("tier null", &get, but("tier", Value::Null), Some(ClaimMissing)),
        ("tier in capitals", &get, but("tier", json!("GOLD")), Some(ClaimMissing)),
        ("tier an object", &get, but("tier", json!({"gold": 2})), Some(ClaimMissing)),
        ("the other acr", &get, but("acr", json!("loa-3")), None),
        ("weaker acr", &get, but("acr", json!("loa-1")), Some(StepUp)),
        ("acr of another type", &get, but("acr", json!(["loa-2"])), Some(StepUp)),
        ("authenticated too long ago", &get, but("auth_time", json!(NOW - 361)), Some(StepUp)),
        ("authenticated tomorrow", &get, but("auth_time", json!(NOW + 61)), Some(StepUp)),
        ("auth_time of another type", &get, but("auth_time", json!("1")), Some(StepUp)),
    ] {
        let token = counter.desk.ec.mint(&claims)?;
        for round in ["first", "known"] {
            let got = counter.ask_as(method, "/api/x", &token, NOW).err();
            assert_eq!(got, denial, "{name}, {round}");
        }
    }
    let token = counter.desk.ec.mint(&good)?;
    assert_eq!(counter.ask("/api/x", &token, NOW + 1), Err(StepUp), "known, and a second later too old");
    Ok(())
}

#[test]
fn nested_claims_are_found_by_their_path() -> Result<()> {
    let cases = [
        ("realm_access.roles", json!({"realm_access": {"roles": ["user", "admin"]}}), true),
        ("realm_access.roles", json!({"realm_access": {"roles": "admin"}}), true),
        ("realm_access.roles", json!({"realm_access.roles": "admin"}), true),
        (
            "realm_access.roles",
            json!({"realm_access.roles": "user", "realm_access": {"roles": "admin"}}),
            false,
        ),
        ("realm_access.roles", json!({"realm_access": {"roles": ["user"]}}), false),
        ("realm_access.roles", json!({"realm_access": ["roles", "admin"]}), false),
        ("realm_access.roles", json!({"roles": "admin"}), false),
        ("resource_access.my.app.roles", json!({"resource_access": {"my.app": {"roles": ["admin"]}}}), true),
        ("https://example.com/role", json!({"https://example.com/role": "admin"}), true),
        ("a..b", json!({"a": {"": {"b": "admin"}}}), true),
        (".", json!({"": {"": "admin"}}), true),
    ];
    for (path, members, is_met) in cases {
        let mut counter = Counter::with(16, |site| {
            site.config.routes[1].demands.claims.insert(path.to_owned(), vec![json!("admin")]);
        })?;
        let mut claims = counter.desk.claims();
        for (name, value) in members.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = counter.desk.ec.mint(&claims)?;
        let expected = if is_met { None } else { Some(Denial::ClaimMissing) };
        for round in ["first", "known"] {
            assert_eq!(counter.ask("/api/x", &token, NOW).err(), expected, "{path} in {members}, {round}");
        }
    }
    Ok(())
}
