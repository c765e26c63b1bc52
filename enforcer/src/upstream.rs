//! Requests that were granted, on their way to a server, and its answers on their way back.
//!
//! Ingress calls [`Clients::forward`] with the [`Grant`] of `checks::admit`; there is no other way in. Every worker has its own
//! `Clients`, so pooled connections are never shared between threads. `Authorization` is forwarded as it came: the
//! servers behind often need the token themselves, and they are trusted with it.

mod body;
mod headers;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{Request, Response, StatusCode, Uri, Version, request, response, uri::PathAndQuery};
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{checks::Grant, denial::Denial, policy::Upstream};
use body::{Progress, RequestBody};

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
    turn: Cell<usize>,
}

impl Clients {
    /// Sends a request to the next server of its upstream and returns the head of the answer; bodies flow while both
    /// sides read. At most `max_body` bytes are forwarded; 0 means no bound.
    pub async fn forward(
        &self,
        grant: Grant,
        request: Request<Incoming>,
        max_body: u64,
    ) -> Result<Response<Incoming>, Denial> {
        let pool = self.pool(grant.upstream());
        let (mut head, body) = request.into_parts();
        if max_body > 0 && body.size_hint().lower() > max_body {
            return Err(Denial::BodyTooLarge);
        }
        headers::to_upstream(&mut head, grant.source());
        readdress(&mut head, pool.next_server().ok_or(Denial::UpstreamUnreachable)?)?;
        let (body, progress) = RequestBody::new(body, max_body);
        let answer = pool.client.request(Request::from_parts(head, body));
        let timeout = pool.upstream.config.response_timeout;
        let (mut head, body) = within(timeout, progress, answer).await?.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // Nothing asked for it: `Upgrade` is never forwarded.
            return Err(Denial::UpstreamProtocol);
        }
        headers::to_client(&mut head);
        Ok(Response::from_parts(renewed(head), body))
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
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(upstream.config.idle_timeout)
            .build(connector);
        Self { upstream, client, turn: Cell::new(0) }
    }

    fn next_server(&self) -> Option<&Uri> {
        let servers = &self.upstream.config.servers;
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        servers.get(turn.checked_rem(servers.len())?)
    }
}

/// The same path and query, at `server`, in HTTP/1.1.
fn readdress(head: &mut request::Parts, server: &Uri) -> Result<(), Denial> {
    let mut target = http::uri::Parts::default();
    target.scheme = server.scheme().cloned();
    target.authority = server.authority().cloned();
    target.path_and_query =
        Some(head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    head.uri = Uri::from_parts(target).map_err(|_| Denial::UpstreamUnreachable)?;
    head.version = Version::HTTP_11;
    head.extensions = http::Extensions::new();
    Ok(())
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
    progress: Option<Arc<Progress>>,
    answer: impl Future<Output = Result<Response<Incoming>, Error>>,
) -> Result<Response<Incoming>, Denial> {
    let mut answer = std::pin::pin!(answer);
    let mut seen = 0;
    loop {
        match (tokio::time::timeout(timeout, answer.as_mut()).await, &progress) {
            (Ok(Ok(response)), _) => return Ok(response),
            (Ok(Err(error)), progress) => {
                let own = progress.as_ref().and_then(|progress| progress.failure());
                let denial = own.unwrap_or(match error.is_connect() {
                    true => Denial::UpstreamUnreachable,
                    false => Denial::UpstreamProtocol,
                });
                tracing::debug!(error = %chain(&error), code = denial.code(), "no answer from upstream");
                return Err(denial);
            }
            (Err(_), Some(progress)) if progress.bytes() != seen => seen = progress.bytes(),
            (Err(_), Some(progress)) if progress.waits_for_client() => return Err(Denial::RequestTimeout),
            (Err(_), _) => return Err(Denial::UpstreamTimeout),
        }
    }
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
