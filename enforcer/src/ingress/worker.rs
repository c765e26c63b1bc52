//! A worker: one thread that accepts connections and serves them, alone.

use std::{
    cell::{Cell, RefCell},
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use prometheus::IntGauge;
use tokio::{
    net::{TcpListener as AsyncListener, TcpStream},
    runtime::{self, LocalOptions},
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{
    DrainReport, Phase, connection,
    counters::Counters,
    redirect,
    sources::{Place, Sources},
};
use crate::{
    access_log::AccessLog,
    bans::Reporter,
    checks::{facts::ClientAddr, token::KnownTokens},
    clock::{self, KernelTime},
    denial::Denial,
    log::Seldom,
    metrics::Metrics,
    policy::{Policy, SharedPolicy},
    upstream::{self, Clients, Held},
};

/// Pause after a failed accept: the usual cause is that the process has no file descriptor left, and only time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Workers fail together.
static ACCEPT_ERRORS: Seldom = Seldom::new();

/// What all workers have in common.
pub(super) struct Shared {
    pub policy: SharedPolicy,
    pub reporter: Reporter,
    pub metrics: Metrics,
    pub access_log: Option<AccessLog>,
    pub open: Arc<AtomicU32>,
    pub max_connections: u32,
    /// Verified tokens that a worker remembers.
    pub token_cache: u32,
    pub workers: usize,
    /// Which of them this is.
    pub number: usize,
    pub sources: Arc<Sources>,
    /// Requests that wait for a limit, of all workers.
    pub delayed: Arc<AtomicU32>,
    /// Bodies that are held to be judged, of all workers.
    pub held: Arc<Held>,
    /// Where plain HTTP is sent to: the port of the first TLS listener.
    pub https_port: u16,
    pub phase: watch::Receiver<Phase>,
}

/// A socket and the listener's configured address, by which the policy knows it.
pub(super) struct Listening {
    pub name: SocketAddr,
    pub kind: Kind,
    pub socket: TcpListener,
}

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TLS and HTTP within.
    Tls,
    /// Plain HTTP, to be redirected.
    Redirect,
}

/// A worker's own state; never leaves its thread.
pub(super) struct Worker {
    pub shared: Shared,
    pub clients: Clients,
    pub counters: RefCell<Counters>,
    /// Requests so far, for the sample of the access log.
    pub requests: Cell<u32>,
    pub tokens: RefCell<KnownTokens>,
}

impl Worker {
    /// Whether the ledger has a ban of `source` that holds at a port. The program knows packets alone: behind a load balancer they
    /// are all the balancer's.
    pub(super) fn bans(&self, policy: &Policy, source: ClientAddr, port: u16, now: KernelTime) -> bool {
        let banned = self.shared.reporter.banned();
        banned.holds(source.get(), policy.v6_mask, now) && policy.bans_hold(source.get(), port)
    }

    /// Whether the program judges nothing that `source` sends to a port. What it lets through unread by its rules is not refused here.
    pub(super) fn exempts(&self, policy: &Policy, source: ClientAddr, port: u16) -> bool {
        policy.exempts(source.get(), port) || self.shared.reporter.banned().allows(source.get())
    }

    /// Counts and reports a refusal.
    pub(super) fn refused(&self, source: ClientAddr, denial: Denial) {
        self.counters.borrow().denied(denial);
        self.report(source, denial);
    }

    /// Reports a refusal that was counted, unless its source speaks for many others: a ban would hit them all.
    pub(super) fn report(&self, source: ClientAddr, denial: Denial) {
        if denial.weight() == 0 {
            return;
        }
        if self.shared.policy.load().is_proxy(source.get()) {
            self.shared.metrics.offences_of_proxies.inc();
        } else {
            self.shared.reporter.report(source.get(), denial);
        }
    }
}

/// Starts a thread that serves until it is told to drain, and then reports.
pub(super) fn spawn(
    number: usize,
    shared: Shared,
    sockets: Vec<Listening>,
    report: oneshot::Sender<DrainReport>,
) -> Result<()> {
    let (told, ready) = mpsc::channel();
    let work = move || {
        // It belongs to the thread that makes it.
        let made = runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let runtime = match made {
            Ok(runtime) => runtime,
            Err(error) => return drop(told.send(Err(error))),
        };
        let _ = told.send(Ok(()));
        let outcome = runtime.block_on(run(shared, sockets));
        // Ends tasks of upstream connections; name lookups under way are not waited for.
        runtime.shutdown_background();
        let _ = report.send(outcome);
    };
    std::thread::Builder::new().name(format!("edge-{number}")).spawn(work)?;
    // A thread that says nothing has ended.
    ready.recv().context("the thread ended at once")??;
    Ok(())
}

async fn run(shared: Shared, sockets: Vec<Listening>) -> DrainReport {
    let workers = shared.workers;
    let counters = RefCell::new(Counters::new(&shared.metrics));
    let tokens = RefCell::new(KnownTokens::new(shared.token_cache as usize));
    let clients = Clients::new(workers);
    let worker = Rc::new(Worker { shared, clients, counters, requests: Cell::new(0), tokens });
    if worker.shared.number == 0 {
        // Ends with this thread's tasks.
        tokio::task::spawn_local(upstream::watch(Arc::clone(&worker.shared.policy)));
    }
    let mut acceptors = JoinSet::new();
    for listening in sockets {
        acceptors.spawn_local(accept(Rc::clone(&worker), listening));
    }
    let mut total = DrainReport::default();
    while let Some(report) = acceptors.join_next().await {
        let report = report.unwrap_or_default();
        total.finished += report.finished;
        total.aborted += report.aborted;
    }
    total
}

async fn accept(worker: Rc<Worker>, listening: Listening) -> DrainReport {
    let mut phase = worker.shared.phase.clone();
    let mut connections = JoinSet::new();
    let listener = match AsyncListener::from_std(listening.socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(listener = %listening.name, %error, "cannot watch the listening socket");
            return DrainReport::default();
        }
    };
    match phase.wait_for(|phase| *phase != Phase::Bound).await.as_deref() {
        Ok(Phase::Bound | Phase::Serving) => {}
        // Asked to stop before it began, or the `Ingress` is gone.
        Ok(Phase::Draining(_)) | Err(_) => return DrainReport::default(),
    }
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    admit(&worker, &mut connections, (listening.name, listening.kind), stream, peer);
                }
                Err(error) => {
                    if ACCEPT_ERRORS.may_speak(clock::unix_now()) {
                        tracing::warn!(listener = %listening.name, %error, "cannot accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            // An error means that the `Ingress` is gone.
            changed = phase.changed() => match (changed, *phase.borrow_and_update()) {
                (Ok(()), Phase::Bound | Phase::Serving) => {}
                (Ok(()), Phase::Draining(deadline)) => {
                    drop(listener);
                    return finish(connections, deadline.into()).await;
                }
                (Err(_), _) => return DrainReport::default(),
            },
        }
    }
}

/// Gives a connection a task, if there is room for it.
fn admit(
    worker: &Rc<Worker>,
    connections: &mut JoinSet<()>,
    (listener, kind): (SocketAddr, Kind),
    stream: TcpStream,
    peer: SocketAddr,
) {
    let source = ClientAddr::new(peer.ip());
    // Behind a load balancer are many sources, and which one this is the connection says itself.
    let policy = worker.shared.policy.load();
    let is_one_source =
        !policy.listeners.get(&listener).is_some_and(|listener| listener.is_behind(source.get()));
    drop(policy);
    let permit = match Permit::take(&worker.shared, source, is_one_source) {
        Ok(permit) => permit,
        Err(denial) => {
            worker.counters.borrow_mut().connection_refused(denial);
            tracing::debug!(source = %source.get(), code = denial.code(), "connection refused");
            return;
        }
    };
    let worker = Rc::clone(worker);
    connections.spawn_local(async move {
        match kind {
            Kind::Tls => connection::serve(worker, listener, stream, source).await,
            // Apart, so that every connection need not have room for it.
            Kind::Redirect => Box::pin(redirect::serve(worker, stream, source)).await,
        }
        drop(permit);
    });
}

async fn finish(mut connections: JoinSet<()>, deadline: tokio::time::Instant) -> DrainReport {
    let mut finished = 0;
    while let Ok(Some(_)) = tokio::time::timeout_at(deadline, connections.join_next()).await {
        finished += 1;
    }
    DrainReport { finished, aborted: connections.len() }
}

/// One of the connections that may be open.
struct Permit {
    open: Arc<AtomicU32>,
    gauge: IntGauge,
    _place: Option<Place>,
}

impl Permit {
    fn take(shared: &Shared, source: ClientAddr, is_one_source: bool) -> Result<Self, Denial> {
        let place = is_one_source.then(|| shared.sources.take(source.get()).ok_or(Denial::ConnectionLimit));
        let place = place.transpose()?;
        if shared.open.fetch_add(1, Relaxed) >= shared.max_connections {
            shared.open.fetch_sub(1, Relaxed);
            return Err(Denial::Overloaded);
        }
        let gauge = shared.metrics.connections_open.clone();
        gauge.inc();
        Ok(Self { open: Arc::clone(&shared.open), gauge, _place: place })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gauge.dec();
        self.open.fetch_sub(1, Relaxed);
    }
}
