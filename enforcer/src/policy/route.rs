//! Which route a path belongs to.
//!
//! Paths are compared decoded; whoever asks has refused every path that two parties could read differently.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Result, bail};
use http::HeaderValue;

use super::{Upstream, issuer::Issuer, limiter::RequestLimiter};

/// What happens to the requests of one path.
#[derive(Debug)]
pub struct Route {
    /// As configured: exact, or a prefix with a trailing `/`. Also the label in metrics.
    pub path: Box<str>,
    /// Where its requests go.
    pub upstream: Arc<Upstream>,
    /// Whose token they need; `None` for public routes.
    pub issuer: Option<Arc<Issuer>>,
    /// Scopes that the token must have, all of them.
    pub scopes: Box<[Box<str>]>,
    /// Protocols that a request may change to, in lower case.
    pub upgrades: Box<[Box<str>]>,
    /// How many each source may send.
    pub limiter: Option<Arc<RequestLimiter>>,
    /// `WWW-Authenticate` for requests whose token lacks a scope.
    pub scope_challenge: Option<HeaderValue>,
}

impl Route {
    /// Checks the scopes' syntax and prepares the challenge.
    pub fn new(
        path: &str,
        upstream: Arc<Upstream>,
        issuer: Option<Arc<Issuer>>,
        scopes: &[String],
        limiter: Option<Arc<RequestLimiter>>,
    ) -> Result<Self> {
        if !path.starts_with('/') {
            bail!("`path` must begin with `/`");
        }
        if path.contains(['%', '\\', ';', '?', '#']) || path.contains("//") {
            bail!("`path` is compared with decoded request paths: write it without %, \\, ;, ?, # and //");
        }
        for scope in scopes {
            if !is_scope_token(scope) {
                bail!(
                    "`{scope}` is no scope: RFC 6749 section 3.3 allows visible ASCII without quote and backslash"
                );
            }
        }
        let scope_challenge = match &issuer {
            Some(issuer) => Some(
                issuer
                    .challenge(&format!(", error=\"insufficient_scope\", scope=\"{}\"", scopes.join(" ")))?,
            ),
            None => None,
        };
        let scopes = scopes.iter().map(|scope| scope.as_str().into()).collect();
        Ok(Self {
            path: path.into(),
            upstream,
            issuer,
            scopes,
            upgrades: Box::default(),
            limiter,
            scope_challenge,
        })
    }
}

/// `scope-token` of RFC 6749 section 3.3.
fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
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
