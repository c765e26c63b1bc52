//! Clients with keys, their proofs, and a desk that judges them; for the tests of DPoP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::{
    checks::{
        Now, Refusal, admit,
        facts::{Client, ClientAddr, RequestFacts, Target},
        token::KnownTokens,
    },
    clock::KernelTime,
    denial::Denial,
    policy::Policy,
};
pub(super) use enforcer_tests::tokens::{ath, public_jwk as bare};
use enforcer_tests::{
    edge::{NAME, Site},
    tokens::{self, SigningKey, encode},
};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

use super::admit::{Desk, NOW};

/// The URL of ordinary requests.
pub(super) const URL: &str = "https://api.example.com/api/x";

/// A desk whose process began long ago, and a client with a key.
pub(super) struct Till {
    pub(super) desk: Desk,
    pub(super) key: SigningKey,
    pub(super) token: String,
}

/// The thumbprint of a key (RFC 7638).
pub(super) fn thumbprint(key: &SigningKey) -> String {
    tokens::thumbprint(key).unwrap()
}

/// An identifier that nobody has used.
pub(super) fn unique() -> String {
    let mut bytes = [0; 12];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    encode(&bytes)
}

/// Header and claims of a proof, to be changed.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) header: Value,
    pub(super) claims: Value,
}

impl Draft {
    pub(super) fn header(mut self, name: &str, value: Value) -> Self {
        set(&mut self.header, name, value);
        self
    }

    pub(super) fn claim(mut self, name: &str, value: Value) -> Self {
        set(&mut self.claims, name, value);
        self
    }

    pub(super) fn sign(&self, key: &SigningKey) -> String {
        key.mint_raw(&self.header.to_string(), &self.claims.to_string()).unwrap()
    }
}

pub(super) fn set(object: &mut Value, name: &str, value: Value) {
    if value.is_null() {
        object.as_object_mut().unwrap().remove(name);
    } else {
        object[name] = value;
    }
}

impl Till {
    pub(super) fn new() -> Result<Self> {
        Self::with(|_| ())
    }

    /// The process began at `NOW - 86400`, by its own clock.
    pub(super) fn with(change: impl FnOnce(&mut Site)) -> Result<Self> {
        let mut desk = Desk::with(change)?;
        desk.policy = Policy::load_at(&desk.site.config, NOW - 86_400)?;
        Self::at(desk)
    }

    pub(super) fn at(desk: Desk) -> Result<Self> {
        let key = SigningKey::p256("client")?;
        let token = desk.ec.mint(&desk.claims_but("cnf", json!({"jkt": thumbprint(&key)})))?;
        Ok(Self { desk, key, token })
    }

    /// A good proof for `GET` [`URL`].
    pub(super) fn draft(&self) -> Draft {
        self.draft_of(&self.key)
    }

    pub(super) fn draft_of(&self, key: &SigningKey) -> Draft {
        Draft {
            header: json!({"typ": "dpop+jwt", "alg": key.alg(), "jwk": bare(key)}),
            claims: json!({"jti": unique(), "htm": "GET", "htu": URL, "iat": NOW, "ath": ath(&self.token)}),
        }
    }

    pub(super) fn headers(&self, scheme: &str, proofs: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("{scheme} {}", self.token).parse().unwrap());
        for proof in proofs {
            headers.append("dpop", proof.parse().unwrap());
        }
        headers
    }

    pub(super) fn ask(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
        self.ask_at("/api/x", headers, NOW)
    }

    pub(super) fn ask_at(
        &self,
        path: &str,
        headers: &HeaderMap,
        unix: u64,
    ) -> Result<Option<HeaderValue>, Refusal> {
        let client = Client::at(ClientAddr::new("192.0.2.7".parse().unwrap()));
        ask(&self.desk.policy, &client, path, headers, unix)
    }

    pub(super) fn judge(&self, proof: &str) -> Option<Denial> {
        self.ask(&self.headers("DPoP", &[proof])).err().map(|refusal| refusal.denial)
    }
}

/// What a `GET` gets.
pub(super) fn ask(
    policy: &Policy,
    client: &Client,
    path: &str,
    headers: &HeaderMap,
    unix: u64,
) -> Result<Option<HeaderValue>, Refusal> {
    ask_host(policy, client, NAME, path, headers, unix)
}

/// The same for another host.
pub(super) fn ask_host(
    policy: &Policy,
    client: &Client,
    host: &str,
    path: &str,
    headers: &HeaderMap,
    unix: u64,
) -> Result<Option<HeaderValue>, Refusal> {
    ask_known(policy, client, (host, path), headers, unix, &mut KnownTokens::new(16))
}

/// The same of a worker that knows tokens.
pub(super) fn ask_known(
    policy: &Policy,
    client: &Client,
    (host, path): (&str, &str),
    headers: &HeaderMap,
    unix: u64,
    known: &mut KnownTokens,
) -> Result<Option<HeaderValue>, Refusal> {
    let facts = RequestFacts {
        client,
        address: client.address,
        method: &Method::GET,
        path: path.into(),
        named: Some(host),
        authority: Some(host),
        target: Target { path, query: Some("page=2") },
        headers,
        is_early: false,
        is_banned: false,
        upgrades: false,
    };
    let now = Now { monotonic: KernelTime(unix * 1_000_000_000), unix };
    let grant = admit(policy, &facts, now, known)?;
    Ok(grant.dpop_nonce().cloned())
}
