//! A worker's handles to the daemon's counters, resolved once so that counting a request needs no lock and no lookup by
//! text.

use std::sync::{Arc, Weak};

use prometheus::{Histogram, IntCounter};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};

use crate::{checks::limit::Marks, denial::Denial, metrics::Metrics, policy::route::Route};

/// Label of requests that reached no route.
const NO_ROUTE: &str = "none";
/// Label of requests in plain HTTP. Routes begin with a slash.
const REDIRECT: &str = "redirect";
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

type Answers = [IntCounter; CLASSES.len()];

/// What a handshake came to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shaken {
    version: Option<ProtocolVersion>,
    group: Option<NamedGroup>,
    resumed: bool,
}

impl Shaken {
    #[allow(clippy::wildcard_enum_match_arm, reason = "no other can be agreed upon")]
    const fn labels(self) -> [&'static str; 3] {
        let group = match self.group {
            Some(NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
            Some(NamedGroup::X25519) => "X25519",
            Some(NamedGroup::secp256r1) => "P-256",
            // A resumed session of TLS 1.2 agrees upon none (RFC 5246 section 7.3).
            None => "none",
            Some(_) => "other",
        };
        [version(self.version), group, if self.resumed { "true" } else { "false" }]
    }
}

/// The name of a version of TLS.
#[allow(clippy::wildcard_enum_match_arm, reason = "no other can be agreed upon")]
pub(super) const fn version(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "other",
    }
}

/// Where a client may take too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Handshake,
    Head,
    Body,
    Write,
    Idle,
}

const STAGES: [&str; 5] = ["handshake", "head", "body", "write", "idle"];

/// Counters of one route.
struct ByRoute {
    route: Weak<Route>,
    answers: Answers,
    token_ages: Histogram,
    /// What befell its limits so far: number, label, counter.
    limits: Vec<(usize, &'static str, IntCounter)>,
}

/// Counters that a connection or a request may touch.
pub(super) struct Counters {
    metrics: Metrics,
    accepted: IntCounter,
    denials: Vec<IntCounter>,
    /// Passed, refused here, refused by the upstream.
    early: [IntCounter; 3],
    /// By [`Stage`].
    time_limits: [IntCounter; STAGES.len()],
    unrouted: Answers,
    redirected: Answers,
    /// A dozen at most: what can be agreed upon is ours to say.
    handshakes: Vec<(Shaken, IntCounter)>,
    by_route: Vec<ByRoute>,
}

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let denial = |denial: &Denial| metrics.denials.with_label_values(&[denial.code()]);
        Self {
            accepted: metrics.connections.with_label_values(&["accepted"]),
            denials: Denial::ALL.iter().map(denial).collect(),
            early: ["passed", "refused", "refused_upstream"]
                .map(|result| metrics.early_requests.with_label_values(&[result])),
            time_limits: STAGES.map(|stage| metrics.time_limits.with_label_values(&[stage])),
            unrouted: answers(metrics, NO_ROUTE),
            redirected: answers(metrics, REDIRECT),
            handshakes: Vec::new(),
            by_route: Vec::new(),
            metrics: metrics.clone(),
        }
    }

    /// A connection got as far as HTTP.
    pub(super) fn connection_accepted(&mut self, tls: &rustls::ServerConnection) {
        self.accepted.inc();
        let shaken = Shaken {
            version: tls.protocol_version(),
            group: tls.negotiated_key_exchange_group().map(|group| group.name()),
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        if let Some((_, counter)) = self.handshakes.iter().find(|(known, _)| *known == shaken) {
            return counter.inc();
        }
        let counter = self.metrics.handshakes.with_label_values(&shaken.labels());
        counter.inc();
        self.handshakes.push((shaken, counter));
    }

    /// A connection ended before HTTP.
    pub(super) fn connection_refused(&mut self, denial: Denial) {
        self.metrics.connections.with_label_values(&[denial.code()]).inc();
        self.denied(denial);
    }

    /// A connection or a request was refused. `ALL` has the order of the variants.
    pub(super) fn denied(&self, denial: Denial) {
        if let Some(counter) = self.denials.get(denial as usize) {
            counter.inc();
        }
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, route: Option<&Arc<Route>>, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        let answers = match route {
            None => &self.unrouted,
            Some(route) => &self.route(route).answers,
        };
        if let Some(counter) = answers.get(class) {
            counter.inc();
        }
    }

    /// A client took too long.
    pub(super) fn too_late(&self, stage: Stage) {
        self.time_limits[stage as usize].inc();
    }

    /// A request was answered that came as early data.
    pub(super) fn early(&self, status: http::StatusCode, denial: Option<Denial>) {
        let result = match (denial, status) {
            (Some(Denial::TooEarly), _) => 1,
            (None, http::StatusCode::TOO_EARLY) => 2,
            _ => 0,
        };
        self.early[result].inc();
    }

    /// A request lacked a field that its route requires.
    pub(super) fn header_missing(&self, route: &Route, name: &http::HeaderName) {
        self.metrics.headers_missing.with_label_values(&[&*route.name, name.as_str()]).inc();
    }

    /// A request in plain HTTP was answered.
    pub(super) fn redirected(&self, status: http::StatusCode) {
        if let Some(counter) = self.redirected.get(usize::from(status.as_u16() / 100).saturating_sub(1)) {
            counter.inc();
        }
    }

    /// Limits of a route did something to a request.
    pub(super) fn limited(&mut self, route: &Arc<Route>, marks: Marks) {
        if marks == Marks::default() {
            return;
        }
        let metric = self.metrics.limits.clone();
        let known = &mut self.route(route).limits;
        for (number, result) in marks.iter() {
            let found = known.iter().position(|(limit, label, _)| (*limit, *label) == (number, result));
            let index = found.unwrap_or_else(|| {
                let name = route.limits.all().get(number).map_or("none", |limit| &limit.name);
                known.push((number, result, metric.with_label_values(&[&*route.name, name, result])));
                known.len() - 1
            });
            known[index].2.inc();
        }
    }

    /// A token was seen for the first time, so many seconds after its issue.
    pub(super) fn token_seen(&mut self, route: &Arc<Route>, age: i64) {
        self.route(route).token_ages.observe(age as f64);
    }

    fn route(&mut self, route: &Arc<Route>) -> &mut ByRoute {
        let known = self.by_route.iter().position(|known| Weak::as_ptr(&known.route) == Arc::as_ptr(route));
        let index = known.unwrap_or_else(|| {
            // A new route means a new policy.
            self.by_route.retain(|known| known.route.strong_count() > 0);
            self.by_route.push(ByRoute {
                route: Arc::downgrade(route),
                answers: answers(&self.metrics, &route.name),
                token_ages: self.metrics.token_ages.with_label_values(&[&route.name]),
                limits: Vec::new(),
            });
            self.by_route.len() - 1
        });
        &mut self.by_route[index]
    }
}

fn answers(metrics: &Metrics, route: &str) -> Answers {
    CLASSES.map(|class| metrics.requests.with_label_values(&[route, class]))
}
