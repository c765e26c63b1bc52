//! Plain HTTP, for the one answer that there is to it: go to https (RFC 9110 section 15.4.9).
//!
//! A worker serves it like other connections, within the same caps and time limits. Nothing is forwarded, no body is read,
//! and nobody is sent to a host that is not served here: a link through this address must lead nowhere else.

use std::{convert::Infallible, rc::Rc};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, LOCATION},
    request,
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{
    answer::{self, RequestId},
    worker::Worker,
};
use crate::{
    checks::{Refusal, facts::ClientAddr, target},
    denial::Denial,
    policy::Policy,
};

/// The port that an https URL leaves out (RFC 9110 section 4.2.2).
const HTTPS: u16 = 443;

/// Answers one request and ends the connection.
pub(super) async fn serve(worker: Rc<Worker>, stream: TcpStream, source: ClientAddr) {
    let http = worker.shared.policy.load().http.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let (head, _) = request.into_parts();
        let response = respond(&worker, &head, source);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(http.header_timeout)
        .keep_alive(false)
        .max_headers(usize::from(http.max_header_fields))
        .max_buf_size(http.max_header_bytes as usize)
        .serve_connection(TokioIo::new(stream), service);
    // One head, one small answer: whoever has not taken it by then does not want it.
    let served = tokio::time::timeout(http.header_timeout + http.idle_timeout, serving).await;
    if let Ok(Err(error)) = served {
        tracing::debug!(source = %source.get(), %error, "plain connection ended");
    }
}

fn respond(worker: &Worker, head: &request::Parts, source: ClientAddr) -> Response<Full<Bytes>> {
    let place = place(&worker.shared.policy.load(), head, worker.shared.https_port);
    let mut response = match place {
        Ok(place) => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(LOCATION, place);
            // What TLS would protect is decided anew each time.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(denial) => {
            worker.refused(source, denial);
            answer::problem(&Refusal::plain(denial), &RequestId::new())
        }
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    worker.counters.borrow().redirected(response.status());
    if head.method == Method::HEAD {
        response = response.map(|_| Bytes::new());
    }
    response.map(Full::new)
}

/// Where a request belongs.
fn place(policy: &Policy, head: &request::Parts, port: u16) -> Result<HeaderValue, Denial> {
    target::check(head)?;
    let host = target::named(head).ok_or(Denial::RequestMalformed)?;
    if !policy.listeners.values().any(|listener| listener.certificates.serve(host)) {
        return Err(Denial::Misdirected);
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let place = match port {
        HTTPS => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::try_from(place).map_err(|_| Denial::RequestMalformed)
}
