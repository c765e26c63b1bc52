//! One worker's connections to one server: which of them carries the next request, and how many there may be.
//!
//! `balance` has chosen the server. HTTP/1.1 connections carry one request each and rest in between; HTTP/2 connections are
//! shared. Nothing here is seen by another thread.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::Uri;
use hyper::client::conn::{http1, http2};
use tokio::sync::Notify;

use super::{
    body::RequestBody,
    connect::{Connected, Connector, Streams},
    direct::Direct,
};
use crate::{clock, policy::upstream::Servers};

/// Why there is no connection for a request.
pub(super) enum Unavailable {
    /// The server has as many as it is given, and as many requests wait for one.
    Busy,
    /// The server cannot be reached, and why; nothing if somebody else has just said so.
    Unreachable(Option<String>),
}

/// What kind of connection a request needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Want {
    /// HTTP/1.1 and nothing else.
    pub(super) http1: bool,
    /// One that carried no other request.
    pub(super) fresh: bool,
    /// The request has no body and changes to no other protocol.
    pub(super) simple: bool,
}

/// The connections to one server.
pub(super) struct Server {
    pub(super) upstream: Arc<Servers>,
    pub(super) index: usize,
    address: Uri,
    connector: Connector,
    /// The one that was used last comes last, and is used next: what is not needed grows old.
    idle: RefCell<Vec<Idle>>,
    /// Whoever sees to those that rest.
    watcher: RefCell<Option<Waker>>,
    shared: RefCell<Vec<Rc<Shared>>>,
    /// Connections that stand or are being made, and their bounds.
    open: Cell<usize>,
    most: usize,
    /// Requests that wait for one, likewise.
    waiting: Cell<usize>,
    most_waiting: usize,
    /// Connections that are being made and may turn out to be HTTP/2.
    greeting: Cell<usize>,
    speaks_http1: Cell<bool>,
    /// Attempts that failed so far.
    failures: Cell<u64>,
    room: Notify,
    reaping: Cell<bool>,
}

/// A connection that rests; never one of HTTP/2.
struct Idle {
    channel: Channel,
    since: Instant,
}

/// An HTTP/2 connection.
pub(super) struct Shared {
    sender: http2::SendRequest<RequestBody>,
    streams: Streams,
    used: Cell<usize>,
    last: Cell<Instant>,
}

/// What carries one request.
pub(super) enum Channel {
    Http1 {
        sender: http1::SendRequest<RequestBody>,
        place: Rc<Place>,
    },
    Http2 {
        sender: http2::SendRequest<RequestBody>,
        shared: Rc<Shared>,
    },
    /// HTTP/1.1 for requests without a body.
    Direct(Box<Direct>),
}

/// One of the connections that a server is given.
pub(super) struct Place(Rc<Server>);

impl Place {
    fn take(server: &Rc<Server>) -> Rc<Self> {
        server.open.set(server.open.get() + 1);
        server.upstream.health.count_connection(server.index, true);
        Rc::new(Self(Rc::clone(server)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self(server) = self;
        server.open.set(server.open.get() - 1);
        server.upstream.health.count_connection(server.index, false);
        server.shared.borrow_mut().retain(|shared| !shared.sender.is_closed() || shared.used.get() > 0);
        server.made_room();
    }
}

/// Holds a number up by one.
struct Raised<'a>(&'a Cell<usize>);

impl<'a> Raised<'a> {
    fn new(cell: &'a Cell<usize>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Server {
    /// The `index`th server of an upstream, with this worker's share of what it is given.
    pub(super) fn new(upstream: Arc<Servers>, index: usize, address: Uri, workers: usize) -> Self {
        let share = |whole: u32| (whole as usize).div_ceil(workers.max(1));
        let (most, most_waiting) =
            (share(upstream.config.max_connections), share(upstream.config.max_pending));
        Self {
            connector: Connector::new(&upstream),
            idle: RefCell::default(),
            watcher: RefCell::default(),
            shared: RefCell::default(),
            open: Cell::new(0),
            most,
            waiting: Cell::new(0),
            most_waiting,
            greeting: Cell::new(0),
            speaks_http1: Cell::new(false),
            failures: Cell::new(0),
            room: Notify::new(),
            reaping: Cell::new(false),
            upstream,
            index,
            address,
        }
    }

    /// The server as configured.
    pub(super) const fn address(&self) -> &Uri {
        &self.address
    }

    /// A connection for one request, and whether it carried others before.
    pub(super) async fn acquire(self: &Rc<Self>, want: Want) -> Result<(Channel, bool), Unavailable> {
        // The common case costs no timer.
        if let Some(channel) = self.take(want) {
            return Ok((channel, true));
        }
        let patience = self.upstream.config.connect_timeout;
        // On the heap: making a connection needs room for a handshake, which every request would have to carry along.
        match tokio::time::timeout(patience, Box::pin(self.wait(want))).await {
            Ok(outcome) => outcome,
            Err(_) if self.open.get() >= self.most => Err(Unavailable::Busy),
            Err(_) => {
                self.failures.set(self.failures.get() + 1);
                Err(Unavailable::Unreachable(Some("it did not answer in time".to_owned())))
            }
        }
    }

    async fn wait(self: &Rc<Self>, want: Want) -> Result<(Channel, bool), Unavailable> {
        let failures = self.failures.get();
        loop {
            if let Some(channel) = self.take(want) {
                return Ok((channel, true));
            }
            let full = self.waiting.get() >= self.most_waiting;
            // One connection may be enough for all.
            let follows = !want.http1 && self.greeting.get() > 0 && !full;
            if !follows && (self.open.get() < self.most || self.give_up_idle()) {
                return self.connect(want).await.map(|channel| (channel, false));
            }
            if full {
                return Err(Unavailable::Busy);
            }
            let waiting = Raised::new(&self.waiting);
            self.room.notified().await;
            drop(waiting);
            if follows && self.failures.get() != failures {
                return Err(Unavailable::Unreachable(None));
            }
        }
    }

    /// The server could not be reached, and rests.
    pub(super) fn unreachable(&self, why: &str) {
        let Servers { name, config, health, .. } = &*self.upstream;
        if health.unreachable(self.index, config.ejection.rest, clock::kernel_now()) {
            tracing::warn!(upstream = name, server = %self.address, error = why, "upstream server cannot be reached");
        }
    }

    /// The server failed a request.
    pub(super) fn failed(&self, why: &str) {
        let Servers { name, config, health, .. } = &*self.upstream;
        if health.failed(self.index, &config.ejection, clock::kernel_now()) {
            tracing::warn!(upstream = name, server = %self.address, last = why, "upstream server fails, and rests");
        }
    }

    /// The server did what it was asked.
    pub(super) fn succeeded(&self) {
        if self.upstream.health.succeeded(self.index) {
            tracing::warn!(upstream = self.upstream.name, server = %self.address, "upstream server is back");
        }
    }

    /// A request is sent once more because of the server.
    pub(super) fn repeated(&self) {
        self.upstream.health.count_retry(self.index);
    }

    async fn connect(self: &Rc<Self>, want: Want) -> Result<Channel, Unavailable> {
        let Want { http1, .. } = want;
        let place = Place::take(self);
        if self.is_direct(want) {
            let reached = self.connector.reach(&self.address).await;
            let stream = reached.map_err(|error| self.not_reached(error))?;
            return Ok(Channel::Direct(Box::new(Direct::new(stream, place))));
        }
        let may_be_http2 = !http1 && !self.speaks_http1.get() && self.address.scheme_str() != Some("http");
        let greeting = may_be_http2.then(|| Raised::new(&self.greeting));
        let made = self.connector.connect(&self.upstream, &self.address, http1, Rc::clone(&place)).await;
        drop(greeting);
        let channel = match made {
            Ok(Connected::Http1(mut sender)) => {
                // A connection that is new has nothing to wait for but its own task.
                if let Err(error) = sender.ready().await {
                    return Err(Unavailable::Unreachable(Some(error.to_string())));
                }
                self.speaks_http1.set(self.speaks_http1.get() || may_be_http2);
                Channel::Http1 { sender, place }
            }
            Ok(Connected::Http2(sender, streams)) => {
                let last = Cell::new(clock::instant_now());
                let shared = Rc::new(Shared { sender, streams, used: Cell::new(0), last });
                self.shared.borrow_mut().push(Rc::clone(&shared));
                self.reap_later();
                Channel::of(&shared)
            }
            Err(error) => return Err(self.not_reached(error)),
        };
        if may_be_http2 {
            self.room.notify_waiters();
        }
        Ok(channel)
    }

    fn not_reached(&self, why: String) -> Unavailable {
        self.failures.set(self.failures.get() + 1);
        self.room.notify_waiters();
        Unavailable::Unreachable(Some(why))
    }

    /// A connection that is there and free.
    fn take(&self, want: Want) -> Option<Channel> {
        if want.fresh {
            return None;
        }
        if !want.http1 {
            let shared = self.shared.borrow();
            let free =
                shared.iter().filter(|one| !one.sender.is_closed() && one.used.get() < one.streams.most());
            if let Some(shared) = free.min_by_key(|one| one.used.get()) {
                return Some(Channel::of(shared));
            }
        }
        let direct = self.is_direct(want);
        loop {
            let mut idle = self.idle.borrow_mut();
            let last = idle.iter().rposition(|one| one.channel.is_direct() == direct)?;
            let one = idle.remove(last);
            // Its place may be given back here.
            drop(idle);
            if one.channel.is_ready() {
                return Some(one.channel);
            }
        }
    }

    /// Whether a request needs no more than a bare connection.
    fn is_direct(&self, want: Want) -> bool {
        want.simple && self.address.scheme_str() == Some("http")
    }

    /// Whether a connection that rests could be closed to make room for another kind.
    fn give_up_idle(&self) -> bool {
        let given_up = self.idle.borrow_mut().pop();
        given_up.is_some() && {
            drop(given_up);
            self.open.get() < self.most
        }
    }

    /// Takes a connection back whose request is over; `whole`: it can carry another one.
    pub(super) fn release(self: &Rc<Self>, channel: Channel, whole: bool) {
        match channel {
            Channel::Http1 { sender, place } if whole => {
                if sender.is_ready() {
                    self.keep(Channel::Http1 { sender, place });
                } else if !sender.is_closed() {
                    self.settle(sender, place);
                }
            }
            // Dropping the sender ends the connection.
            Channel::Http1 { .. } => {}
            Channel::Direct(direct) if whole && direct.can_go_on() && !self.stirs(&direct) => {
                self.keep(Channel::Direct(direct));
            }
            Channel::Direct(_) => {}
            Channel::Http2 { shared, .. } => {
                shared.used.set(shared.used.get() - 1);
                shared.last.set(clock::instant_now());
                self.made_room();
            }
        }
    }

    /// Whether a server has ended a connection that is about to rest; if it does so later, whoever sees to those is woken.
    fn stirs(&self, direct: &Direct) -> bool {
        let watcher = self.watcher.borrow();
        let Some(watcher) = &*watcher else { return false };
        // There may have been something that was read already.
        while direct.poll_stirs(&mut Context::from_waker(watcher)).is_ready() {
            if direct.is_closed() {
                return true;
            }
        }
        false
    }

    fn keep(self: &Rc<Self>, channel: Channel) {
        self.idle.borrow_mut().push(Idle { channel, since: clock::instant_now() });
        self.reap_later();
        self.made_room();
    }

    /// Waits until a connection has put its last request behind it.
    fn settle(self: &Rc<Self>, mut sender: http1::SendRequest<RequestBody>, place: Rc<Place>) {
        let server = Rc::clone(self);
        let patience = self.upstream.config.idle_timeout;
        spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(patience, sender.ready()).await {
                server.keep(Channel::Http1 { sender, place });
            }
        });
    }

    fn made_room(&self) {
        if self.waiting.get() > 0 {
            self.room.notify_one();
        }
    }

    /// Sees to it that connections that nobody uses are closed in time.
    fn reap_later(self: &Rc<Self>) {
        if self.reaping.replace(true) {
            return;
        }
        let server = Rc::clone(self);
        spawn(async move {
            let patience = server.upstream.config.idle_timeout;
            while !server.is_unused() {
                let stirred = poll_fn(|context| server.poll_stirs(context));
                let _ = tokio::time::timeout(patience / 2, stirred).await;
                server.reap(patience, clock::instant_now());
            }
            server.reaping.set(false);
            server.watcher.take();
        });
    }

    /// Ready when one of the bare connections that rest may have been ended; nobody else watches them.
    fn poll_stirs(&self, context: &mut Context<'_>) -> Poll<()> {
        self.watcher.replace(Some(context.waker().clone()));
        let stirs = |one: &Idle| match &one.channel {
            Channel::Direct(direct) => direct.poll_stirs(context).is_ready(),
            Channel::Http1 { .. } | Channel::Http2 { .. } => false,
        };
        // All of them, so that each has the waker.
        let count = self.idle.borrow().iter().map(stirs).filter(|stirs| *stirs).count();
        if count > 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_unused(&self) -> bool {
        self.idle.borrow().is_empty() && self.shared.borrow().is_empty()
    }

    fn reap(&self, patience: Duration, now: Instant) {
        let old = |since: Instant| now.saturating_duration_since(since) >= patience;
        // Their places are given back once nothing is borrowed.
        let aged: Vec<Idle> =
            self.idle.borrow_mut().extract_if(.., |one| one.channel.is_closed() || old(one.since)).collect();
        let gone: Vec<Rc<Shared>> = self
            .shared
            .borrow_mut()
            .extract_if(.., |one| one.used.get() == 0 && (one.sender.is_closed() || old(one.last.get())))
            .collect();
        drop((aged, gone));
    }
}

impl Channel {
    fn of(shared: &Rc<Shared>) -> Self {
        shared.used.set(shared.used.get() + 1);
        Self::Http2 { sender: shared.sender.clone(), shared: Rc::clone(shared) }
    }

    pub(super) const fn is_http2(&self) -> bool {
        matches!(self, Self::Http2 { .. })
    }

    pub(super) const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(_))
    }

    /// Whether it can carry a request now.
    fn is_ready(&self) -> bool {
        match self {
            Self::Http1 { sender, .. } => sender.is_ready(),
            Self::Http2 { sender, .. } => sender.is_ready(),
            Self::Direct(direct) => direct.is_silent(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1 { sender, .. } => sender.is_closed(),
            Self::Http2 { sender, .. } => sender.is_closed(),
            Self::Direct(direct) => direct.is_closed(),
        }
    }
}

/// Runs beside the worker's other tasks; not at all where the worker is ending, and its connections with it.
fn spawn(future: impl Future<Output = ()> + 'static) {
    if tokio::runtime::Handle::try_current().is_ok() {
        tokio::task::spawn_local(future);
    }
}
