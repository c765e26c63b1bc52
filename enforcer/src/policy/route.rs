//! What happens to requests of a kind: where they go, what they need.
//!
//! Which route a request belongs to is decided in [`table`]; how many there may be, in [`limits`].

pub mod limits;
pub mod table;

use std::sync::Arc;

use anyhow::{Result, bail};
use http::{HeaderValue, Method};

use super::{Upstream, issuer::Issuer};
use crate::config;
use limits::Limits;

/// What happens to the requests of one kind.
#[derive(Debug)]
pub struct Route {
    /// The label in metrics and logs: as configured, else the path.
    pub name: Box<str>,
    /// As configured: exact, or a prefix with a trailing `/`.
    pub path: Box<str>,
    /// Methods that it takes; empty: every one.
    pub methods: Box<[Method]>,
    /// Fields that its requests have.
    pub headers: Box<[config::HeaderRule]>,
    /// Where its requests go.
    pub upstream: Arc<Upstream>,
    /// Whose token they need; `None` for public routes.
    pub issuer: Option<Arc<Issuer>>,
    /// Scopes that the token must have, all of them.
    pub scopes: Box<[Box<str>]>,
    /// How many requests there may be.
    pub limits: Limits,
    /// `WWW-Authenticate` for requests whose token lacks a scope.
    pub scope_challenge: Option<HeaderValue>,
}

impl Route {
    /// Checks the syntax of path and scopes and prepares the challenge.
    pub fn new(
        config: &config::Route,
        upstream: Arc<Upstream>,
        issuer: Option<Arc<Issuer>>,
        limits: Limits,
    ) -> Result<Self> {
        let path = config.path.as_str();
        if !path.starts_with('/') {
            bail!("`path` must begin with `/`");
        }
        if path.contains(['%', '\\', ';', '?', '#']) || path.contains("//") {
            bail!("`path` is compared with decoded request paths: write it without %, \\, ;, ?, # and //");
        }
        if config.limits.len() > limits::MOST {
            bail!("more than {} limits", limits::MOST);
        }
        for scope in &config.scopes {
            if !is_scope_token(scope) {
                bail!(
                    "`{scope}` is no scope: RFC 6749 section 3.3 allows visible ASCII without quote and backslash"
                );
            }
        }
        let scope_challenge = match &issuer {
            Some(issuer) => {
                let scopes = config.scopes.join(" ");
                Some(issuer.challenge(&format!(", error=\"insufficient_scope\", scope=\"{scopes}\""))?)
            }
            None => None,
        };
        Ok(Self {
            name: config.name.as_str().into(),
            path: path.into(),
            methods: config.methods.clone().into(),
            headers: config.headers.clone().into(),
            upstream,
            issuer,
            scopes: config.scopes.iter().map(|scope| scope.as_str().into()).collect(),
            limits,
            scope_challenge,
        })
    }
}

/// `scope-token` of RFC 6749 section 3.3.
fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}
