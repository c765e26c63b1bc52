//! All that a test of the whole path needs but the daemon: namespaces, an upstream, keys and certificates.

use std::net::IpAddr;

use anyhow::Result;

use crate::{
    clients::Curl,
    daemon::Daemon,
    netns::Lab,
    site::{Plan, Site},
    upstream::Upstream,
};

/// One test's world. Fields end in this order.
pub struct Scene {
    /// Behind the daemon, on the server's loopback.
    pub upstream: Upstream,
    /// On disk.
    pub site: Site,
    /// Client, server and the wire.
    pub lab: Lab,
}

impl Scene {
    /// Makes it.
    pub fn new() -> Result<Self> {
        Self::on(Lab::new()?)
    }

    /// The same on a wire that is there.
    pub fn on(lab: Lab) -> Result<Self> {
        Ok(Self { upstream: Upstream::start(&lab.server)?, site: Site::new()?, lab })
    }

    /// The small configuration, without a request limit.
    pub fn plan(&self) -> Plan {
        Plan::unlimited(self.upstream.address)
    }

    /// Starts the daemon on the server and waits until it is ready.
    pub fn daemon(&self, plan: &Plan) -> Result<Daemon<'_>> {
        Daemon::start(&self.lab.server, &self.site, plan)
    }

    /// A request from an address of the client; without a token, unless one is added.
    pub fn get(&self, source: impl Into<IpAddr>, path: &str) -> Curl<'_> {
        Curl::get(&self.lab.client, self.site.ca(), source.into(), path)
    }
}
