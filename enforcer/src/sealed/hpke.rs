//! HPKE in base mode (RFC 9180): DHKEM with P-256 or X25519, HKDF-SHA256, AES-256-GCM, one message a context.
//!
//! ```text
//! request    1 | length of the key's id | id | enc | ciphertext     enc: 65 bytes (P-256) or 32 (X25519)
//! plaintext  seconds since 1970, u64 | 16 random bytes | public key for the answer, as long as enc | body
//! answer     1 | enc | ciphertext                                   plaintext: the body
//! ```
//!
//! What is authenticated besides (aad) are lines: method, path, the key's id; in an answer also the 16 bytes, base64url. Numbers are
//! big-endian.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::crypto::{
    aws_lc_rs::hpke::{DH_KEM_P256_HKDF_SHA256_AES_256, DH_KEM_X25519_HKDF_SHA256_AES_256},
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};

use super::{
    How, Keys, Opened, Place, Refused, Reply, is_id,
    keys::{Curve, Private, Public},
    lines,
};

/// RFC 9180 section 5.1, `info`, of requests.
pub const REQUEST: &[u8] = b"enforcer payload request 1";
/// The same of answers.
pub const ANSWER: &[u8] = b"enforcer payload answer 1";
/// Random bytes that tell a request from others.
pub const ONCE: usize = 16;
const VERSION: u8 = 1;
const TIME: usize = 8;
const TAG: usize = 16;

fn suite(curve: Curve) -> &'static dyn Hpke {
    match curve {
        Curve::P256 => DH_KEM_P256_HKDF_SHA256_AES_256,
        Curve::X25519 => DH_KEM_X25519_HKDF_SHA256_AES_256,
    }
}

/// `enc` and the ciphertext.
fn seal(to: &Public, info: &[u8], aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, Refused> {
    let key = HpkePublicKey(to.bytes().to_vec());
    let (enc, ciphertext) = suite(to.curve()).seal(info, aad, plain, &key).map_err(|_| Refused)?;
    Ok([enc.0, ciphertext].concat())
}

/// Opens `enc` and the ciphertext of at most `most` bytes.
fn unseal(key: &Private, info: &[u8], aad: &[u8], sealed: &[u8], most: usize) -> Result<Vec<u8>, Refused> {
    let curve = key.public().curve();
    let (enc, ciphertext) = sealed.split_at_checked(curve.public_length()).ok_or(Refused)?;
    if ciphertext.len() > most.saturating_add(TAG) {
        return Err(Refused);
    }
    // A point that is none, or one of small order, is refused here and not left to what is behind.
    key.agree(&Public::new(curve, enc)?)?;
    let own = HpkePrivateKey::from(key.raw().to_vec());
    suite(curve).open(&EncapsulatedSecret(enc.to_vec()), info, aad, ciphertext, &own).map_err(|_| Refused)
}

fn versioned(body: &[u8]) -> Result<&[u8], Refused> {
    body.split_first().filter(|(version, _)| **version == VERSION).map(|(_, rest)| rest).ok_or(Refused)
}

/// Opens the body of a request, whose content has at most `most` bytes.
pub fn open(body: &[u8], keys: &Keys, place: Place<'_>, most: usize) -> Result<Opened, Refused> {
    let (length, rest) = versioned(body)?.split_first().ok_or(Refused)?;
    let (id, sealed) = rest.split_at_checked(usize::from(*length)).ok_or(Refused)?;
    let id = std::str::from_utf8(id).map_err(|_| Refused)?;
    let key = keys.find(id)?;
    let curve = key.public().curve();
    let aad = lines(&[place.method, place.path, id])?;
    let around = TIME + ONCE + curve.public_length();
    let mut plain = unseal(key, REQUEST, &aad, sealed, most.saturating_add(around))?;
    let (time, rest) = plain.split_first_chunk::<TIME>().ok_or(Refused)?;
    let (once, rest) = rest.split_first_chunk::<ONCE>().ok_or(Refused)?;
    let (to, _) = rest.split_at_checked(curve.public_length()).ok_or(Refused)?;
    let (made, once, to) = (u64::from_be_bytes(*time), *once, Public::new(curve, to)?);
    plain.drain(..around);
    let reply = Reply::new(How::Hpke { to, once }, place, id);
    Ok(Opened { body: plain, made, once: once.to_vec(), key: id.to_owned(), reply })
}

/// What an app sends.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The server's key.
    pub to: &'a Public,
    /// Its id.
    pub key: &'a str,
    /// Seconds since 1970.
    pub made: u64,
    /// Never the same twice.
    pub once: [u8; ONCE],
    /// The app's key for the answer, of the same curve.
    pub answer_to: &'a Public,
}

impl Request<'_> {
    /// Seals a body, as apps do.
    pub fn seal(&self, place: Place<'_>, body: &[u8]) -> Result<Vec<u8>, Refused> {
        if !is_id(self.key) || self.to.curve() != self.answer_to.curve() {
            return Err(Refused);
        }
        let length = u8::try_from(self.key.len()).map_err(|_| Refused)?;
        let aad = lines(&[place.method, place.path, self.key])?;
        let plain = [&self.made.to_be_bytes()[..], &self.once, self.answer_to.bytes(), body].concat();
        let sealed = seal(self.to, REQUEST, &aad, &plain)?;
        Ok([&[VERSION, length], self.key.as_bytes(), &sealed].concat())
    }
}

pub(super) fn answer(
    to: &Public,
    place: Place<'_>,
    key: &str,
    once: &[u8; ONCE],
    body: &[u8],
) -> Result<Vec<u8>, Refused> {
    let aad = lines(&[place.method, place.path, key, &URL_SAFE_NO_PAD.encode(once)])?;
    let sealed = seal(to, ANSWER, &aad, body)?;
    Ok([&[VERSION], &sealed[..]].concat())
}

/// Opens an answer, as apps do.
pub fn open_answer(
    body: &[u8],
    own: &Private,
    place: Place<'_>,
    (key, once): (&str, &[u8; ONCE]),
    most: usize,
) -> Result<Vec<u8>, Refused> {
    let aad = lines(&[place.method, place.path, key, &URL_SAFE_NO_PAD.encode(once)])?;
    unseal(own, ANSWER, &aad, versioned(body)?, most)
}
