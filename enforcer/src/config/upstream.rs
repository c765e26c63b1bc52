//! What the file says about servers behind the daemon, with every default filled in: where they are, how they are spoken to,
//! how long they may take, and how much each of them is given. Part of [`super::Config`]; reads nothing.

use std::{path::PathBuf, time::Duration};

use super::Certificate;

/// A group of servers that do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// `servers`, at least one: `http://` is HTTP/1.1, `h2c://` HTTP/2 without TLS, `https://` what ALPN says.
    pub servers: Vec<http::Uri>,
    /// `tls`, for servers with `https://`.
    pub tls: UpstreamTls,
    /// `connect_timeout`: until a connection stands, TLS included, and for a place in the queue. Default 2 s.
    pub connect_timeout: Duration,
    /// `response_timeout`: until the response's head, default 30 s.
    pub response_timeout: Duration,
    /// `stream_timeout`: without a byte in either direction once the head is there, default 30 s.
    pub stream_timeout: Duration,
    /// `total_timeout`: from the request's head to the response's end; none (`"off"`, default): as long as it takes.
    pub total_timeout: Option<Duration>,
    /// `upgrade_timeout`: without a byte in either direction after an upgrade, default 5 min.
    pub upgrade_timeout: Duration,
    /// `idle_timeout` of pooled connections, default 4 s: shorter than the 5 s after which common servers close theirs.
    pub idle_timeout: Duration,
    /// `max_connections` to each server, default 1,000; every worker has its share.
    pub max_connections: u32,
    /// `max_pending`: requests that may wait for a connection to a server, default 1,000; every worker has its share.
    pub max_pending: u32,
    /// `ejection`
    pub ejection: Ejection,
    /// `health`: how servers are asked whether they are well. Default: they are not asked.
    pub health: Option<HealthCheck>,
}

/// How servers with `https://` are known, and what is shown to them.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// `authorities`: PEM file with the roots that servers' certificates come from. Default: those of the system.
    pub authorities: Option<PathBuf>,
    /// `server_name`: what certificates must be for, and what is asked for. Default: the host of each server.
    pub server_name: Option<String>,
    /// `chain` and `key`: what the daemon shows to servers that ask. Default: nothing.
    pub certificate: Option<Certificate>,
    /// `alpn`: what is offered, by preference. Default both.
    pub alpn: Vec<UpstreamProtocol>,
}

/// What can be spoken within TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
pub enum UpstreamProtocol {
    /// RFC 9113.
    #[serde(rename = "h2")]
    Http2,
    /// RFC 9112.
    #[serde(rename = "http/1.1")]
    Http1,
}

/// When a server that fails is given a rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Ejection {
    /// `failures` in a row: connections that break, time limits that pass, answers with 502, 503 and 504. 0: never. Default 5.
    pub failures: u32,
    /// `rest`: for how long it is passed over while another one is left, default 5 s. One that cannot be reached rests at once.
    pub rest: Duration,
}

/// How servers are asked whether they are well.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// `path`: asked for by GET; any answer below 400 is a good one.
    pub path: String,
    /// `interval`, default 5 s.
    pub interval: Duration,
    /// `timeout` of one check, default 2 s.
    pub timeout: Duration,
    /// `healthy`: good answers in a row that bring a server back, default 2.
    pub healthy: u32,
    /// `unhealthy`: bad answers in a row that take a server out, default 3.
    pub unhealthy: u32,
}

impl Upstream {
    /// An upstream of these servers with everything else at its default.
    pub fn of(servers: Vec<http::Uri>) -> Self {
        Self {
            servers,
            tls: UpstreamTls {
                authorities: None,
                server_name: None,
                certificate: None,
                alpn: vec![UpstreamProtocol::Http2, UpstreamProtocol::Http1],
            },
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(30),
            stream_timeout: Duration::from_secs(30),
            total_timeout: None,
            upgrade_timeout: Duration::from_secs(300),
            // A request that meets a connection as its server closes it may be lost. Node.js, Apache httpd and Uvicorn close
            // idle ones after 5 s; whoever knows that the servers keep theirs longer can say so.
            idle_timeout: Duration::from_secs(4),
            max_connections: 1_000,
            max_pending: 1_000,
            ejection: Ejection { failures: 5, rest: Duration::from_secs(5) },
            health: None,
        }
    }
}

impl HealthCheck {
    /// A check of `path` with everything else at its default.
    pub const fn of(path: String) -> Self {
        Self {
            path,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy: 2,
            unhealthy: 3,
        }
    }
}
