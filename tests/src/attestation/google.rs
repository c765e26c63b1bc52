//! Plays Google, an app and its device: verdicts of Play Integrity, sealed as classic tokens, and attested keys of Android under a root of
//! the test. [`server`] stands in for Google's servers.
//!
//! Nothing here checks anything, on purpose: what an attacker would send can be made as well.

pub mod device;
pub mod server;
pub mod site;

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    key_wrap::{AES_256, AesKek, KeyWrap as _},
    rand::{SecureRandom as _, SystemRandom},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// The app that all this is about.
pub const PACKAGE: &str = "com.example.app";
/// SHA-256 of the certificate that it is signed with.
pub const CERTIFICATE: [u8; 32] = [0x3c; 32];
/// Its version.
pub const VERSION: u64 = 42;

/// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING } up to the point (RFC 5480 section 2).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Steps of judging a classic token, in the order in which they are taken; a verdict alone begins with `request`.
pub const STEPS: [&str; 11] = [
    "form",
    "decryption",
    "signature",
    "request",
    "binding",
    "time",
    "app",
    "device",
    "licence",
    "testing",
    "risk",
];

/// The header of a classic token.
pub const OUTER: &str = r#"{"alg":"A256KW","enc":"A256GCM"}"#;
/// The header of what is signed in it.
pub const INNER: &str = r#"{"alg":"ES256"}"#;

/// Bytes that nobody else has.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("no randomness"))?;
    Ok(bytes)
}

/// Base64url without padding.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Google, as far as the keys of one app go.
pub struct Google {
    decryption: [u8; 32],
    signing: EcdsaKeyPair,
}

impl Google {
    /// With fresh keys.
    pub fn new() -> Result<Self> {
        Ok(Self { decryption: random()?, signing: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)? })
    }

    /// As the Play Console shows it.
    pub fn decryption_key(&self) -> String {
        STANDARD.encode(self.decryption)
    }

    /// The key itself, for who misuses it.
    pub const fn decryption_bytes(&self) -> &[u8; 32] {
        &self.decryption
    }

    /// As the Play Console shows it.
    pub fn verification_key(&self) -> String {
        STANDARD.encode(self.verification_der())
    }

    /// The same in DER.
    pub fn verification_der(&self) -> Vec<u8> {
        [&P256, self.signing.public_key().as_ref()].concat()
    }

    /// Both, as a file for the daemon.
    pub fn keys_toml(&self) -> String {
        let (decryption, verification) = (self.decryption_key(), self.verification_key());
        format!("decryption_key = \"{decryption}\"\nverification_key = \"{verification}\"\n")
    }

    /// r and s of a message, 32 bytes each.
    pub fn signature(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signature =
            self.signing.sign(&SystemRandom::new(), message).map_err(|_| anyhow!("no signature"))?;
        Ok(signature.as_ref().to_vec())
    }

    /// A signed token of this header and payload.
    pub fn sign(&self, header: &str, payload: &[u8]) -> Result<String> {
        let message = format!("{}.{}", encode(header.as_bytes()), encode(payload));
        let signature = self.signature(message.as_bytes())?;
        Ok(format!("{message}.{}", encode(&signature)))
    }

    /// An encrypted token of this header around anything. The header is authentic, whatever it says.
    pub fn seal(&self, header: &str, plain: &[u8]) -> Result<String> {
        seal(&self.decryption, header, plain)
    }

    /// A classic token.
    pub fn classic(&self, verdict: &Value) -> Result<String> {
        self.seal(OUTER, self.sign(INNER, verdict.to_string().as_bytes())?.as_bytes())
    }
}

/// As [`Google::seal`], with any key.
pub fn seal(key: &[u8; 32], header: &str, plain: &[u8]) -> Result<String> {
    let (content, iv) = (random::<32>()?, random::<12>()?);
    let failed = |_| anyhow!("cannot encrypt");
    let mut wrapped = [0; 40];
    AesKek::new(&AES_256, key).map_err(failed)?.wrap(&content, &mut wrapped).map_err(failed)?;
    let header = encode(header.as_bytes());
    let mut sealed = plain.to_vec();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &content).map_err(failed)?);
    let tag = cipher
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(iv),
            Aad::from(header.as_bytes()),
            &mut sealed,
        )
        .map_err(failed)?;
    let parts = [&wrapped[..], &iv, &sealed, tag.as_ref()].map(encode);
    Ok([vec![header], parts.to_vec()].concat().join("."))
}

/// What a request is bound to.
#[derive(Clone, Copy, Debug)]
pub enum Bound<'a> {
    /// A classic one.
    Nonce(&'a str),
    /// A standard one.
    RequestHash(&'a str),
}

/// A verdict as good as they get, of a request at `at` (milliseconds since 1970).
pub fn verdict(bound: Bound<'_>, at: u64) -> Value {
    let (name, value) = match bound {
        Bound::Nonce(nonce) => ("nonce", nonce),
        Bound::RequestHash(hash) => ("requestHash", hash),
    };
    json!({
        "requestDetails": { "requestPackageName": PACKAGE, "timestampMillis": at.to_string(), name: value },
        "appIntegrity": {
            "appRecognitionVerdict": "PLAY_RECOGNIZED",
            "packageName": PACKAGE,
            "certificateSha256Digest": [encode(&CERTIFICATE)],
            "versionCode": VERSION.to_string(),
        },
        "deviceIntegrity": {
            "deviceRecognitionVerdict": ["MEETS_BASIC_INTEGRITY", "MEETS_DEVICE_INTEGRITY", "MEETS_STRONG_INTEGRITY"],
            "deviceAttributes": { "sdkVersion": 36 },
            "recentDeviceActivity": { "deviceActivityLevel": "LEVEL_1" },
        },
        "accountDetails": { "appLicensingVerdict": "LICENSED" },
        "environmentDetails": {
            "playProtectVerdict": "NO_ISSUES",
            "appAccessRiskVerdict": { "appsDetected": ["KNOWN_INSTALLED"] },
        },
    })
}
