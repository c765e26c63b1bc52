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

use super::{
    faults::Faults,
    introspection::Introspector,
    keyring::{KeySet, Keyring},
};
use crate::{
    config::{self, TokenAlgorithm, TokenType},
    revoked::{Kind, Mark, Marks, Revoked},
};

/// Names one state of something that tokens are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

impl Epoch {
    /// One that never was before.
    pub(super) fn begin() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// On what a token was verified: its issuer's rules and keys as they were. What was verified on one footing is good on no
/// other: whoever takes a key back, or changes a rule, makes a new epoch, and nothing has to be told to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footing {
    rules: Epoch,
    keys: Epoch,
}

/// One `[token.NAME]` with its keys.
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
    /// `WWW-Authenticate` for requests without a token.
    pub missing_challenge: HeaderValue,
    /// `WWW-Authenticate` for requests with a bad one.
    pub invalid_challenge: HeaderValue,
    /// The claim that names the device of a token.
    pub device_claim: String,
    introspector: Option<Arc<Introspector>>,
    revoked: Arc<Revoked>,
    /// Tells what is revoked of this issuer alone.
    mark: Mark,
    keyring: Arc<Keyring>,
    rules: Epoch,
    realm: String,
    made_from: config::Token,
}

impl Issuer {
    /// Reads the key set. What did not change since `old` stays as it is, and so does what was verified by it.
    pub fn load(
        name: &str,
        token: &config::Token,
        asked: BTreeSet<String>,
        revoked: &Arc<Revoked>,
        old: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>> {
        Self::renew(name, token, asked, revoked, old, &mut Faults::fatal())
    }

    /// The same, where what was read before may stand in for what cannot be read.
    pub(super) fn renew(
        name: &str,
        token: &config::Token,
        asked: BTreeSet<String>,
        revoked: &Arc<Revoked>,
        old: Option<&Arc<Self>>,
        faults: &mut Faults,
    ) -> Result<Arc<Self>> {
        let keyring = Keyring::load(token, old.map(|old| (&old.made_from, &old.keyring)));
        let keyring = faults.or_kept(keyring, old.map(|old| Arc::clone(&old.keyring)))?;
        let read = token.introspection.as_ref().map(|config| Introspector::load(config).map(Arc::new));
        let introspector = faults.or_kept(read.transpose(), old.map(|old| old.introspector.clone()))?;
        let same_secret = |old: &Self| match (&old.introspector, &introspector) {
            (Some(old), Some(new)) => old.is_as(new),
            (None, None) => true,
            _ => false,
        };
        let kept = |old: &&Arc<Self>| {
            old.name == name
                && old.asked == asked
                && old.made_from == *token
                && Arc::ptr_eq(&old.revoked, revoked)
                && same_secret(old)
                && Arc::ptr_eq(&old.keyring, &keyring)
        };
        if let Some(old) = old.filter(kept) {
            return Ok(Arc::clone(old));
        }
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
            device_claim: token.device_claim.clone(),
            introspector,
            revoked: Arc::clone(revoked),
            mark: revoked.marker().issuer(&token.issuer),
            keyring,
            missing_challenge: challenge(&realm, "")?,
            invalid_challenge: challenge(&realm, ", error=\"invalid_token\"")?,
            rules: Epoch::begin(),
            realm,
            made_from: token.clone(),
        }))
    }

    /// Its keys.
    pub const fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Who is asked about its tokens that say nothing themselves.
    pub const fn introspector(&self) -> Option<&Arc<Introspector>> {
        self.introspector.as_ref()
    }

    /// Whether it signs tokens.
    pub fn has_keys(&self) -> bool {
        self.made_from.keys != config::KeySource::None
    }

    /// What is revoked, of this issuer and of others.
    pub const fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// What tells what is revoked of this issuer alone.
    pub const fn mark(&self) -> Mark {
        self.mark
    }

    /// Seconds for which a token that is issued now can be taken, at most.
    pub const fn longest(&self) -> u64 {
        self.max_lifetime.saturating_add(2 * self.leeway)
    }

    /// By what one of its tokens that is known by `marks` is revoked.
    pub fn revocation(&self, marks: &Marks, now: u64) -> Option<Kind> {
        self.revoked.covers(marks, self.mark, now)
    }

    /// What is verified by one of its sets of keys stands on this.
    pub fn footing(&self, keys: &KeySet) -> Footing {
        Footing { rules: self.rules, keys: keys.epoch() }
    }

    /// Whether what was verified on `footing` is good still.
    pub fn stands_on(&self, footing: Footing) -> bool {
        self.rules == footing.rules && self.keyring.set().epoch() == footing.keys
    }

    /// A `Bearer` challenge (RFC 6750 section 3) with further attributes.
    pub fn challenge(&self, attributes: &str) -> Result<HeaderValue> {
        challenge(&self.realm, attributes)
    }
}

fn challenge(realm: &str, attributes: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(&format!("Bearer realm=\"{realm}\"{attributes}"))
        .context("cannot make a WWW-Authenticate header")
}

/// The claims that routes ask for in tokens of an issuer.
pub(super) fn asked(config: &config::Config, issuer: &String) -> BTreeSet<String> {
    let routes = config.routes.iter().filter(|route| route.tokens.contains(issuer));
    routes.flat_map(|route| route.demands.named_claims()).map(str::to_owned).collect()
}
