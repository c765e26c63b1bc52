//! Issuers of tokens, and what routes demand of a token: `[token.NAME]` and the keys of `[[route]]` beside `token`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::Introspection;

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// `issuer`: `iss` must be exactly this.
    pub issuer: String,
    /// `audience`: one of these must be in `aud`. At least one.
    pub audience: Vec<String>,
    /// `jwks`, `jwks_url` or `discovery`: where its JWK set (RFC 7517) is.
    pub keys: KeySource,
    /// `algorithms`: default `["RS256", "ES256"]`.
    pub algorithms: Vec<TokenAlgorithm>,
    /// `typ`: what the header's `typ` must say. Default `"any"`.
    pub kind: TokenType,
    /// `leeway` for `exp`, `nbf` and `iat`, default 60 s, at most 300 s.
    pub leeway: Duration,
    /// `max_lifetime`: largest `exp - iat`, default 24 h.
    pub max_lifetime: Duration,
    /// `device_claim`: the claim that names the device, for revocations; a path as in `claims`. Default `device_id`.
    pub device_claim: String,
    /// `introspection`: who is asked about tokens that say nothing themselves. Default: nobody.
    pub introspection: Option<Introspection>,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// `jwks`: in a file.
    File(PathBuf),
    /// Published.
    Remote(RemoteKeys),
    /// There are none: its tokens are asked about.
    None,
}

impl KeySource {
    /// The file, unless they are fetched.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Remote(_) | Self::None => None,
        }
    }
}

/// Keys that are fetched over https.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteKeys {
    /// `jwks_url`; with `discovery` the issuer's discovery document, which says where the set is.
    pub address: http::Uri,
    /// The issuer that the document must be of.
    pub discovery: Option<String>,
    /// `jwks_authorities`: PEM file with the roots that the server's certificate comes from. Default: those of the system.
    pub authorities: Option<PathBuf>,
    /// `jwks_private_addresses`: whether the server may have an address that is not public. Default false.
    pub private_addresses: bool,
    /// `jwks_refresh`: how long a set is good whose server does not say, default 15 min.
    pub refresh: Duration,
    /// `jwks_interval`: between two fetches at least, whatever tokens ask for, default 10 s.
    pub interval: Duration,
    /// `jwks_max_stale`: how long keys hold on while the server cannot be reached, default 24 h.
    pub max_stale: Duration,
}

/// Signature algorithms of RFC 7518 and RFC 8037 that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
pub enum TokenAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl TokenAlgorithm {
    /// As `alg` has it; compared byte for byte (RFC 7515 section 4.1.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name, if it is one that can be accepted at all.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Rs256, Self::Es256, Self::Ps256, Self::EdDsa].into_iter().find(|one| one.name() == name)
    }
}

/// What a token must say that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum TokenType {
    /// Nothing, `JWT` or `at+jwt`: many issuers set no type of their own.
    #[serde(rename = "any")]
    Any,
    /// `at+jwt` (RFC 9068): an ID token of the same issuer is refused by its type alone.
    #[serde(rename = "at+jwt")]
    AccessToken,
}

/// What a good token must say besides, for a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demands {
    /// `scopes`: all of them must be in the token (RFC 8693 `scope`, or `scp`).
    pub scopes: Vec<String>,
    /// `any_scope`: one of them must be, if there are any.
    pub any_scope: Vec<String>,
    /// `method_scopes`: further ones that all must be, by the request's method.
    pub method_scopes: BTreeMap<String, Vec<String>>,
    /// `claims`: each must be in the token with one of these values, or be a list that holds one of them.
    pub claims: BTreeMap<String, Vec<Value>>,
    /// `acr`: one of them must be the token's, if there are any: how its subject was authenticated (RFC 9470).
    pub acr: Vec<String>,
    /// `max_auth_age`: since its subject was authenticated (`auth_time`).
    pub max_auth_age: Option<Duration>,
}

impl Demands {
    /// Whether any token will do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The claims that are looked at, beside those that every token is read for.
    pub fn named_claims(&self) -> impl Iterator<Item = &str> {
        self.claims.keys().map(String::as_str)
    }
}
