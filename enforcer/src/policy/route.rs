//! Which route a path belongs to.
//!
//! Paths are compared decoded; whoever asks has refused every path that two parties could read differently.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Result, bail};

use super::{Upstream, demands::Demands, issuer::Issuer, limiter::RequestLimiter};
use crate::config;

/// What happens to the requests of one path.
#[derive(Debug)]
pub struct Route {
    /// As configured: exact, or a prefix with a trailing `/`. Also the label in metrics.
    pub path: Box<str>,
    /// Where its requests go.
    pub upstream: Arc<Upstream>,
    /// Whose token they need, and what it must say; `None` for public routes.
    pub tokens: Option<Tokens>,
    /// Protocols that a request may change to, in lower case.
    pub upgrades: Box<[Box<str>]>,
    /// Fields without which its requests are refused.
    pub required_headers: Box<[http::HeaderName]>,
    /// How many each source may send.
    pub limiter: Option<Arc<RequestLimiter>>,
}

/// Whose tokens open a route.
#[derive(Debug)]
pub struct Tokens {
    /// At least one; told apart by `iss`.
    issuers: Box<[Arc<Issuer>]>,
    /// What they must say.
    pub demands: Demands,
}

impl Tokens {
    /// `None` for no issuers.
    pub fn new(issuers: Vec<Arc<Issuer>>, demands: &config::Demands) -> Result<Option<Self>> {
        let Some(first) = issuers.first() else {
            if !demands.is_empty() {
                bail!("`scopes` or something like it without `token`: nothing could carry them");
            }
            return Ok(None);
        };
        let demands = Demands::new(demands, first)?;
        Ok(Some(Self { issuers: issuers.into(), demands }))
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
        path: &str,
        upstream: Arc<Upstream>,
        tokens: Option<Tokens>,
        limiter: Option<Arc<RequestLimiter>>,
    ) -> Result<Self> {
        if !path.starts_with('/') {
            bail!("`path` must begin with `/`");
        }
        if path.contains(['%', '\\', ';', '?', '#']) || path.contains("//") {
            bail!("`path` is compared with decoded request paths: write it without %, \\, ;, ?, # and //");
        }
        Ok(Self {
            path: path.into(),
            upstream,
            tokens,
            upgrades: Box::default(),
            required_headers: Box::default(),
            limiter,
        })
    }
}

/// All routes, by path.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: HashMap<Box<str>, Arc<Route>>,
    /// The longest path first, so that the first match is the right one.
    prefixes: Vec<Arc<Route>>,
}

impl RouteTable {
    /// A table over `routes`; two of the same path would hide each other and are an error.
    pub fn new(routes: Vec<Route>) -> Result<Self> {
        let mut table = Self::default();
        for route in routes {
            if table.exactly(&route.path).is_some() {
                bail!("two routes for {}: remove one", route.path);
            }
            if route.path.ends_with('/') {
                table.prefixes.push(Arc::new(route));
            } else {
                table.exact.insert(route.path.clone(), Arc::new(route));
            }
        }
        table.prefixes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        Ok(table)
    }

    /// The route of a request path: an exact one, else the longest prefix.
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        self.exact
            .get(path)
            .or_else(|| self.prefixes.iter().find(|route| path.as_bytes().starts_with(route.path.as_bytes())))
    }

    /// The route that is configured with exactly this path.
    pub fn exactly(&self, path: &str) -> Option<&Arc<Route>> {
        self.exact.get(path).or_else(|| self.prefixes.iter().find(|route| &*route.path == path))
    }
}
