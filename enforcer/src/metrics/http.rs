//! The listener for Prometheus and for health checks: `/metrics`, `/livez`, `/readyz`.
//!
//! Plain HTTP/1.1 on an address of its own, loopback by default. It answers nothing else but `/revoke`, which is for whom it was given
//! to; nothing else that it is sent has an effect.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::{net::TcpListener, sync::Semaphore};
use tracing::{debug, warn};

use crate::{clock, fault, log::Seldom};

/// Connections at once: a few scrapers and probes.
const CONNECTIONS: usize = 32;

/// How long a client may take over its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's body: a form with a token.
const MOST_BYTES: usize = 64 << 10;

/// Rest before the next attempt when accepting fails, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At most one line per second.
static ACCEPT_ERRORS: Seldom = Seldom::new();

/// Whether the daemon wants requests: set once all is up, cleared when it drains, hindered while a part is missing.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    ready: Arc<AtomicBool>,
    obstacle: Arc<ArcSwapOption<String>>,
}

impl Readiness {
    /// Says so.
    pub fn set(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Says what is in the way, or that nothing is any more.
    pub fn hinder(&self, obstacle: Option<String>) {
        self.obstacle.store(obstacle.map(Arc::new));
    }

    /// `Err` says why it does not.
    pub fn get(&self) -> Result<(), String> {
        if !self.ready.load(Ordering::Acquire) {
            return Err("not ready".to_owned());
        }
        self.obstacle.load().as_ref().map_or(Ok(()), |obstacle| Err(format!("not ready: {obstacle}")))
    }
}

/// Whoever answers requests for `/revoke`.
pub trait Admin: std::fmt::Debug + Send + Sync {
    /// The answer.
    fn answer(&self, head: &Parts, body: &[u8]) -> Response<Full<Bytes>>;
}

/// A bound listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
    admin: Option<Arc<dyn Admin>>,
}

impl Server {
    /// Binds `address`.
    pub async fn bind(address: SocketAddr, registry: Registry, readiness: Readiness) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| explain(address, error))?;
        Ok(Self { listener, registry, readiness, admin: None })
    }

    /// The same, with somebody who answers `/revoke`.
    #[must_use]
    pub fn with_admin(self, admin: Arc<dyn Admin>) -> Self {
        Self { admin: Some(admin), ..self }
    }

    /// The address that was bound.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until it is dropped or aborted.
    pub async fn serve(self) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if ACCEPT_ERRORS.may_speak(clock::unix_now()) {
                        warn!(%error, "accepting on the metrics listener");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (registry, readiness, admin) =
                (self.registry.clone(), self.readiness.clone(), self.admin.clone());
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let admin = admin.clone().filter(|_| request.uri().path() == "/revoke");
                    let response = match &admin {
                        None => Some(answer(request.method(), request.uri().path(), &registry, &readiness)),
                        Some(_) => None,
                    };
                    async move {
                        match (response, admin) {
                            (None, Some(admin)) => Ok(administer(request, &*admin).await),
                            (response, _) => Ok::<_, Infallible>(response.unwrap_or_default()),
                        }
                    }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    debug!(%error, "metrics connection ended");
                }
                drop(permit);
            });
        }
    }
}

/// Reads the request whole, within the time for a head, and has it answered.
async fn administer(request: Request<Incoming>, admin: &dyn Admin) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(HEADER_TIMEOUT, Limited::new(body, MOST_BYTES).collect()).await;
    match body {
        Ok(Ok(body)) => admin.answer(&head, &body.to_bytes()),
        Ok(Err(_)) => plain(StatusCode::PAYLOAD_TOO_LARGE, "the request cannot be read\n".into()),
        Err(_) => plain(StatusCode::REQUEST_TIMEOUT, "the request took too long\n".into()),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open-ended")]
fn explain(address: SocketAddr, error: io::Error) -> anyhow::Error {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "metrics.address {address}: another program listens on port {port} (`ss -ltnp 'sport = :{port}'` shows which); stop it, choose another address, or \"off\""
        ),
        io::ErrorKind::PermissionDenied => fault::permission(format!(
            "metrics.address {address}: no permission for port {port}; take a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
        )),
        _ => anyhow::Error::new(error)
            .context(format!("metrics.address {address}: cannot listen; choose another address, or \"off\"")),
    }
}

/// Everything in `registry`, in the text format of Prometheus.
pub fn text(registry: &Registry) -> Result<String> {
    Ok(TextEncoder::new().encode_to_string(&registry.gather())?)
}

fn answer(method: &Method, path: &str, registry: &Registry, readiness: &Readiness) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    }
    match path {
        "/metrics" => match text(registry) {
            Ok(text) => plain(StatusCode::OK, text),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")),
        },
        "/livez" => plain(StatusCode::OK, "alive\n".into()),
        "/readyz" => match readiness.get() {
            Ok(()) => plain(StatusCode::OK, "ready\n".into()),
            Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        },
        _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n".into()),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
