//! Whether a request may pass: every check, in one visible order.
//!
//! Ingress calls [`admit`] once per request; its [`Grant`] is what upstream asks for. Checks are synchronous, take the
//! time as an argument, and neither log nor count: who calls them does.

mod demands;
pub mod facts;
pub mod forwarded;
mod limit;
pub mod target;
pub mod token;

use std::sync::Arc;

use http::HeaderValue;

use crate::{
    clock::KernelTime,
    denial::Denial,
    policy::{Policy, Upstream, keyring::Pending, route::Route},
};
use facts::{ClientAddr, RequestFacts};
use token::{Claims, KnownTokens};

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
    claims: Option<Arc<Claims>>,
    token_age: Option<i64>,
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
        self.claims.as_ref()?.subject.as_deref()
    }

    /// Seconds between the issue of the token and now, when it is seen for the first time; negative if it is yet to come.
    pub fn token_age(&self) -> Option<i64> {
        self.token_age
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
    /// The time by which the token was judged, seconds since 1970, where its times are the reason.
    pub server_time: Option<u64>,
    /// As [`Grant::token_age`].
    pub token_age: Option<i64>,
    /// The token's issuer is being asked for its keys: after that [`admit_again`] may decide otherwise.
    pub pending: Option<Pending>,
}

impl Refusal {
    /// A refusal that says no more than its reason.
    pub const fn plain(denial: Denial) -> Self {
        Self {
            denial,
            route: None,
            retry_after: None,
            challenge: None,
            server_time: None,
            token_age: None,
            pending: None,
        }
    }

    fn at(self, route: &Arc<Route>) -> Self {
        Self { route: Some(Arc::clone(route)), ..self }
    }
}

/// Checks a request: route, limit, token, and what the route demands of it.
///
/// The limit comes before the token because verifying a signature costs more than everything else here together: a
/// source beyond its limit must not be able to buy CPU time with bad tokens.
pub fn admit(
    policy: &Policy,
    facts: &RequestFacts<'_>,
    now: Now,
    known: &mut KnownTokens,
) -> Result<Grant, Refusal> {
    judge(policy, facts, now, known, true)
}

/// The same for a request that has waited for keys: its limit was charged before.
pub fn admit_again(
    policy: &Policy,
    facts: &RequestFacts<'_>,
    now: Now,
    known: &mut KnownTokens,
) -> Result<Grant, Refusal> {
    judge(policy, facts, now, known, false)
}

fn judge(
    policy: &Policy,
    facts: &RequestFacts<'_>,
    now: Now,
    known: &mut KnownTokens,
    first: bool,
) -> Result<Grant, Refusal> {
    let route = policy.routes.find(&facts.path).ok_or(Refusal::plain(Denial::RouteNotFound))?;
    if first {
        limit::check(policy, route, facts.address, now.monotonic).map_err(|refusal| refusal.at(route))?;
    }
    let mut grant = Grant { route: Arc::clone(route), source: facts.address, claims: None, token_age: None };
    if let Some(tokens) = &route.tokens {
        let token =
            token::check(tokens, facts.headers, now, known, first).map_err(|refusal| refusal.at(route))?;
        demands::check(&tokens.demands, facts.method, &token, now.unix)
            .map_err(|refusal| Refusal { token_age: token.age, ..refusal.at(route) })?;
        grant.token_age = token.age;
        grant.claims = Some(token.claims);
    }
    Ok(grant)
}
