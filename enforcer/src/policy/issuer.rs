//! An issuer of tokens: what its tokens must say, and the keys that may have signed them.

use anyhow::{Context, Result};
use http::HeaderValue;

use super::jwks::{self, VerificationKey};
use crate::config::{self, TokenAlgorithm};

/// One `[token.NAME]` with its keys loaded.
#[derive(Debug)]
pub struct Issuer {
    /// `iss` must be exactly this.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audience: Vec<String>,
    /// The only algorithms that are looked at.
    pub algorithms: Vec<TokenAlgorithm>,
    /// Seconds by which clocks may differ.
    pub leeway: u64,
    /// Seconds between `iat` and `exp`, at most.
    pub max_lifetime: u64,
    /// At least one.
    pub keys: Vec<VerificationKey>,
    /// `WWW-Authenticate` for requests without a token.
    pub missing_challenge: HeaderValue,
    /// `WWW-Authenticate` for requests with a bad one.
    pub invalid_challenge: HeaderValue,
    realm: String,
}

impl Issuer {
    /// Reads the key set.
    pub fn load(name: &str, token: &config::Token) -> Result<Self> {
        // The name is the operator's; only what a quoted-string may hold without escapes is shown.
        let realm: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_. ".contains(*c)).collect();
        Ok(Self {
            issuer: token.issuer.clone(),
            audience: token.audience.clone(),
            algorithms: token.algorithms.clone(),
            leeway: token.leeway.as_secs(),
            max_lifetime: token.max_lifetime.as_secs(),
            keys: jwks::load(&token.jwks, &token.algorithms)?,
            missing_challenge: challenge(&realm, "")?,
            invalid_challenge: challenge(&realm, ", error=\"invalid_token\"")?,
            realm,
        })
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
