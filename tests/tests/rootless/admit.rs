//! What `checks::admit` says to good and bad requests: every case by name with the denial that it must get.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use enforcer::{
    checks::{
        Grant, Now, Refusal, admit,
        facts::{Client, ClientAddr, RequestFacts},
        token::KnownTokens,
    },
    clock::KernelTime,
    config::{Limit, RateLimit},
    denial::Denial,
    policy::Policy,
};
use enforcer_tests::{
    edge::{AUDIENCE, ISSUER, NAME, Site, route},
    tokens::{self, SigningKey, assemble, claims, encode, mint_hmac, signing_input},
};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::attacks;

/// An ordinary wall clock for all cases.
pub(super) const NOW: u64 = 1_800_000_000;

/// A policy with an RSA and a P-256 key, and the keys to sign with.
pub(super) struct Desk {
    pub(super) site: Site,
    pub(super) policy: Policy,
    pub(super) rsa: SigningKey,
    pub(super) ec: SigningKey,
}

impl Desk {
    pub(super) fn new() -> Result<Self> {
        Self::with(|_| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut Site)) -> Result<Self> {
        let mut site = Site::new("127.0.0.1:9".parse()?)?;
        let (rsa, ec) = (SigningKey::rsa("rsa-1")?, SigningKey::p256("ec-1")?);
        std::fs::write(site.config.tokens["main"].keys.file().unwrap(), tokens::jwks(&[&rsa, &ec]))?;
        change(&mut site);
        let policy = Policy::load(&site.config)?;
        Ok(Self { site, policy, rsa, ec })
    }

    pub(super) fn claims(&self) -> Value {
        claims(ISSUER, AUDIENCE, "read", NOW)
    }

    /// The ordinary claims with one member replaced, or removed by `null`.
    pub(super) fn claims_but(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value;
        }
        claims
    }

    pub(super) fn ask(&self, path: &str, authorization: &[&str]) -> Result<Grant, Refusal> {
        self.ask_from("192.0.2.7", path, authorization, 1_000_000_000_000)
    }

    pub(super) fn ask_from(
        &self,
        from: &str,
        path: &str,
        authorization: &[&str],
        at: u64,
    ) -> Result<Grant, Refusal> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append("authorization", value.parse().unwrap());
        }
        let from = ClientAddr::new(from.parse::<IpAddr>().unwrap());
        let now = Now { monotonic: KernelTime(at), unix: NOW };
        // Nothing is known: every token goes the whole way.
        admit_from(&self.policy, from, &Method::GET, path, &headers, now, &mut KnownTokens::new(0))
    }

    pub(super) fn judge(&self, token: &str) -> Option<Denial> {
        self.ask("/api/x", &[&format!("Bearer {token}")]).err().map(|refusal| refusal.denial)
    }
}

/// What a request of these parts gets.
pub(super) fn admit_from(
    policy: &Policy,
    from: ClientAddr,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    now: Now,
    known: &mut KnownTokens,
) -> Result<Grant, Refusal> {
    let client = Client::at(from);
    let facts = RequestFacts {
        client: &client,
        address: from,
        method,
        path: path.into(),
        query: None,
        named: Some(NAME),
        headers,
    };
    admit(policy, &facts, now, known)
}

/// A case: its name, the token, and the denial; `None` where the request must pass.
pub(super) type Case = (&'static str, String, Option<Denial>);

#[test]
fn every_token_gets_its_denial() -> Result<()> {
    let desk = Desk::new()?;
    let mut cases = good(&desk)?;
    cases.extend(claim_cases(&desk)?);
    cases.extend(time_cases(&desk)?);
    cases.extend(scope_cases(&desk)?);
    cases.extend(attacks::header_cases(&desk)?);
    cases.extend(attacks::form_cases(&desk)?);
    cases.extend(attacks::signature_cases(&desk)?);
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    let names: std::collections::HashSet<_> = cases.iter().map(|(name, _, _)| name).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name");
    let wrong: Vec<String> = cases
        .iter()
        .map(|(name, token, expected)| (name, desk.judge(token), expected))
        .filter(|(_, got, expected)| got != *expected)
        .map(|(name, got, expected)| format!("{name}: expected {expected:?}, got {got:?}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

fn good(desk: &Desk) -> Result<Vec<Case>> {
    let claims = desk.claims();
    let raw = claims.to_string();
    Ok(vec![
        ("RS256", desk.rsa.mint(&claims)?, None),
        ("ES256", desk.ec.mint(&claims)?, None),
        ("no kid, one key fits", desk.ec.mint_raw(r#"{"alg":"ES256"}"#, &raw)?, None),
        ("x5t is only a name", desk.ec.mint_raw(r#"{"alg":"ES256","kid":"ec-1","x5t":"abc"}"#, &raw)?, None),
        ("typ JWT", desk.ec.mint_raw(r#"{"alg":"ES256","kid":"ec-1","typ":"JWT"}"#, &raw)?, None),
        (
            "typ in small letters",
            desk.ec.mint_raw(r#"{"alg":"ES256","kid":"ec-1","typ":"jwt"}"#, &raw)?,
            None,
        ),
        ("typ whole", desk.ec.mint_raw(r#"{"alg":"ES256","typ":"Application/AT+JWT"}"#, &raw)?, None),
        ("unknown header members", desk.ec.mint_raw(r#"{"alg":"ES256","kid":"ec-1","foo":{}}"#, &raw)?, None),
        ("aud as list", desk.ec.mint(&desk.claims_but("aud", json!(["other", AUDIENCE])))?, None),
        ("without nbf", desk.ec.mint(&desk.claims_but("nbf", Value::Null))?, None),
        ("without iat", desk.ec.mint(&desk.claims_but("iat", Value::Null))?, None),
        ("without sub", desk.ec.mint(&desk.claims_but("sub", Value::Null))?, None),
    ])
}

fn claim_cases(desk: &Desk) -> Result<Vec<Case>> {
    use Denial::{TokenClaims, TokenMalformed, TokenWrongAudience, TokenWrongIssuer};
    let mut cases = Vec::new();
    for (name, claim, value, denial) in [
        ("iss missing", "iss", Value::Null, TokenClaims),
        ("iss a number", "iss", json!(1), TokenClaims),
        ("iss a list", "iss", json!([ISSUER]), TokenClaims),
        ("iss of another", "iss", json!("https://evil.example/"), TokenWrongIssuer),
        ("iss without its slash", "iss", json!("https://id.example.com"), TokenWrongIssuer),
        ("iss in capitals", "iss", json!("HTTPS://ID.EXAMPLE.COM/"), TokenWrongIssuer),
        ("iss empty", "iss", json!(""), TokenWrongIssuer),
        ("aud missing", "aud", Value::Null, TokenClaims),
        ("aud a number", "aud", json!(7), TokenClaims),
        ("aud an object", "aud", json!({"api": true}), TokenClaims),
        ("aud a mixed list", "aud", json!([AUDIENCE, 7]), TokenClaims),
        ("aud an empty list", "aud", json!([]), TokenWrongAudience),
        ("aud of the app: an ID token", "aud", json!("mobile-app"), TokenWrongAudience),
        ("aud containing ours", "aud", json!("api2"), TokenWrongAudience),
        ("aud contained in ours", "aud", json!("ap"), TokenWrongAudience),
        ("exp missing", "exp", Value::Null, TokenClaims),
        ("exp a string", "exp", json!("9999999999"), TokenClaims),
        ("exp fractional", "exp", json!(NOW as f64 + 0.5), TokenClaims),
        ("exp negative", "exp", json!(-1), TokenClaims),
        ("exp a list", "exp", json!([NOW + 60]), TokenClaims),
        ("exp true", "exp", json!(true), TokenClaims),
        ("nbf a string", "nbf", json!("0"), TokenClaims),
        ("nbf fractional", "nbf", json!(1.5), TokenClaims),
        ("iat a string", "iat", json!("0"), TokenClaims),
        ("iat negative", "iat", json!(-5), TokenClaims),
        ("sub a number", "sub", json!(42), TokenClaims),
        ("scope a list", "scope", json!(["read"]), TokenClaims),
    ] {
        cases.push((name, desk.ec.mint(&desk.claims_but(claim, value))?, Some(denial)));
    }
    let header = desk.ec.header().to_string();
    let text = desk.claims().to_string();
    let inside = &text[1..text.len() - 1];
    for (name, raw, denial) in [
        ("claims with iss twice", format!(r#"{{"iss":"https://evil.example/",{inside}}}"#), TokenMalformed),
        ("claims with exp twice", format!(r#"{{{inside},"exp":9999999999}}"#), TokenMalformed),
        (
            "claims with an escaped duplicate",
            format!(r#"{{{inside},"\u0065xp":9999999999}}"#),
            TokenMalformed,
        ),
        ("claims a list", "[1]".to_owned(), TokenMalformed),
        ("claims a string", r#""x""#.to_owned(), TokenMalformed),
        ("claims empty", String::new(), TokenMalformed),
        ("claims with a tail", format!("{text}{{}}"), TokenMalformed),
        ("claims 5,000 deep", format!("{}1{}", "[".repeat(2500), "]".repeat(2500)), TokenMalformed),
        ("exp 1e400", text.replace(&format!("\"exp\":{}", NOW + 600), "\"exp\":1e400"), TokenMalformed),
        ("exp NaN", text.replace(&format!("\"exp\":{}", NOW + 600), "\"exp\":NaN"), TokenMalformed),
        (
            "exp beyond 64 bits",
            text.replace(&format!("\"exp\":{}", NOW + 600), "\"exp\":99999999999999999999"),
            TokenClaims,
        ),
        ("exp as 1.8e9", text.replace(&format!("\"exp\":{}", NOW + 600), "\"exp\":1.9e9"), TokenClaims),
    ] {
        cases.push((name, desk.ec.mint_raw(&header, &raw)?, Some(denial)));
    }
    Ok(cases)
}

fn time_cases(desk: &Desk) -> Result<Vec<Case>> {
    use Denial::{TokenClaims, TokenExpired, TokenNotYetValid};
    let day = 24 * 3600;
    let times = |iat: Option<u64>, nbf: Option<u64>, exp: u64| {
        let mut claims = desk.claims();
        claims["exp"] = json!(exp);
        for (name, value) in [("iat", iat), ("nbf", nbf)] {
            match value {
                Some(value) => claims[name] = json!(value),
                None => drop(claims.as_object_mut().unwrap().remove(name)),
            }
        }
        desk.ec.mint(&claims)
    };
    let old = Some(NOW - 600);
    Ok(vec![
        ("exp 61 s ago", times(old, old, NOW - 61)?, Some(TokenExpired)),
        ("exp 60 s ago: on or after", times(old, old, NOW - 60)?, Some(TokenExpired)),
        ("exp 59 s ago", times(old, old, NOW - 59)?, None),
        ("exp in 60 s", times(old, old, NOW + 60)?, None),
        ("exp in 61 s", times(old, old, NOW + 61)?, None),
        ("exp 0", times(None, None, 0)?, Some(TokenExpired)),
        ("nbf 61 s ahead", times(old, Some(NOW + 61), NOW + 600)?, Some(TokenNotYetValid)),
        ("nbf 60 s ahead", times(old, Some(NOW + 60), NOW + 600)?, None),
        ("nbf 60 s ago", times(old, Some(NOW - 60), NOW + 600)?, None),
        ("nbf 61 s ago", times(old, Some(NOW - 61), NOW + 600)?, None),
        ("iat 61 s ahead", times(Some(NOW + 61), None, NOW + 600)?, Some(TokenNotYetValid)),
        ("iat 60 s ahead", times(Some(NOW + 60), None, NOW + 600)?, None),
        ("iat 60 s ago", times(Some(NOW - 60), None, NOW + 600)?, None),
        ("iat 61 s ago", times(Some(NOW - 61), None, NOW + 600)?, None),
        ("iat in the far future", times(Some(NOW + day), None, NOW + 2 * day)?, Some(TokenNotYetValid)),
        ("iat in milliseconds", times(Some(NOW * 1000), None, NOW * 1000 + 600)?, Some(TokenNotYetValid)),
        ("exp before nbf", times(None, Some(NOW + 30), NOW + 20)?, Some(TokenClaims)),
        ("exp at iat", times(Some(NOW), None, NOW)?, Some(TokenClaims)),
        ("lifetime of a day", times(Some(NOW), None, NOW + day)?, None),
        ("lifetime of a day and a second", times(Some(NOW), None, NOW + day + 1)?, Some(TokenClaims)),
        ("no iat, a day from now with leeway", times(None, None, NOW + day + 60)?, None),
        ("no iat, beyond a day with leeway", times(None, None, NOW + day + 61)?, Some(TokenClaims)),
        ("exp at the end of 64 bits", times(Some(NOW), None, u64::MAX)?, Some(TokenClaims)),
    ])
}

fn scope_cases(desk: &Desk) -> Result<Vec<Case>> {
    let missing = Some(Denial::ScopeMissing);
    let mut cases = Vec::new();
    for (name, scope, expected) in [
        ("scope among others", "write read admin", None),
        ("scope with many spaces", "  read   ", None),
        ("scope twice", "read read", None),
        ("scope empty", "", missing),
        ("scope as a prefix", "read_all", missing),
        ("scope as a suffix", "xread", missing),
        ("scope in capitals", "READ", missing),
        ("scope with a tab", "write\tread", missing),
        ("scope with a comma", "write,read", missing),
        ("scope with a lookalike letter", "re\u{0430}d", missing),
    ] {
        cases.push((name, desk.ec.mint(&desk.claims_but("scope", json!(scope)))?, expected));
    }
    let scp = |scp: Value| {
        let mut claims = desk.claims_but("scope", Value::Null);
        claims["scp"] = scp;
        desk.ec.mint(&claims)
    };
    cases.push(("scp as list", scp(json!(["write", "read"]))?, None));
    cases.push(("scp as string", scp(json!("write read"))?, None));
    cases.push(("scp as list, one entry with a space", scp(json!(["write read"]))?, missing));
    cases.push(("scp an object", scp(json!({"read": true}))?, Some(Denial::TokenClaims)));
    cases.push(("no scope at all", desk.ec.mint(&desk.claims_but("scope", Value::Null))?, missing));
    let mut both = desk.claims_but("scope", json!("write"));
    both["scp"] = json!(["read"]);
    cases.push(("scope decides over scp", desk.ec.mint(&both)?, missing));
    Ok(cases)
}

#[test]
fn the_authorization_header_is_read_strictly() -> Result<()> {
    let desk = Desk::new()?;
    let token = desk.ec.mint(&desk.claims())?;
    let bearer = format!("Bearer {token}");
    for (values, expected) in [
        (vec![], Some(Denial::TokenMissing)),
        (vec!["Basic dTpw".to_owned()], Some(Denial::TokenMissing)),
        (vec!["Bearer".to_owned()], Some(Denial::TokenMissing)),
        (vec![token.clone()], Some(Denial::TokenMissing)),
        (vec![bearer.replace("Bearer", "bEARER")], None),
        (vec![bearer.replace(' ', "  ")], None),
        (vec![format!("{bearer} x")], Some(Denial::TokenMalformed)),
        (vec![bearer.clone(), bearer.clone()], Some(Denial::TokenMalformed)),
        (vec![bearer.clone()], None),
    ] {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let got = desk.ask("/api/x", &values).err().map(|refusal| refusal.denial);
        assert_eq!(got, expected, "{values:?}");
    }
    Ok(())
}

#[test]
fn refusals_say_what_rfc_6750_asks_for() -> Result<()> {
    let desk = Desk::new()?;
    let challenge = |authorization: &[&str]| {
        let refusal = desk.ask("/api/x", authorization).unwrap_err();
        assert_eq!(refusal.route.unwrap().path.as_ref(), "/api/");
        refusal.challenge.unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(challenge(&[]), r#"Bearer realm="main""#);
    assert_eq!(challenge(&["Bearer x"]), r#"Bearer realm="main", error="invalid_token""#);
    let poor = format!("Bearer {}", desk.ec.mint(&desk.claims_but("scope", json!("write")))?);
    assert_eq!(challenge(&[&poor]), r#"Bearer realm="main", error="insufficient_scope", scope="read""#);
    Ok(())
}

#[test]
fn the_longest_path_wins_and_the_limit_comes_before_the_token() -> Result<()> {
    let limit = RateLimit { events: 1, period: Duration::from_secs(1), burst: 1 };
    let desk = Desk::with(|site| {
        let mut limited = route("/api/limited/", Some("main"), &["read"]);
        limited.limits = vec![Limit::by_address(limit)];
        site.config.routes.extend([limited, route("/api/exact", None, &[])]);
    })?;
    let label = |path: &str| desk.ask(path, &[]).map(|grant| grant.route().path.to_string());
    assert_eq!(label("/api/exact").unwrap(), "/api/exact");
    assert_eq!(label("/api/exact/").unwrap_err().denial, Denial::TokenMissing);
    assert_eq!(label("/public/a").unwrap(), "/public/");
    for path in ["/", "/public", "/apis/x", "/API/x"] {
        assert_eq!(label(path).unwrap_err().denial, Denial::RouteNotFound, "{path}");
    }
    let second = 1_000_000_000;
    let mut answers = Vec::new();
    for at in [0, 0, 0, second / 2, second, second] {
        let refusal = desk.ask_from("2001:db8::1", "/api/limited/x", &[], 7 * second + at).unwrap_err();
        answers.push((refusal.denial, refusal.retry_after));
    }
    let over = (Denial::RateLimited, Some(1));
    let through = (Denial::TokenMissing, None);
    assert_eq!(answers, [through, through, over, over, through, over]);
    let neighbour = desk.ask_from("2001:db8::ffff", "/api/limited/x", &[], 8 * second).unwrap_err();
    assert_eq!(neighbour.denial, Denial::RateLimited, "the same /64 is the same source");
    let other = desk.ask_from("2001:db8:0:1::1", "/api/limited/x", &[], 8 * second).unwrap_err();
    assert_eq!(other.denial, Denial::TokenMissing);
    Ok(())
}

#[test]
fn a_reload_keeps_what_did_not_change() -> Result<()> {
    let limit =
        |burst| vec![Limit::by_address(RateLimit { events: 1, period: Duration::from_secs(3600), burst })];
    let mut desk = Desk::with(|site| site.config.routes[0].limits = limit(0))?;
    let denial = |desk: &Desk| desk.ask("/public/x", &[]).err().map(|refusal| refusal.denial);
    assert_eq!(denial(&desk), None);
    desk.policy = desk.policy.reload(&desk.site.config)?;
    assert_eq!(denial(&desk), Some(Denial::RateLimited), "the debt survives");
    desk.site.config.routes[0].limits = limit(1);
    desk.policy = desk.policy.reload(&desk.site.config)?;
    assert_eq!(denial(&desk), None, "another limit begins anew");
    std::fs::write(desk.site.config.tokens["main"].keys.file().unwrap(), "{}")?;
    assert!(desk.policy.reload(&desk.site.config).is_err(), "a bad file makes no policy");
    Ok(())
}

#[test]
fn hmac_and_raw_helpers_make_what_they_say() -> Result<()> {
    // The attacks are only worth something if the same mint, used honestly, is believed.
    let desk = Desk::new()?;
    let (header, claims) = (desk.ec.header().to_string(), desk.claims().to_string());
    let input = signing_input(&header, &claims);
    assert_eq!(desk.judge(&assemble(&input, &desk.ec.sign(input.as_bytes())?)), None);
    assert!(mint_hmac(&header, &claims, b"k").starts_with(&format!("{}.", encode(header.as_bytes()))));
    Ok(())
}
