//! What the edge serves and checks: one immutable snapshot made from a valid `Config` and the files that it names.
//!
//! The daemon loads it at the start and on every reload; ingress reads it through [`SharedPolicy`]. A load either gives a
//! whole policy or an error, so a bad file never replaces a good policy; where files change by themselves, what was read before of a bad
//! one goes on in its place ([`Policy::renew`]). Nothing here looks at a request.

pub mod attestation;
pub mod demands;
pub mod dpop;
mod faults;
pub mod health;
pub mod hellos;
pub mod introspection;
pub mod issuer;
pub mod jwks;
pub mod keyring;
pub mod limiter;
mod listener;
pub mod payload;
pub mod pins;
pub mod refreshes;
pub mod revocations;
pub mod route;
pub mod signature;
pub mod tls;
pub mod upstream;

pub use self::listener::Listener;
pub use crate::strict_json;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Error, Result, anyhow};
use arc_swap::ArcSwap;
use enforcer_common::source::v6_mask;
use http::{HeaderName, HeaderValue};

use crate::{
    clock,
    config::{self, AllowedPort, Config, Feature, TlsVersion},
    prefix::Prefix,
    replay::Replay,
    revoked::Revoked,
};
use attestation::{Attestation, Demand};
use dpop::Dpop;
use faults::Faults;
use hellos::Hellos;
use issuer::Issuer;
use payload::Payload;
use pins::Pins;
use refreshes::Refreshes;
use route::{Route, Tokens, limits::Limits, oauth::OAuth, table::RouteTable};
use signature::Signers;
use tls::{certificates::Expiry, sessions::Sessions, tickets::TicketKeys};
pub use upstream::Upstream;

/// The policy in force. Swap a new one in with `store`; whoever works on a request keeps the one it began with.
pub type SharedPolicy = Arc<ArcSwap<Policy>>;

/// One consistent set of certificates, keys, routes and limits.
#[derive(Debug)]
pub struct Policy {
    /// By the listener's configured address.
    pub(crate) listeners: BTreeMap<SocketAddr, Listener>,
    /// What happens to requests, by path.
    pub(crate) routes: RouteTable,
    /// What makes an IPv6 source, see [`v6_mask`].
    pub(crate) v6_mask: u64,
    /// Limits of all HTTP connections.
    pub(crate) http: config::Http,
    /// What every answer carries.
    pub(crate) answers: Arc<Answers>,
    /// What is written down of requests.
    pub(crate) access_log: Arc<config::AccessLog>,
    /// The routes by what they are for, so that a reload finds the state of their limits.
    limits: BTreeMap<String, Arc<Route>>,
    /// What every connection has to offer.
    minimum_tls: TlsVersion,
    /// Sources of which the program judges nothing.
    allowed: Vec<Prefix>,
    /// Where bans hold, and where not.
    bans: BanRules,
    /// What proofs of having a key are judged by.
    pub(crate) dpop: Dpop,
    /// What devices are judged by; `None`: there are none.
    pub(crate) attestation: Option<Arc<Attestation>>,
    /// What was used and may not be again; one for the life of the process.
    pub(crate) replay: Arc<Replay>,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    issuers: BTreeMap<String, Arc<Issuer>>,
    signers: BTreeMap<String, Arc<Signers>>,
    payloads: BTreeMap<String, Arc<Payload>>,
    bare_hosts: Vec<(usize, String)>,
    tickets: Arc<TicketKeys>,
    sessions: Arc<Sessions>,
    pins: Pins,
    /// What is revoked; the same for every policy of a daemon.
    revoked: Arc<Revoked>,
    /// Refresh tokens that were exchanged for others; likewise.
    refreshed: Arc<Refreshes>,
    /// Who may revoke by request.
    revocation_client: Option<revocations::Client>,
}

/// Fields that answers get here.
#[derive(Debug)]
pub struct Answers {
    /// `Strict-Transport-Security` (RFC 6797), unless switched off.
    pub hsts: Option<HeaderValue>,
    /// Others, for answers that do not have them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Policy {
    /// Reads certificates, keys and JWK sets and compiles everything.
    pub fn load(config: &Config) -> Result<Self> {
        Self::load_at(config, clock::unix_now())
    }

    /// The same for a process that began at another time, seconds since 1970.
    pub fn load_at(config: &Config, began: u64) -> Result<Self> {
        let revoked = Revoked::new(config.revocation.max_entries as usize)?;
        Self::build(config, None, (began, began), revoked, &mut Faults::fatal())
    }

    /// The same beside what is revoked already.
    pub fn load_with(config: &Config, revoked: Arc<Revoked>) -> Result<Self> {
        let now = clock::unix_now();
        Self::build(config, None, (now, now), revoked, &mut Faults::fatal())
    }

    /// The same for a reload: whatever did not change keeps its state (request limits, pooled upstream connections,
    /// session tickets).
    pub fn reload(&self, config: &Config) -> Result<Self> {
        self.reload_at(config, clock::unix_now())
    }

    /// The same at another time, seconds since 1970.
    pub fn reload_at(&self, config: &Config, now: u64) -> Result<Self> {
        let (times, revoked) = ((self.replay.began(), now), Arc::clone(&self.revoked));
        Self::build(config, Some(self), times, revoked, &mut Faults::fatal())
    }

    /// The same for files that changed by themselves under `config`, which made this policy: of each that is bad, what was read before
    /// goes on, and the others are taken over. With all that is bad.
    pub fn renew(&self, config: &Config) -> Result<(Self, Vec<Error>)> {
        let (times, revoked) = ((self.replay.began(), clock::unix_now()), Arc::clone(&self.revoked));
        let mut faults = Faults::forgiven();
        let renewed = Self::build(config, Some(self), times, revoked, &mut faults)?;
        Ok((renewed, faults.found()))
    }

    /// What apps pin, and what they are served.
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// When the certificates end that are served, by the listener's configured address.
    pub fn expiries(&self) -> impl Iterator<Item = (SocketAddr, &Expiry)> {
        self.listeners.iter().flat_map(|(address, listener)| {
            listener.certificates.expiries().map(move |expiry| (*address, expiry))
        })
    }

    /// When revocation lists run out, and with them every client certificate, by the listener's configured address.
    pub fn list_ends(&self) -> impl Iterator<Item = (SocketAddr, i64)> {
        self.listeners
            .iter()
            .filter_map(|(address, listener)| Some((*address, listener.clients.as_ref()?.lists_end?)))
    }

    /// Hosts of routes for which no listener has a certificate, with the number of their route. No client gets there: it would have to
    /// ask for one host in its handshake and for another one in its request. Addresses are left out, since nobody asks for them by name.
    pub fn hosts_without_certificate(&self) -> &[(usize, String)] {
        &self.bare_hosts
    }

    /// Every issuer of tokens, by name.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.issuers.values()
    }

    /// What is revoked.
    pub const fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// Reads again what a file says to be revoked, and nothing else.
    pub fn list_revoked(&self, config: &Config) -> Result<()> {
        revocations::list(config, &self.revoked)
    }

    /// The token endpoints of servers behind.
    pub fn token_endpoints(&self) -> impl Iterator<Item = &OAuth> {
        let endpoints = self.limits.values().filter_map(|route| route.oauth.as_ref());
        endpoints.filter(|oauth| oauth.endpoint == config::Endpoint::Token)
    }

    /// What is known of refresh tokens.
    pub const fn refreshed(&self) -> &Arc<Refreshes> {
        &self.refreshed
    }

    /// Who may revoke by request; `None`: nobody.
    pub const fn revocation_client(&self) -> Option<&revocations::Client> {
        self.revocation_client.as_ref()
    }

    /// What every connection has to offer.
    pub const fn minimum_tls(&self) -> TlsVersion {
        self.minimum_tls
    }

    /// Whether the program judges nothing that `source` sends to a port: the configuration allows it everywhere, or there. What
    /// operators allow besides is in the ledger.
    pub fn exempts(&self, source: IpAddr, port: u16) -> bool {
        Prefix::any_contains(&self.allowed, source) || self.bans.exempt(source, port)
    }

    /// Whether a certificate that is served here is for a host.
    pub fn serves(&self, host: &str) -> bool {
        self.listeners.values().any(|listener| listener.certificates.serve(host))
    }

    /// What was used and may not be again.
    pub const fn replay(&self) -> &Arc<Replay> {
        &self.replay
    }

    /// What devices are judged by; `None`: there are none.
    pub const fn attestation(&self) -> Option<&Arc<Attestation>> {
        self.attestation.as_ref()
    }

    /// Every group of servers, by name.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// Whether `source` is one of the operator's own proxies, which speak for others.
    pub fn is_proxy(&self, source: IpAddr) -> bool {
        self.trusts(source) || self.listeners.values().any(|listener| listener.is_behind(source))
    }

    /// Whether a ban stops `source` at a port.
    pub fn bans_hold(&self, source: IpAddr, port: u16) -> bool {
        self.bans.hold(source, port)
    }

    /// Whether `source` is a proxy that is believed what it says of requests.
    pub fn trusts(&self, source: IpAddr) -> bool {
        self.http.trusts(source)
    }

    /// A policy in the form that ingress watches.
    pub fn share(self) -> SharedPolicy {
        Arc::new(ArcSwap::from_pointee(self))
    }

    fn build(
        config: &Config,
        old: Option<&Self>,
        (began, now): (u64, u64),
        revoked: Arc<Revoked>,
        faults: &mut Faults,
    ) -> Result<Self> {
        let tickets = match (&config.tls.ticket_keys, old) {
            (Some(path), old) => {
                let read = TicketKeys::from_file(path).context("tls.ticket_keys").map(Arc::new);
                faults.or_kept(read, old.map(|old| Arc::clone(&old.tickets)))?
            }
            (None, Some(old)) if old.tickets.is_own() => Arc::clone(&old.tickets),
            (None, _) => Arc::new(TicketKeys::own()?),
        };
        let sessions = match old.filter(|old| old.sessions.most() == config.tls.early_data_sessions) {
            Some(old) => Arc::clone(&old.sessions),
            None => Arc::new(Sessions::new(config.tls.early_data_sessions)),
        };
        let hellos = Hellos::of(&config.kernel).map(Arc::new);
        let mut sets = pins::load(&config.pins, now)?;
        let switched = pins::switched(&sets);
        let serve = |stays: bool, faults: &mut Faults| -> Result<BTreeMap<SocketAddr, Listener>> {
            let serve = |listener: &config::Listener| {
                let kept = old.and_then(|old| old.listeners.get(&listener.address));
                let kept = kept.map(|old| (&old.certificates, old.clients.as_ref(), stays));
                let (minimum, sealed) = (config.kernel.minimum_tls, (&tickets, &sessions));
                let served = faults.at(
                    || format!("listener {}", listener.address),
                    |faults| tls::serve(listener, minimum, &config.tls, sealed, &switched, kept, faults),
                )?;
                Ok((listener.address, Listener::new(listener, &config.kernel, served, hellos.clone())))
            };
            config.listeners.iter().map(serve).collect()
        };
        let mut listeners = serve(false, faults)?;
        let shown = |listeners: &BTreeMap<SocketAddr, Listener>| {
            listeners.values().map(|listener| Arc::clone(&listener.certificates)).collect::<Vec<_>>()
        };
        if let Err(refused) = pins::guard(&mut sets, shown(&listeners).iter().map(|one| &**one), now) {
            faults.or_kept(Err(refused.into()), old.map(|_| ()))?;
            // The certificates that are served were judged before: they stay, whatever the guard would say of them now. What else is bad
            // has been said.
            listeners = serve(true, &mut Faults::forgiven())?;
            sets.iter_mut().for_each(|set| set.served.clear());
            drop(pins::guard(&mut sets, shown(&listeners).iter().map(|one| &**one), now));
        }
        let pins = Pins::new(&config.pins, sets, now, old.map(|old| &old.pins))?;
        let upstreams = upstream::build(&config.upstreams, old.map(|old| &old.upstreams), faults)?;
        let mut issuers = BTreeMap::new();
        for (name, token) in &config.tokens {
            let old = old.and_then(|old| old.issuers.get(name));
            let issuer = faults.at(
                || format!("token.{name}"),
                |faults| Issuer::renew(name, token, issuer::asked(config, name), &revoked, old, faults),
            )?;
            issuers.insert(name.clone(), issuer);
        }
        let mut signers = BTreeMap::new();
        for (name, signature) in &config.signatures {
            let read = Signers::load(name, signature).with_context(|| format!("signature.{name}"));
            let kept = old.and_then(|old| old.signers.get(name)).cloned();
            signers.insert(name.clone(), faults.or_kept(read.map(Arc::new), kept)?);
        }
        let payloads = payload::load(&config.payloads, old.map(|old| &old.payloads), faults)?;
        let dpop = Dpop::new(&config.dpop, old.map(|old| &old.dpop))?;
        let attestation = match &config.attestation {
            None => None,
            Some(attestation) => {
                let old = old.and_then(|old| old.attestation.as_ref());
                let loaded = Attestation::load(attestation, config.http.max_sources, began, old);
                Some(faults.or_kept(loaded.context("attestation").map(Arc::new), old.cloned())?)
            }
        };
        let refreshed = match old {
            Some(old) => Arc::clone(&old.refreshed),
            None => Refreshes::new(config.revocation.max_refresh_tokens as usize)?,
        };
        // What an introspected token says of its end is not to be relied on.
        let endless = |issuer: &Arc<Issuer>| issuer.introspector().map_or(issuer.longest(), |_| u64::MAX);
        let longest = issuers.values().map(endless).max();
        let mut routes = Vec::with_capacity(config.routes.len());
        let mut limits = BTreeMap::new();
        for route in &config.routes {
            let id = route::identity(route);
            let old = old.and_then(|old| old.limits.get(&id));
            let kept = old.map(|route| &route.limits);
            let taken = (&refreshed, &revoked, longest);
            let was = old.and_then(|route| route.oauth.as_ref());
            let oauth = route.oauth.as_ref();
            let oauth = oauth.map(|oauth| OAuth::new(oauth, config.http.max_sources, taken, was));
            let named = (&upstreams, &issuers, (&signers, attestation.as_ref()), dpop.algs.as_str());
            let built = build_route(config, (route, oauth), named, kept);
            let mut built = built.with_context(|| format!("route {}", route.path))?;
            built.payload = payload::of_route(route, &payloads)?;
            let built = Arc::new(built);
            limits.insert(id, Arc::clone(&built));
            routes.push((route.hosts.as_slice(), built));
        }
        let is_bare = |host: &String| {
            let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
            address.is_err()
                && !listeners.values().any(|listener: &Listener| listener.certificates.cover(host))
        };
        let hosts = config
            .routes
            .iter()
            .enumerate()
            .flat_map(|(i, route)| route.hosts.iter().map(move |host| (i, host)));
        let bare_hosts = hosts.filter(|(_, host)| is_bare(host)).map(|(i, host)| (i, host.clone())).collect();
        let routes = RouteTable::new(routes)?;
        let answers = Arc::new(answers(&config.http)?);
        let client = config.revocation.client.as_ref().map(revocations::Client::load).transpose();
        let revocation_client = faults.or_kept(client, old.map(|old| old.revocation_client.clone()))?;
        // Last of all, because it is in force at once.
        faults.or_kept(revocations::list(config, &revoked), Some(()))?;
        Ok(Self {
            listeners,
            routes,
            limits,
            v6_mask: v6_mask(config.kernel.ipv6_prefix),
            http: config.http.clone(),
            answers,
            access_log: Arc::new(config.access_log.clone()),
            minimum_tls: config.kernel.minimum_tls,
            allowed: config.kernel.allow.clone(),
            bans: BanRules::new(&config.kernel),
            attestation,
            dpop,
            replay: old.map_or_else(
                || Arc::new(Replay::new(config.replay.max_entries, began)),
                |old| Arc::clone(&old.replay),
            ),
            upstreams,
            issuers,
            signers,
            payloads,
            bare_hosts,
            tickets,
            sessions,
            pins,
            revoked,
            refreshed,
            revocation_client,
        })
    }
}

/// Which bans the program would enforce, so that requests meet the same ones.
#[derive(Debug)]
struct BanRules {
    rehearsed: bool,
    doors: Vec<AllowedPort>,
    management_ports: Vec<u16>,
    management_from: Vec<Prefix>,
}

impl BanRules {
    fn new(kernel: &config::Kernel) -> Self {
        Self {
            rehearsed: kernel.dry_run.contains(&Feature::Bans),
            doors: kernel.allow_ports.clone(),
            management_ports: kernel.management_ports.clone(),
            management_from: kernel.management_from.clone(),
        }
    }

    fn hold(&self, source: IpAddr, port: u16) -> bool {
        !self.rehearsed && !self.exempt(source, port)
    }

    /// Whether a source passes at a port for a door of its own, or because it manages this host.
    fn exempt(&self, source: IpAddr, port: u16) -> bool {
        let from = &self.management_from;
        self.doors.iter().any(|door| door.port == port && door.source.contains(source))
            || self.management_ports.contains(&port)
                && (from.is_empty() || Prefix::any_contains(from, source))
    }
}

fn answers(http: &config::Http) -> Result<Answers> {
    let hsts = http.strict_transport_security.as_deref().filter(|value| !value.is_empty());
    let hsts = hsts.map(HeaderValue::from_str).transpose();
    let field = |(name, value): (&String, &String)| -> Result<_> {
        let read = || anyhow::Ok((HeaderName::try_from(name)?, HeaderValue::try_from(value)?));
        read().with_context(|| format!("http.response_headers.{name}"))
    };
    Ok(Answers {
        hsts: hsts.context("http.strict_transport_security is no header value")?,
        headers: http.response_headers.iter().map(field).collect::<Result<_>>()?,
    })
}

/// What routes name, and what proofs may be signed with.
type Named<'p> = (
    &'p BTreeMap<String, Arc<Upstream>>,
    &'p BTreeMap<String, Arc<Issuer>>,
    (&'p BTreeMap<String, Arc<Signers>>, Option<&'p Arc<Attestation>>),
    &'p str,
);

fn build_route(
    config: &Config,
    (route, oauth): (&config::Route, Option<OAuth>),
    (upstreams, issuers, (signers, attestation), algs): Named<'_>,
    old: Option<&Limits>,
) -> Result<Route> {
    let upstream =
        upstreams.get(&route.upstream).ok_or_else(|| anyhow!("no [upstream.{}]", route.upstream))?;
    let issuer = |name: &String| issuers.get(name).cloned().ok_or_else(|| anyhow!("no [token.{name}]"));
    let named = route.tokens.iter().map(issuer).collect::<Result<Vec<_>>>()?;
    let tokens = Tokens::new(named, &route.demands, route.bindings, algs)?;
    let signer = |name: &String| signers.get(name).cloned().ok_or_else(|| anyhow!("no [signature.{name}]"));
    let signers = route.signature.as_ref().map(signer).transpose()?;
    let limits = Limits::new(route, &config.http, old);
    let demand = |config: &config::AttestationDemand| -> Result<Demand> {
        let by = attestation
            .context("`attestation` without the section, which takes effect with a start alone")?;
        Ok(Demand { config: config.clone(), by: Arc::clone(by) })
    };
    let demand = route.attestation.as_ref().map(demand).transpose()?;
    Route::new(route, Arc::clone(upstream), (tokens, signers, demand), limits, oauth)
}
