//! Requests that were granted, on their way to a server, and its answers on their way back.
//!
//! Ingress calls [`Clients::forward`] with the [`Grant`] of `checks::admit`; there is no other way in. Every worker has its own
//! `Clients`, so pooled connections are never shared between threads. `Authorization` is forwarded as it came: the
//! servers behind often need the token themselves, and they are trusted with it.

mod body;
mod headers;

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, response, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{checks::Grant, clock, denial::Denial, policy::Upstream};
pub use body::ClientBody;
use body::{Progress, RequestBody};

/// Bytes of an answer that hyper holds for a client that reads slowly; also the largest head of an answer.
const BUFFER: usize = 64 << 10;

/// One worker's connections to all upstreams.
#[derive(Debug, Default)]
pub struct Clients {
    pools: RefCell<Vec<Rc<Pool>>>,
}

/// The connections to one upstream.
#[derive(Debug)]
struct Pool {
    upstream: Arc<Upstream>,
    client: Client<HttpConnector, RequestBody>,
    /// Keeps no connection: for a second attempt, which must not meet another dead one.
    fresh: Client<HttpConnector, RequestBody>,
    turn: Cell<usize>,
}

impl Clients {
    /// Sends a request to the next server of its upstream and returns the head of the answer; bodies flow while both
    /// sides read. At most `max_body` bytes are forwarded; 0 means no bound.
    ///
    /// A server that cannot be reached has seen nothing, so the next one is asked. A connection that dies before it answers
    /// may have been closed as idle while the request was on its way: it is sent once more if its method is idempotent
    /// (RFC 9110 section 9.2.2) and it has no body. Anything else is never sent twice.
    pub async fn forward(
        &self,
        grant: Grant,
        request: Request<ClientBody>,
        max_body: u64,
        id: HeaderValue,
    ) -> Result<Response<Incoming>, Denial> {
        let pool = self.pool(grant.upstream());
        let (mut head, body) = request.into_parts();
        if max_body > 0 && body.announced() > max_body {
            body.discard();
            return Err(Denial::BodyTooLarge);
        }
        headers::to_upstream(&mut head, grant.source(), id.clone());
        head.version = Version::HTTP_11;
        head.extensions = http::Extensions::new();
        let target = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut body = (!body.is_empty()).then_some(body);
        let mut again = body.is_none() && head.method.is_idempotent();
        let mut client = &pool.client;
        let mut tried = Vec::new();
        let mut server = pool.choose(&tried).ok_or(Denial::UpstreamUnreachable)?;
        loop {
            let mut head = head.clone();
            head.uri = pool.address(server, &target)?;
            let has_body = body.is_some();
            let (outgoing, progress) = RequestBody::new(body.take(), max_body);
            let answer = client.request(Request::from_parts(head, outgoing));
            let timeout = pool.upstream.config.response_timeout;
            let error = match within(timeout, progress.as_deref(), answer).await? {
                Ok(response) => {
                    pool.reached(server);
                    return finish(response);
                }
                Err(error) => error,
            };
            tracing::debug!(
                upstream = pool.upstream.name,
                error = %chain(&error),
                request_id = ?id,
                "no answer from upstream"
            );
            if let Some(own) = progress.as_ref().and_then(|progress| progress.failure()) {
                return Err(own);
            }
            body = progress.and_then(|progress| progress.take_unread());
            if error.is_connect() {
                pool.failed(server, &error, &id);
                tried.push(server);
                match pool.choose(&tried) {
                    Some(next) if has_body == body.is_some() => server = next,
                    _ => break Err(Denial::UpstreamUnreachable),
                }
            } else if again && died(&error) {
                again = false;
                client = &pool.fresh;
            } else {
                break Err(Denial::UpstreamProtocol);
            }
        }
    }

    fn pool(&self, upstream: &Arc<Upstream>) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.iter().find(|pool| Arc::ptr_eq(&pool.upstream, upstream)) {
            return Rc::clone(pool);
        }
        // A new upstream means a new policy: upstreams that only we still know are gone.
        pools.retain(|pool| Arc::strong_count(&pool.upstream) > 1);
        let pool = Rc::new(Pool::new(Arc::clone(upstream)));
        pools.push(Rc::clone(&pool));
        pool
    }
}

impl Pool {
    fn new(upstream: Arc<Upstream>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(upstream.config.connect_timeout));
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(upstream.config.idle_timeout)
            .http1_max_buf_size(BUFFER);
        let client = builder.build(connector.clone());
        let fresh = builder.pool_max_idle_per_host(0).build(connector);
        Self { upstream, client, fresh, turn: Cell::new(0) }
    }

    /// The next server in turn that was not tried; those that rest come last.
    fn choose(&self, tried: &[usize]) -> Option<usize> {
        let count = self.upstream.config.servers.len();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let left =
            || (0..count).map(|step| turn.wrapping_add(step) % count).filter(|one| !tried.contains(one));
        let now = clock::kernel_now();
        left().find(|server| !self.upstream.health.rests(*server, now)).or_else(|| left().next())
    }

    fn address(&self, server: usize, target: &PathAndQuery) -> Result<Uri, Denial> {
        let server = self.upstream.config.servers.get(server).ok_or(Denial::UpstreamUnreachable)?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = server.scheme().cloned();
        parts.authority = server.authority().cloned();
        parts.path_and_query = Some(target.clone());
        Uri::from_parts(parts).map_err(|_| Denial::UpstreamUnreachable)
    }

    fn failed(&self, server: usize, error: &Error, id: &HeaderValue) {
        let Upstream { name, config, health } = &*self.upstream;
        if health.failed(server, clock::kernel_now()) {
            let server = config.servers.get(server).map(tracing::field::display);
            let error = chain(error);
            tracing::warn!(upstream = name, server, error, request_id = ?id, "upstream server cannot be reached");
        }
    }

    fn reached(&self, server: usize) {
        let Upstream { name, config, health } = &*self.upstream;
        if health.reached(server) {
            let server = config.servers.get(server).map(tracing::field::display);
            tracing::warn!(upstream = name, server, "upstream server is reached again");
        }
    }
}

fn finish(response: Response<Incoming>) -> Result<Response<Incoming>, Denial> {
    let (mut head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nothing asked for it: `Upgrade` is never forwarded.
        return Err(Denial::UpstreamProtocol);
    }
    headers::to_client(&mut head);
    Ok(Response::from_parts(renewed(head), body))
}

/// The version and extensions of the connection behind mean nothing to the one in front.
fn renewed(head: response::Parts) -> response::Parts {
    let (mut fresh, ()) = Response::new(()).into_parts();
    fresh.status = head.status;
    fresh.headers = head.headers;
    fresh
}

/// Waits for an answer's head. The time limit counts from the last byte of the request that the server took, so that a
/// slow upload is not mistaken for a slow server.
async fn within(
    timeout: Duration,
    progress: Option<&Progress>,
    answer: impl Future<Output = Result<Response<Incoming>, Error>>,
) -> Result<Result<Response<Incoming>, Error>, Denial> {
    let mut answer = std::pin::pin!(answer);
    let mut last = progress.map_or_else(clock::instant_now, Progress::last);
    loop {
        match (tokio::time::timeout_at((last + timeout).into(), answer.as_mut()).await, progress) {
            (Ok(outcome), _) => return Ok(outcome),
            (Err(_), Some(progress)) if progress.last() > last => last = progress.last(),
            (Err(_), Some(progress)) if progress.waits_for_client() => return Err(Denial::RequestTimeout),
            (Err(_), _) => return Err(Denial::UpstreamTimeout),
        }
    }
}

/// Whether the connection ended before an answer began, as opposed to an answer that cannot be read.
fn died(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return true;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
            return matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected);
        }
        source = error.source();
    }
    false
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
