//! Who may sign requests: keys by their ids, read from files, and what a signature has to cover.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail};
use aws_lc_rs::{
    hmac,
    signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

use crate::config::{self, SignatureScheme};

/// Bytes of a secret: as strong as what it is used with (RFC 2104 section 3), and no file of something else.
const SECRET: std::ops::RangeInclusive<usize> = 32..=1024;
/// The most bytes of a key's file.
const MOST_BYTES: u64 = 16 << 10;

/// One `[signature.NAME]` with its keys.
#[derive(Debug)]
pub struct Signers {
    /// As below `[signature]`.
    pub name: Box<str>,
    /// As configured.
    pub config: config::Signature,
    /// `WWW-Authenticate` for whoever has not signed, or not well (RFC 9110 section 15.5.2).
    pub challenge: HeaderValue,
    keys: BTreeMap<String, Key>,
}

/// A key, and with it the one algorithm that it is for.
#[derive(Debug)]
pub enum Key {
    /// `hmac-sha256`: a secret.
    Hmac(Box<hmac::Key>),
    /// `ecdsa-p256-sha256`
    P256(Box<ParsedPublicKey>),
    /// `ed25519`
    Ed25519(Box<ParsedPublicKey>),
}

impl Signers {
    /// Reads every key.
    pub fn load(name: &str, config: &config::Signature) -> Result<Self> {
        let mut keys = BTreeMap::new();
        for (id, path) in &config.keys {
            keys.insert(id.clone(), Key::read(path, config.scheme).with_context(|| format!("key {id}"))?);
        }
        // A name has letters, digits, `-` and `_`.
        let challenge = HeaderValue::try_from(format!("Signature realm=\"{name}\""))?;
        Ok(Self { name: name.into(), config: config.clone(), challenge, keys })
    }

    /// The key of this id.
    pub fn key(&self, id: &str) -> Option<&Key> {
        self.keys.get(id)
    }
}

impl Key {
    /// A file with a secret in base64, or with a public key in PEM form. No error shows what it holds.
    pub fn read(path: &Path, scheme: SignatureScheme) -> Result<Self> {
        let read = || -> std::io::Result<Vec<u8>> {
            if std::fs::metadata(path)?.len() > MOST_BYTES {
                return Err(std::io::Error::other("it is too long to hold one key"));
            }
            std::fs::read(path)
        };
        let bytes = read().with_context(|| format!("cannot read the key {}", path.display()))?;
        Self::parse(&bytes, scheme).with_context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8], scheme: SignatureScheme) -> Result<Self> {
        let text = bytes.trim_ascii();
        if !text.starts_with(b"-----BEGIN") {
            let secret = STANDARD.decode(text).ok().filter(|secret| SECRET.contains(&secret.len()));
            let Some(secret) = secret else {
                bail!("neither the base64 of {} to {} bytes nor PEM", SECRET.start(), SECRET.end());
            };
            return Ok(Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &secret))));
        }
        if scheme == SignatureScheme::Hmac {
            bail!("holds a key in PEM form, and this scheme needs a secret");
        }
        let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(text) else {
            bail!("holds no public key (`openssl pkey -pubout` makes one of a private key)");
        };
        if let Ok(key) = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.as_ref()) {
            return Ok(Self::P256(Box::new(key)));
        }
        match ParsedPublicKey::new(&ED25519, key.as_ref()) {
            Ok(key) => Ok(Self::Ed25519(Box::new(key))),
            Err(_) => bail!("holds a public key that is neither P-256 nor Ed25519"),
        }
    }

    /// Its algorithm's name (RFC 9421 section 6.2.2).
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "hmac-sha256",
            Self::P256(_) => "ecdsa-p256-sha256",
            Self::Ed25519(_) => "ed25519",
        }
    }

    /// Whether `signature` is this key's over `message`. A MAC is compared in constant time, and whole.
    pub fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Self::P256(key) | Self::Ed25519(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}
