//! How servers behind are, as metrics, read from the policy in force at each scrape.

use anyhow::Result;
use prometheus::{
    IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{
    clock,
    policy::{SharedPolicy, health::State},
};

/// Registers `enforcer_upstream_up`, `enforcer_upstream_requests`, `enforcer_upstream_connections`,
/// `enforcer_upstream_ejections_total` and `enforcer_upstream_retries_total`, all by `upstream` and `server`.
pub fn register(registry: &Registry, policy: SharedPolicy) -> Result<()> {
    registry.register(Box::new(Servers { policy, descriptions: families()? }))?;
    Ok(())
}

/// State, requests, connections; rests, repetitions.
type Families = ([IntGaugeVec; 3], [IntCounterVec; 2]);

struct Servers {
    policy: SharedPolicy,
    descriptions: Families,
}

impl Collector for Servers {
    fn desc(&self) -> Vec<&Desc> {
        let (gauges, counters) = &self.descriptions;
        gauges.iter().flat_map(Collector::desc).chain(counters.iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok((gauges, counters)) = families() else { return Vec::new() };
        let ([up, requests, connections], [ejections, retries]) = (&gauges, &counters);
        let now = clock::kernel_now();
        for upstream in self.policy.load().upstreams() {
            for (index, server) in upstream.config.servers.iter().enumerate() {
                let Some(look) = upstream.health.look(index, now) else { continue };
                let server = server.to_string();
                let labels = [upstream.name.as_str(), server.trim_end_matches('/')];
                up.with_label_values(&labels).set(i64::from(look.state == State::Up));
                requests.with_label_values(&labels).set(look.in_flight.into());
                connections.with_label_values(&labels).set(look.connections.into());
                ejections.with_label_values(&labels).inc_by(look.ejections);
                retries.with_label_values(&labels).inc_by(look.retries);
            }
        }
        gauges
            .iter()
            .flat_map(Collector::collect)
            .chain(counters.iter().flat_map(Collector::collect))
            .collect()
    }
}

/// Made anew for each scrape: a server that is no longer configured is not shown.
fn families() -> Result<Families> {
    let by = ["upstream", "server"];
    let gauge = |name, help: &str| IntGaugeVec::new(Opts::new(name, help), &by);
    let counter = |name, help: &str| IntCounterVec::new(Opts::new(name, help), &by);
    Ok((
        [
            gauge("enforcer_upstream_up", "1: requests go to this server; 0: it rests, or its checks fail")?,
            gauge("enforcer_upstream_requests", "Requests under way or waiting for a connection")?,
            gauge("enforcer_upstream_connections", "Connections that stand or are being made")?,
        ],
        [
            counter("enforcer_upstream_ejections_total", "How often a server was given a rest")?,
            counter("enforcer_upstream_retries_total", "Requests sent once more because of a server")?,
        ],
    ))
}
