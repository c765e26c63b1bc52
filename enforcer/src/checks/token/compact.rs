//! The outer form of a token: JWS compact serialisation (RFC 7515 section 7.1), strictly.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::denial::Denial;

/// Bytes of a token, at most: what common servers take as one header line.
pub(super) const MAX_TOKEN: usize = 8 * 1024;
/// Bytes of a decoded header, at most: `alg`, `kid`, `typ` and an `x5t` fit many times over.
const MAX_HEADER: usize = 1024;

/// A token's three parts.
#[derive(Debug)]
pub(super) struct Compact<'a> {
    /// Decoded.
    pub header: Vec<u8>,
    /// Decoded; not verified.
    pub claims: Vec<u8>,
    /// As it stands, known to be base64url without padding and with canonical last bits: one signature has one spelling.
    pub signature: &'a str,
    /// What the signature covers.
    pub signed: &'a [u8],
}

impl<'a> Compact<'a> {
    /// Splits and decodes. Exactly three parts: five are an encrypted token (RFC 7516), which is not for us.
    pub(super) fn split(token: &'a [u8]) -> Result<Self, Denial> {
        if token.len() > MAX_TOKEN {
            return Err(Denial::TokenMalformed);
        }
        let token = std::str::from_utf8(token).map_err(|_| Denial::TokenMalformed)?;
        let mut parts = token.splitn(4, '.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Denial::TokenMalformed);
        };
        if header.len() > MAX_HEADER.div_ceil(3) * 4 {
            return Err(Denial::TokenMalformed);
        }
        decode(signature)?;
        Ok(Self {
            signed: &token.as_bytes()[..header.len() + 1 + claims.len()],
            header: decode(header)?,
            claims: decode(claims)?,
            signature,
        })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Denial> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Denial::TokenMalformed)
}
