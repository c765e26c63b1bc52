//! A small HTTP server that stands in for what the daemon protects.
//!
//! It runs on a thread inside a namespace, counts requests, and does what the end of the path says: `slow/MS` waits so many
//! milliseconds, `stream/N` sends N pieces one by one, anything else answers with what arrived.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{net::TcpListener, sync::oneshot};

use crate::netns::Netns;

/// Size of one streamed piece.
pub const PIECE: usize = 1024;
/// Between two streamed pieces, so that they travel apart.
const PIECE_GAP: Duration = Duration::from_millis(10);
/// For binding a socket.
const PATIENCE: Duration = Duration::from_secs(5);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens, inside its namespace.
    pub address: SocketAddr,
    begun: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Upstream {
    /// Starts one on the loopback of `netns`, on a port that is free.
    pub fn start(netns: &Netns) -> Result<Self> {
        let begun = Arc::new(AtomicU64::new(0));
        let counter = begun.clone();
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = mpsc::sync_channel(1);
        let thread = netns.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                ready.send(listener.local_addr()?)?;
                tokio::select! {
                    result = serve(listener, counter) => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        let address = address.recv_timeout(PATIENCE).context("the upstream did not start")?;
        Ok(Self { address, begun, stop: Some(stop), thread: Some(thread) })
    }

    /// Requests that have arrived so far.
    pub fn requests(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(listener: TcpListener, counter: Arc<AtomicU64>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let counter = counter.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                counter.fetch_add(1, Ordering::SeqCst);
                answer(request)
            });
            let mut server = http1::Builder::new();
            // A connection that the daemon breaks off is the daemon's business.
            drop(server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let (before, last) = path.rsplit_once('/').unwrap_or(("", ""));
    let number = last.parse::<u64>().unwrap_or_default();
    if before.ends_with("/stream") {
        return Ok(Response::new(pieces(number)));
    }
    if before.ends_with("/slow") {
        tokio::time::sleep(Duration::from_millis(number)).await;
    }
    let headers: BTreeMap<String, String> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            // A token belongs on no screen, not even that of a demonstration.
            let secret = name == hyper::header::AUTHORIZATION;
            let text = if secret { "(secret)".into() } else { String::from_utf8_lossy(value.as_bytes()) };
            (name.to_string(), text.into_owned())
        })
        .collect();
    let (method, query) = (request.method().to_string(), request.uri().query().map(str::to_owned));
    let body = request.into_body().collect().await.map(|body| body.to_bytes().len()).unwrap_or_default();
    let echo = json!({
        "method": method, "path": path, "query": query, "headers": headers, "body_bytes": body,
    });
    let mut response = Response::new(Full::new(Bytes::from(format!("{echo}\n"))).boxed_unsync());
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    Ok(response)
}

fn pieces(count: u64) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for _ in 0..count {
            if sender.send(Bytes::from(vec![b'x'; PIECE])).await.is_err() {
                return;
            }
            tokio::time::sleep(PIECE_GAP).await;
        }
    });
    Pieces(receiver).boxed_unsync()
}

/// A channel's receiving end as a body of unknown length.
struct Pieces(tokio::sync::mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

type FrameResult = Result<Frame<Bytes>, Infallible>;
