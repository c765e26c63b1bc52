//! One client connection: TLS, then HTTP/1.1 or HTTP/2 as ALPN says, until it ends, idles too long, or is drained.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, task::JoinSet};

use super::{
    Phase,
    calm::Calm,
    counters::{self, Stage},
    handshake::{self, Failed},
    proxy,
    recorded::Recorded,
    request,
    secured::Secured,
    sources::Place,
    stream::Readable,
    underway::Underway,
    worker::Worker,
};
use crate::{
    checks::facts::{Client, ClientAddr},
    clock, config,
    denial::Denial,
    policy::tls::ALPN_H2,
};

/// Requests at once on an HTTP/2 connection; RFC 9113 section 6.5.2 recommends at least 100.
const MAX_STREAMS: u32 = 128;
/// Bytes that a client may send ahead on one stream and on one connection; they bound what a slow upstream costs us.
const STREAM_WINDOW: u32 = 256 << 10;
/// See [`STREAM_WINDOW`].
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of an answer that wait for one slow client stream.
const SEND_BUFFER: usize = 64 << 10;

/// Bytes that hyper reads ahead, and holds for a slow client, on an HTTP/1.1 connection. A larger head is allowed where the
/// configuration says so.
const BUFFER: usize = 64 << 10;
/// Fields of a head for which hyper has room without being told, at a lower cost.
const HYPERS_FIELDS: u16 = 100;
/// Time to leave for a client that was told to go: a round trip for HTTP/2's two GOAWAYs (RFC 9113 section 6.8), or one for
/// a request of HTTP/1.1 that was on its way.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection as its requests see it.
pub(super) struct Connection {
    pub client: Client,
    /// The port that it came to.
    pub port: u16,
    /// For the access log.
    pub tls_version: &'static str,
    /// Tells whether the handshake is complete, if it was not when the connection began.
    completion: Option<Arc<AtomicBool>>,
    under_way: Underway,
    /// When something was answered last, or taken of an answer.
    last: Cell<Instant>,
    /// Whether the client is to go, whatever it still has in hand.
    unwelcome: Cell<bool>,
    /// Why a head was refused for which a request stands that hyper will ask about.
    unreadable: Cell<Option<Denial>>,
    /// Why the connection was ended from here.
    ended_for: Cell<Option<Denial>>,
    switched: Cell<bool>,
    /// Whether the next answer is the last one.
    last_answer: Cell<bool>,
    /// What requests were upgraded to.
    tunnels: RefCell<Option<JoinSet<()>>>,
}

impl Connection {
    /// Counts a request as under way until the guard is dropped with its answer.
    pub(super) fn begin(self: &Rc<Self>) -> UnderWay {
        UnderWay { connection: Rc::clone(self), place: self.under_way.begin() }
    }

    /// The client is banned: what it asked for is answered, and then it has to go.
    pub(super) fn wind_down(&self) {
        self.unwelcome.set(true);
    }

    /// Runs what a request was upgraded to; as long as it lasts, the request is under way.
    pub(super) fn run_tunnel(self: &Rc<Self>, tunnel: impl Future<Output = ()> + 'static) {
        let under_way = self.begin();
        let run = async move {
            tunnel.await;
            drop(under_way);
        };
        self.tunnels.borrow_mut().get_or_insert_default().spawn_local(run);
    }

    /// Whether what is asked now may be a replay: the client has not shown yet that it is there (RFC 8446 section 8).
    pub(super) fn is_early(&self) -> bool {
        self.completion.as_ref().is_some_and(|complete| !complete.load(Relaxed))
    }

    /// A head was refused: the request that stands for it comes next.
    pub(super) fn cannot_read(&self, denial: Denial) {
        self.unreadable.set(Some(denial));
    }

    /// Why the head was refused that a request stands for.
    pub(super) fn why_unreadable(&self) -> Denial {
        self.unreadable.get().unwrap_or(Denial::RequestMalformed)
    }

    /// What is spoken from now on is not HTTP.
    pub(super) fn switch(&self) {
        self.switched.set(true);
    }

    pub(super) fn has_switched(&self) -> bool {
        self.switched.get()
    }

    /// The connection ends, and this is why.
    pub(super) fn ended_for(&self, denial: Denial) {
        self.ended_for.set(Some(denial));
    }

    /// Whether a client of HTTP/1.1 has to be told that this answer is the last one.
    pub(super) fn is_last_answer(&self) -> bool {
        self.last_answer.get()
    }

    fn poll_unwelcome(&self) -> Poll<()> {
        if self.unwelcome.get() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Since when nothing is under way.
    fn idle_since(&self) -> Option<Instant> {
        self.under_way.is_empty().then(|| self.last.get())
    }
}

/// A request that is not fully answered yet.
pub(super) struct UnderWay {
    connection: Rc<Connection>,
    place: usize,
}

impl UnderWay {
    /// A piece of the answer was handed over and waits for the client, or has been taken and the next one is not there.
    pub(super) fn offers(&self, offered: bool) {
        let now = clock::instant_now();
        self.connection.under_way.offers(self.place, offered.then_some(now));
        self.connection.last.set(now);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.connection.under_way.end(self.place) {
            self.connection.last.set(clock::instant_now());
        }
    }
}

/// What hyper does for a connection.
type Serving = Pin<Box<dyn Future<Output = Result<(), hyper::Error>>>>;

/// A connection on which HTTP is spoken.
struct Established {
    connection: Rc<Connection>,
    serving: Serving,
    _place: Option<Place>,
}

/// Serves a connection from its first byte to its end.
///
/// What lasts as long as the connection is little; everything else is on the heap and given back when it is done with, because
/// connections idle for long, and there are many.
pub(super) async fn serve(worker: Rc<Worker>, listener: SocketAddr, stream: TcpStream, peer: ClientAddr) {
    let establishing = Box::pin(establish(Rc::clone(&worker), listener, stream, peer));
    let Some(Established { connection, serving, _place }) = establishing.await else { return };
    if let Err(error) = serving.await
        && let Some(denial) = connection.ended_for.get().or_else(|| blame(&error))
    {
        let source = connection.client.address;
        if denial == Denial::RequestTimeout {
            worker.counters.borrow().too_late(Stage::Head);
        }
        worker.refused(source, denial);
        tracing::debug!(source = %source.get(), code = denial.code(), %error, "request refused");
    }
    // Taken out of the connection, which they hold: they end with this task at the latest.
    let tunnels = connection.tunnels.take();
    if let Some(mut tunnels) = tunnels {
        while tunnels.join_next().await.is_some() {}
    }
}

/// Shakes hands; `None` for whoever is refused.
async fn establish(
    worker: Rc<Worker>,
    listener: SocketAddr,
    mut stream: TcpStream,
    peer: ClientAddr,
) -> Option<Established> {
    let settings = worker.shared.policy.load().listeners.get(&listener).cloned();
    // A listener that is no longer configured has no certificate to show.
    let settings = settings?;
    let (source, first, place) = if settings.is_behind(peer.get()) {
        let reading = tokio::time::timeout(settings.handshake_timeout, proxy::read(&mut stream));
        let Ok(Ok((client, first))) = reading.await else {
            refuse(&worker, peer, Denial::ProxyHeader);
            return None;
        };
        let source = client.map_or(peer, ClientAddr::new);
        // Only now it is known whose connection it is.
        let place = client.map(|client| worker.shared.sources.take(client));
        if place.as_ref().is_some_and(Option::is_none) {
            refuse(&worker, source, Denial::ConnectionLimit);
            return None;
        }
        (source, first, place.flatten())
    } else {
        (peer, Vec::new(), None)
    };
    // Before the handshake, which would cost us more than it.
    if worker.bans(&worker.shared.policy.load(), source, listener.port(), clock::kernel_now()) {
        refuse(&worker, source, Denial::Banned);
        return None;
    }
    // Nothing stops whom the configuration or an operator allows, here as little as in the program.
    let is_exempt = || worker.exempts(&worker.shared.policy.load(), source, listener.port());
    let lists = settings.hellos.as_deref().filter(|_| !is_exempt());
    let rehearse = |denial: Denial| worker.shared.metrics.hello_rehearsed(denial);
    let shaking = handshake::shake(&settings, Recorded::new(stream, first), source, lists, rehearse);
    let handshake = Box::pin(shaking);
    let (stream, client) = match tokio::time::timeout(settings.handshake_timeout, handshake).await {
        Ok(Ok(established)) => established,
        Ok(Err(failed)) => {
            if settings.hellos_judged {
                compare(&worker, source, listener.port(), &failed);
            }
            refuse_handshake(&worker, source, &failed);
            return None;
        }
        Err(_) => {
            worker.counters.borrow().too_late(Stage::Handshake);
            refuse(&worker, source, Denial::TlsTimeout);
            return None;
        }
    };
    worker.counters.borrow_mut().connection_accepted(stream.tls());
    tracing::debug!(
        source = %source.get(),
        server_name = client.server_name.as_deref(),
        ja4 = client.hello.as_deref().map(|hello| tracing::field::display(hello.ja4)),
        fingerprint = client.hello.as_deref().and_then(|hello| hello.fingerprint).map(tracing::field::display),
        alpn = client.hello.as_deref().map(|hello| &*hello.alpn),
        identity = client.identity.as_deref().map(|identity| &*identity.thumbprint),
        "connection accepted"
    );
    let connection = Rc::new(Connection {
        client,
        port: listener.port(),
        tls_version: counters::version(stream.tls().protocol_version()),
        completion: stream.completion(),
        under_way: Underway::default(),
        last: Cell::new(clock::instant_now()),
        unwelcome: Cell::new(false),
        unreadable: Cell::new(None),
        ended_for: Cell::new(None),
        switched: Cell::new(false),
        last_answer: Cell::new(false),
        tunnels: RefCell::default(),
    });
    let serving = speak(&worker, &connection, &worker.shared.policy.load().http, stream);
    Some(Established { connection, serving, _place: place })
}

fn speak(worker: &Rc<Worker>, connection: &Rc<Connection>, http: &config::Http, stream: Secured) -> Serving {
    let (own, of) = (Rc::clone(worker), Rc::clone(connection));
    let is_http2 = stream.tls().alpn_protocol() == Some(ALPN_H2);
    let service = service_fn(move |request| {
        // On the heap at once: hyper and tokio move it from hand to hand before it is polled.
        Box::pin(request::serve(Rc::clone(&own), Rc::clone(&of), request))
    });
    let (worker, connection) = (Rc::clone(worker), Rc::clone(connection));
    if is_http2 {
        let stream = Calm::new(stream, Rc::clone(&worker), Rc::clone(&connection), http);
        let serving = http2::Builder::new(Streams(Rc::clone(&connection)))
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(http.max_header_bytes)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .enable_connect_protocol()
            .serve_connection(TokioIo::new(stream), service);
        let wind_down = http2::Connection::graceful_shutdown;
        Box::pin(watch(worker, connection, Limits::of(http), true, Box::pin(serving), wind_down))
    } else {
        let stream = Readable::new(stream, Rc::clone(&connection), http);
        let mut builder = http1::Builder::new();
        if http.max_header_fields != HYPERS_FIELDS {
            builder.max_headers(usize::from(http.max_header_fields));
        }
        let serving = builder
            .max_header_size(http.max_header_bytes as usize)
            .max_buf_size(BUFFER.max(http.max_header_bytes as usize))
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let wind_down = http1::UpgradeableConnection::graceful_shutdown;
        Box::pin(watch(worker, connection, Limits::of(http), false, Box::pin(serving), wind_down))
    }
}

/// Runs the requests of an HTTP/2 connection, each in a task that can be ended by itself.
#[derive(Clone)]
struct Streams(Rc<Connection>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        let Self(connection) = self;
        connection.under_way.spawned(tokio::task::spawn_local(future).abort_handle());
    }
}

/// How long a client is waited for.
#[derive(Clone, Copy)]
struct Limits {
    idle: Duration,
    write: Duration,
}

impl Limits {
    const fn of(http: &config::Http) -> Self {
        Self { idle: http.idle_timeout, write: http.write_timeout }
    }
}

/// Drives a connection; ends it when it idles or its client takes nothing of what it asked for, winds it down when the
/// worker drains. hyper's part is on the heap: handed on by value it would have its room in each of the functions that it goes
/// through, for as long as the connection lives.
async fn watch<C>(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    limits: Limits,
    is_http2: bool,
    mut serving: Pin<Box<C>>,
    wind_down: impl Fn(Pin<&mut C>),
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut phase = worker.shared.phase.clone();
    let mut wake = pin!(tokio::time::sleep(limits.idle.min(limits.write)));
    let (mut draining, mut closing, mut left) = (false, false, false);
    loop {
        tokio::select! {
            biased;
            outcome = serving.as_mut() => return outcome,
            () = wake.as_mut() => {
                let now = clock::instant_now();
                if draining && !closing && !is_http2 {
                    closing = true;
                    wind_down(serving.as_mut());
                }
                let patience = if left { FAREWELL.min(limits.idle) } else { limits.idle };
                let idle = connection.idle_since().unwrap_or(now) + patience;
                let mut unread = connection.under_way.unread_since().unwrap_or(now) + limits.write;
                if unread <= now {
                    // As long as the client takes something, it loses no more than what it does not take.
                    let lives = connection.last.get() + limits.write > now;
                    let reset = if lives { connection.under_way.reset_unread(now, limits.write) } else { 0 };
                    (0..reset.max(1)).for_each(|_| worker.counters.borrow().too_late(Stage::Write));
                    worker.refused(connection.client.address, Denial::AnswerUnread);
                    if reset == 0 {
                        return Ok(());
                    }
                    unread = connection.under_way.unread_since().unwrap_or(now) + limits.write;
                }
                if idle > now {
                    wake.as_mut().reset(idle.min(unread).into());
                } else if closing {
                    // Asked once, and the client neither left nor sent anything.
                    return Ok(());
                } else {
                    if !draining {
                        worker.counters.borrow().too_late(Stage::Idle);
                    }
                    closing = true;
                    wind_down(serving.as_mut());
                    wake.as_mut().reset((now + FAREWELL.min(limits.idle)).into());
                }
            }
            // The answer that goes out meanwhile has woken this task.
            () = poll_fn(|_| connection.poll_unwelcome()), if !left => {
                (left, closing) = (true, true);
                wind_down(serving.as_mut());
                wake.as_mut().reset((clock::instant_now() + FAREWELL.min(limits.idle)).into());
            }
            // An error means that the `Ingress` is gone: the same.
            _ = phase.wait_for(|phase| matches!(phase, Phase::Draining(_))), if !draining => {
                draining = true;
                connection.last_answer.set(true);
                if is_http2 {
                    wind_down(serving.as_mut());
                } else {
                    // A request may be on its way, and a close that crosses it would lose it (RFC 9112 section 9.6); its
                    // answer says that it is the last one.
                    wake.as_mut().reset((clock::instant_now() + FAREWELL).into());
                }
            }
        }
    }
}

/// What a client did wrong when hyper gave up on its connection. What hyper finds in a head of HTTP/1.1 was found before.
fn blame(error: &hyper::Error) -> Option<Denial> {
    if error.is_parse_too_large() {
        Some(Denial::HeadersTooLarge)
    } else if error.is_parse() {
        Some(Denial::RequestMalformed)
    } else {
        breach(error)
    }
}

/// Why HTTP/2 was ended by h2: for a breach of the protocol, or for too much that costs more here than there (RFC 9113
/// sections 5.4.1 and 10.5). A network that broke and a client that said goodbye are none.
fn breach(error: &hyper::Error) -> Option<Denial> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let calm = error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
            let denial = if calm { Denial::Http2Flood } else { Denial::RequestMalformed };
            return (error.is_go_away() && error.is_library()).then_some(denial);
        }
        source = error.source();
    }
    None
}

/// Counts a hello that the program should have refused. What comes by the loopback is not meant for it.
fn compare(worker: &Worker, source: ClientAddr, port: u16, failed: &Failed) {
    let policy = worker.shared.policy.load();
    let is_meant = !source.get().is_loopback() && !worker.exempts(&policy, source, port);
    if is_meant && failed.is_too_old(policy.minimum_tls()) {
        worker.shared.metrics.missed_hellos.inc();
    }
}

fn refuse_handshake(worker: &Worker, source: ClientAddr, failed: &Failed) {
    let Failed { denial, error, hello, server_name } = failed;
    tracing::debug!(
        source = %source.get(),
        server_name = server_name.as_deref(),
        ja4 = hello.as_ref().map(|hello| tracing::field::display(hello.ja4)),
        fingerprint = hello.as_ref().and_then(|hello| hello.fingerprint).map(tracing::field::display),
        alpn = hello.as_ref().map(|hello| &*hello.alpn),
        version = hello.as_ref().map(|hello| hello.version),
        %error,
        "handshake failed"
    );
    match denial {
        Some(denial) => refuse(worker, source, *denial),
        // The client refused us, or the network broke: that is no offence, but it counts as a failed handshake.
        None => worker.counters.borrow_mut().connection_refused(Denial::TlsHandshake),
    }
}

fn refuse(worker: &Worker, source: ClientAddr, denial: Denial) {
    worker.counters.borrow_mut().connection_refused(denial);
    worker.report(source, denial);
    tracing::debug!(source = %source.get(), code = denial.code(), "connection refused");
}
