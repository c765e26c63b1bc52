//! The layout that apps already use: `base64(iv || ciphertext || tag)`, AES-256-GCM, under keys that app and server agree on when the
//! app's session begins.
//!
//! The app makes a key pair for its session and tells its public key with each request; nothing is kept here, and no key is ever
//! sent. Each direction has a key of its own:
//!
//! ```text
//! key = HKDF-SHA256(salt = app's public key || server's public key, secret = ECDH, info), 32 bytes
//! info  lines: "enforcer payload 1", "request" or "answer", id of the server's key
//! aad   lines: method, path, id of the server's key, then in a request its time (decimal seconds since 1970) and its kind, in an answer
//!       the request's IV (base64), the answer's status (decimal) and its kind
//! kind  what the body is, as `Content-Type` has it; an empty line where there is none
//! ```
//!
//! IVs are random, 12 bytes; a session has to end before 2^32 bodies (NIST SP 800-38D section 8.3).

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Head, How, Keys, Opened, Place, Refused, Reply, is_kind,
    keys::{Private, Public},
    lines,
};

pub const NAME: &str = "enforcer payload 1";

/// The key of one direction of a session.
pub struct SessionKey(LessSafeKey);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(secret)")
    }
}

/// Both keys of a session.
#[derive(Debug)]
pub struct Session {
    /// From the app.
    pub request: SessionKey,
    /// To the app.
    pub answer: SessionKey,
}

impl Session {
    /// As the server has it.
    pub fn of_server(own: &Private, app: &Public, key: &str) -> Result<Self, Refused> {
        Self::new(own, app, (app, own.public()), key)
    }

    /// As the app has it; `key` is the id of the server's key.
    pub fn of_app(own: &Private, server: &Public, key: &str) -> Result<Self, Refused> {
        Self::new(own, server, (own.public(), server), key)
    }

    fn new(
        own: &Private,
        other: &Public,
        (app, server): (&Public, &Public),
        key: &str,
    ) -> Result<Self, Refused> {
        let agreed = own.agree(other)?;
        let salt = [app.bytes(), server.bytes()].concat();
        let secret = Salt::new(HKDF_SHA256, &salt).extract(agreed.expose());
        let derive = |direction: &str| {
            let info = lines(&[NAME, direction, key])?;
            let info = [info.as_slice()];
            let derived = secret.expand(&info, &AES_256_GCM).map_err(|_| Refused)?;
            Ok(SessionKey(LessSafeKey::new(UnboundKey::from(derived))))
        };
        Ok(Self { request: derive("request")?, answer: derive("answer")? })
    }
}

fn seal(key: &SessionKey, iv: [u8; NONCE_LEN], aad: &[u8], body: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut sealed = [&iv, body].concat();
    let plain = sealed.get_mut(NONCE_LEN..).ok_or(Refused)?;
    let iv = Nonce::assume_unique_for_key(iv);
    let tag = key.0.seal_in_place_separate_tag(iv, Aad::from(aad), plain).map_err(|_| Refused)?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(STANDARD.encode(sealed).into_bytes())
}

/// The IV, and what it and `aad` belong to.
fn unseal(
    key: &SessionKey,
    aad: &[u8],
    body: &[u8],
    most: usize,
) -> Result<([u8; NONCE_LEN], Vec<u8>), Refused> {
    let room = base64::encoded_len(most.saturating_add(NONCE_LEN + MAX_TAG_LEN), true).ok_or(Refused)?;
    if body.len() > room {
        return Err(Refused);
    }
    let mut sealed = STANDARD.decode(body).map_err(|_| Refused)?;
    let iv = *sealed.first_chunk::<NONCE_LEN>().ok_or(Refused)?;
    sealed.drain(..NONCE_LEN);
    let nonce = Nonce::assume_unique_for_key(iv);
    let length = key.0.open_in_place(nonce, Aad::from(aad), &mut sealed).map_err(|_| Refused)?.len();
    sealed.truncate(length);
    // Base64 comes in groups of three bytes.
    if sealed.len() > most { Err(Refused) } else { Ok((iv, sealed)) }
}

/// What comes with the body of a request.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// Id of the server's key.
    pub key: &'a str,
    /// The app's public key, of the same curve: its bytes.
    pub app: &'a [u8],
    /// Seconds since 1970.
    pub made: u64,
    /// What the body is; empty: not said.
    pub kind: &'a str,
}

/// Opens the body of a request, whose content has at most `most` bytes.
pub fn open(
    body: &[u8],
    beside: Beside<'_>,
    keys: &Keys,
    place: Place<'_>,
    most: usize,
) -> Result<Opened, Refused> {
    let own = keys.find(beside.key)?;
    let app = Public::new(own.public().curve(), beside.app)?;
    let Session { request, answer } = Session::of_server(own, &app, beside.key)?;
    if !is_kind(beside.kind) {
        return Err(Refused);
    }
    let aad = lines(&[place.method, place.path, beside.key, &beside.made.to_string(), beside.kind])?;
    let (iv, body) = unseal(&request, &aad, body, most)?;
    let reply = Reply::new(How::Layout { secret: answer, iv }, place, beside.key);
    let once = [app.bytes(), &iv].concat();
    let (kind, key) = (beside.kind.to_owned(), beside.key.to_owned());
    Ok(Opened { body, kind, made: beside.made, once, key, reply })
}

/// Seals the body of a request, as apps do. Tells its IV, which the answer is bound to.
pub fn request(
    session: &Session,
    place: Place<'_>,
    (key, made, kind): (&str, u64, &str),
    body: &[u8],
) -> Result<(Vec<u8>, [u8; NONCE_LEN]), Refused> {
    let iv = new_iv()?;
    let aad = lines(&[place.method, place.path, key, &made.to_string(), kind])?;
    Ok((seal(&session.request, iv, &aad, body)?, iv))
}

pub(super) fn answer(
    secret: &SessionKey,
    place: Place<'_>,
    (key, iv): (&str, &[u8; NONCE_LEN]),
    head: Head<'_>,
    body: &[u8],
) -> Result<Vec<u8>, Refused> {
    seal(secret, new_iv()?, &of_answer(place, key, iv, head)?, body)
}

fn of_answer(place: Place<'_>, key: &str, iv: &[u8; NONCE_LEN], head: Head<'_>) -> Result<Vec<u8>, Refused> {
    lines(&[place.method, place.path, key, &STANDARD.encode(iv), &head.status.to_string(), head.kind])
}

/// Opens an answer, as apps do; `iv` is that of the request, `head` that of the answer.
pub fn open_answer(
    body: &[u8],
    session: &Session,
    place: Place<'_>,
    (key, iv): (&str, &[u8; NONCE_LEN]),
    head: Head<'_>,
    most: usize,
) -> Result<Vec<u8>, Refused> {
    let aad = of_answer(place, key, iv, head)?;
    unseal(&session.answer, &aad, body, most).map(|(_, body)| body)
}

fn new_iv() -> Result<[u8; NONCE_LEN], Refused> {
    let mut iv = [0; NONCE_LEN];
    rand::fill(&mut iv).map_err(|_| Refused)?;
    Ok(iv)
}
