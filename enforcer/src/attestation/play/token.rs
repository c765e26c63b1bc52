//! Tokens of classic requests: a verdict, signed by Google (JWS, ES256) and encrypted for the app's server (JWE, A256KW and A256GCM).
//!
//! One way leads through here. Whatever else JOSE allows (another algorithm, compression, `crit`, a token without one of its layers) is
//! refused before anything is computed, and every failure is the same one to whoever sent it.

use aws_lc_rs::{
    aead::{self, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    key_wrap::{AES_256, AesKek, KeyWrap as _},
    signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    attestation::{self, Refused, Steps},
    denial::Denial,
    secret::Secret,
    strict_json,
};

/// Characters of a token, at most. Genuine ones have some 2,000.
pub const MOST: usize = 16 << 10;
/// Bytes of a header, at most.
const MOST_HEADER: usize = 256;
/// RFC 7518 section 4.4: the content key of 32 bytes, wrapped.
const WRAPPED: usize = 40;
/// RFC 7518 section 5.3.
const TAG: usize = 16;
/// The keys of an app, as the Play Console gives them ("manage and download my response encryption keys").
pub struct Keys {
    decryption: Secret<[u8; 32]>,
    verification: ParsedPublicKey,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(secret)")
    }
}

/// What a file of keys says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    decryption_key: String,
    verification_key: String,
}

impl Keys {
    /// `decryption`: base64 of 32 bytes. `verification`: base64 of the SubjectPublicKeyInfo of a P-256 key. Errors never say what
    /// stands there.
    pub fn new(decryption: &str, verification: &str) -> Result<Self, String> {
        let decryption =
            STANDARD.decode(decryption.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let decryption = decryption.ok_or("the decryption key is not base64 of 32 bytes (AES-256)")?;
        let problem = "the verification key is not base64 of a P-256 public key (SubjectPublicKeyInfo)";
        let verification = STANDARD.decode(verification.trim()).map_err(|_| problem)?;
        let verification = attestation::point(&verification)
            .and_then(|point| ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point[..]).ok());
        Ok(Self { decryption: Secret::new(decryption), verification: verification.ok_or(problem)? })
    }

    /// From a file: TOML with `decryption_key` and `verification_key`.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let File { decryption_key, verification_key } = toml::from_str(text)
            // What toml says shows the line, and with it the key.
            .map_err(|_| "not TOML with `decryption_key` and `verification_key`, both text".to_owned())?;
        Self::new(&decryption_key, &verification_key)
    }
}

/// The verdict in a token, as Google wrote it.
pub fn open(token: &str, keys: &Keys, steps: Steps<'_>) -> Result<Vec<u8>, Refused> {
    if token.len() > MOST {
        return Err(refused(
            "form",
            format!("it has {} characters, and no token has more than {MOST}", token.len()),
        ));
    }
    let [header, wrapped, iv, ciphertext, tag] = parts::<5>(token).ok_or_else(|| {
        refused(
            "form",
            "it is not five parts of base64url without padding, divided by dots (RFC 7516 section 7.1)",
        )
    })?;
    head("form", header, &[("alg", "A256KW"), ("enc", "A256GCM")])?;
    let decode = |name: &str, part: &str, bytes: Option<usize>| {
        let decoded = URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| refused("form", format!("the {name} is not base64url")))?;
        match bytes {
            Some(bytes) if decoded.len() != bytes => {
                Err(refused("form", format!("the {name} has {} bytes, not {bytes}", decoded.len())))
            }
            Some(_) | None => Ok(decoded),
        }
    };
    let wrapped = decode("encrypted key", wrapped, Some(WRAPPED))?;
    let iv = decode("IV", iv, Some(aead::NONCE_LEN))?;
    let mut sealed = decode("ciphertext", ciphertext, None)?;
    sealed.extend(decode("tag", tag, Some(TAG))?);
    steps("form", format!("A256KW and A256GCM, {} bytes", token.len()));

    let content = unwrap(keys, &wrapped)
        .ok_or_else(|| refused("key", "it is encrypted with another key than the app's"))?;
    let plain = decrypt(&content, &iv, header, &mut sealed)
        .ok_or_else(|| refused("decryption", "the ciphertext, the IV, the tag or the header was changed"))?;
    steps("decryption", format!("{} bytes", plain.len()));

    let signed = std::str::from_utf8(plain).ok().and_then(parts::<3>);
    let Some([header, payload, signature]) = signed else {
        return Err(refused(
            "signed form",
            "what is inside is not a signed token of three parts (RFC 7515 section 7.1)",
        ));
    };
    head("signed form", header, &[("alg", "ES256")])?;
    let signature = URL_SAFE_NO_PAD.decode(signature);
    let message = &plain[..header.len() + 1 + payload.len()];
    // The length is checked by the library as well: r and s of 32 bytes each (RFC 7518 section 3.4).
    let good = signature
        .is_ok_and(|bytes| bytes.len() == 64 && keys.verification.verify_sig(message, &bytes).is_ok());
    if !good {
        return Err(refused(
            "signature",
            "it is not Google's for this app: another key, or what is signed was changed",
        ));
    }
    let payload = URL_SAFE_NO_PAD
        .decode(payload)
        .map_err(|_| refused("signed form", "the verdict is not base64url"))?;
    steps("signature", "ES256, by the app's verification key".to_owned());
    Ok(payload)
}

fn refused(step: &'static str, why: impl Into<String>) -> Refused {
    Refused::new(Denial::AttestationMalformed, step, why)
}

/// Exactly so many parts, none of them empty.
fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut parts = text.split('.');
    let mut found = [""; N];
    for part in &mut found {
        *part = parts.next().filter(|part| !part.is_empty())?;
    }
    parts.next().is_none().then_some(found)
}

/// A header with exactly these members. Google sends no others; some others would change what the token is.
fn head(step: &'static str, part: &str, expected: &[(&str, &str)]) -> Result<(), Refused> {
    let bytes = Some(part)
        .filter(|part| part.len() <= MOST_HEADER)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let members = bytes.and_then(|bytes| strict_json::object(&bytes));
    let members =
        members.ok_or_else(|| refused(step, "a header is not a small JSON object whose members differ"))?;
    let is = |members: &Map<String, Value>, name: &str, value: &str| {
        members.get(name).and_then(Value::as_str) == Some(value)
    };
    if members.len() != expected.len() || !expected.iter().all(|(name, value)| is(&members, name, value)) {
        let names: Vec<String> = expected.iter().map(|(name, value)| format!("{name} {value}")).collect();
        return Err(refused(step, format!("a header does not say {} and nothing else", names.join(", "))));
    }
    Ok(())
}

fn unwrap(keys: &Keys, wrapped: &[u8]) -> Option<[u8; 32]> {
    let mut content = [0; 32];
    let kek = AesKek::new(&AES_256, keys.decryption.expose()).ok()?;
    let length = kek.unwrap(wrapped, &mut content).ok()?.len();
    (length == content.len()).then_some(content)
}

fn decrypt<'a>(key: &[u8; 32], iv: &[u8], header: &str, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
    let iv = Nonce::try_assume_unique_for_key(iv).ok()?;
    // RFC 7516 section 5.2: what is authenticated besides is the header as it stands.
    key.open_in_place(iv, Aad::from(header.as_bytes()), sealed).ok().map(|plain| &*plain)
}
