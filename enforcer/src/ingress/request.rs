//! One request, from its head to the head of its answer.

use std::{convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, EXPECT, TRANSFER_ENCODING},
};
use hyper::body::Incoming;

use super::{
    answer::{self, Answer, RequestId},
    connection::Connection,
    upgrade::Asked,
    worker::Worker,
};
use crate::{
    checks::{self, Grant, Now, Refusal, facts::RequestFacts, token::KnownTokens},
    clock,
    denial::Denial,
    policy::{Policy, route::Route},
    upstream::{AnswerBody, ClientBody, Clients, Forwarded, Terms, grpc},
};

/// How long a request waits for the keys of its token's issuer: a handshake and an answer from far away. What is not decided
/// then is refused.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// Answers a request; never fails, because every failure is an answer.
pub(super) async fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let under_way = connection.begin();
    let id = RequestId::new();
    let (mut head, body) = request.into_parts();
    let asked = Asked::take(&mut head);
    let is_grpc = grpc::is_call(&head);
    let method = head.method.clone();
    let is_http2 = head.version == Version::HTTP_2;
    // hyper hides a Content-Length beside it, and RFC 9112 section 6.1 wants such a connection closed.
    let mut close = head.headers.contains_key(TRANSFER_ENCODING);
    let expects = !is_http2 && head.headers.contains_key(EXPECT);
    let body = ClientBody::new(body, expects, connection.open_body());
    let (mut admitted, max_body, secured) = {
        // Held for the checks alone: a request under way must not keep an old policy alive.
        let policy = worker.shared.policy.load();
        let admitted = admit(&worker, &policy, &connection, &head, checks::admit);
        (admitted, policy.http.max_body_bytes, Arc::clone(&policy.answers))
    };
    if let Err(Refusal { pending: Some(pending), .. }) = &mut admitted {
        pending.wait(KEY_PATIENCE).await;
        let policy = worker.shared.policy.load();
        admitted = admit(&worker, &policy, &connection, &head, checks::admit_again);
    }
    let outcome = match admitted {
        Err(refusal) => {
            body.discard();
            Err(refusal)
        }
        Ok(grant) => {
            let route = Arc::clone(grant.route());
            let request = Request::from_parts(head, body);
            let terms = Terms { max_body, id: id.header(), upgrade: None };
            // On the heap, because every move of this future would otherwise copy room for a second request.
            let forwarded = Box::pin(forward(&worker.clients, &connection, grant, request, terms, asked));
            match forwarded.await {
                Ok(response) => Ok((route, response)),
                Err(denial) => Err(Refusal { route: Some(route), ..Refusal::plain(denial) }),
            }
        }
    };
    let mut refused = None;
    let (route, mut response) = match outcome {
        Ok((route, response)) => (Some(route), response.map(|body| Answer::forwarded(body, under_way))),
        Err(refusal) => {
            close |= refusal.denial == Denial::RequestMalformed;
            let response = refuse(&worker, &connection, &method, &refusal, (id, is_grpc));
            refused = StatusCode::from_u16(refusal.denial.status()).ok();
            (refusal.route, response.map(|body| Answer::own(body, under_way)))
        }
    };
    answer::secure(&mut response, &secured);
    if close && !is_http2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // What gRPC is told in trailers has no status of its own.
    let status = refused.unwrap_or(response.status());
    worker.counters.borrow_mut().answered(route.as_ref(), status);
    tracing::debug!(
        source = %connection.client.address.get(),
        %method,
        route = route.as_deref().map_or("none", |route: &Route| &route.path),
        status = status.as_u16(),
        request_id = %id,
        "request"
    );
    Ok(response)
}

/// Has a request forwarded, and what it was upgraded to run.
async fn forward(
    clients: &Clients,
    connection: &Rc<Connection>,
    grant: Grant,
    request: Request<ClientBody>,
    mut terms: Terms,
    asked: Option<Asked>,
) -> Result<Response<AnswerBody>, Denial> {
    let Some(asked) = asked else { return Ok(clients.forward(grant, request, terms).await?.response) };
    if asked.is_among(&grant.route().upgrades) {
        terms.upgrade = Some(asked.protocol.clone());
    } else if !asked.is_optional() {
        return Err(Denial::UpgradeRefused);
    }
    let Forwarded { mut response, tunnel } = clients.forward(grant, request, terms).await?;
    match tunnel {
        Some(tunnel) => {
            asked.agree(&mut response).ok_or(Denial::UpstreamProtocol)?;
            connection.run_tunnel(tunnel.run(asked.client));
        }
        // A server that answers instead of agreeing would be taken to have agreed.
        None if !asked.is_optional() && response.status().is_success() => {
            return Err(Denial::UpstreamProtocol);
        }
        None => {}
    }
    Ok(response)
}

type Admit = fn(&Policy, &RequestFacts<'_>, Now, &mut KnownTokens) -> Result<Grant, Refusal>;

fn admit(
    worker: &Worker,
    policy: &Policy,
    connection: &Connection,
    head: &http::request::Parts,
    admit: Admit,
) -> Result<Grant, Refusal> {
    let facts = RequestFacts::read(&connection.client, head).map_err(Refusal::plain)?;
    let now = Now { monotonic: clock::kernel_now(), unix: clock::unix_now() };
    let outcome = admit(policy, &facts, now, &mut worker.tokens.borrow_mut());
    let (route, age) = match &outcome {
        Ok(grant) => (Some(grant.route()), grant.token_age()),
        Err(refusal) => (refusal.route.as_ref(), refusal.token_age),
    };
    if let (Some(route), Some(age)) = (route, age) {
        worker.counters.borrow_mut().token_seen(route, age);
    }
    outcome
}

/// Counts, reports and logs a refusal, and makes its answer.
fn refuse(
    worker: &Worker,
    connection: &Connection,
    method: &Method,
    refusal: &Refusal,
    (id, is_grpc): (RequestId, bool),
) -> Response<bytes::Bytes> {
    let Refusal { denial, route, .. } = refusal;
    worker.counters.borrow().denied(*denial);
    worker.shared.reporter.report(connection.client.address.get(), *denial);
    tracing::debug!(
        source = %connection.client.address.get(),
        %method,
        route = route.as_deref().map_or("none", |route: &Route| &route.path),
        code = denial.code(),
        request_id = %id,
        "request refused"
    );
    if is_grpc { answer::call_failed(refusal) } else { answer::problem(refusal, id) }
}
