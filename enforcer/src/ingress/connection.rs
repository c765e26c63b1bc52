//! One client connection: TLS, then HTTP/1.1 or HTTP/2 as ALPN says, until it ends, idles too long, or is drained.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::server::TlsStream;

use super::{
    Phase,
    handshake::{self, Failed},
    recorded::Recorded,
    request,
    stream::TimedHeads,
    worker::Worker,
};
use crate::{
    checks::facts::{Client, ClientAddr},
    clock, config,
    denial::Denial,
    policy::tls::ALPN_H2,
    upstream::LocalExecutor,
};

/// Header fields of one request, at most; browsers and apps send 10 to 40.
const MAX_HEADERS: usize = 100;
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
/// Time to leave for a client that was told to go: a round trip for HTTP/2's two GOAWAYs (RFC 9113 section 6.8).
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection as its requests see it.
pub(super) struct Connection {
    pub client: Client,
    under_way: Cell<u32>,
    /// Answers of which a piece waits for the client to take it.
    offered: Cell<u32>,
    last: Cell<Instant>,
    reading_head: Cell<bool>,
    late: Cell<bool>,
    /// Held by every body that is still read.
    open_bodies: Arc<()>,
    /// What requests were upgraded to.
    tunnels: RefCell<Option<JoinSet<()>>>,
}

impl Connection {
    /// Counts a request as under way until the guard is dropped with its answer.
    pub(super) fn begin(self: &Rc<Self>) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        self.reading_head.set(false);
        UnderWay { connection: Rc::clone(self), offered: false }
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

    /// For a body, to hold as long as there is something to read.
    pub(super) fn open_body(&self) -> Arc<()> {
        Arc::clone(&self.open_bodies)
    }

    /// Whether bytes that arrive belong to a new request.
    pub(super) fn is_between_requests(&self) -> bool {
        self.under_way.get() == 0 && Arc::strong_count(&self.open_bodies) == 1
    }

    pub(super) fn is_reading_head(&self) -> bool {
        self.reading_head.get()
    }

    pub(super) fn head_begins(&self) {
        self.reading_head.set(true);
    }

    pub(super) fn head_is_late(&self) {
        self.late.set(true);
    }

    /// Since when nothing is under way, or nobody takes what is offered.
    fn idle_since(&self) -> Option<Instant> {
        (self.under_way.get() == 0 || self.offered.get() > 0).then(|| self.last.get())
    }
}

/// A request that is not fully answered yet.
pub(super) struct UnderWay {
    connection: Rc<Connection>,
    offered: bool,
}

impl UnderWay {
    /// A piece of the answer was handed over and waits for the client, or has been taken and the next one is not there.
    pub(super) fn offers(&mut self, offered: bool) {
        let count = self.connection.offered.get();
        match (self.offered, offered) {
            (false, true) => self.connection.offered.set(count + 1),
            (true, false) => self.connection.offered.set(count - 1),
            _ => {}
        }
        self.offered = offered;
        self.connection.last.set(clock::instant_now());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.offers(false);
        self.connection.under_way.set(self.connection.under_way.get() - 1);
    }
}

/// Serves a connection from its first byte to its end.
pub(super) async fn serve(worker: Rc<Worker>, listener: SocketAddr, stream: TcpStream, source: ClientAddr) {
    let (settings, http) = {
        let policy = worker.shared.policy.load();
        (policy.listeners.get(&listener).cloned(), policy.http.clone())
    };
    // A listener that is no longer configured has no certificate to show.
    let Some(settings) = settings else { return };
    // Answers are written whole; waiting for more to send would only delay them.
    drop(stream.set_nodelay(true));
    // On the heap, so that its room is given back once it is done: the connection may idle for long.
    let handshake = Box::pin(handshake::shake(&settings, stream, source));
    let (stream, client) = match tokio::time::timeout(settings.handshake_timeout, handshake).await {
        Ok(Ok(established)) => established,
        Ok(Err(failed)) => {
            if settings.hellos_judged {
                compare(&worker, source, &failed);
            }
            return refuse_handshake(&worker, source, &failed);
        }
        Err(_) => return refuse(&worker, source, Denial::TlsTimeout),
    };
    drop(settings);
    worker.counters.borrow_mut().connection_accepted(stream.get_ref().1);
    tracing::debug!(
        source = %source.get(),
        server_name = client.server_name.as_deref(),
        ja4 = client.hello.as_deref().map(|hello| tracing::field::display(hello.ja4)),
        alpn = client.hello.as_deref().map(|hello| &*hello.alpn),
        identity = client.identity.as_deref().map(|identity| &*identity.thumbprint),
        "connection accepted"
    );
    let connection = Rc::new(Connection {
        client,
        under_way: Cell::new(0),
        offered: Cell::new(0),
        last: Cell::new(clock::instant_now()),
        reading_head: Cell::new(false),
        late: Cell::new(false),
        open_bodies: Arc::default(),
        tunnels: RefCell::default(),
    });
    let outcome = speak(&worker, &connection, &http, stream).await;
    if let Err(error) = outcome
        && let Some(denial) = blame(&error, &connection)
    {
        worker.counters.borrow().denied(denial);
        worker.shared.reporter.report(source.get(), denial);
        tracing::debug!(source = %source.get(), code = denial.code(), %error, "request refused");
    }
    // Taken out of the connection, which they hold: they end with this task at the latest.
    let tunnels = connection.tunnels.take();
    if let Some(mut tunnels) = tunnels {
        while tunnels.join_next().await.is_some() {}
    }
}

async fn speak(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    http: &config::Http,
    stream: TlsStream<Recorded>,
) -> Result<(), hyper::Error> {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
    let service = service_fn(|request| {
        // On the heap at once: hyper and tokio move it from hand to hand before it is polled.
        Box::pin(request::serve(Rc::clone(worker), Rc::clone(connection), request))
    });
    if is_http2 {
        let serving = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(http.max_header_bytes)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .enable_connect_protocol()
            .serve_connection(TokioIo::new(stream), service);
        let wind_down = http2::Connection::graceful_shutdown;
        watch(worker, connection, http.idle_timeout, Box::pin(serving), wind_down).await
    } else {
        let stream = TimedHeads::new(stream, Rc::clone(connection), http.header_timeout);
        let serving = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(http.max_header_bytes as usize)
            .max_buf_size(BUFFER.max(http.max_header_bytes as usize))
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let wind_down = http1::UpgradeableConnection::graceful_shutdown;
        watch(worker, connection, http.idle_timeout, Box::pin(serving), wind_down).await
    }
}

/// Drives a connection; ends it when it idles or its client takes nothing of what it asked for, winds it down when the
/// worker drains. hyper's part is on the heap: handed on by value it would have its room in each of the functions that it goes
/// through, for as long as the connection lives.
async fn watch<C>(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    idle_timeout: Duration,
    mut serving: Pin<Box<C>>,
    wind_down: impl Fn(Pin<&mut C>),
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut phase = worker.shared.phase.clone();
    let mut wake = pin!(tokio::time::sleep(idle_timeout));
    let (mut draining, mut closing) = (false, false);
    loop {
        tokio::select! {
            outcome = serving.as_mut() => return outcome,
            () = wake.as_mut() => {
                let now = clock::instant_now();
                let end = connection.idle_since().unwrap_or(now) + idle_timeout;
                if end > now {
                    wake.as_mut().reset(end.into());
                } else if closing || connection.under_way.get() > 0 {
                    // Asked once, and the client neither left nor sent anything; or it does not even read.
                    return Ok(());
                } else {
                    closing = true;
                    wind_down(serving.as_mut());
                    wake.as_mut().reset((now + FAREWELL.min(idle_timeout)).into());
                }
            }
            // An error means that the `Ingress` is gone: the same.
            _ = phase.wait_for(|phase| matches!(phase, Phase::Draining(_))), if !draining => {
                draining = true;
                wind_down(serving.as_mut());
            }
        }
    }
}

/// What a client did wrong when hyper gave up on its connection; hyper has answered where an answer was possible.
fn blame(error: &hyper::Error, connection: &Connection) -> Option<Denial> {
    if error.is_parse_too_large() {
        Some(Denial::HeadersTooLarge)
    } else if error.is_parse() {
        Some(Denial::RequestMalformed)
    } else if connection.late.get() {
        Some(Denial::RequestTimeout)
    } else if is_breach(error) {
        Some(Denial::RequestMalformed)
    } else {
        None
    }
}

/// Whether HTTP/2 was ended from here: for a breach of the protocol, or for too many resets (RFC 9113 sections 5.4.1 and
/// 10.5). A network that broke and a client that said goodbye are none.
fn is_breach(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.is_library();
        }
        source = error.source();
    }
    false
}

/// Counts a hello that the program should have refused. What comes by the loopback is not meant for it.
fn compare(worker: &Worker, source: ClientAddr, failed: &Failed) {
    let policy = worker.shared.policy.load();
    let address = source.get();
    if failed.is_too_old(policy.minimum_tls()) && !address.is_loopback() && !policy.allows(address) {
        worker.shared.metrics.missed_hellos.inc();
    }
}

fn refuse_handshake(worker: &Worker, source: ClientAddr, failed: &Failed) {
    let Failed { denial, error, hello, server_name } = failed;
    tracing::debug!(
        source = %source.get(),
        server_name = server_name.as_deref(),
        ja4 = hello.as_ref().map(|hello| tracing::field::display(hello.ja4)),
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
    worker.shared.reporter.report(source.get(), denial);
    tracing::debug!(source = %source.get(), code = denial.code(), "connection refused");
}
