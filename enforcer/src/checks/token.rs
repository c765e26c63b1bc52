//! Whether a request carries a good access token of one of its route's issuers.
//!
//! A strict reader in front of jsonwebtoken, which alone accepts unknown `crit`, `b64: false`, missing or mistyped `iss`
//! and `aud`, `iat` in the future and any lifetime. Order: form, issuer, header, key, signature, claims; no claim is believed
//! before its signature was verified: of several issuers `iss` only chooses whose keys and rules hold. RFC 8725 is the frame.
//!
//! A token that was verified is known by its digest as long as nothing has changed that it was judged by; its times are held
//! against the clock for every request.

pub mod binding;
mod claims;
mod compact;
mod header;
mod known;
mod opaque;
pub mod proof;

use std::{cell::Cell, sync::Arc};

use http::{HeaderMap, Method, header::AUTHORIZATION};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::{Now, Refusal};
use crate::{
    config::TokenAlgorithm,
    denial::Denial,
    policy::{
        demands::Demands,
        issuer::{Footing, Issuer},
        jwks::VerificationKey,
        keyring::Missing,
        route::Tokens,
    },
    revoked::Kind,
    strict_json,
};
pub use claims::{Claims, Confirmation, Times};
use compact::{Compact, MAX_TOKEN};
pub use known::KnownTokens;
use known::{Digest, Known};

/// Seconds after which a client may come back while keys cannot be had.
const RETRY: u64 = 5;

/// A good token, for a request.
#[derive(Debug)]
pub(super) struct Checked {
    pub claims: Arc<Claims>,
    /// By how much clocks may differ for its issuer.
    pub leeway: u64,
    /// Seconds since it was issued, if it says so and was not known before; negative if that is still to come.
    pub age: Option<i64>,
}

/// What is found on the way, for whoever wants to follow it.
#[derive(Debug)]
pub enum Step<'a> {
    /// Three parts of base64url.
    Form {
        /// The token's length.
        bytes: usize,
    },
    /// Whose rules hold.
    Issuer(&'a Issuer),
    /// An acceptable header.
    Header {
        /// The algorithm that the token asks for.
        algorithm: TokenAlgorithm,
        /// The key that it asks for.
        kid: Option<&'a str>,
    },
    /// A key that fits.
    Key(&'a VerificationKey),
    /// There is none, for this key id; the token names the issuer that has none.
    NoKey(&'a Issuer, &'a str),
    /// The signature is that key's.
    Signature,
    /// `iss` and `aud` are right, and these are well-formed.
    Times(&'a Times),
    /// The token is good by its times; whether it is revoked nevertheless, and by what it is known.
    Revocation(&'a Issuer, Option<Kind>),
}

/// The token of a request. `first`: it has not waited for its issuer's keys yet.
pub(super) fn check(
    tokens: &Tokens,
    headers: &HeaderMap,
    now: Now,
    known: &mut KnownTokens,
    first: bool,
) -> Result<Checked, Refusal> {
    let Now { unix: now, monotonic } = now;
    let mut age = None;
    let mut lacking = None;
    let outcome = presented(headers).and_then(|Presented { token, .. }| {
        if let Some(asked) = opaque::issuer(tokens.issuers(), token) {
            let good = opaque::check(asked, token, first, (now, monotonic), &mut lacking)?;
            age = good.age;
            return Ok(good);
        }
        let digest = Digest::of(token).filter(|_| known.remembers());
        if let Some(digest) = &digest
            && let Some((issuer, claims, clean)) = known.find(digest, tokens.issuers())
        {
            let generation = issuer.revoked().generation();
            let mut judged = claims.times.judge(issuer, now);
            if judged.is_ok() && clean != generation {
                match issuer.revocation(&claims.marks, now) {
                    None => known.clear(digest, generation),
                    Some(_) => judged = Err(Denial::TokenRevoked),
                }
            }
            if let Err(denial) = judged {
                known.forget(digest);
                return Err(denial);
            }
            return Ok(Checked { claims, leeway: issuer.leeway, age: None });
        }
        let mut follow = |step: Step<'_>| match step {
            Step::Times(Times { issued: Some(issued), .. }) => {
                age = Some(now.cast_signed().saturating_sub(issued.cast_signed()));
            }
            Step::NoKey(issuer, kid) if first => lacking = Some(issuer.keyring().missing(kid, monotonic)),
            Step::NoKey(issuer, kid) => lacking = Some(issuer.keyring().still_missing(kid, monotonic)),
            Step::Form { .. }
            | Step::Issuer(_)
            | Step::Header { .. }
            | Step::Key(_)
            | Step::Signature
            | Step::Times(_)
            | Step::Revocation(..) => {}
        };
        let Verified { issuer, claims, footing, generation } =
            verify(tokens.issuers(), token, now, &mut follow)?;
        let claims = Arc::new(claims);
        if let Some(digest) = digest {
            let clean = Cell::new(generation);
            known.learn(digest, Known { footing, claims: Arc::clone(&claims), clean });
        }
        Ok(Checked { claims, leeway: issuer.leeway, age })
    });
    outcome.map_err(|denial| {
        match lacking {
            // Whoever cannot be asked has said nothing against the token.
            Some(Missing::Unavailable) => {
                return Refusal { retry_after: Some(RETRY), ..Refusal::plain(Denial::IssuerUnavailable) };
            }
            Some(Missing::Pending(pending)) => {
                let pending = Some(Box::new(pending));
                return Refusal {
                    retry_after: Some(RETRY),
                    pending,
                    ..Refusal::plain(Denial::IssuerUnavailable)
                };
            }
            Some(Missing::Unknown) | None => {}
        }
        // RFC 6750 section 3.1: whoever sent nothing gets no error code.
        let missing = denial == Denial::TokenMissing;
        let challenge = tokens.first().map(|issuer| match missing {
            true => issuer.missing_challenge.clone(),
            false => issuer.invalid_challenge.clone(),
        });
        // A client whose clock is wrong can see by how much.
        let by_clock = matches!(denial, Denial::TokenExpired | Denial::TokenNotYetValid);
        let server_time = by_clock.then_some(now);
        Refusal { challenge, server_time, token_age: age, ..Refusal::plain(denial) }
    })
}

/// How a token is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// By whoever has it (RFC 6750).
    Bearer,
    /// With a proof (RFC 9449 section 7.1).
    Dpop,
}

/// A token as it is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Presented<'h> {
    pub scheme: Scheme,
    pub token: &'h [u8],
}

/// The one token of a request (RFC 6750 section 2.1; the other two places of section 2 are never looked at).
pub(super) fn presented(headers: &HeaderMap) -> Result<Presented<'_>, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::TokenMissing)?.as_bytes();
    if values.next().is_some() {
        // Which of two would the upstream believe?
        return Err(Denial::TokenMalformed);
    }
    let of = |scheme: Scheme, name: &[u8]| {
        let (said, token) = value.split_at_checked(name.len())?;
        said.eq_ignore_ascii_case(name).then(|| Presented { scheme, token: token.trim_ascii_start() })
    };
    of(Scheme::Bearer, b"bearer ").or_else(|| of(Scheme::Dpop, b"dpop ")).ok_or(Denial::TokenMissing)
}

/// A token that is good.
#[derive(Debug)]
pub struct Verified<'i> {
    /// Whose it is.
    pub issuer: &'i Issuer,
    /// What it says.
    pub claims: Claims,
    /// How long that is to be believed.
    pub footing: Footing,
    /// The generation of revocations by which it is not revoked.
    pub generation: u64,
}

/// Verifies a token at `now` (seconds since 1970).
pub fn verify<'i>(
    issuers: &'i [Arc<Issuer>],
    token: &[u8],
    now: u64,
    follow: &mut dyn FnMut(Step<'_>),
) -> Result<Verified<'i>, Denial> {
    let compact = Compact::split(token)?;
    follow(Step::Form { bytes: token.len() });
    let issuer = match issuers {
        // Who else: what it says of itself is judged with its other claims.
        [only] => only,
        several => named(several, &compact.claims)?,
    };
    follow(Step::Issuer(issuer));
    let header = header::read(&compact.header, issuer)?;
    follow(Step::Header { algorithm: header.algorithm, kid: header.kid.as_deref() });
    let keys = issuer.keyring().set();
    let Some(key) = keys.key(header.kid.as_deref(), header.algorithm) else {
        // Nobody is asked for the keys of others.
        if named(std::slice::from_ref(issuer), &compact.claims).is_ok() {
            follow(Step::NoKey(issuer, header.kid.as_deref().unwrap_or_default()));
        }
        return Err(Denial::TokenUnknownKey);
    };
    follow(Step::Key(key));
    if !is_signed(&compact, &key.key, key.algorithm) {
        return Err(Denial::TokenBadSignature);
    }
    follow(Step::Signature);
    let mut claims = claims::read(&compact.claims, issuer, |times| follow(Step::Times(times)))?;
    claims.times.judge(issuer, now)?;
    let marker = issuer.revoked().marker();
    if let Some(kid) = &key.kid {
        claims.marks.all.push((Kind::Key, marker.mark(Kind::Key, kid.as_bytes())));
    }
    // Not the signature: of some algorithms there is a second one for the same token.
    claims.marks.all.push((Kind::Token, marker.mark(Kind::Token, compact.signed)));
    let generation = issuer.revoked().generation();
    let revocation = issuer.revocation(&claims.marks, now);
    follow(Step::Revocation(issuer, revocation));
    match revocation {
        None => Ok(Verified { issuer, claims, footing: issuer.footing(&keys), generation }),
        Some(_) => Err(Denial::TokenRevoked),
    }
}

/// Whether a token that was verified says what a route demands.
pub fn meets(
    demands: &Demands,
    method: &Method,
    issuer: &Issuer,
    claims: Claims,
    now: u64,
) -> Result<(), Denial> {
    let token = Checked { claims: Arc::new(claims), leeway: issuer.leeway, age: None };
    super::demands::check(demands, method, &token, now).map_err(|refusal| refusal.denial)
}

/// The one of several issuers that a token names; nothing of it is verified yet.
fn named<'i>(issuers: &'i [Arc<Issuer>], claims: &[u8]) -> Result<&'i Arc<Issuer>, Denial> {
    match strict_json::object(claims).ok_or(Denial::TokenMalformed)?.get("iss") {
        Some(Value::String(iss)) => {
            issuers.iter().find(|issuer| issuer.issuer == *iss).ok_or(Denial::TokenWrongIssuer)
        }
        _ => Err(Denial::TokenClaims),
    }
}

/// The algorithm is the key's, never the token's.
fn is_signed(compact: &Compact<'_>, key: &DecodingKey, algorithm: TokenAlgorithm) -> bool {
    let algorithm = match algorithm {
        TokenAlgorithm::Rs256 => Algorithm::RS256,
        TokenAlgorithm::Es256 => Algorithm::ES256,
        TokenAlgorithm::Ps256 => Algorithm::PS256,
        TokenAlgorithm::EdDsa => Algorithm::EdDSA,
    };
    // An error here is a signature that cannot even be read.
    jsonwebtoken::crypto::verify(compact.signature, compact.signed, key, algorithm).unwrap_or(false)
}
