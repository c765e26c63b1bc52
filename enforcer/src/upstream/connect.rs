//! A new connection to a server: TCP, TLS where the server's scheme says so, and the protocol that was agreed upon.
//!
//! `pool` asks for one and gives it its place; the connection lives in a task of its own until it ends. Which server is chosen,
//! and what is sent, is decided elsewhere.

use std::{
    cell::Cell,
    fmt::Display,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper::{
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::{
    client::legacy::connect::HttpConnector,
    rt::{TokioIo, TokioTimer},
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tower_service::Service as _;

use super::{body::RequestBody, chain, wire::Wire};
use crate::policy::{
    tls::{ALPN_H2, servers::Encryption},
    upstream::Servers,
};

/// Bytes of an answer that hyper holds for a client that reads slowly; also the largest head of an answer.
const BUFFER: usize = 64 << 10;
/// Bytes that a server may send ahead on one stream and on one connection; they bound what a slow client costs us.
const STREAM_WINDOW: u32 = 256 << 10;
/// See [`STREAM_WINDOW`].
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Requests at once on one HTTP/2 connection, where the server allows more: beyond that a second one does better.
const MOST_STREAMS: usize = 100;
/// A server that answers nothing for so long is asked whether it is there, and given [`PING_TIMEOUT`] to say so: a peer that
/// vanished without a word takes its requests with it otherwise.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// See [`PING_INTERVAL`].
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for TCP alone.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection that stands.
pub(super) enum Connected {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>, Streams),
}

/// How many streams an HTTP/2 connection may have, as its server said last.
#[derive(Clone, Debug)]
pub(super) struct Streams(Rc<Cell<usize>>);

impl Streams {
    pub(super) fn most(&self) -> usize {
        self.0.get().min(MOST_STREAMS)
    }
}

/// Makes connections for one upstream.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    tcp: HttpConnector,
}

impl Connector {
    pub(super) fn new(upstream: &Servers) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        // Shared by the addresses that a name has.
        tcp.set_connect_timeout(Some(upstream.config.connect_timeout));
        Self { tcp }
    }

    /// Connects to `server` and says nothing.
    pub(super) async fn reach(&self, server: &Uri) -> Result<TcpStream, String> {
        let mut tcp = self.tcp.clone();
        poll_fn(|context| tcp.poll_ready(context)).await.map_err(|error| chain(&error))?;
        Ok(tcp.call(server.clone()).await.map_err(|error| chain(&error))?.into_inner())
    }

    /// Connects to `server`. `http1`: only that will do. `held` is dropped when the connection has ended.
    pub(super) async fn connect(
        &self,
        upstream: &Servers,
        server: &Uri,
        http1: bool,
        held: impl Sized + 'static,
    ) -> Result<Connected, String> {
        let stream = Wire(self.reach(server).await?);
        match &upstream.encryption {
            Some(encryption) if server.scheme() == Some(&Scheme::HTTPS) => {
                let tls = connector(encryption, http1);
                let name = server_name(upstream, server)?;
                let stream = tls.connect(name, stream).await.map_err(said("TLS"))?;
                let agreed = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
                if agreed { greet2(stream, held).await } else { greet1(stream, held).await }
            }
            _ if is_http2(server) => greet2(stream, held).await,
            _ => greet1(stream, held).await,
        }
    }
}

fn connector(encryption: &Encryption, http1: bool) -> TlsConnector {
    let config = if http1 { &encryption.http1 } else { &encryption.config };
    TlsConnector::from(Arc::clone(config))
}

/// Whether a server is spoken to in HTTP/2 without asking it (RFC 9113 section 3.3).
fn is_http2(server: &Uri) -> bool {
    server.scheme_str() == Some("h2c")
}

fn server_name(upstream: &Servers, server: &Uri) -> Result<ServerName<'static>, String> {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = upstream.config.tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(said("TLS"))
}

async fn greet1<T>(stream: T, held: impl Sized + 'static) -> Result<Connected, String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| chain(&error))?;
    tokio::task::spawn_local(async move {
        // Whoever waits for an answer hears of errors.
        let _ = connection.with_upgrades().await;
        drop(held);
    });
    Ok(Connected::Http1(sender))
}

async fn greet2<T>(stream: T, held: impl Sized + 'static) -> Result<Connected, String>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let handshake = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, mut connection) = handshake.map_err(|error| chain(&error))?;
    let streams = Streams(Rc::new(Cell::new(MOST_STREAMS)));
    let told = streams.clone();
    tokio::task::spawn_local(async move {
        let _ = poll_fn(|context| {
            let polled = Pin::new(&mut connection).poll(context);
            // Some servers allow none for a moment; then one waits for its turn there.
            told.0.set(connection.current_max_send_streams().max(1));
            polled
        })
        .await;
        drop(held);
    });
    Ok(Connected::Http2(sender, streams))
}

fn said<E: Display>(what: &str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Puts what hyper wants run beside a connection on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
