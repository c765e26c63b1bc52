//! The JOSE header (RFC 7515 section 4): which key and algorithm a token asks for, and what it must not ask for.

use serde_json::Value;

use crate::{
    config::{TokenAlgorithm, TokenType},
    denial::Denial,
    policy::issuer::Issuer,
    strict_json,
};

/// Bytes of a key id, at most; thumbprints have 43.
const MAX_KID: usize = 256;

/// Members that are refused wherever they appear, whatever they say:
/// - `jwk`, `jku`, `x5u`, `x5c`: the token brings its own key, or says where to fetch one (RFC 8725 section 3.10);
/// - `crit`: extensions that must be understood; none is (RFC 7515 section 4.1.11);
/// - `b64`: an unencoded payload (RFC 7797), which changes what is signed;
/// - `zip`, `enc`, `epk`: encryption and compression (RFC 7516), which have no place in a signed token.
///
/// `x5t` and `x5t#S256` are only names of a key; large issuers send them, and they are ignored.
const REFUSED: [&str; 9] = ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "epk"];

/// Types of access tokens: RFC 7519 section 5.1 and RFC 9068 section 2.1. A token that says that it is something else, like a
/// proof of possession or a logout token, may be good for that, but opens nothing (RFC 8725 section 3.11).
const TYPES: [&str; 3] = ["at+jwt", "application/at+jwt", "JWT"];

/// What is used of a header.
#[derive(Debug)]
pub(super) struct Header {
    pub algorithm: TokenAlgorithm,
    pub kid: Option<String>,
}

/// Reads a decoded header of a token of `issuer`.
pub(super) fn read(bytes: &[u8], issuer: &Issuer) -> Result<Header, Denial> {
    let mut members = strict_json::object(bytes).ok_or(Denial::TokenMalformed)?;
    let Some(Value::String(name)) = members.get("alg") else { return Err(Denial::TokenMalformed) };
    let algorithm = TokenAlgorithm::of_name(name).ok_or(Denial::TokenAlgorithm)?;
    if !issuer.algorithms.contains(&algorithm) {
        return Err(Denial::TokenAlgorithm);
    }
    if REFUSED.iter().any(|name| members.contains_key(*name)) {
        return Err(Denial::TokenHeader);
    }
    let types = match issuer.kind {
        TokenType::Any => &TYPES[..],
        TokenType::AccessToken => &TYPES[..2],
    };
    match members.get("typ") {
        None if issuer.kind == TokenType::Any => {}
        None => return Err(Denial::TokenHeader),
        Some(Value::String(typ)) if types.iter().any(|known| typ.eq_ignore_ascii_case(known)) => {}
        Some(Value::String(_)) => return Err(Denial::TokenHeader),
        Some(_) => return Err(Denial::TokenMalformed),
    }
    let kid = match members.remove("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= MAX_KID => Some(kid),
        Some(_) => return Err(Denial::TokenMalformed),
    };
    Ok(Header { algorithm, kid })
}
