//! What the file says about encrypted bodies: `[payload.NAME]`, with every default filled in. Part of [`super::Config`]; reads nothing.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// `[payload.NAME]`: how bodies are encrypted on the routes that name it.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    /// `formats`, one at least. Default: JWE and HPKE.
    pub formats: Vec<PayloadFormat>,
    /// `keys`, one at least; the first is the one that apps are to use.
    pub keys: Vec<PayloadKey>,
    /// `keys_path`, where the public keys are published. Default `/.well-known/enforcer/payload-keys`.
    pub keys_path: String,
    /// `keys_max_age`: how long they may be cached, default 5 min.
    pub keys_max_age: Duration,
    /// `max_body_bytes` of what is in a request's body, default 1 MiB.
    pub max_body_bytes: u64,
    /// `max_answer_bytes` of an answer before it is encrypted, default 1 MiB.
    pub max_answer_bytes: u64,
    /// `window`: for how long a body is good after it was made, default 2 min.
    pub window: Duration,
    /// `clock_skew`: by how much apps' clocks may be wrong, default 60 s.
    pub clock_skew: Duration,
    /// `content_type`: what a body is whose sender does not say. Default `application/json`.
    pub content_type: String,
    /// `plain`: whether bodies that are not encrypted pass. Default false.
    pub plain: bool,
}

/// How a body is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// JWE in compact form (RFC 7516).
    Jwe,
    /// RFC 9180.
    Hpke,
    /// `base64(iv || ciphertext || tag)`.
    Layout,
}

impl PayloadFormat {
    /// As the file has it, and as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jwe => "jwe",
            Self::Hpke => "hpke",
            Self::Layout => "layout",
        }
    }
}

/// An entry of `keys`.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadKey {
    /// `file`: a private key of P-256 or X25519, PEM.
    pub file: PathBuf,
    /// `id`; by default the thumbprint of the public key (RFC 7638).
    pub id: Option<String>,
    /// `until`: from then on it is no longer taken, seconds since 1970.
    pub until: Option<u64>,
}

impl super::Config {
    /// Files behind `[payload.NAME]`: a change of one changes the policy.
    pub(super) fn payload_files(&self) -> impl Iterator<Item = &Path> {
        self.payloads.values().flat_map(|payload| payload.keys.iter().map(|key| key.file.as_path()))
    }
}
