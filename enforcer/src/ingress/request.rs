//! One request, from its head to the head of its answer.

use std::{convert::Infallible, rc::Rc, sync::Arc};

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::{
    answer::{self, Answer, RequestId},
    connection::Connection,
    worker::Worker,
};
use crate::{
    checks::{self, Grant, Now, Refusal, facts::RequestFacts},
    clock,
    policy::{Policy, route::Route},
};

/// Answers a request; never fails, because every failure is an answer.
pub(super) async fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let under_way = connection.begin();
    let (head, body) = request.into_parts();
    let method = head.method.clone();
    let (admitted, max_body, hsts) = {
        // Held for the checks alone: a request under way must not keep an old policy alive.
        let policy = worker.shared.policy.load();
        (admit(&policy, &connection, &head), policy.http.max_body_bytes, policy.hsts.clone())
    };
    let outcome = match admitted {
        Err(refusal) => Err(refusal),
        Ok(grant) => {
            let route = Arc::clone(grant.route());
            let request = Request::from_parts(head, body);
            // On the heap, because every move of this future would otherwise copy room for a second request.
            match Box::pin(worker.clients.forward(grant, request, max_body)).await {
                Ok(response) => Ok((route, response)),
                Err(denial) => Err(Refusal { route: Some(route), ..Refusal::plain(denial) }),
            }
        }
    };
    let (route, mut response) = match outcome {
        Ok((route, response)) => (Some(route), response.map(|body| Answer::forwarded(body, under_way))),
        Err(refusal) => {
            let response = refuse(&worker, &connection, &method, &refusal);
            (refusal.route, response.map(|body| Answer::own(body, under_way)))
        }
    };
    answer::secure(&mut response, hsts);
    worker.counters.borrow_mut().answered(route.as_ref(), response.status());
    tracing::debug!(
        source = %connection.source.get(),
        %method,
        route = route.as_deref().map_or("none", |route: &Route| &route.path),
        status = response.status().as_u16(),
        "request"
    );
    Ok(response)
}

fn admit(policy: &Policy, connection: &Connection, head: &http::request::Parts) -> Result<Grant, Refusal> {
    let facts = RequestFacts::read(connection.source, head).map_err(Refusal::plain)?;
    checks::admit(policy, &facts, Now { monotonic: clock::kernel_now(), unix: clock::unix_now() })
}

/// Counts, reports and logs a refusal, and makes its answer.
fn refuse(
    worker: &Worker,
    connection: &Connection,
    method: &Method,
    refusal: &Refusal,
) -> Response<bytes::Bytes> {
    let Refusal { denial, route, .. } = refusal;
    let id = RequestId::new();
    worker.counters.borrow().denied(*denial);
    worker.shared.reporter.report(connection.source.get(), *denial);
    tracing::debug!(
        source = %connection.source.get(),
        %method,
        route = route.as_deref().map_or("none", |route: &Route| &route.path),
        code = denial.code(),
        request_id = %id,
        "request refused"
    );
    answer::problem(refusal, id)
}
