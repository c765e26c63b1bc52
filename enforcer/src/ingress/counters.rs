//! A worker's handles to the daemon's counters, resolved once so that counting a request needs no lock and no lookup by
//! text.

use std::sync::{Arc, Weak};

use prometheus::IntCounter;

use crate::{denial::Denial, metrics::Metrics, policy::route::Route};

/// Label of requests that reached no route.
const NO_ROUTE: &str = "none";
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

type Answers = [IntCounter; CLASSES.len()];

/// Counters that a connection or a request may touch.
pub(super) struct Counters {
    metrics: Metrics,
    accepted: IntCounter,
    denials: Vec<IntCounter>,
    unrouted: Answers,
    by_route: Vec<(Weak<Route>, Answers)>,
}

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let denial = |denial: &Denial| metrics.denials.with_label_values(&[denial.code()]);
        Self {
            accepted: metrics.connections.with_label_values(&["accepted"]),
            denials: Denial::ALL.iter().map(denial).collect(),
            unrouted: answers(metrics, NO_ROUTE),
            by_route: Vec::new(),
            metrics: metrics.clone(),
        }
    }

    /// A connection got as far as HTTP.
    pub(super) fn connection_accepted(&self) {
        self.accepted.inc();
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
            Some(route) => self.route(route),
        };
        if let Some(counter) = answers.get(class) {
            counter.inc();
        }
    }

    fn route(&mut self, route: &Arc<Route>) -> &Answers {
        let known = self.by_route.iter().position(|(known, _)| Weak::as_ptr(known) == Arc::as_ptr(route));
        let index = known.unwrap_or_else(|| {
            // A new route means a new policy.
            self.by_route.retain(|(known, _)| known.strong_count() > 0);
            self.by_route.push((Arc::downgrade(route), answers(&self.metrics, &route.path)));
            self.by_route.len() - 1
        });
        &self.by_route[index].1
    }
}

fn answers(metrics: &Metrics, route: &str) -> Answers {
    CLASSES.map(|class| metrics.requests.with_label_values(&[route, class]))
}
