//! An issuer of tokens: what its tokens must say, and the keys that may have signed them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result};
use http::HeaderValue;

use super::jwks::{self, VerificationKey};
use crate::config::{self, TokenAlgorithm, TokenType};

/// Names one state of everything that tokens of an issuer are judged by. What was verified under one is good under no
/// other: whoever takes a key back, or changes a rule, makes a new epoch, and nothing has to be told to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

impl Epoch {
    /// One that never was before.
    fn begin() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// One `[token.NAME]` with its keys loaded.
#[derive(Debug)]
pub struct Issuer {
    /// As below `[token]`.
    pub name: String,
    /// `iss` must be exactly this.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audience: Vec<String>,
    /// The only algorithms that are looked at.
    pub algorithms: Vec<TokenAlgorithm>,
    /// What the header must say that the token is.
    pub kind: TokenType,
    /// Seconds by which clocks may differ.
    pub leeway: u64,
    /// Seconds between `iat` and `exp`, at most.
    pub max_lifetime: u64,
    /// Claims that some route asks for, beside those that are always read.
    pub asked: BTreeSet<String>,
    /// At least one.
    pub keys: Vec<VerificationKey>,
    /// `WWW-Authenticate` for requests without a token.
    pub missing_challenge: HeaderValue,
    /// `WWW-Authenticate` for requests with a bad one.
    pub invalid_challenge: HeaderValue,
    epoch: Epoch,
    realm: String,
    /// What it was made from.
    made_from: (config::Token, Vec<u8>),
}

impl Issuer {
    /// Reads the key set. What did not change since `old` stays as it is, and so does what was verified by it.
    pub fn load(
        name: &str,
        token: &config::Token,
        asked: BTreeSet<String>,
        old: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>> {
        let set = jwks::read(&token.jwks)?;
        let kept = |old: &&Arc<Self>| {
            old.name == name && old.asked == asked && old.made_from.0 == *token && old.made_from.1 == set
        };
        if let Some(old) = old.filter(kept) {
            return Ok(Arc::clone(old));
        }
        let keys = jwks::parse(&set, &token.algorithms)
            .with_context(|| format!("JWK set {}", token.jwks.display()))?;
        // The name is the operator's; only what a quoted-string may hold without escapes is shown.
        let realm: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_. ".contains(*c)).collect();
        Ok(Arc::new(Self {
            name: name.to_owned(),
            issuer: token.issuer.clone(),
            audience: token.audience.clone(),
            algorithms: token.algorithms.clone(),
            kind: token.kind,
            leeway: token.leeway.as_secs(),
            max_lifetime: token.max_lifetime.as_secs(),
            asked,
            keys,
            missing_challenge: challenge(&realm, "")?,
            invalid_challenge: challenge(&realm, ", error=\"invalid_token\"")?,
            epoch: Epoch::begin(),
            realm,
            made_from: (token.clone(), set),
        }))
    }

    /// Under what its tokens are judged now.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// A `Bearer` challenge (RFC 6750 section 3) with further attributes.
    pub fn challenge(&self, attributes: &str) -> Result<HeaderValue> {
        challenge(&self.realm, attributes)
    }

    /// The key that a token's header asks for. Without a key id only if there is no choice.
    pub fn key(&self, kid: Option<&str>, algorithm: TokenAlgorithm) -> Option<&VerificationKey> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

fn challenge(realm: &str, attributes: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(&format!("Bearer realm=\"{realm}\"{attributes}"))
        .context("cannot make a WWW-Authenticate header")
}
