//! The claims of a token whose signature is good (RFC 7519 section 4.1), typed and required.
//!
//! Times are whole seconds. With leeway L a token is good while `nbf - L <= now < exp + L` and `iat - L <= now`: at
//! exactly `exp + L` it has expired, because RFC 7519 section 4.1.4 refuses "on or after".

use serde_json::{Map, Value};

use crate::{denial::Denial, policy::issuer::Issuer, policy::strict_json};

/// What is used of a token after it was verified.
#[derive(Debug)]
pub struct Claims {
    /// `sub`.
    pub subject: Option<Box<str>>,
    /// From `scope` (RFC 8693 section 4.2), or else from `scp`.
    pub scopes: Vec<Box<str>>,
    /// `exp`, seconds since 1970.
    pub expires: u64,
}

/// Reads and judges decoded claims at `now`.
pub(super) fn read(bytes: &[u8], issuer: &Issuer, now: u64) -> Result<Claims, Denial> {
    let claims = strict_json::object(bytes).ok_or(Denial::TokenMalformed)?;
    match claims.get("iss") {
        Some(Value::String(iss)) if *iss == issuer.issuer => {}
        Some(Value::String(_)) => return Err(Denial::TokenWrongIssuer),
        _ => return Err(Denial::TokenClaims),
    }
    audience(&claims, issuer)?;
    let expires = times(&claims, issuer, now)?;
    let subject = match claims.get("sub") {
        None => None,
        Some(Value::String(subject)) => Some(subject.as_str().into()),
        Some(_) => return Err(Denial::TokenClaims),
    };
    Ok(Claims { subject, scopes: scopes(&claims)?, expires })
}

/// A string or an array of strings (RFC 7519 section 4.1.3), compared whole.
fn audience(claims: &Map<String, Value>, issuer: &Issuer) -> Result<(), Denial> {
    let audience = strings(claims.get("aud").ok_or(Denial::TokenClaims)?)?;
    let ours = |audience: &&str| issuer.audience.iter().any(|ours| ours == audience);
    if audience.iter().any(ours) { Ok(()) } else { Err(Denial::TokenWrongAudience) }
}

fn times(claims: &Map<String, Value>, issuer: &Issuer, now: u64) -> Result<u64, Denial> {
    let exp = seconds(claims, "exp")?.ok_or(Denial::TokenClaims)?;
    let nbf = seconds(claims, "nbf")?;
    let iat = seconds(claims, "iat")?;
    // A token that ends before it begins says that its issuer, or whoever changed it, is confused.
    if nbf.into_iter().chain(iat).any(|begin| exp <= begin) {
        return Err(Denial::TokenClaims);
    }
    if now >= exp.saturating_add(issuer.leeway) {
        return Err(Denial::TokenExpired);
    }
    let latest = now.saturating_add(issuer.leeway);
    if nbf.into_iter().chain(iat).any(|begin| begin > latest) {
        return Err(Denial::TokenNotYetValid);
    }
    // Without `iat` the token may have been issued just now, by a clock that differs.
    let lifetime = exp.saturating_sub(iat.unwrap_or(latest));
    if lifetime > issuer.max_lifetime { Err(Denial::TokenClaims) } else { Ok(exp) }
}

fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Denial> {
    claims.get(name).map(|value| value.as_u64().ok_or(Denial::TokenClaims)).transpose()
}

fn scopes(claims: &Map<String, Value>) -> Result<Vec<Box<str>>, Denial> {
    let split = |text: &str| text.split(' ').filter(|scope| !scope.is_empty()).map(Box::from).collect();
    match (claims.get("scope"), claims.get("scp")) {
        (Some(Value::String(scope)), _) => Ok(split(scope)),
        (Some(_), _) => Err(Denial::TokenClaims),
        (None, Some(Value::String(scp))) => Ok(split(scp)),
        (None, Some(scp)) => Ok(strings(scp)?.into_iter().map(Box::from).collect()),
        (None, None) => Ok(Vec::new()),
    }
}

fn strings(value: &Value) -> Result<Vec<&str>, Denial> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(items) => items.iter().map(|item| item.as_str().ok_or(Denial::TokenClaims)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(Denial::TokenClaims),
    }
}
