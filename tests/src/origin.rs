//! A server behind the edge, in this process: it says what it was asked, echoes bodies, and misbehaves on request. It speaks
//! HTTP/1.1 and HTTP/2, with TLS or without.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A running origin; ends when dropped.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    well: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// Starts on a free loopback port of the running runtime.
    pub async fn start() -> Result<Self> {
        Self::begin(None).await
    }

    /// The same, with TLS.
    pub async fn encrypted(config: ServerConfig) -> Result<Self> {
        Self::begin(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn begin(acceptor: Option<TlsAcceptor>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let well = Arc::new(AtomicBool::new(true));
        let (accepted, state) = (Arc::clone(&connections), (Arc::clone(&requests), Arc::clone(&well)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, SeqCst);
                let (acceptor, state) = (acceptor.clone(), state.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, state).await,
                        Some(acceptor) => {
                            // A client that refuses our certificate is the test's business.
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, state).await;
                            }
                        }
                    }
                });
            }
        });
        Ok(Self { address, connections, requests, well, task })
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// What `/healthz` answers from now on: 200 or 503. Such requests are not counted.
    pub fn set_well(&self, well: bool) {
        self.well.store(well, SeqCst);
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (asked, well): (Arc<AtomicUsize>, Arc<AtomicBool>),
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let is_check = request.uri().path() == "/healthz";
        let is_well = well.load(SeqCst);
        if !is_check {
            asked.fetch_add(1, SeqCst);
        }
        async move {
            if !is_check {
                return answer(request).await;
            }
            let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
            if !is_well {
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok(response)
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // A connection that the edge breaks off is the edge's business.
    drop(server.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
}

/// What a request ends with: `/echo` gives its body back as it comes, `/sink` its length when
/// it is complete, `/swallow` the same, but its answer has begun before, `/stall` never answers, `/slow` takes a second, `/break` closes the
/// connection, `/produce/N` sends N zeros, `/hold` begins to answer and reads nothing, `/status/N` answers with that status, `/token` is a token endpoint, everything else gets a description of itself.
async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, hyper::Error>>, hyper::Error> {
    let path = request.uri().path();
    if path.ends_with("/echo") {
        return Ok(Response::new(request.into_body().boxed()));
    }
    if path.ends_with("/sink") {
        let length = request.into_body().collect().await?.to_bytes().len();
        let length = Full::new(Bytes::from(length.to_string())).map_err(|never| match never {});
        return Ok(Response::new(length.boxed()));
    }
    if let Some(length) = path.rsplit_once("/produce/").and_then(|(_, length)| length.parse().ok()) {
        return Ok(Response::new(Zeros(length).map_err(|never| match never {}).boxed()));
    }
    if path.ends_with("/hold") {
        return Ok(Response::new(Held(request.into_body()).boxed()));
    }
    if path.ends_with("/swallow") || path.ends_with("/count") {
        return Ok(Response::new(Swallowed { body: request.into_body(), length: 0 }.boxed()));
    }
    if path.ends_with("/token") && request.method() == http::Method::POST {
        return exchange(request).await;
    }
    if path.ends_with("/stall") {
        std::future::pending::<Infallible>().await;
    }
    if path.ends_with("/break") {
        let broken = Full::new(Bytes::from_static(b"short")).map_err(|never| match never {}).boxed();
        let mut response = Response::new(broken);
        response.headers_mut().insert("content-length", HeaderValue::from_static("not a number"));
        return Ok(response);
    }
    if path.ends_with("/slow") {
        tokio::time::sleep(Duration::from_millis(1000)).await;
    }
    if path.ends_with("/empty") {
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
        *response.status_mut() = http::StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let status = path.rsplit_once("/status/").and_then(|(_, status)| status.parse().ok());
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let seen = json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "version": format!("{:?}", request.version()),
        "headers": headers,
    });
    let body = Full::new(Bytes::from(seen.to_string())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status.unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert("server", HeaderValue::from_static("origin/1.0"));
    headers.insert("x-powered-by", HeaderValue::from_static("Origin"));
    headers.insert("strict-transport-security", HeaderValue::from_static("max-age=1"));
    headers.insert("connection", HeaderValue::from_static("x-internal"));
    headers.insert("x-internal", HeaderValue::from_static("for the proxy only"));
    headers.insert("x-kept", HeaderValue::from_static("yes"));
    Ok(response)
}

/// What a token endpoint answers: as its form says by `next` (a refresh token), `answer` (a status), `coding` and `slow`.
async fn exchange(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, hyper::Error> {
    let asked_coding = request.headers().contains_key("accept-encoding");
    let form = request.into_body().collect().await?.to_bytes();
    let form: std::collections::HashMap<_, _> = form_urlencoded::parse(&form).into_owned().collect();
    if form.contains_key("slow") {
        tokio::time::sleep(Duration::from_millis(1000)).await;
    }
    let mut said = json!({"token_type": "Bearer", "asked_coding": asked_coding});
    if let Some(next) = form.get("next") {
        said["refresh_token"] = json!(next);
        said["access_token"] = json!(format!("access.{next}"));
    }
    let body = Full::new(Bytes::from(said.to_string())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = form.get("answer").and_then(|status| status.parse().ok()).unwrap_or_default();
    if let Some(coding) = form.get("coding").and_then(|coding| HeaderValue::from_str(coding).ok()) {
        response.headers_mut().insert("content-encoding", coding);
    }
    Ok(response)
}

/// Bytes that bodies of `/produce/N` were asked for.
pub static PRODUCED: AtomicU64 = AtomicU64::new(0);

/// So many zeros.
struct Zeros(u64);

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PIECE: [u8; 64 << 10] = [0; 64 << 10];
        let length = self.0.min(PIECE.len() as u64);
        if length == 0 {
            return Poll::Ready(None);
        }
        self.0 -= length;
        PRODUCED.fetch_add(length, SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE[..length as usize])))))
    }
}

/// A body that never ends, and keeps another one without reading it.
struct Held(Incoming);

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let _ = &self.0;
        Poll::Pending
    }
}

/// Reads a body to its end, and then says how long it was.
struct Swallowed {
    body: Incoming,
    length: usize,
}

impl Body for Swallowed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        while let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) {
            self.length += frame?.data_ref().map_or(0, Bytes::len);
        }
        match std::mem::take(&mut self.length) {
            0 => Poll::Ready(None),
            length => Poll::Ready(Some(Ok(Frame::data(Bytes::from(length.to_string()))))),
        }
    }
}
