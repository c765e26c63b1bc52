//! What happens to requests of a kind: where they go, what they need.
//!
//! Which route a request belongs to is decided in [`table`]; how many there may be, in [`limits`].

pub mod cors;
pub mod graphql;
pub mod limits;
pub mod oauth;
pub mod table;

use std::sync::Arc;

use anyhow::{Result, bail};
use http::Method;

use super::{
    Upstream, attestation::Demand, demands::Demands, issuer::Issuer, payload::Payload, signature::Signers,
};
use crate::config::{self, Bindings};
use cors::Cors;
use graphql::GraphQl;
use limits::Limits;
use oauth::OAuth;

/// What happens to the requests of one kind.
#[derive(Debug)]
pub struct Route {
    /// The label in metrics and logs: as configured, else the path.
    pub name: Box<str>,
    /// As configured: exact, or a prefix with a trailing `/`.
    pub path: Box<str>,
    /// Whether it says for which hosts it is, and takes requests for others not.
    pub names_hosts: bool,
    /// Methods that it takes; empty: every one.
    pub methods: Box<[Method]>,
    /// Fields that its requests have.
    pub headers: Box<[config::HeaderRule]>,
    /// Where its requests go.
    pub upstream: Arc<Upstream>,
    /// Whose token they need, and what it must say; `None` for public routes.
    pub tokens: Option<Tokens>,
    /// Protocols that a request may change to, in lower case.
    pub upgrades: Box<[Box<str>]>,
    /// Fields without which its requests are refused.
    pub required_headers: Box<[http::HeaderName]>,
    /// How many requests there may be.
    pub limits: Limits,
    /// Who must have signed its requests; `None` where nobody has to.
    pub signers: Option<Arc<Signers>>,
    /// How its bodies are encrypted; `None` where they are not.
    pub payload: Option<Arc<Payload>>,
    /// What the device must have shown that its requests come from; `None` where none has to.
    pub attestation: Option<Demand>,
    /// What its documents may ask for; `None` where there are none.
    pub graphql: Option<GraphQl>,
    /// Whether requests with safe methods may come as early data.
    pub early_data: bool,
    /// Which pages of other origins may use it.
    pub cors: Option<Cors>,
    /// What an authorization server is sent; `None` where there is none.
    pub oauth: Option<OAuth>,
}

/// Whose tokens open a route.
#[derive(Debug)]
pub struct Tokens {
    /// At least one; told apart by `iss`.
    issuers: Box<[Arc<Issuer>]>,
    /// What they must say.
    pub demands: Demands,
    /// What they must be bound to.
    pub bindings: Bindings,
    /// What proofs of that may be signed with, for challenges.
    pub algs: Box<str>,
}

impl Tokens {
    /// `None` for no issuers.
    pub fn new(
        issuers: Vec<Arc<Issuer>>,
        demands: &config::Demands,
        bindings: Bindings,
        algs: &str,
    ) -> Result<Option<Self>> {
        let Some(first) = issuers.first() else {
            if !demands.is_empty() || bindings != Bindings::default() {
                bail!("`scopes` or something like it without `token`: nothing could carry them");
            }
            return Ok(None);
        };
        let demands = Demands::new(demands, first)?;
        Ok(Some(Self { issuers: issuers.into(), demands, bindings, algs: algs.into() }))
    }

    /// Every issuer.
    pub fn issuers(&self) -> &[Arc<Issuer>] {
        &self.issuers
    }

    /// The issuer in whose name a request is challenged: the first one.
    pub fn first(&self) -> Option<&Issuer> {
        self.issuers.first().map(Arc::as_ref)
    }
}

impl Route {
    /// Checks the path.
    pub fn new(
        config: &config::Route,
        upstream: Arc<Upstream>,
        (tokens, signers, attestation): (Option<Tokens>, Option<Arc<Signers>>, Option<Demand>),
        limits: Limits,
        oauth: Option<OAuth>,
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
        if (config.graphql.is_some() || signers.is_some()) && !config.upgrade.is_empty() {
            bail!("`upgrade` beside `graphql` or `signature`: nothing that follows could be judged");
        }
        let issuer = tokens.as_ref().and_then(Tokens::first);
        let first = config.limits.len();
        let graphql =
            config.graphql.as_ref().map(|graphql| GraphQl::new(graphql, issuer, first)).transpose()?;
        Ok(Self {
            name: config.name.as_str().into(),
            path: path.into(),
            names_hosts: !config.hosts.is_empty(),
            methods: config.methods.clone().into(),
            headers: config.headers.clone().into(),
            upstream,
            tokens,
            upgrades: config.upgrade.iter().map(|protocol| protocol.as_str().into()).collect(),
            required_headers: config.required_headers.clone().into(),
            limits,
            signers,
            payload: None,
            attestation,
            graphql,
            early_data: config.early_data,
            cors: config.cors.as_ref().map(Cors::new),
            oauth,
        })
    }
}

/// Which requests a route is for, as a text that is equal for equal ones.
pub(super) fn identity(route: &config::Route) -> String {
    format!("{:?} {} {:?} {:?}", route.hosts, route.path, route.methods, route.headers)
}
