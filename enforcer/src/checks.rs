//! Whether a request may pass: every check, in one visible order.
//!
//! Ingress calls [`admit`] once per request; its [`Grant`] is what upstream asks for. Checks are synchronous, take the
//! time as an argument, and neither log nor count: who calls them does.

pub mod facts;
pub mod graphql;
pub mod limit;
mod scope;
pub mod target;
pub mod token;

use std::sync::Arc;

use http::HeaderValue;

use crate::{
    clock::KernelTime,
    config::Unrouted,
    denial::Denial,
    policy::{
        Policy, Upstream,
        route::{Route, table::Miss},
    },
};
use facts::{ClientAddr, RequestFacts};
use limit::{Payer, Standing};

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
    /// Of its token; only where a document may need more of them than the route.
    scopes: Vec<Box<str>>,
    v6_mask: u64,
    /// Whether all that there is to judge was judged.
    is_judged: bool,
    /// What its limits made of it.
    pub standing: Standing,
}

impl Grant {
    /// Where the request goes; nowhere before its document was judged, if its route asks for that.
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.is_judged.then_some(&self.route.upstream)
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
    /// `Allow` (RFC 9110 section 10.2.1).
    pub allow: Option<HeaderValue>,
    /// What its limits made of it, if it got that far.
    pub standing: Option<Box<Standing>>,
}

impl Refusal {
    /// A refusal that says no more than its reason.
    pub const fn plain(denial: Denial) -> Self {
        Self { denial, route: None, retry_after: None, challenge: None, allow: None, standing: None }
    }

    /// The same for a request that got as far as this.
    pub(crate) fn at(self, route: &Arc<Route>, standing: Standing) -> Self {
        Self { route: Some(Arc::clone(route)), standing: Some(Box::new(standing)), ..self }
    }
}

/// Checks a request: route, limits by address, token, scopes, other limits.
///
/// Limits by address come before the token because verifying a signature costs more than everything else here together: a
/// source beyond its limit must not be able to buy CPU time with bad tokens. What such a request was charged stays
/// charged, whatever comes later.
pub fn admit(policy: &Policy, facts: &RequestFacts<'_>, now: Now) -> Result<Grant, Refusal> {
    let route = route(policy, facts)?;
    let mut standing = Standing::default();
    match pass(policy, route, facts, now, &mut standing) {
        Ok((subject, scopes)) => Ok(Grant {
            route: Arc::clone(route),
            source: facts.client.address,
            subject,
            scopes,
            v6_mask: policy.v6_mask,
            is_judged: route.graphql.is_none(),
            standing,
        }),
        Err(refusal) => Err(refusal.at(route, standing)),
    }
}

fn route<'p>(policy: &'p Policy, facts: &RequestFacts<'_>) -> Result<&'p Arc<Route>, Refusal> {
    let host = policy.routes.needs_host().then(|| facts.host()).flatten();
    let found = policy.routes.find(host.as_deref(), &facts.path, facts.method, facts.headers);
    found.map_err(|miss| match (miss, policy.http.unrouted) {
        (Miss::Method(allow), _) => {
            Refusal { allow: Some(allow), ..Refusal::plain(Denial::MethodNotAllowed) }
        }
        (Miss::Nothing, Unrouted::NotFound) => Refusal::plain(Denial::RouteNotFound),
        (Miss::Nothing, Unrouted::Deny) => Refusal::plain(Denial::RouteDenied),
    })
}

/// What comes after the route; the subject of the token, if there is one, and the scopes that are still needed.
fn pass(
    policy: &Policy,
    route: &Route,
    facts: &RequestFacts<'_>,
    now: Now,
    standing: &mut Standing,
) -> Result<(Option<Box<str>>, Vec<Box<str>>), Refusal> {
    let mut payer = Payer { v6_mask: policy.v6_mask, facts, subject: None };
    limit::check(route.limits.early(), route, &payer, now.monotonic, standing)?;
    let (mut subject, mut scopes) = (None, Vec::new());
    if let Some(issuer) = &route.issuer {
        let claims = token::check(issuer, facts.headers, now.unix)?;
        scope::check(route, &claims)?;
        subject = claims.subject;
        if route.graphql.is_some() {
            scopes = claims.scopes;
        }
    }
    payer.subject = subject.as_deref();
    limit::check(route.limits.late(), route, &payer, now.monotonic, standing)?;
    Ok((subject, scopes))
}
