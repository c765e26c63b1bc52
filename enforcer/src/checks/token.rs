//! Whether a request carries a good access token of one issuer.
//!
//! A strict reader in front of jsonwebtoken, which alone accepts unknown `crit`, `b64: false`, missing or mistyped `iss`
//! and `aud`, `iat` in the future and any lifetime. Order: form, header, key, signature, claims; no claim is believed before
//! its signature was verified. RFC 8725 is the frame.

mod claims;
mod compact;
mod header;

use http::{HeaderMap, header::AUTHORIZATION};
use jsonwebtoken::Algorithm;

use super::Refusal;
use crate::{
    config::TokenAlgorithm,
    denial::Denial,
    policy::{issuer::Issuer, jwks::VerificationKey},
};
pub use claims::Claims;
use compact::Compact;

/// The claims of the request's token.
pub(super) fn check(issuer: &Issuer, headers: &HeaderMap, now: u64) -> Result<Claims, Refusal> {
    let outcome = bearer(headers).and_then(|token| verify(issuer, token, now));
    outcome.map_err(|denial| {
        // RFC 6750 section 3.1: whoever sent nothing gets no error code.
        let missing = denial == Denial::TokenMissing;
        let challenge = if missing { &issuer.missing_challenge } else { &issuer.invalid_challenge };
        Refusal { challenge: Some(challenge.clone()), ..Refusal::plain(denial) }
    })
}

/// The one bearer token of a request (RFC 6750 section 2.1; the other two places of section 2 are never looked at).
fn bearer(headers: &HeaderMap) -> Result<&[u8], Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::TokenMissing)?.as_bytes();
    if values.next().is_some() {
        // Which of two would the upstream believe?
        return Err(Denial::TokenMalformed);
    }
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(token.trim_ascii_start()),
        _ => Err(Denial::TokenMissing),
    }
}

/// Verifies a token at `now` (seconds since 1970).
pub fn verify(issuer: &Issuer, token: &[u8], now: u64) -> Result<Claims, Denial> {
    let compact = Compact::split(token)?;
    let header = header::read(&compact.header, &issuer.algorithms)?;
    let key = issuer.key(header.kid.as_deref(), header.algorithm).ok_or(Denial::TokenUnknownKey)?;
    if !is_signed(&compact, key) {
        return Err(Denial::TokenBadSignature);
    }
    claims::read(&compact.claims, issuer, now)
}

/// The algorithm is the key's, never the token's.
fn is_signed(compact: &Compact<'_>, key: &VerificationKey) -> bool {
    let algorithm = match key.algorithm {
        TokenAlgorithm::Rs256 => Algorithm::RS256,
        TokenAlgorithm::Es256 => Algorithm::ES256,
    };
    // An error here is a signature that cannot even be read.
    jsonwebtoken::crypto::verify(compact.signature, compact.signed, &key.key, algorithm).unwrap_or(false)
}
