//! Whether a request may pass: every check, in one visible order.
//!
//! Ingress calls [`admit`] once per request; its [`Grant`] is what upstream asks for. Checks are synchronous, take the
//! time as an argument, and neither log nor count: who calls them does.

mod demands;
pub mod devices;
pub mod facts;
pub mod forwarded;
pub mod graphql;
pub mod limit;
pub mod oauth;
pub mod origin;
pub mod payload;
pub mod pins;
pub mod reports;
pub mod signature;
pub mod suspicion;
pub mod target;
pub mod token;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{
    clock::KernelTime,
    config::Unrouted,
    denial::Denial,
    enrolment::facts::Said,
    policy::{
        Policy, Upstream,
        keyring::Pending,
        refreshes::Exchange,
        route::{Route, table::Miss},
    },
    replay::Receipt,
};
use devices::{
    Attested,
    play::request::{self, Brought},
};
use facts::{ClientAddr, RequestFacts};
use limit::{Payer, Standing};
use signature::Signed;
use token::{Checked, Claims, KnownTokens, binding};

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
    /// The device that it comes from, if its route asks for one.
    attested: Option<Box<Attested>>,
    token_age: Option<i64>,
    v6_mask: u64,
    /// What its client shall use in its next proof.
    dpop_nonce: Option<HeaderValue>,
    /// Whether all that there is to judge was judged.
    is_judged: bool,
    /// What its body is held against yet, if the route asks for a signature.
    signed: Option<Signed>,
    /// Whether all that has to be signed is.
    is_signed: bool,
    /// Whether its body was opened, or need not be.
    is_opened: bool,
    /// What it and its body are held against yet, if the route asks for an assertion.
    asserted: Option<Box<devices::assertion::Asserted>>,
    /// Whether all that its device has to sign is signed.
    is_asserted: bool,
    /// What it has brought that Google is to be asked about, if the route asks for that.
    brought: Option<Box<Brought>>,
    /// Whether all that Google has to say was said.
    is_vouched: bool,
    /// What becomes of refresh tokens when the request has succeeded.
    exchange: Option<Box<Exchange>>,
    /// What its proof of a key waits for, if it has brought one to a token endpoint.
    proof: Option<Receipt>,
    /// What its limits made of it.
    pub standing: Standing,
}

impl Grant {
    /// Where the request goes; nowhere before its body was held against its signature and its assertion, Google was asked, it was opened,
    /// and its document was judged, if its route asks for that.
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        let is_shown = self.is_signed && self.is_asserted && self.is_vouched;
        (self.is_judged && is_shown && self.is_opened).then_some(&self.route.upstream)
    }

    /// What is to be told how the exchange of a refresh token ended.
    pub fn take_exchange(&mut self) -> Option<Box<Exchange>> {
        self.exchange.take()
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

    /// The device that it comes from, if that has shown what it is.
    pub fn device(&self) -> Option<&str> {
        self.attested.as_ref().map(|attested| &*attested.name)
    }

    /// Whether its device is taken although its risk metric is above what the route takes without more.
    pub fn is_over_risk(&self) -> bool {
        self.attested.as_ref().is_some_and(|attested| attested.is_over_risk())
    }

    /// What its server is told of that, once [`Self::tell`] has put it into words.
    pub fn device_facts(&self) -> Option<&HeaderValue> {
        self.attested.as_ref()?.facts.as_ref()
    }

    /// Puts that into words, right before the request goes there: what was said earlier may be over by the time that its body has come.
    /// `now`: seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Denial::Overloaded`]: it cannot be signed, and no server is left without it.
    pub fn tell(&mut self, now: u64) -> Result<(), Denial> {
        let (Some(demand), Some(attested)) = (&self.route.attestation, &mut self.attested) else {
            return Ok(());
        };
        attested.tell(&demand.by, &self.route.upstream.name, self.standing.suspicion, now)
    }

    /// What Google Play has said of that device, in one word, if the route asks.
    pub fn play(&self) -> Option<&'static str> {
        self.attested.as_ref()?.said.map(Said::name)
    }

    /// `DPoP-Nonce` of the answer, if the client has to learn a new one.
    pub fn dpop_nonce(&self) -> Option<&HeaderValue> {
        self.dpop_nonce.as_ref()
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
    /// Another field of the answer: `Allow` (RFC 9110 section 10.2.1), `DPoP-Nonce`; rare, and so elsewhere.
    pub field: Option<Box<(HeaderName, HeaderValue)>>,
    /// What its limits made of it, if it got that far.
    pub standing: Option<Box<Standing>>,
    /// The time by which the token was judged, seconds since 1970, where its times are the reason.
    pub server_time: Option<u64>,
    /// As [`Grant::token_age`].
    pub token_age: Option<i64>,
    /// The field that the route requires and the request lacks; rare, and so elsewhere.
    pub missing: Option<Box<HeaderName>>,
    /// The token's issuer is being asked for its keys: after that [`admit_again`] may decide otherwise.
    pub pending: Option<Box<Pending>>,
    /// It adds nothing to its source's ban score, whatever its reason weighs.
    pub is_forgiven: bool,
}

impl Refusal {
    /// A refusal that says no more than its reason.
    pub const fn plain(denial: Denial) -> Self {
        Self {
            denial,
            route: None,
            retry_after: None,
            challenge: None,
            field: None,
            server_time: None,
            token_age: None,
            missing: None,
            pending: None,
            standing: None,
            is_forgiven: false,
        }
    }

    /// The same with another field of the answer.
    pub(crate) fn with(self, field: Option<(HeaderName, HeaderValue)>) -> Self {
        Self { field: field.map(Box::new), ..self }
    }

    /// The same for a request that got as far as this.
    pub(crate) fn at(self, route: &Arc<Route>, standing: Standing) -> Self {
        Self { route: Some(Arc::clone(route)), standing: Some(Box::new(standing)), ..self }
    }
}

/// Checks a request: bans, route, whether it comes too early, limits by address, required fields, token, what it is bound to, what the
/// route demands of it, the device, what speaks for somebody in the middle, other limits, signature, assertion.
///
/// Limits by address come before the token because verifying a signature costs more than everything else here together: a
/// source beyond its limit must not be able to buy CPU time with bad tokens. What such a request was charged stays
/// charged, whatever comes later.
pub fn admit(
    policy: &Policy,
    facts: &RequestFacts<'_>,
    now: Now,
    known: &mut KnownTokens,
) -> Result<Grant, Refusal> {
    judge(policy, facts, now, known, None)
}

/// Whether a request is the question of a browser that a route answers for its pages (CORS preflight, Fetch standard section 3.2.2): then
/// the route that the announced request would get, and what its limits made of it. Such a question carries no token by design, so none
/// is asked for; bans and limits by address hold.
pub fn preflight(
    policy: &Policy,
    facts: &RequestFacts<'_>,
    now: Now,
) -> Option<Result<(Arc<Route>, Standing), Refusal>> {
    if *facts.method != Method::OPTIONS {
        return None;
    }
    let one = |name: HeaderName| {
        let mut values = facts.headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    one(header::ORIGIN)?;
    let method = Method::from_bytes(one(header::ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()?;
    let host = policy.routes.needs_host().then(|| facts.host()).flatten();
    let route = policy.routes.find(host.as_deref(), &facts.path, &method, facts.headers).ok()?;
    route.cors.as_ref()?;
    if facts.is_banned {
        return Some(Err(Refusal::plain(Denial::Banned)));
    }
    let payer = Payer { v6_mask: policy.v6_mask, facts, subject: None, device: None };
    let mut standing = Standing::default();
    Some(match limit::check(route.limits.early(), route, &payer, now.monotonic, &mut standing) {
        Ok(()) => Ok((Arc::clone(route), standing)),
        Err(refusal) => Err(refusal.at(route, standing)),
    })
}

/// As [`admit`], for a request that has waited for keys: its limits by address were charged before, with what they made of it.
pub fn admit_again(
    policy: &Policy,
    facts: &RequestFacts<'_>,
    now: Now,
    known: &mut KnownTokens,
    before: Standing,
) -> Result<Grant, Refusal> {
    judge(policy, facts, now, known, Some(before))
}

fn judge(
    policy: &Policy,
    facts: &RequestFacts<'_>,
    now: Now,
    known: &mut KnownTokens,
    before: Option<Standing>,
) -> Result<Grant, Refusal> {
    if facts.is_banned {
        return Err(Refusal::plain(Denial::Banned));
    }
    let route = route(policy, facts)?;
    let first = before.is_none();
    let mut standing = before.unwrap_or_default();
    if first {
        in_time(route, facts).map_err(|denial| Refusal::plain(denial).at(route, Standing::default()))?;
        let payer = Payer { v6_mask: policy.v6_mask, facts, subject: None, device: None };
        if let Err(refusal) = limit::check(route.limits.early(), route, &payer, now.monotonic, &mut standing)
        {
            return Err(refusal.at(route, standing));
        }
    }
    match pass(policy, route, facts, now, (known, first), &mut standing) {
        Ok(Passed { token, attested, dpop_nonce, signed, asserted, brought }) => {
            let (claims, token_age) = token.map_or((None, None), |token| (Some(token.claims), token.age));
            Ok(Grant {
                route: Arc::clone(route),
                source: facts.address,
                claims,
                attested,
                token_age,
                v6_mask: policy.v6_mask,
                dpop_nonce,
                is_judged: route.graphql.is_none() && route.oauth.is_none(),
                is_signed: route.signers.is_none(),
                is_opened: route.payload.is_none(),
                signed,
                is_asserted: asserted.is_none(),
                asserted,
                is_vouched: brought.is_none(),
                brought,
                exchange: None,
                proof: None,
                standing,
            })
        }
        Err(refusal) => Err(refusal.at(route, standing)),
    }
}

fn route<'p>(policy: &'p Policy, facts: &RequestFacts<'_>) -> Result<&'p Arc<Route>, Refusal> {
    let host = policy.routes.needs_host().then(|| facts.host()).flatten();
    let found = policy.routes.find(host.as_deref(), &facts.path, facts.method, facts.headers);
    found.map_err(|miss| match (miss, policy.http.unrouted) {
        (Miss::Method(allow), _) => {
            Refusal::plain(Denial::MethodNotAllowed).with(Some((header::ALLOW, allow)))
        }
        (Miss::Nothing, Unrouted::NotFound) => Refusal::plain(Denial::RouteNotFound),
        (Miss::Nothing, Unrouted::Deny) => Refusal::plain(Denial::RouteDenied),
    })
}

/// Early data can be replayed (RFC 8446 section 8): it may ask for what is safe by its method, where the route says so, and for
/// nothing else (RFC 8470 section 5.2). Before the limits, for the same request comes once more.
fn in_time(route: &Route, facts: &RequestFacts<'_>) -> Result<(), Denial> {
    let is_good = route.early_data && facts.method.is_safe() && !facts.upgrades;
    if facts.is_early && !is_good { Err(Denial::TooEarly) } else { Ok(()) }
}

/// What a request showed.
struct Passed {
    token: Option<Checked>,
    attested: Option<Box<Attested>>,
    dpop_nonce: Option<HeaderValue>,
    signed: Option<Signed>,
    asserted: Option<Box<devices::assertion::Asserted>>,
    brought: Option<Box<Brought>>,
}

/// What comes after the limits by address; the token, if the route needs one.
fn pass(
    policy: &Policy,
    route: &Route,
    facts: &RequestFacts<'_>,
    now: Now,
    (known, first): (&mut KnownTokens, bool),
    standing: &mut Standing,
) -> Result<Passed, Refusal> {
    required(route, facts.headers)?;
    if !policy.http.tokens_in_query && facts.target.query.is_some_and(oauth::has_credentials) {
        return Err(Refusal::plain(Denial::TokenInQuery));
    }
    let (mut token, mut dpop_nonce) = (None, None);
    if let Some(tokens) = &route.tokens {
        let in_scheme = |refusal| binding::challenge(refusal, tokens, facts.headers);
        let good = token::check(tokens, facts.headers, now, known, first).map_err(in_scheme)?;
        let aged = |refusal| in_scheme(Refusal { token_age: good.age, ..refusal });
        dpop_nonce = binding::check(policy, (route, tokens), facts, &good, now).map_err(aged)?;
        demands::check(&tokens.demands, facts.method, &good, now.unix).map_err(aged)?;
        token = Some(good);
    }
    let subject = token.as_ref().and_then(|token| token.claims.subject.as_deref());
    let age = token.as_ref().and_then(|token| token.age);
    let aged = |refusal| Refusal { token_age: age, ..refusal };
    // After the token, which may be of anybody: a device that is not welcome learns no more than that.
    let mut attested = None;
    if let Some(demand) = &route.attestation {
        let (device, nonce) = devices::demand::check(policy, route, demand, facts, now).map_err(aged)?;
        dpop_nonce = dpop_nonce.or(nonce);
        attested = Some(Box::new(device));
    }
    if let Some(demand) = &route.suspicion {
        let platform = attested.as_ref().map(|attested| attested.platform());
        let score = suspicion::judge(policy, demand, facts, platform, now);
        standing.suspicion = Some(score);
        suspicion::check(demand, score).map_err(aged)?;
    }
    let device = attested.as_ref().map(|attested| &*attested.name);
    let payer = Payer { v6_mask: policy.v6_mask, facts, subject, device };
    limit::check(route.limits.late(), route, &payer, now.monotonic, standing).map_err(aged)?;
    // Last, so that nothing that comes before uses a signature up. What an assertion or a token lacks is found only after that: a request
    // without the fields of one has spent its signature, and its client signs anew.
    let signed =
        route.signers.as_ref().map(|signers| signature::head(policy, signers, facts, now)).transpose()?;
    let (mut asserted, mut brought) = (None, None);
    if let (Some(attested), Some(demand)) = (&mut attested, &route.attestation) {
        asserted = devices::assertion::head(demand, facts, attested, now).map_err(aged)?;
        brought = request::head(policy, demand, attested, facts, now).map_err(aged)?;
    }
    Ok(Passed { token, attested, dpop_nonce, signed, asserted, brought })
}

/// What the route requires must be there, and go on: what `Connection` names does not (RFC 9110 section 7.6.1). Before the token,
/// because what takes away one field may have taken the token, too.
fn required(route: &Route, headers: &HeaderMap) -> Result<(), Refusal> {
    let lacks = |name: &&HeaderName| {
        let named = |value: &HeaderValue| {
            value
                .to_str()
                .is_ok_and(|text| text.split(',').any(|one| one.trim().eq_ignore_ascii_case(name.as_str())))
        };
        headers.get(*name).is_none_or(HeaderValue::is_empty)
            || headers.get_all(header::CONNECTION).iter().any(named)
    };
    match route.required_headers.iter().find(lacks) {
        None => Ok(()),
        Some(name) => {
            Err(Refusal { missing: Some(Box::new(name.clone())), ..Refusal::plain(Denial::HeaderMissing) })
        }
    }
}
