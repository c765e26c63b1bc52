//! HPKE in base mode (RFC 9180): DHKEM with P-256 or X25519, HKDF-SHA256, AES-256-GCM, one message a context.
//!
//! ```text
//! request    1 | length of the key's id | id | enc | ciphertext     enc: 65 bytes (P-256) or 32 (X25519)
//! plaintext  seconds since 1970, u64 | 16 random bytes | public key for the answer, as long as enc | kind | body
//! answer     1 | enc | ciphertext                                   plaintext: status, u16 | kind | body
//! kind       its length, u8 | what the body is, as `Content-Type` has it; length 0: nobody says
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
    Answered, Head, How, Keys, MOST_KIND, Opened, Place, Refused, Reply, is_id, is_kind,
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
const STATUS: usize = 2;
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

/// The kind behind its length, and how many bytes both have.
fn kind(plain: &[u8]) -> Result<(String, usize), Refused> {
    let (length, rest) = plain.split_first().ok_or(Refused)?;
    let length = usize::from(*length);
    let kind = rest.get(..length).and_then(|kind| std::str::from_utf8(kind).ok()).ok_or(Refused)?;
    if is_kind(kind) { Ok((kind.to_owned(), 1 + length)) } else { Err(Refused) }
}

/// The opposite of [`kind`].
fn spell(kind: &str) -> Result<Vec<u8>, Refused> {
    let length = u8::try_from(kind.len()).ok().filter(|_| is_kind(kind)).ok_or(Refused)?;
    Ok([&[length], kind.as_bytes()].concat())
}

/// Id of the key that a body says to be sealed to, for logs alone.
pub fn key_of(body: &[u8]) -> Result<&str, Refused> {
    let (length, rest) = versioned(body)?.split_first().ok_or(Refused)?;
    let id = rest.get(..usize::from(*length)).ok_or(Refused)?;
    std::str::from_utf8(id).map_err(|_| Refused)
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
    let mut plain = unseal(key, REQUEST, &aad, sealed, most.saturating_add(around + 1 + MOST_KIND))?;
    let (time, rest) = plain.split_first_chunk::<TIME>().ok_or(Refused)?;
    let (once, rest) = rest.split_first_chunk::<ONCE>().ok_or(Refused)?;
    let (to, _) = rest.split_at_checked(curve.public_length()).ok_or(Refused)?;
    let (made, once, to) = (u64::from_be_bytes(*time), *once, Public::new(curve, to)?);
    let (kind, length) = kind(plain.get(around..).ok_or(Refused)?)?;
    plain.drain(..around + length);
    if plain.len() > most {
        return Err(Refused);
    }
    let reply = Reply::new(How::Hpke { to, once }, place, id);
    Ok(Opened { body: plain, kind, made, once: once.to_vec(), key: id.to_owned(), reply })
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
    /// What the body is; empty: not said.
    pub kind: &'a str,
}

impl Request<'_> {
    /// Seals a body, as apps do.
    pub fn seal(&self, place: Place<'_>, body: &[u8]) -> Result<Vec<u8>, Refused> {
        if !is_id(self.key) || self.to.curve() != self.answer_to.curve() {
            return Err(Refused);
        }
        let length = u8::try_from(self.key.len()).map_err(|_| Refused)?;
        let aad = lines(&[place.method, place.path, self.key])?;
        let kind = spell(self.kind)?;
        let plain = [&self.made.to_be_bytes()[..], &self.once, self.answer_to.bytes(), &kind, body].concat();
        let sealed = seal(self.to, REQUEST, &aad, &plain)?;
        Ok([&[VERSION, length], self.key.as_bytes(), &sealed].concat())
    }
}

pub(super) fn answer(
    to: &Public,
    place: Place<'_>,
    (key, once): (&str, &[u8; ONCE]),
    head: Head<'_>,
    body: &[u8],
) -> Result<Vec<u8>, Refused> {
    let aad = lines(&[place.method, place.path, key, &URL_SAFE_NO_PAD.encode(once)])?;
    let plain = [&head.status.to_be_bytes()[..], &spell(head.kind)?, body].concat();
    let sealed = seal(to, ANSWER, &aad, &plain)?;
    Ok([&[VERSION], &sealed[..]].concat())
}

/// Opens an answer, as apps do.
pub fn open_answer(
    body: &[u8],
    own: &Private,
    place: Place<'_>,
    (key, once): (&str, &[u8; ONCE]),
    most: usize,
) -> Result<Answered, Refused> {
    let aad = lines(&[place.method, place.path, key, &URL_SAFE_NO_PAD.encode(once)])?;
    let most = most.saturating_add(STATUS + 1 + MOST_KIND);
    let mut plain = unseal(own, ANSWER, &aad, versioned(body)?, most)?;
    let (status, rest) = plain.split_first_chunk::<STATUS>().ok_or(Refused)?;
    let status = u16::from_be_bytes(*status);
    let (kind, length) = kind(rest)?;
    plain.drain(..STATUS + length);
    Ok(Answered { status, kind, body: plain })
}
