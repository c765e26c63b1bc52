//! What happens to requests of a kind: where they go, what they need.
//!
//! Which route a request belongs to is decided in [`table`]; how many there may be, in [`limits`].

pub mod graphql;
pub mod limits;
pub mod table;

use std::sync::Arc;

use anyhow::{Result, bail};
use http::{HeaderValue, Method};

use super::{Upstream, issuer::Issuer};
use crate::config;
use graphql::GraphQl;
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
    /// What its documents may ask for; `None` where there are none.
    pub graphql: Option<GraphQl>,
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
        let operations = config.graphql.iter().flat_map(|graphql| &graphql.operations);
        let groups = operations.clone().map(|operation| operation.limits.len());
        if groups.clone().chain([config.limits.len()]).any(|count| count > limits::MOST) {
            bail!("more than {} limits", limits::MOST);
        }
        if groups.sum::<usize>() + config.limits.len() > limits::MOST_OF_ALL {
            bail!("more than {} limits with those of its operations", limits::MOST_OF_ALL);
        }
        for scope in config.scopes.iter().chain(operations.flat_map(|operation| &operation.scopes)) {
            if !is_scope_token(scope) {
                bail!(
                    "`{scope}` is no scope: RFC 6749 section 3.3 allows visible ASCII without quote and backslash"
                );
            }
        }
        let scope_challenge = match &issuer {
            Some(issuer) => Some(challenge(issuer, &config.scopes)?),
            None => None,
        };
        let graphql = config.graphql.as_ref();
        let first = config.limits.len();
        let graphql = graphql.map(|graphql| GraphQl::new(graphql, issuer.as_deref(), first)).transpose()?;
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
            graphql,
        })
    }
}

/// What is said to somebody whose token lacks one of these scopes (RFC 6750 section 3.1).
fn challenge(issuer: &Issuer, scopes: &[String]) -> Result<HeaderValue> {
    issuer.challenge(&format!(", error=\"insufficient_scope\", scope=\"{}\"", scopes.join(" ")))
}

/// `scope-token` of RFC 6749 section 3.3.
fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}
