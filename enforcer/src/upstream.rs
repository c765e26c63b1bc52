//! Requests that were granted, on their way to a server, and its answers on their way back.
//!
//! Ingress calls [`Clients::forward`] with the [`Grant`] of `checks::admit`; there is no other way in. Every worker has its own
//! `Clients`, so pooled connections are never shared between threads. `Authorization` is forwarded as it came: the
//! servers behind often need the token themselves, and they are trusted with it.

mod answer;
mod balance;
mod body;
mod connect;
mod direct;
mod framing;
pub mod grpc;
mod headers;
mod held;
mod lease;
mod outgoing;
mod pace;
mod pool;
mod trace;
mod tunnel;
mod watch;
mod wire;

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, response, uri::Authority};
use hyper::upgrade::OnUpgrade;

use crate::{checks::Grant, clock, denial::Denial, policy::Upstream};
pub use answer::{AnswerBody, Unread};
pub use body::{ClientBody, Whole};
pub use connect::LocalExecutor;
pub use headers::{EARLY_DATA, take_out_named};
pub use held::{Held, Room};
pub use pace::Patience;
pub use trace::parent as trace_parent;
pub use tunnel::Tunnel;
pub use watch::watch;

use answer::{Limits, Source};
use balance::Group;
use body::{Progress, RequestBody};
use direct::Failed;
use framing::Framing;
use lease::{Flight, Lease};
use outgoing::Outgoing;
use pool::{Server, Unavailable, Want};

/// How often a request is begun anew that no server has seen.
const MOST_UNSEEN: u32 = 3;

/// One worker's connections to all upstreams.
pub struct Clients {
    groups: RefCell<Vec<Rc<Group>>>,
    workers: usize,
}

/// What goes with a request besides its grant.
pub struct Terms {
    /// Bytes of its body that are forwarded at most; 0 means no bound.
    pub max_body: u64,
    /// Ties it to log lines.
    pub id: HeaderValue,
    /// Whether it may be a replay, which the server is told.
    pub is_early: bool,
    /// The protocol that it may change to.
    pub upgrade: Option<HeaderValue>,
}

/// What became of a request.
pub struct Forwarded {
    /// The answer.
    pub response: Response<AnswerBody>,
    /// What it changed to, if the server agreed (status 101).
    pub tunnel: Option<Tunnel>,
    /// The server that answered, for the access log.
    pub server: Option<Authority>,
}

impl Clients {
    /// None yet; those of one of so many workers.
    pub const fn new(workers: usize) -> Self {
        Self { groups: RefCell::new(Vec::new()), workers }
    }

    /// Sends a request to a server of its upstream and returns the head of the answer; bodies flow while both sides read.
    ///
    /// A server that cannot be reached has seen nothing, so another one is asked, and so it is with a connection that turns
    /// out to be closed before the request was begun. A connection that dies before it answers may have been closed as idle
    /// while the request was on its way: it is sent once more if its method is idempotent (RFC 9110 section 9.2.2) and
    /// nothing of its body was read. Anything else is never sent twice.
    pub async fn forward(
        &self,
        mut grant: Grant,
        request: Request<ClientBody>,
        terms: Terms,
    ) -> Result<Forwarded, Denial> {
        let (head, body) = request.into_parts();
        if let Err(denial) = grant.tell(clock::unix_now()) {
            body.discard();
            return Err(denial);
        }
        let Some(upstream) = grant.upstream() else {
            // Somebody forgot to judge it, which is no reason to let it pass.
            body.discard();
            return Err(Denial::GraphqlMalformed);
        };
        let group = self.group(upstream);
        if terms.max_body > 0 && body.announced() > terms.max_body {
            body.discard();
            return Err(Denial::BodyTooLarge);
        }
        let is_grpc = grpc::is_call(&head);
        let asked = if is_grpc { grpc::timeout(&head.headers) } else { None };
        let limit = group.config().total_timeout.into_iter().chain(asked).min();
        let deadline = limit.map(|limit| clock::instant_now() + limit);
        let (outgoing, headers) = Outgoing::new(head, &grant, &terms);
        drop(grant);
        let attempts = Attempts { group: &group, outgoing, terms, deadline, is_grpc };
        let work = std::pin::pin!(attempts.run(headers, (!body.is_empty()).then_some(body)));
        match deadline {
            None => work.await,
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), work).await.unwrap_or(Err(Denial::DeadlineExceeded))
            }
        }
    }

    fn group(&self, upstream: &Arc<Upstream>) -> Rc<Group> {
        let mut groups = self.groups.borrow_mut();
        if let Some(group) = groups.iter().find(|group| group.is_of(upstream)) {
            return Rc::clone(group);
        }
        // A new upstream means a new policy.
        groups.retain(|group| !group.is_over());
        let group = Rc::new(Group::new(upstream, self.workers));
        groups.push(Rc::clone(&group));
        group
    }
}

/// One request and everything that is tried for it.
struct Attempts<'a> {
    group: &'a Group,
    outgoing: Outgoing,
    terms: Terms,
    deadline: Option<Instant>,
    is_grpc: bool,
}

/// What may be tried after a failure.
enum Next {
    /// No server has seen the request: as if nothing had been.
    Anew(HeaderMap, Option<ClientBody>),
    /// A server may have: once more, elsewhere if possible.
    Repeat(HeaderMap, Option<ClientBody>),
    Stop(Denial),
}

impl Attempts<'_> {
    async fn run(self, mut headers: HeaderMap, mut body: Option<ClientBody>) -> Result<Forwarded, Denial> {
        self.group.save();
        let (mut unreachable, mut failing) = (Vec::new(), None);
        let mut unseen = 0;
        let mut want = Want { http1: self.outgoing.upgrade.is_some(), ..Want::default() };
        loop {
            want.simple = body.is_none() && self.outgoing.upgrade.is_none();
            let server = self.choose(&unreachable, failing).ok_or(Denial::UpstreamUnreachable)?;
            let lease = match Flight::begin(server).board(want).await {
                Ok(lease) => lease,
                Err(Unavailable::Busy) => return Err(Denial::UpstreamBusy),
                Err(Unavailable::Unreachable(why)) => {
                    if let Some(why) = &why {
                        server.unreachable(why);
                    }
                    unreachable.push(server.index);
                    continue;
                }
            };
            // A connection that was used before may be closed by its server at this very moment.
            let may_repeat = failing.is_none() && self.outgoing.method.is_idempotent();
            let outcome = if lease.is_direct() {
                self.ask(lease, headers, may_repeat).await
            } else {
                let spare = may_repeat.then(|| headers.clone());
                self.attempt(lease, headers, body, spare).await
            };
            match outcome {
                Ok(forwarded) => return Ok(forwarded),
                Err(Next::Stop(denial)) => return Err(denial),
                Err(Next::Anew(..)) if unseen == MOST_UNSEEN => return Err(Denial::UpstreamProtocol),
                Err(Next::Anew(again, rest)) => {
                    unseen += 1;
                    (headers, body) = (again, rest);
                }
                Err(Next::Repeat(again, rest)) => {
                    if !self.group.spend() {
                        return Err(Denial::UpstreamProtocol);
                    }
                    server.repeated();
                    (headers, body) = (again, rest);
                    failing = Some(server.index);
                    want.fresh = true;
                }
            }
        }
    }

    /// The server for the next attempt; the one that failed only if there is no other.
    fn choose(&self, unreachable: &[usize], failing: Option<usize>) -> Option<&Rc<Server>> {
        let now = clock::kernel_now();
        let Some(failing) = failing else { return self.group.choose(unreachable, now) };
        let tried: Vec<usize> = unreachable.iter().copied().chain([failing]).collect();
        self.group.choose(&tried, now).or_else(|| self.group.choose(unreachable, now))
    }

    /// One attempt for a request without a body, on a connection that is read here.
    async fn ask(&self, mut lease: Lease, headers: HeaderMap, may_repeat: bool) -> Result<Forwarded, Next> {
        let server = Rc::clone(lease.server());
        let head = self.outgoing.spell(&headers, server.address()).map_err(Next::Stop)?;
        let asking = lease.ask(&head, &self.outgoing.method);
        let failed = match within(self.group.config().response_timeout, None, asking).await {
            Ok(Ok(head)) => {
                let source = lease.take_direct().map_or(Source::Over, Source::Direct);
                return self.finish(head, source, lease, None).map_err(Next::Stop);
            }
            Ok(Err(failed)) => failed,
            Err(denial) => {
                server.failed(denial.code());
                return Err(Next::Stop(denial));
            }
        };
        tracing::debug!(
            upstream = self.group.name(),
            error = %failed,
            request_id = ?self.terms.id,
            "no answer from upstream"
        );
        // A connection that rested may be closed as idle while a request is on its way: that is nobody's failure.
        let repeats = may_repeat && matches!(failed, Failed::Died { .. });
        let ended = matches!(failed, Failed::Unsent(_) | Failed::Died { mute: true, .. });
        if !(lease.reused && (repeats || ended)) {
            server.failed(Denial::UpstreamProtocol.code());
        }
        if let Failed::Unsent(_) = failed {
            return Err(Next::Anew(headers, None));
        }
        Err(if repeats { Next::Repeat(headers, None) } else { Next::Stop(Denial::UpstreamProtocol) })
    }

    /// One attempt. `spare`: the fields for another one, should this end without an answer.
    async fn attempt(
        &self,
        mut lease: Lease,
        headers: HeaderMap,
        mut body: Option<ClientBody>,
        spare: Option<HeaderMap>,
    ) -> Result<Forwarded, Next> {
        let server = Rc::clone(lease.server());
        let had_body = body.is_some();
        if let Some(body) = &mut body {
            // Calls of gRPC may be silent as long as they like, and have deadlines of their own. A server that does not speak HTTP/2
            // has none, whatever a client says.
            body.may_pause(self.is_grpc && lease.is_http2());
        }
        let (body, progress) = RequestBody::new(body, self.terms.max_body);
        let dressed = self.outgoing.dress(headers, body, server.address(), lease.is_http2());
        let request = dressed.map_err(Next::Stop)?;
        let config = self.group.config();
        let answer = within(config.response_timeout, progress.as_deref(), lease.send(request)).await;
        let mut error = match answer {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                return self.finish(head, Source::Hyper(body), lease, progress).map_err(Next::Stop);
            }
            Ok(Err(error)) => error,
            Err(denial) => {
                if denial == Denial::UpstreamTimeout {
                    server.failed(denial.code());
                }
                return Err(Next::Stop(denial));
            }
        };
        if let Some(request) = error.take_message() {
            let (head, body) = request.into_parts();
            let headers = self.outgoing.undress(head.headers);
            return Err(Next::Anew(headers, body.into_unread()));
        }
        let error = error.into_error();
        tracing::debug!(
            upstream = self.group.name(),
            error = %chain(&error),
            request_id = ?self.terms.id,
            "no answer from upstream"
        );
        if let Some(own) = progress.as_ref().and_then(|progress| progress.failure()) {
            return Err(Next::Stop(own));
        }
        let unread = progress.and_then(|progress| progress.take_unread());
        match spare {
            Some(spare) if died(&error) && had_body == unread.is_some() => {
                if !lease.reused {
                    server.failed(Denial::UpstreamProtocol.code());
                }
                Err(Next::Repeat(spare, unread))
            }
            _ => {
                server.failed(Denial::UpstreamProtocol.code());
                Err(Next::Stop(Denial::UpstreamProtocol))
            }
        }
    }

    fn finish(
        &self,
        mut head: response::Parts,
        body: Source,
        mut lease: Lease,
        progress: Option<Rc<Progress>>,
    ) -> Result<Forwarded, Denial> {
        let framing = framing::read(&head.headers).map_err(|error| {
            tracing::debug!(upstream = self.group.name(), error, request_id = ?self.terms.id, "no answer from upstream");
            lease.server().failed(Denial::UpstreamProtocol.code());
            Denial::UpstreamProtocol
        })?;
        framing::settle(&mut head.headers, framing);
        if framing == (Framing::Chunked { doubtful: true }) {
            lease.retire();
        }
        match head.status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                lease.server().failed(head.status.as_str());
            }
            _ => lease.server().succeeded(),
        }
        let server = lease.server().address().authority().cloned();
        let config = self.group.config();
        let limits = Limits { patience: config.stream_timeout, deadline: self.deadline };
        let (tunnel, lease) = match (head.status, head.extensions.remove::<OnUpgrade>()) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(end)) if self.outgoing.upgrade.is_some() => {
                (Some(Tunnel::new(end, lease, config.upgrade_timeout)), None)
            }
            // Nothing asked for it.
            (StatusCode::SWITCHING_PROTOCOLS, _) => return Err(Denial::UpstreamProtocol),
            _ => (None, Some(lease)),
        };
        headers::to_client(&mut head);
        let call = self.is_grpc.then(|| self.terms.id.clone());
        let body = AnswerBody::new(body, lease, progress, limits, call);
        Ok(Forwarded { response: Response::from_parts(renewed(head), body), tunnel, server })
    }
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
async fn within<A>(
    timeout: Duration,
    progress: Option<&Progress>,
    answer: impl Future<Output = A>,
) -> Result<A, Denial> {
    let mut answer = std::pin::pin!(answer);
    let mut last = progress.map_or_else(clock::instant_now, Progress::last);
    loop {
        match (tokio::time::timeout_at((last + timeout).into(), answer.as_mut()).await, progress) {
            (Ok(outcome), _) => return Ok(outcome),
            (Err(_), Some(progress)) if progress.last() > last => last = progress.last(),
            (Err(_), Some(progress)) if progress.waits_for_client() => return Err(Denial::BodyTimeout),
            (Err(_), _) => return Err(Denial::UpstreamTimeout),
        }
    }
}

/// Whether the connection, or the stream, ended before an answer began, as opposed to an answer that cannot be read.
fn died(error: &hyper::Error) -> bool {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return true;
    }
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_io() || error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
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
