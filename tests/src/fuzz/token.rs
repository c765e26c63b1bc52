//! Tokens as inputs: raw ones, and headers and claims that are signed with the right key, so that what comes behind the signature is
//! reached, too. What is accepted is held against a reading of its own, and must not be accepted with a bit of it changed.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use anyhow::Result;
use enforcer::{checks::token, denial::Denial, policy::issuer::Issuer, revoked::Revoked};
use serde_json::{Value, json};

use crate::{
    edge::{AUDIENCE, ISSUER},
    tokens::{self, SigningKey, encode},
};

/// When tokens are judged, in seconds since 1970.
pub const NOW: u64 = 1_800_000_000;

struct Desk {
    issuers: [Arc<Issuer>; 1],
    key: SigningKey,
}

/// With a key of this process: none is kept.
static DESK: LazyLock<Option<Desk>> = LazyLock::new(|| desk().ok());

fn desk() -> Result<Desk> {
    let key = SigningKey::p256("key-1")?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, tokens::jwks(&[&key]))?;
    let asked = BTreeSet::from(["realm_access.roles".to_owned()]);
    let token = crate::edge::token(ISSUER, path);
    let issuer = Issuer::load("fuzz", &token, asked, &Revoked::new(16)?, None)?;
    Ok(Desk { issuers: [issuer], key })
}

/// What becomes of an input: `None` where there is nothing to judge.
#[allow(clippy::panic, reason = "a fuzz target reports by it")]
pub fn judge(input: &[u8]) -> Option<Result<(), Denial>> {
    let desk = DESK.as_ref()?;
    let text = text(desk, input)?;
    let verify = |text: &[u8]| token::verify(&desk.issuers, text, NOW, &mut |_| ()).map(drop);
    let outcome = verify(&text);
    if outcome.is_ok() {
        assert!(is_good(&text), "accepted: {}", String::from_utf8_lossy(&text));
        // One bit in each of some places.
        for at in (0..text.len()).step_by(text.len() / 16 + 1) {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(verify(&changed).is_err(), "accepted with a changed byte {at}");
        }
    }
    Some(outcome)
}

/// An input for [`judge`] that is a token as it is.
pub fn raw(text: &str) -> Vec<u8> {
    [&[0], text.as_bytes()].concat()
}

/// An input for [`judge`] of which header and claims are signed.
pub fn signed(header: &str, claims: &str) -> Vec<u8> {
    [&[1], &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), claims.as_bytes()].concat()
}

fn text(desk: &Desk, input: &[u8]) -> Option<Vec<u8>> {
    let (kind, rest) = input.split_first()?;
    if kind & 1 == 0 {
        return Some(rest.to_vec());
    }
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (header, claims) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
    let covered = format!("{}.{}", encode(header), encode(claims));
    let signature = desk.key.sign(covered.as_bytes()).ok()?;
    Some(tokens::assemble(&covered, &signature).into_bytes())
}

/// A simpler reading than the one that is tested: what an accepted token has to say at least.
fn is_good(text: &[u8]) -> bool {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b'.').collect();
    let read = |part: usize| -> Option<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.get(part)?).ok()?).ok()
    };
    let (Some(header), Some(claims), 3) = (read(0), read(1), parts.len()) else { return false };
    let refused = ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "epk"];
    let audience = match &claims["aud"] {
        Value::String(one) => one == AUDIENCE,
        Value::Array(some) => some.iter().any(|one| one == AUDIENCE),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    };
    let ahead = |name: &str| claims.get(name).is_some_and(|at| at.as_u64().is_none_or(|at| at > NOW + 60));
    header["alg"] == "ES256"
        && refused.iter().all(|name| header.get(name).is_none())
        && claims["iss"] == ISSUER
        && audience
        && claims["exp"].as_u64().is_some_and(|exp| exp + 60 > NOW)
        && !ahead("iat")
        && !ahead("nbf")
}

/// Inputs to begin with: a good one, and what attackers have sent.
pub fn seeds() -> Vec<Vec<u8>> {
    let claims = |name: &str, value: Value| {
        let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "iat": NOW, "exp": NOW + 600});
        claims[name] = value;
        claims.to_string()
    };
    let (header, good) = (r#"{"alg":"ES256","kid":"key-1"}"#, claims("scope", json!("read")));
    let headers = [
        header,
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256","kid":"key-1"}"#,
        r#"{"alg":"ES256","alg":"none"}"#,
        r#"{"alg":"ES256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"ES256","jwk":{}}"#,
        r#"{"alg":"ES256","kid":"../../etc"}"#,
        r#"{"alg":"ES256","typ":"dpop+jwt"}"#,
        r#"{"alg":"ES256"}"#,
        "[]",
        "",
    ];
    let bodies = [
        claims("iss", json!("https://evil.example/")),
        claims("iss", json!(1)),
        claims("aud", json!(["other", AUDIENCE])),
        claims("aud", json!("other")),
        claims("exp", json!(NOW - 60)),
        json!({"iss": ISSUER, "aud": AUDIENCE, "iat": NOW - 900, "exp": NOW - 300}).to_string(),
        claims("exp", json!("1")),
        claims("exp", json!(1e300)),
        claims("exp", json!(NOW + 90_000)),
        claims("nbf", json!(NOW + 61)),
        claims("scp", json!(["read", 1])),
        claims("jti", json!(7)),
        claims("realm_access", json!({"roles": ["admin"]})),
        claims("acr", json!([])),
        good.replacen('{', "{\"iss\":\"x\",", 1),
        "{".to_owned(),
        "[".repeat(200),
    ];
    let texts = [
        "",
        ".",
        "..",
        "a.b.c",
        "....",
        "eyJhbGciOiJub25lIn0.e30.",
        "eyJhbGciOiJFUzI1NiJ9.e30=.AA",
        "eyJhbGciOiJFUzI1NiJ9.e30.AA",
    ];
    let by_header = headers.iter().map(|header| signed(header, &good));
    let by_claims = bodies.iter().map(|claims| signed(header, claims));
    by_header.chain(by_claims).chain(texts.iter().map(|text| raw(text))).collect()
}
