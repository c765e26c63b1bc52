//! The signed document that tells apps of pins: a JWS in compact form (RFC 7515) with ES256 (RFC 7518 section 3.4). Apps that verify it
//! with a key of their own learn of new pins without an update.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::PrivateKeyDer;
use serde::Serialize;

use super::{Pin, Published};

/// `typ` of the header, so that nothing else that the key signs can be taken for a pin document (RFC 8725 section 3.11).
pub const TYPE: &str = "enforcer-pins+jwt";

/// What is told of a set of pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// For these hosts; `*.` stands for one label.
    pub hosts: Vec<String>,
    /// In the order of the configuration.
    pub pins: Vec<Told>,
}

/// What is told of a pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Base64.
    pub sha256: String,
    /// Seconds since 1970.
    pub published: u64,
}

impl From<&Published> for Told {
    fn from(published: &Published) -> Self {
        Self { sha256: published.pin.to_string(), published: published.at }
    }
}

#[derive(Serialize)]
struct Claims<'c> {
    version: u64,
    iat: u64,
    exp: u64,
    sets: &'c [Entry],
}

/// The key that documents are signed with.
#[derive(Debug)]
pub struct Signer {
    key: EcdsaKeyPair,
    id: String,
}

impl Signer {
    /// `None` unless it is a key of P-256.
    pub fn new(key: &PrivateKeyDer<'_>) -> Option<Self> {
        let key = match key {
            PrivateKeyDer::Pkcs8(der) => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
            }
            PrivateKeyDer::Sec1(der) => {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_sec1_der())
            }
            PrivateKeyDer::Pkcs1(_) | _ => return None,
        };
        let key = key.ok()?;
        // What stands before the point in the SubjectPublicKeyInfo of P-256 (RFC 5480 section 2).
        let spki = [&SPKI[..], key.public_key().as_ref()].concat();
        let id = Pin::of_public_key(&spki).to_string();
        Some(Self { key, id })
    }

    /// `kid` of its documents: the pin of the key itself.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Signs a document that holds from `now` for `lifetime` seconds; `None` if there is no randomness.
    pub fn sign(&self, version: u64, sets: &[Entry], now: u64, lifetime: u64) -> Option<String> {
        let claims = Claims { version, iat: now, exp: now.saturating_add(lifetime), sets };
        let header = serde_json::json!({ "alg": "ES256", "typ": TYPE, "kid": self.id });
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signed =
            format!("{}.{}", part(header.to_string().as_bytes()), part(&serde_json::to_vec(&claims).ok()?));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", part(signature.as_ref())))
    }
}

const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
