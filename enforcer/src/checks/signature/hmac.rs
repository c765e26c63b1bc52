//! HMAC-SHA-256 over a canonical string, for clients that sign their requests without a library for RFC 9421.
//!
//! Six lines with a line feed between them, and none at the end: method, path and query as they are sent (without `?`; empty if
//! there is none), time in seconds since 1970, nonce, SHA-256 of the body in hexadecimal small letters. No value can hold a line
//! feed, so no two requests have one string.

use http::{HeaderMap, HeaderName};

use super::{Claimed, digest::Digests, is_recent};
use crate::{checks::facts::RequestFacts, denial::Denial, policy::signature::Signers};

/// The id of the key.
const KEY: HeaderName = HeaderName::from_static("x-signature-key");
/// Seconds since 1970, in digits.
const TIMESTAMP: HeaderName = HeaderName::from_static("x-signature-timestamp");
/// What makes it another one.
const NONCE: HeaderName = HeaderName::from_static("x-signature-nonce");
/// SHA-256 of the body, hexadecimal; may be left out where there is none.
const DIGEST: HeaderName = HeaderName::from_static("x-signature-digest");
/// The MAC, hexadecimal.
const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");

/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(super) fn verify<'a>(
    signers: &Signers,
    facts: &RequestFacts<'a>,
    now: u64,
) -> Result<Claimed<'a>, Denial> {
    let headers = facts.headers;
    let signature = only(headers, &SIGNATURE)?.ok_or(Denial::SignatureMissing)?;
    let required = |name| only(headers, name)?.ok_or(Denial::SignatureIncomplete);
    let (key, timestamp, nonce) = (required(&KEY)?, required(&TIMESTAMP)?, required(&NONCE)?);
    let digest = only(headers, &DIGEST)?;
    let mac = hex(signature).filter(|mac| mac.len() == 32).ok_or(Denial::SignatureMalformed)?;
    // `parse` alone would take a leading plus sign.
    let digits = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
    let made: u64 = timestamp.parse().ok().filter(|_| digits).ok_or(Denial::SignatureMalformed)?;
    let digests = match digest {
        None => None,
        Some(text) => {
            let good = hex(text).filter(|digest| digest.len() == 32);
            Some(Digests::sha256(good.ok_or(Denial::DigestMalformed)?))
        }
    };
    if !is_recent(signers, made, now) {
        return Err(Denial::SignatureStale);
    }
    let secret = signers.key(key).ok_or(Denial::SignatureUnknownKey)?;
    let canonical = [
        facts.method.as_str(),
        facts.target.path,
        facts.target.query.unwrap_or_default(),
        timestamp,
        nonce,
        digest.unwrap_or(EMPTY),
    ];
    if !secret.is_signed(canonical.join("\n").as_bytes(), &mac) {
        return Err(Denial::SignatureBad);
    }
    Ok(Claimed { key, nonce, made, digests })
}

/// The one value of a field.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Denial> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(value) if values.next().is_none() => Ok(Some(value)),
        _ => Err(Denial::SignatureMalformed),
    }
}

/// Bytes of hexadecimal digits, in small letters: one value has one spelling.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    bytes.collect::<Option<Vec<u8>>>().filter(|_| rest.is_empty())
}
