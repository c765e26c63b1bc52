//! Proofs and signatures of requests, and what is remembered so that none is used twice: `[replay]`, `[dpop]`,
//! `[signature.NAME]`, and what a `[[route]]` asks for of them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::TokenAlgorithm;

/// What is remembered of things that may be used once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// `max_entries`: uses that are remembered at once, default 1,000,000. Reached: further ones are refused.
    pub max_entries: u32,
    /// `store`: the file that uses of request signatures are kept in, default `replay.redb` beside `bans.store`; none (`"off"`): what
    /// was signed before the start is refused for as long as it could have been used before.
    pub store: Option<PathBuf>,
}

/// How proofs of DPoP (RFC 9449) are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dpop {
    /// `algorithms`: default `["ES256", "EdDSA"]`.
    pub algorithms: Vec<TokenAlgorithm>,
    /// `max_age`: since `iat`, default 2 min.
    pub max_age: Duration,
    /// `leeway`: by how much `iat` may be ahead, default 60 s.
    pub leeway: Duration,
    /// `nonce`: whether a proof needs one that was given out here. Default false.
    pub nonce: bool,
    /// `nonce_lifetime`: how long one is given out; it is taken twice as long. Default 5 min.
    pub nonce_lifetime: Duration,
}

/// Whether the tokens of a route have to be bound to something that their sender has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// Those that say that they are.
    #[default]
    Optional,
    /// All of them.
    Required,
}

/// What a route asks for of the sender of a token, beside the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// `dpop`: to a key (RFC 9449).
    pub dpop: Binding,
    /// `certificate_bound`: to a client certificate (RFC 8705 section 3).
    pub certificate: Binding,
}

/// How requests are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum SignatureScheme {
    /// HMAC-SHA-256 over a canonical string of lines.
    #[serde(rename = "hmac-sha256")]
    Hmac,
    /// HTTP Message Signatures.
    #[serde(rename = "rfc9421")]
    Message,
}

/// Whose signatures a request may carry, and what they have to cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// `scheme`
    pub scheme: SignatureScheme,
    /// `keys`: by key id; at least one.
    pub keys: BTreeMap<String, PathBuf>,
    /// `window`: by how much the time of signing may differ from now, either way. Default 300 s.
    pub window: Duration,
    /// `max_body_bytes`: of a signed body, which is held until it is verified. Default 1 MiB.
    pub max_body_bytes: u64,
    /// `components`: what has to be covered, besides `content-digest` where there is a body. Default `["@method", "@authority", "@path", "@query"]`.
    pub components: Vec<String>,
    /// `tag`: that the signature must have; none (default): any.
    pub tag: Option<String>,
}
