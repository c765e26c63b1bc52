//! Tokens that say nothing themselves: what their authorization server says of them is judged as claims are.
//!
//! Only what cannot be a signed token goes that way, or everything where the one issuer of a route has no keys. What a
//! token is bound to is in the answer (RFC 9449 section 6.2, RFC 8705 section 3.2), and asked of its sender as with signed ones.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    Checked, MAX_TOKEN,
    claims::{self, Claims, Times},
};
use crate::{
    clock::KernelTime,
    denial::Denial,
    policy::{
        introspection::{Answer, Introspector, Look},
        issuer::Issuer,
        keyring::Missing,
    },
    revoked::{Kind, Marks, mark::token_body},
};

/// The issuer that is asked about a token; `None` for one that is verified here.
pub(super) fn issuer<'i>(issuers: &'i [Arc<Issuer>], token: &[u8]) -> Option<(&'i Issuer, &'i Introspector)> {
    let signed = token.iter().filter(|byte| **byte == b'.').count() == 2;
    issuers.iter().find_map(|issuer| {
        let introspector = issuer.introspector()?;
        (!signed || issuers.len() == 1 && !issuer.has_keys())
            .then_some((issuer.as_ref(), introspector.as_ref()))
    })
}

/// Judges it; `lacking` says why nobody can tell.
pub(super) fn check(
    (issuer, introspector): (&Issuer, &Introspector),
    token: &[u8],
    first: bool,
    (now, monotonic): (u64, KernelTime),
    lacking: &mut Option<Missing>,
) -> Result<Checked, Denial> {
    let text = text(token).ok_or(Denial::TokenMalformed)?;
    let digest = super::Digest::of(token).ok_or(Denial::TokenMalformed)?;
    let mark = (Kind::Token, issuer.revoked().marker().mark(Kind::Token, token_body(token)));
    let own = Marks { issued: None, all: vec![mark] };
    if issuer.revocation(&own, now).is_some() {
        return Err(Denial::TokenRevoked);
    }
    let answer = match introspector.look(digest.bytes(), text, first, monotonic) {
        Look::Known(Answer::Active(answer)) => answer,
        Look::Known(Answer::Inactive) => return Err(Denial::TokenInactive),
        Look::Pending(pending) => {
            *lacking = Some(Missing::Pending(pending));
            return Err(Denial::IssuerUnavailable);
        }
        Look::Unavailable => {
            *lacking = Some(Missing::Unavailable);
            return Err(Denial::IssuerUnavailable);
        }
    };
    let claims = read(&answer, issuer, introspector.config.without_audience, now)?;
    if issuer.revocation(&claims.marks, now).is_some() {
        return Err(Denial::TokenRevoked);
    }
    let age = claims.times.issued.map(|issued| now.cast_signed().saturating_sub(issued.cast_signed()));
    Ok(Checked { claims: Arc::new(claims), leeway: issuer.leeway, age: age.filter(|_| !first) })
}

/// `b64token` of RFC 6750 section 2.1.
fn text(token: &[u8]) -> Option<&str> {
    let body = token.iter().rposition(|byte| *byte != b'=')?;
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    let is_good = token.len() <= MAX_TOKEN && token.get(..=body)?.iter().all(good);
    std::str::from_utf8(token).ok().filter(|_| is_good)
}

/// What is used of an answer (RFC 7662 section 2.2). Its end is exact: there the server's clock counts, and the server was asked.
fn read(
    answer: &Map<String, Value>,
    issuer: &Issuer,
    without_audience: bool,
    now: u64,
) -> Result<Claims, Denial> {
    match answer.get("iss") {
        None => {}
        Some(Value::String(iss)) if *iss == issuer.issuer => {}
        Some(_) => return Err(Denial::TokenWrongIssuer),
    }
    if answer.contains_key("aud") || !without_audience {
        claims::audience(answer, issuer)?;
    }
    let kind = match answer.get("token_type") {
        None => "bearer",
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(Denial::TokenClaims),
    };
    let is_by_proof = kind.eq_ignore_ascii_case("dpop");
    if !is_by_proof && !kind.eq_ignore_ascii_case("bearer") {
        return Err(Denial::TokenClaims);
    }
    let times = Times {
        expires: claims::seconds(answer, "exp")?.unwrap_or(u64::MAX),
        begins: claims::seconds(answer, "nbf")?,
        issued: claims::seconds(answer, "iat")?,
    };
    if now >= times.expires {
        return Err(Denial::TokenExpired);
    }
    if times.begins.is_some_and(|begins| begins > now.saturating_add(issuer.leeway)) {
        return Err(Denial::TokenNotYetValid);
    }
    // Revocations last no longer, so that tokens must not either.
    let from = times.issued.unwrap_or(now);
    if times.expires != u64::MAX && times.expires.saturating_sub(from) > issuer.max_lifetime {
        return Err(Denial::TokenClaims);
    }
    let claims = claims::used(answer, issuer, times)?;
    // One that needs a proof, of a key that nobody names, is good for nobody.
    let has_key = claims.confirmation.as_deref().is_some_and(|confirmation| confirmation.key.is_some());
    if is_by_proof && !has_key { Err(Denial::TokenConfirmation) } else { Ok(claims) }
}
