//! Whether a request may pass: every check, in one visible order.
//!
//! Ingress calls [`admit`] once per request; its [`Grant`] is what upstream asks for. Checks are synchronous, take the
//! time as an argument, and neither log nor count: who calls them does.

pub mod facts;
pub mod forwarded;
mod limit;
mod scope;
pub mod target;
pub mod token;

use std::sync::Arc;

use http::HeaderValue;

use crate::{
    clock::KernelTime,
    denial::Denial,
    policy::{Policy, Upstream, route::Route},
};
use facts::{ClientAddr, RequestFacts};

/// The two clocks that checks need.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For limits.
    pub monotonic: KernelTime,
    /// For claims: seconds since 1970.
    pub unix: u64,
}

/// A request that passed every check of its route. Nothing else makes one.
#[derive(Debug)]
pub struct Grant {
    route: Arc<Route>,
    source: ClientAddr,
    subject: Option<Box<str>>,
}

impl Grant {
    /// Where the request goes.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.route.upstream
    }

    /// The route that it was checked for.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Who sent the request.
    pub fn source(&self) -> ClientAddr {
        self.source
    }

    /// `sub` of the token, if there is a token and it names one.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }
}

/// Why a request does not pass, and what its client is told besides.
#[derive(Debug)]
pub struct Refusal {
    /// The reason.
    pub denial: Denial,
    /// The route, if the request got that far.
    pub route: Option<Arc<Route>>,
    /// Seconds after which it may be tried again.
    pub retry_after: Option<u64>,
    /// `WWW-Authenticate` (RFC 6750 section 3).
    pub challenge: Option<HeaderValue>,
}

impl Refusal {
    /// A refusal that says no more than its reason.
    pub const fn plain(denial: Denial) -> Self {
        Self { denial, route: None, retry_after: None, challenge: None }
    }

    fn at(self, route: &Arc<Route>) -> Self {
        Self { route: Some(Arc::clone(route)), ..self }
    }
}

/// Checks a request: route, limit, token, scopes.
///
/// The limit comes before the token because verifying a signature costs more than everything else here together: a
/// source beyond its limit must not be able to buy CPU time with bad tokens.
pub fn admit(policy: &Policy, facts: &RequestFacts<'_>, now: Now) -> Result<Grant, Refusal> {
    let route = policy.routes.find(&facts.path).ok_or(Refusal::plain(Denial::RouteNotFound))?;
    limit::check(policy, route, facts.address, now.monotonic).map_err(|refusal| refusal.at(route))?;
    let mut subject = None;
    if let Some(issuer) = &route.issuer {
        let claims = token::check(issuer, facts.headers, now.unix).map_err(|refusal| refusal.at(route))?;
        scope::check(route, &claims).map_err(|refusal| refusal.at(route))?;
        subject = claims.subject;
    }
    Ok(Grant { route: Arc::clone(route), source: facts.address, subject })
}
