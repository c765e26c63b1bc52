//! JWE in its compact form (RFC 7516): `ECDH-ES+A256KW` and `ECDH-ES` with `A256GCM`.
//!
//! One way leads through here. The header has exactly the members that its direction has, none twice; compression, `crit`, another
//! algorithm or a part that is empty where it may not be is refused before anything is computed.
//!
//! A header is read by everybody who sees the body, `rpk` included, and anybody can encrypt to a public key. So what shows that an answer
//! comes from whoever could open its request stands inside: what is encrypted begins with [`ECHO`] random bytes, in an answer with those
//! of its request.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey},
    constant_time::verify_slices_are_equal,
    digest::{Context, SHA256},
    key_wrap::{AES_256, AesKek, KeyWrap as _},
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Answered, Head, How, Keys, Opened, Place, Refused, Reply, is_id, is_kind,
    keys::{Jwk, Private, Public},
};
use crate::secret::Secret;

/// Characters of a header, at most.
const MOST_HEADER: usize = 4 << 10;
/// RFC 7518 section 4.4: a key of 32 bytes, wrapped.
const WRAPPED: usize = 40;
/// Bytes before the content: random in a request, the same again in its answer.
pub const ECHO: usize = 32;
/// Characters that a request's id may have.
const ID: std::ops::RangeInclusive<usize> = 16..=64;
const ENC: &str = "A256GCM";

/// How the content's key comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alg {
    /// It is what both agree on (RFC 7518 section 4.6, direct).
    Direct,
    /// It is random, and wrapped by what both agree on.
    Wrapped,
}

impl Alg {
    /// As headers call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "ECDH-ES",
            Self::Wrapped => "ECDH-ES+A256KW",
        }
    }

    /// What the agreed key is for (RFC 7518 section 4.6.2, AlgorithmID).
    const fn purpose(self) -> &'static str {
        match self {
            Self::Direct => ENC,
            Self::Wrapped => self.name(),
        }
    }
}

/// A header. Which members there have to be depends on the direction.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    alg: String,
    enc: String,
    epk: Jwk,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rpk: Option<Jwk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cty: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

impl Header {
    fn new(alg: Alg, place: Place<'_>, key: &str, id: &str) -> impl FnOnce(Jwk) -> Self {
        let (method, path) = (Some(place.method.to_owned()), Some(place.path.to_owned()));
        let (kid, jti) = (Some(key.to_owned()), Some(id.to_owned()));
        let (alg, enc) = (alg.name().to_owned(), ENC.to_owned());
        move |epk| Self {
            alg,
            enc,
            epk,
            kid,
            method,
            path,
            iat: None,
            jti,
            rpk: None,
            cty: None,
            status: None,
        }
    }

    /// What the body is; empty where it is not said.
    fn kind(&mut self) -> Result<String, Refused> {
        match self.cty.take() {
            None => Ok(String::new()),
            Some(kind) if !kind.is_empty() && is_kind(&kind) => Ok(kind),
            Some(_) => Err(Refused),
        }
    }

    fn is_of(&self, place: Place<'_>, key: &str) -> bool {
        self.method.as_deref() == Some(place.method)
            && self.path.as_deref() == Some(place.path)
            && self.kid.as_deref() == Some(key)
    }
}

/// What stands in the five parts.
pub(super) struct Parts<'a> {
    /// As it stands, for it is authenticated so.
    text: &'a str,
    pub(super) header: Header,
    alg: Alg,
    epk: Public,
    wrapped: Vec<u8>,
    iv: Vec<u8>,
    /// Ciphertext and tag.
    sealed: Vec<u8>,
}

/// Reads the five parts of a body whose content has at most `most` bytes.
pub(super) fn parse(body: &[u8], most: usize) -> Result<Parts<'_>, Refused> {
    let room = base64::encoded_len(most, false).ok_or(Refused)?;
    // The key, the IV and the tag have 92 characters at most, with the dots.
    if body.len() > room.saturating_add(MOST_HEADER + 128) {
        return Err(Refused);
    }
    let mut parts = std::str::from_utf8(body).map_err(|_| Refused)?.split('.');
    let mut part = || parts.next().ok_or(Refused);
    let (text, wrapped, iv, ciphertext, tag) = (part()?, part()?, part()?, part()?, part()?);
    if parts.next().is_some() || text.len() > MOST_HEADER {
        return Err(Refused);
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused);
    let header = header(&decode(text)?)?;
    let alg = [Alg::Direct, Alg::Wrapped].into_iter().find(|alg| alg.name() == header.alg).ok_or(Refused)?;
    let epk = Public::from_jwk(&header.epk)?;
    let (wrapped, iv, mut sealed, tag) = (decode(wrapped)?, decode(iv)?, decode(ciphertext)?, decode(tag)?);
    let wrapped_length = if alg == Alg::Wrapped { WRAPPED } else { 0 };
    let lengths = wrapped.len() == wrapped_length && iv.len() == NONCE_LEN && tag.len() == MAX_TAG_LEN;
    if header.enc != ENC || !lengths || sealed.len() > most {
        return Err(Refused);
    }
    sealed.extend(tag);
    Ok(Parts { text, header, alg, epk, wrapped, iv, sealed })
}

/// What serde derives refuses members that are there twice or are not known, but takes a list for an object, and null for nothing.
fn header(bytes: &[u8]) -> Result<Header, Refused> {
    let header = serde_json::from_slice(bytes).map_err(|_| Refused)?;
    let value: Value = serde_json::from_slice(bytes).map_err(|_| Refused)?;
    let objects = [Some(&value), value.get("epk"), value.get("rpk")];
    let is_plain =
        |value: &Value| value.as_object().is_some_and(|members| !members.values().any(Value::is_null));
    if objects.into_iter().flatten().all(is_plain) { Ok(header) } else { Err(Refused) }
}

/// Decrypts what was read.
pub(super) fn decrypt(parts: Parts<'_>, key: &Private) -> Result<(Header, Vec<u8>), Refused> {
    let Parts { text, header, alg, epk, wrapped, iv, mut sealed } = parts;
    let agreed = key.agree(&epk)?;
    let derived = Secret::new(concat_kdf(agreed.expose(), alg.purpose(), b"", b"", 256));
    let content = match alg {
        Alg::Direct => derived,
        Alg::Wrapped => {
            let mut content = [0; 32];
            let kek = AesKek::new(&AES_256, derived.expose()).map_err(|_| Refused)?;
            let length = kek.unwrap(&wrapped, &mut content).map_err(|_| Refused)?.len();
            if length != content.len() {
                return Err(Refused);
            }
            Secret::new(content)
        }
    };
    let iv = Nonce::try_assume_unique_for_key(&iv).map_err(|_| Refused)?;
    let length =
        gcm(&content)?.open_in_place(iv, Aad::from(text.as_bytes()), &mut sealed).map_err(|_| Refused)?.len();
    sealed.truncate(length);
    Ok((header, sealed))
}

/// Encrypts to a public key; the header is made with the key that is new for it.
fn encrypt(
    alg: Alg,
    to: &Public,
    header: impl FnOnce(Jwk) -> Header,
    plain: Vec<u8>,
) -> Result<Vec<u8>, Refused> {
    let own = Private::generate(to.curve())?;
    let header = serde_json::to_vec(&header(own.public().to_jwk())).map_err(|_| Refused)?;
    if base64::encoded_len(header.len(), false).is_none_or(|length| length > MOST_HEADER) {
        return Err(Refused);
    }
    encrypt_from(alg, &own, to, &header, plain)
}

/// Encrypts under any header, in which `$EPK` stands for the key that is new for it: what apps that do not behave could send. For tests and
/// fuzzing.
pub fn seal_as(alg: Alg, to: &Public, header: &str, plain: &[u8]) -> Result<Vec<u8>, Refused> {
    let own = Private::generate(to.curve())?;
    let epk = serde_json::to_string(&own.public().to_jwk()).map_err(|_| Refused)?;
    encrypt_from(alg, &own, to, header.replace("$EPK", &epk).as_bytes(), plain.to_vec())
}

/// The same from a key that is used for nothing else, with the header's JSON.
pub(super) fn encrypt_from(
    alg: Alg,
    own: &Private,
    to: &Public,
    header: &[u8],
    mut plain: Vec<u8>,
) -> Result<Vec<u8>, Refused> {
    let mut text = URL_SAFE_NO_PAD.encode(header);
    let agreed = own.agree(to)?;
    let derived = Secret::new(concat_kdf(agreed.expose(), alg.purpose(), b"", b"", 256));
    let mut wrapped = [0; WRAPPED];
    let (content, wrapped) = match alg {
        Alg::Direct => (derived, &wrapped[..0]),
        Alg::Wrapped => {
            let mut content = [0; 32];
            rand::fill(&mut content).map_err(|_| Refused)?;
            let kek = AesKek::new(&AES_256, derived.expose()).map_err(|_| Refused)?;
            let wrapped = kek.wrap(&content, &mut wrapped).map_err(|_| Refused)?;
            (Secret::new(content), &*wrapped)
        }
    };
    // A key is used once, so that any IV is new; libraries expect a random one.
    let mut iv = [0; NONCE_LEN];
    rand::fill(&mut iv).map_err(|_| Refused)?;
    let tag = gcm(&content)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(text.as_bytes()), &mut plain)
        .map_err(|_| Refused)?;
    for part in [wrapped, &iv, &plain, tag.as_ref()] {
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(part, &mut text);
    }
    Ok(text.into_bytes())
}

fn gcm(key: &Secret<[u8; 32]>) -> Result<LessSafeKey, Refused> {
    UnboundKey::new(&AES_256_GCM, key.expose()).map(LessSafeKey::new).map_err(|_| Refused)
}

/// RFC 7518 section 4.6.2 for a key of at most 256 bits: one round of the Concat KDF (NIST SP 800-56A section 5.8.1), of which a shorter
/// key takes the front.
pub(super) fn concat_kdf(agreed: &[u8], purpose: &str, apu: &[u8], apv: &[u8], bits: u32) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&1_u32.to_be_bytes());
    context.update(agreed);
    for part in [purpose.as_bytes(), apu, apv] {
        // All of them are short here.
        context.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        context.update(part);
    }
    context.update(&bits.to_be_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// Opens the body of a request, whose content has at most `most` bytes. Its header says `alg`, `enc`, `epk`, `kid`, `method`, `path`,
/// `iat` (seconds since 1970), `jti` (16 to 64 characters) and `rpk` (the key that the answer is sealed to); it may say `cty` (what the body is, like
/// "application/json", in full), and nothing else. [`ECHO`] bytes stand before the content.
pub fn open(body: &[u8], keys: &Keys, place: Place<'_>, most: usize) -> Result<Opened, Refused> {
    let parts = parse(body, most.saturating_add(ECHO))?;
    let kid = parts.header.kid.clone().ok_or(Refused)?;
    let key = keys.find(&kid)?;
    let alg = parts.alg;
    let (mut header, plain) = decrypt(parts, key)?;
    let (echo, body) = split(plain)?;
    let is_of = header.is_of(place, &kid) && header.status.is_none();
    let kind = header.kind()?;
    let (Some(made), Some(id), Some(rpk), true) = (header.iat, header.jti, header.rpk, is_of) else {
        return Err(Refused);
    };
    if !ID.contains(&id.len()) {
        return Err(Refused);
    }
    let once = id.clone().into_bytes();
    let how = How::Jwe { alg, to: Public::from_jwk(&rpk)?, id, echo: Secret::new(echo) };
    Ok(Opened { body, kind, made, once, reply: Reply::new(how, place, &kid), key: kid })
}

/// What an app sends.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// How the key comes about; the answer is made in the same way.
    pub alg: Alg,
    /// The server's key.
    pub to: &'a Public,
    /// Its id.
    pub key: &'a str,
    /// Seconds since 1970.
    pub made: u64,
    /// Never the same twice: 16 to 64 characters.
    pub id: &'a str,
    /// The app's key, for the answer.
    pub answer_to: &'a Public,
    /// What the body is; empty: not said.
    pub kind: &'a str,
    /// Random, never the same twice and known to nobody else: by it the answer is believed.
    pub echo: [u8; ECHO],
}

/// What the content begins with, and the rest.
fn split(mut plain: Vec<u8>) -> Result<([u8; ECHO], Vec<u8>), Refused> {
    let echo = *plain.first_chunk::<ECHO>().ok_or(Refused)?;
    plain.drain(..ECHO);
    Ok((echo, plain))
}

/// `cty` of a kind.
fn said(kind: &str) -> Option<String> {
    Some(kind).filter(|kind| !kind.is_empty()).map(str::to_owned)
}

/// Id of the key that a body says to be sealed to, for logs alone.
pub fn key_of(body: &[u8]) -> Result<String, Refused> {
    // The header alone: what comes behind it may be long, and was read once.
    let text = body.split(|byte| *byte == b'.').next().filter(|text| text.len() <= MOST_HEADER);
    let bytes = URL_SAFE_NO_PAD.decode(text.ok_or(Refused)?).map_err(|_| Refused)?;
    header(&bytes)?.kid.ok_or(Refused)
}

impl Request<'_> {
    /// Seals a body, as apps do.
    pub fn seal(&self, place: Place<'_>, body: &[u8]) -> Result<Vec<u8>, Refused> {
        if !ID.contains(&self.id.len()) || !is_id(self.key) || !is_kind(self.kind) {
            return Err(Refused);
        }
        let head = Header::new(self.alg, place, self.key, self.id);
        let head = |epk| Header {
            iat: Some(self.made),
            rpk: Some(self.answer_to.to_jwk()),
            cty: said(self.kind),
            ..head(epk)
        };
        encrypt(self.alg, self.to, head, [&self.echo, body].concat())
    }
}

pub(super) fn answer(
    alg: Alg,
    to: &Public,
    place: Place<'_>,
    (key, id, echo): (&str, &str, &[u8; ECHO]),
    head: Head<'_>,
    body: &[u8],
) -> Result<Vec<u8>, Refused> {
    let header = Header::new(alg, place, key, id);
    let header = |epk| Header { status: Some(head.status), cty: said(head.kind), ..header(epk) };
    encrypt(alg, to, header, [echo, body].concat())
}

/// Opens an answer, as apps do. Its header says `alg`, `enc`, `epk`, and `kid`, `method`, `path` and `jti` of the request, its `status`,
/// and may say `cty`. Its content begins with `echo`, that of the request, or somebody made it who could not open that.
pub fn open_answer(
    body: &[u8],
    own: &Private,
    place: Place<'_>,
    (key, id, echo): (&str, &str, &[u8; ECHO]),
    most: usize,
) -> Result<Answered, Refused> {
    let (mut header, plain) = decrypt(parse(body, most.saturating_add(ECHO))?, own)?;
    let (echoed, body) = split(plain)?;
    verify_slices_are_equal(&echoed, echo).map_err(|_| Refused)?;
    let is_answer = header.iat.is_none() && header.rpk.is_none() && header.jti.as_deref() == Some(id);
    let kind = header.kind()?;
    match header.status.filter(|_| is_answer && header.is_of(place, key)) {
        Some(status) => Ok(Answered { status, kind, body }),
        None => Err(Refused),
    }
}
