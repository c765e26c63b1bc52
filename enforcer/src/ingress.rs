//! The front door: listens, terminates TLS, reads requests, and answers them or has them forwarded.
//!
//! The daemon starts one and drains it. Each worker is a thread with its own runtime, its own listening sockets (the kernel
//! spreads connections by `SO_REUSEPORT`) and its own upstream connections; workers share the policy, which nobody locks,
//! and counters. Decisions about requests are not made here but in `checks`.

mod access;
mod answer;
mod calm;
mod connection;
mod counters;
mod delay;
mod devices;
mod exchange;
mod handshake;
mod held;
mod hello;
mod identity;
mod payload;
mod pins;
mod proxy;
mod recorded;
mod redirect;
mod reports;
mod request;
mod secured;
mod socket;
mod sources;
mod stream;
mod underway;
mod upgrade;
mod worker;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::{oneshot, watch};

use crate::{
    access_log::AccessLog, bans::Reporter, clock, config::Config, metrics::Metrics, policy::SharedPolicy,
    upstream::Held,
};
use sources::Sources;
use worker::{Kind, Shared};

/// What workers are told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Hold the sockets; connections wait in the kernel's queue.
    Bound,
    /// Accept and serve.
    Serving,
    /// Accept nothing, finish what is under way until then.
    Draining(Instant),
}

/// How a drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that ended by themselves in time.
    pub finished: usize,
    /// Connections that were cut at the end of the time.
    pub aborted: usize,
}

/// A running front door. Dropping it cuts every connection; [`Ingress::drain`] does not.
#[derive(Debug)]
pub struct Ingress {
    addresses: Vec<SocketAddr>,
    redirects: Vec<SocketAddr>,
    /// Sockets that were bound here, for whoever keeps them beyond the process.
    bound: Vec<TcpListener>,
    phase: watch::Sender<Phase>,
    reports: Vec<oneshot::Receiver<DrainReport>>,
}

impl Ingress {
    /// Binds every listener and starts the workers; on error nothing is left behind. Nothing is accepted before
    /// [`Ingress::serve`].
    ///
    /// Listeners, `workers` and the caps on connections are those of `config` for good; everything else follows `policy`.
    pub fn bind(
        config: &Config,
        policy: SharedPolicy,
        reporter: Reporter,
        metrics: Metrics,
        access_log: Option<AccessLog>,
    ) -> Result<Self> {
        Self::adopt(config, policy, reporter, metrics, access_log, &mut Vec::new())
    }

    /// The same with sockets that were kept for it; those that no listener has a use for are left.
    pub fn adopt(
        config: &Config,
        policy: SharedPolicy,
        reporter: Reporter,
        metrics: Metrics,
        access_log: Option<AccessLog>,
        kept: &mut Vec<TcpListener>,
    ) -> Result<Self> {
        let workers = match config.http.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            configured => configured,
        };
        let mut sockets: Vec<Vec<worker::Listening>> = (0..workers).map(|_| Vec::new()).collect();
        let mut bound = Vec::new();
        let mut bind = |name: SocketAddr, kind: Kind| -> Result<SocketAddr> {
            let own = socket::adopt(name, workers, kept)?;
            for (number, socket) in own.sockets.into_iter().enumerate() {
                if !own.adopted {
                    bound.push(socket.try_clone().context("cannot keep a listening socket")?);
                }
                // Each of them is served, also where there are fewer workers than before.
                if let Some(worker) = sockets.get_mut(number % workers) {
                    worker.push(worker::Listening { name, kind, socket });
                }
            }
            Ok(own.address)
        };
        let of_tls = config.listeners.iter().map(|listener| bind(listener.address, Kind::Tls));
        let addresses = of_tls.collect::<Result<Vec<_>>>()?;
        let of_plain = config.http.redirect.iter().map(|address| bind(*address, Kind::Redirect));
        let redirects = of_plain.collect::<Result<Vec<_>>>()?;
        let https_port = addresses.first().map_or(0, SocketAddr::port);
        let (phase, watched) = watch::channel(Phase::Bound);
        let open = Arc::new(AtomicU32::new(0));
        let per_source = config.http.max_connections_per_source;
        let sources = Arc::new(Sources::new(per_source, config.kernel.ipv6_prefix));
        let delayed = Arc::new(AtomicU32::new(0));
        let held = Arc::new(Held::new(metrics.held_bytes.clone()));
        let mut reports = Vec::with_capacity(workers);
        for (number, sockets) in sockets.into_iter().enumerate() {
            let (report, reported) = oneshot::channel();
            let shared = Shared {
                policy: Arc::clone(&policy),
                reporter: reporter.clone(),
                metrics: metrics.clone(),
                access_log: access_log.clone(),
                open: Arc::clone(&open),
                sources: Arc::clone(&sources),
                delayed: Arc::clone(&delayed),
                held: Arc::clone(&held),
                https_port,
                workers,
                number,
                max_connections: config.http.max_connections,
                token_cache: config.http.token_cache,
                phase: watched.clone(),
            };
            worker::spawn(number, shared, sockets, report).context("cannot start a worker thread")?;
            reports.push(reported);
        }
        Ok(Self { addresses, redirects, bound, phase, reports })
    }

    /// Accepts from now on.
    pub fn serve(&self) {
        self.phase.send_replace(Phase::Serving);
    }

    /// The sockets that were bound here and not adopted, once: whoever keeps one keeps the connections that wait in it.
    pub fn take_sockets(&mut self) -> Vec<TcpListener> {
        std::mem::take(&mut self.bound)
    }

    /// Where it listens, in the order of the configuration, with real port numbers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Where it answers plain HTTP with a redirect, likewise.
    pub fn redirects(&self) -> Vec<SocketAddr> {
        self.redirects.clone()
    }

    /// Stops accepting, tells clients to go (GOAWAY, `Connection: close`) and waits at most so long for what is under
    /// way. Asynchronous, on any runtime; it returns when no connection is left.
    pub async fn drain(self, patience: Duration) -> DrainReport {
        let deadline = clock::instant_now() + patience;
        // Nothing is to wait in a socket that nobody accepts from any more.
        drop(self.bound);
        self.phase.send_replace(Phase::Draining(deadline));
        let mut total = DrainReport::default();
        for report in self.reports {
            // A worker that cannot report has ended, and its connections with it.
            let report = report.await.unwrap_or_default();
            total.finished += report.finished;
            total.aborted += report.aborted;
        }
        total
    }
}
