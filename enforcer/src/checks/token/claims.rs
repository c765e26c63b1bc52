//! The claims of a token whose signature is good (RFC 7519 section 4.1), typed and required.
//!
//! Times are whole seconds. With leeway L a token is good while `nbf - L <= now < exp + L` and `iat - L <= now`: at
//! exactly `exp + L` it has expired, because RFC 7519 section 4.1.4 refuses "on or after".

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::{
    denial::Denial,
    policy::issuer::Issuer,
    revoked::{Kind, Marks},
    strict_json,
};

/// What is used of a token after it was verified. Kept as long as the token is known, so it is small.
#[derive(Debug)]
pub struct Claims {
    /// `sub`.
    pub subject: Option<Box<str>>,
    /// From `scope` (RFC 8693 section 4.2), or else from `scp`.
    pub scopes: Box<[Box<str>]>,
    /// From when until when it is good.
    pub times: Times,
    /// `acr`: how its subject was authenticated. One of another type is as good as none.
    pub acr: Option<Box<str>>,
    /// `auth_time`: when that was, seconds since 1970; likewise.
    pub authenticated: Option<u64>,
    /// `cnf`: what its sender must have besides.
    pub confirmation: Option<Box<Confirmation>>,
    /// Others, of those that routes ask for.
    pub others: Box<[(Box<str>, Value)]>,
    /// What it can be revoked by.
    pub marks: Marks,
}

/// What a token is bound to (`cnf`, RFC 7800 section 3.1). At least one of the two: a token that is bound to something else is
/// refused, because nobody here could tell whether its sender has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// `jkt`: the thumbprint of a key (RFC 9449 section 6.1).
    pub key: Option<Box<str>>,
    /// `x5t#S256`: the thumbprint of a client certificate (RFC 8705 section 3.1).
    pub certificate: Option<Box<str>>,
}

/// `exp`, `nbf` and `iat`, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// `exp`.
    pub expires: u64,
    /// `nbf`.
    pub begins: Option<u64>,
    /// `iat`.
    pub issued: Option<u64>,
}

/// Reads decoded claims, and shows their times, which are not judged here: that is done for every request.
pub(super) fn read(bytes: &[u8], issuer: &Issuer, show: impl FnOnce(&Times)) -> Result<Claims, Denial> {
    let claims = strict_json::object(bytes).ok_or(Denial::TokenMalformed)?;
    match claims.get("iss") {
        Some(Value::String(iss)) if *iss == issuer.issuer => {}
        Some(Value::String(_)) => return Err(Denial::TokenWrongIssuer),
        _ => return Err(Denial::TokenClaims),
    }
    audience(&claims, issuer)?;
    let times = Times {
        expires: seconds(&claims, "exp")?.ok_or(Denial::TokenClaims)?,
        begins: seconds(&claims, "nbf")?,
        issued: seconds(&claims, "iat")?,
    };
    show(&times);
    used(&claims, issuer, times)
}

/// What is used of claims besides.
pub(super) fn used(claims: &Map<String, Value>, issuer: &Issuer, times: Times) -> Result<Claims, Denial> {
    let subject = match claims.get("sub") {
        None => None,
        Some(Value::String(subject)) => Some(subject.as_str().into()),
        Some(_) => return Err(Denial::TokenClaims),
    };
    let scopes = scopes(claims)?;
    let confirmation = confirmation(claims)?;
    let acr = claims.get("acr").and_then(Value::as_str).map(Box::from);
    let authenticated = claims.get("auth_time").and_then(Value::as_u64);
    let mut others = Vec::new();
    for name in &issuer.asked {
        others.extend(at(claims, name).map(|value| (name.as_str().into(), value.clone())));
    }
    let marks = marks(claims, issuer, times.issued);
    Ok(Claims { subject, scopes, times, acr, authenticated, confirmation, others: others.into(), marks })
}

/// The claim of this name, or what a path leads to whose steps are separated by dots: `realm_access.roles`. A member that has the dots
/// in its name comes first.
fn at<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    claims.get(path).or_else(|| {
        path.match_indices('.').find_map(|(dot, _)| {
            let (first, rest) = path.split_at_checked(dot)?;
            at(claims.get(first)?.as_object()?, rest.get(1..)?)
        })
    })
}

/// What of the claims the token can be revoked by.
fn marks(claims: &Map<String, Value>, issuer: &Issuer, issued: Option<u64>) -> Marks {
    let marker = issuer.revoked().marker();
    let named = [
        (Kind::Id, claims.get("jti")),
        (Kind::Session, claims.get("sid")),
        (Kind::Subject, claims.get("sub")),
        (Kind::Device, at(claims, &issuer.device_claim)),
    ];
    let mut all = Vec::with_capacity(named.len() + 3);
    for (kind, value) in named {
        match value {
            Some(Value::String(text)) => all.push((kind, marker.mark(kind, text.as_bytes()))),
            Some(Value::Number(number)) => {
                all.push((kind, marker.mark(kind, number.to_string().as_bytes())));
            }
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => {}
        }
    }
    all.push((Kind::Every, marker.mark(Kind::Every, b"")));
    Marks { issued, all }
}

impl Times {
    /// Whether a token of `issuer` is good at `now`.
    pub fn judge(&self, issuer: &Issuer, now: u64) -> Result<(), Denial> {
        let begins = || self.begins.into_iter().chain(self.issued);
        // A token that ends before it begins says that its issuer, or whoever changed it, is confused.
        if begins().any(|begin| self.expires <= begin) {
            return Err(Denial::TokenClaims);
        }
        if now >= self.expires.saturating_add(issuer.leeway) {
            return Err(Denial::TokenExpired);
        }
        let latest = now.saturating_add(issuer.leeway);
        if begins().any(|begin| begin > latest) {
            return Err(Denial::TokenNotYetValid);
        }
        // Without `iat` the token may have been issued just now, by a clock that differs.
        let lifetime = self.expires.saturating_sub(self.issued.unwrap_or(latest));
        if lifetime > issuer.max_lifetime { Err(Denial::TokenClaims) } else { Ok(()) }
    }
}

/// A string or an array of strings (RFC 7519 section 4.1.3), compared whole.
pub(super) fn audience(claims: &Map<String, Value>, issuer: &Issuer) -> Result<(), Denial> {
    let audience = strings(claims.get("aud").ok_or(Denial::TokenClaims)?)?;
    let ours = |audience: &&str| issuer.audience.iter().any(|ours| ours == audience);
    if audience.iter().any(ours) { Ok(()) } else { Err(Denial::TokenWrongAudience) }
}

pub(super) fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Denial> {
    claims.get(name).map(|value| value.as_u64().ok_or(Denial::TokenClaims)).transpose()
}

fn scopes(claims: &Map<String, Value>) -> Result<Box<[Box<str>]>, Denial> {
    let split = |text: &str| text.split(' ').filter(|scope| !scope.is_empty()).map(Box::from).collect();
    match (claims.get("scope"), claims.get("scp")) {
        (Some(Value::String(scope)), _) => Ok(split(scope)),
        (Some(_), _) => Err(Denial::TokenClaims),
        (None, Some(Value::String(scp))) => Ok(split(scp)),
        (None, Some(scp)) => Ok(strings(scp)?.into_iter().map(Box::from).collect()),
        (None, None) => Ok(Box::default()),
    }
}

/// Members that are not known are ignored beside one that is (RFC 7800 section 3.1).
fn confirmation(claims: &Map<String, Value>) -> Result<Option<Box<Confirmation>>, Denial> {
    let Some(cnf) = claims.get("cnf") else { return Ok(None) };
    let Value::Object(cnf) = cnf else { return Err(Denial::TokenClaims) };
    let thumbprint = |name: &str| match cnf.get(name) {
        None => Ok(None),
        // SHA-256 in base64url without padding.
        Some(Value::String(text)) if URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32) => {
            Ok(Some(text.as_str().into()))
        }
        Some(_) => Err(Denial::TokenClaims),
    };
    let confirmation = Confirmation { key: thumbprint("jkt")?, certificate: thumbprint("x5t#S256")? };
    if confirmation.key.is_none() && confirmation.certificate.is_none() {
        return Err(Denial::TokenConfirmation);
    }
    Ok(Some(Box::new(confirmation)))
}

fn strings(value: &Value) -> Result<Vec<&str>, Denial> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(items) => items.iter().map(|item| item.as_str().ok_or(Denial::TokenClaims)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(Denial::TokenClaims),
    }
}
