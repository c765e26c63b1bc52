//! Whether a proof of DPoP shows that the sender of a token has the key that it is bound to (RFC 9449 section 4.3).
//!
//! Pure: whether it was used before, and whether its nonce is one of ours, is for whoever asks. Cheap questions come first; what
//! a proof says of itself is believed only after its signature was verified by the key that the token names.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use serde_json::Value;

use super::{compact::Compact, is_signed};
use crate::{
    checks::origin::{Origin, is_url_of},
    config::TokenAlgorithm,
    denial::Denial,
    policy::{dpop::Dpop, jwks},
    strict_json,
};

/// Bytes of a proof, at most: with an RSA key of 4,096 bits it has some 2,500.
pub const MAX_PROOF: usize = 4 * 1024;
/// Bytes of a `jti`, at most, and of a nonce.
const MAX_ID: usize = 256;
/// The one type of a proof; RFC 7515 section 4.1.9 lets `application/` be left out, and RFC 9449 writes it so.
const TYPE: &str = "dpop+jwt";
/// Members of a header that are refused, as those of a token are: keys from elsewhere, extensions, compression.
const REFUSED: [&str; 9] = ["jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "epk", "kid"];

/// What a proof is held against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// What proofs are judged by.
    pub rules: &'a Dpop,
    /// The request's method.
    pub method: &'a Method,
    /// The origin of its URL; `None` if nobody can tell.
    pub origin: Option<&'a Origin>,
    /// The path of its URL, as it was sent.
    pub path: &'a str,
    /// The thumbprint that the token is bound to; `None`: any key's.
    pub key: Option<&'a str>,
    /// SHA-256 of the token as it was sent; `None`: there is no token yet (RFC 9449 section 5).
    pub token: Option<&'a [u8]>,
    /// Now, seconds since 1970.
    pub now: u64,
}

/// What is left to ask of a good proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The thumbprint of its key.
    pub key: Box<str>,
    /// `jti`: what makes it another one.
    pub id: Box<str>,
    /// `iat`.
    pub issued: u64,
    /// `nonce`.
    pub nonce: Option<Box<str>>,
}

/// What is found on the way.
#[derive(Debug)]
pub enum Step<'a> {
    /// Three parts of base64url.
    Form {
        /// The proof's length.
        bytes: usize,
    },
    /// An acceptable header, with the thumbprint of its key.
    Key {
        /// What it is signed by.
        algorithm: TokenAlgorithm,
        /// The key's thumbprint.
        thumbprint: &'a str,
    },
    /// The signature is that key's.
    Signature,
    /// `htm` and `htu` are the request's.
    Request,
    /// `ath` is the token's.
    Token,
    /// `iat` is recent.
    Time(u64),
}

/// Verifies a proof. What it was used for before is not asked here.
pub fn verify(
    proof: &[u8],
    expected: &Expected<'_>,
    follow: &mut dyn FnMut(Step<'_>),
) -> Result<Proof, Denial> {
    if proof.len() > MAX_PROOF {
        return Err(Denial::DpopMalformed);
    }
    let compact = Compact::split(proof).map_err(|_| Denial::DpopMalformed)?;
    follow(Step::Form { bytes: proof.len() });
    let header = strict_json::object(&compact.header).ok_or(Denial::DpopMalformed)?;
    let said = |name: &str| header.get(name).and_then(Value::as_str);
    if !said("typ").is_some_and(|typ| typ.eq_ignore_ascii_case(TYPE))
        || REFUSED.iter().any(|name| header.contains_key(*name))
    {
        return Err(Denial::DpopMalformed);
    }
    let algorithm = TokenAlgorithm::of_name(said("alg").ok_or(Denial::DpopMalformed)?);
    let algorithm = algorithm.filter(|algorithm| expected.rules.algorithms.contains(algorithm));
    let algorithm = algorithm.ok_or(Denial::DpopAlgorithm)?;
    let jwk = header.get("jwk").ok_or(Denial::DpopMalformed)?;
    let (key, thumbprint) = jwks::of_proof(jwk, algorithm).map_err(|_| Denial::DpopKey)?;
    // Who has another key does not make us verify its signatures.
    if expected.key.is_some_and(|key| key != thumbprint) {
        return Err(Denial::DpopWrongKey);
    }
    follow(Step::Key { algorithm, thumbprint: &thumbprint });
    if !is_signed(&compact, &key.key, algorithm) {
        return Err(Denial::DpopBadSignature);
    }
    follow(Step::Signature);
    claims(&compact.claims, thumbprint, expected, follow)
}

fn claims(
    claims: &[u8],
    key: String,
    expected: &Expected<'_>,
    follow: &mut dyn FnMut(Step<'_>),
) -> Result<Proof, Denial> {
    let claims = strict_json::object(claims).ok_or(Denial::DpopMalformed)?;
    let text = |name: &str| match claims.get(name) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        None => Ok(None),
        Some(_) => Err(Denial::DpopMalformed),
    };
    let required = |name: &str| text(name)?.ok_or(Denial::DpopMalformed);
    let id = required("jti")?;
    let nonce = text("nonce")?;
    if id.is_empty() || id.len() > MAX_ID || nonce.is_some_and(|nonce| nonce.len() > MAX_ID) {
        return Err(Denial::DpopMalformed);
    }
    let issued = claims.get("iat").and_then(Value::as_u64).ok_or(Denial::DpopMalformed)?;
    let (htm, htu) = (required("htm")?, required("htu")?);
    let same = |origin: &Origin| is_url_of(htu, origin, expected.path);
    if htm != expected.method.as_str() || !expected.origin.is_some_and(same) {
        return Err(Denial::DpopWrongRequest);
    }
    follow(Step::Request);
    // Missing is wrong: without it a proof would be good for any token of the key (RFC 9449 section 7.1).
    let ath = text("ath")?;
    if let Some(token) = expected.token {
        if ath != Some(URL_SAFE_NO_PAD.encode(token).as_str()) {
            return Err(Denial::DpopWrongToken);
        }
        follow(Step::Token);
    }
    let oldest = expected.now.saturating_sub(expected.rules.max_age);
    if issued < oldest || issued > expected.now.saturating_add(expected.rules.leeway) {
        return Err(Denial::DpopStale);
    }
    follow(Step::Time(issued));
    Ok(Proof { key: key.into(), id: id.into(), issued, nonce: nonce.map(Box::from) })
}
