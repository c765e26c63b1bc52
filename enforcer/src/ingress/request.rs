//! One request, from its head to the head of its answer.

use std::{convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, ORIGIN},
};
use hyper::body::Incoming;

use super::{
    access::Entry,
    answer::{self, Answer, RequestId},
    connection::Connection,
    counters::Stage,
    delay::wait,
    devices, exchange, held, payload, pins, reports, stream,
    upgrade::{Asked, forward},
    worker::Worker,
};
use crate::{
    checks::{
        self, Grant, Now, Refusal,
        devices::Endpoint,
        facts::{ClientAddr, RequestFacts},
        forwarded,
        limit::{Marks, Standing},
        token::binding::DPOP_NONCE,
    },
    clock,
    denial::Denial,
    policy::{Policy, pins::Signed, route::Route},
    upstream::{self, AnswerBody, ClientBody, EARLY_DATA, Patience, Room, Terms, grpc},
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
    let (mut head, body) = request.into_parts();
    let is_http2 = head.version == Version::HTTP_2;
    if !is_http2 {
        upstream::take_out_named(&mut head.headers);
    }
    let (id, is_early) = sayings(&worker, &connection, &head.headers);
    let mut entry = Entry::begin(&worker, &connection, &head, &id, is_early);
    let asked = Asked::take(&mut head);
    let nature = Nature { is_early, upgrades: asked.is_some() };
    let origin = head.headers.get(ORIGIN).cloned();
    let is_grpc = grpc::is_call(&head);
    let method = head.method.clone();
    let expects = !is_http2 && head.headers.contains_key(EXPECT);
    let (mut admitted, source, patience, max_body, max_held, max_delayed, secured) = {
        // Held for the checks alone: a request under way must not keep an old policy alive.
        let policy = worker.shared.policy.load();
        let http = &policy.http;
        let peer = connection.client.address;
        let source = forwarded::client(peer, &head.headers, &http.trusted_proxies, http.forwarded_by);
        (
            admit(&worker, &policy, &connection, source, &head, nature, None),
            source,
            Patience { between: http.body_timeout, rate: http.min_body_rate },
            http.max_body_bytes,
            http.max_held_bytes,
            http.max_delayed,
            Arc::clone(&policy.answers),
        )
    };
    if let Some(entry) = &mut entry {
        entry.comes_from(source);
    }
    let body = ClientBody::new(body, expects, patience);
    if let Err(Refusal { pending: Some(pending), standing, .. }) = &mut admitted {
        let mut standing = standing.take().map_or_else(Standing::default, |standing| *standing);
        let began = clock::instant_now();
        pending.wait(KEY_PATIENCE).await;
        // It has waited for its turn meanwhile.
        standing.delay = standing.delay.saturating_sub(clock::instant_now().saturating_duration_since(began));
        let policy = worker.shared.policy.load();
        admitted = admit(&worker, &policy, &connection, source, &head, nature, Some(standing));
    }
    let (mut marks, mut left, mut dpop_nonce) = (Marks::default(), None, None);
    let mut suspicion = None;
    let outcome = match admitted {
        Err(refusal) => {
            body.discard();
            Err(refusal)
        }
        Ok(Admitted::Preflight(route, mut standing)) => {
            body.discard();
            marks = standing.marks;
            left = standing.field();
            match wait(&worker, standing.delay, max_delayed).await {
                Err(refusal) => Err(Refusal { route: Some(route), ..refusal }),
                Ok(()) => Ok(Outcome::Preflight(route)),
            }
        }
        Ok(Admitted::Document(signed)) => {
            body.discard();
            Ok(Outcome::Own(pins::answer(&head, &signed)))
        }
        Ok(Admitted::Keys(keys)) => {
            body.discard();
            let tags = (&keys.etag, &keys.kept);
            Ok(Outcome::Own(pins::kept(&head, "application/jwk-set+json", &keys.body, tags)))
        }
        Ok(Admitted::Report) => {
            let body = (body, Room::new(&worker.shared.held, max_held));
            let answered = Box::pin(reports::answer(&worker, &connection, source, &head, body)).await;
            answered.map(Outcome::Own)
        }
        Ok(Admitted::Endpoint(endpoint)) => {
            let room = Room::new(&worker.shared.held, max_held);
            let body = (body, room);
            let answered =
                Box::pin(devices::answer(&worker, &connection, source, &head, endpoint, body)).await;
            answered.map(|(response, device)| {
                if let Some(entry) = &mut entry {
                    entry.granted(None, device.as_deref());
                }
                Outcome::Own(response)
            })
        }
        Ok(Admitted::Granted(mut grant)) => {
            let route = Arc::clone(grant.route());
            if let Some(entry) = &mut entry {
                entry.granted(grant.subject(), grant.device());
            }
            dpop_nonce = grant.dpop_nonce().cloned();
            suspicion = grant.standing.suspicion;
            let held = (body, max_held);
            let judged = Box::pin(held::judge(
                &worker,
                &connection,
                &mut grant,
                &mut head,
                held,
                entry.as_deref_mut(),
            ));
            match judged.await {
                Err(refusal) => Err(refusal),
                Ok((body, sealing)) => {
                    marks = grant.standing.marks;
                    left = grant.standing.field();
                    match wait(&worker, grant.standing.delay, max_delayed).await {
                        Err(refusal) => Err(Refusal { route: Some(route), ..refusal }),
                        Ok(()) => {
                            let terms = Terms { max_body, id: id.header(), upgrade: None, is_early };
                            let mut request = Request::from_parts(head, body);
                            let began = clock::instant_now();
                            let exchange = grant.take_exchange();
                            if exchange.is_some() {
                                exchange::prepare(request.headers_mut());
                            }
                            // On the heap, because every move of this future would otherwise copy room for a second request.
                            let forwarded =
                                Box::pin(forward(&worker.clients, &connection, grant, request, terms, asked))
                                    .await;
                            if let Some(entry) = &mut entry {
                                let server = forwarded.as_ref().ok().and_then(|(_, server)| server.clone());
                                entry.forwarded(began, server);
                            }
                            let settled = match (forwarded, exchange) {
                                (Ok((response, _)), Some(exchange)) => {
                                    Box::pin(exchange::settle(&worker, &route, exchange, response)).await
                                }
                                (forwarded, _) => forwarded.map(|(response, _)| response),
                            };
                            let settled = match (settled, sealing) {
                                (Ok(response), Some(sealing)) => {
                                    let room = Room::new(&worker.shared.held, max_held);
                                    Box::pin(payload::seal(&worker, sealing, response, room)).await
                                }
                                (settled, _) => settled,
                            };
                            match settled {
                                Ok(response) => Ok(Outcome::Forwarded(route, response)),
                                Err(denial) => Err(Refusal { route: Some(route), ..Refusal::plain(denial) }),
                            }
                        }
                    }
                }
            }
        }
    };
    let denial = outcome.as_ref().err().map(|refusal| refusal.denial);
    let (mut close, mut refused) = (false, None);
    let (route, mut response) = match outcome {
        Ok(Outcome::Forwarded(route, response)) => {
            (Some(route), response.map(|body| Answer::forwarded(body, under_way)))
        }
        Ok(Outcome::Own(response)) => (None, response.map(|body| Answer::own(body, under_way))),
        Ok(Outcome::Preflight(route)) => {
            let response = answer::preflight(&route, origin.as_ref());
            (Some(route), response.map(|body| Answer::own(body, under_way)))
        }
        Err(mut refusal) => {
            if let Some(standing) = &mut refusal.standing {
                marks = standing.marks;
                left = standing.field();
                suspicion = suspicion.or(standing.suspicion);
            }
            // A banned client's connection is of no more use; a proxy's carries the requests of others.
            let is_own = source == connection.client.address;
            let is_banned = refusal.denial == Denial::Banned && is_own;
            close = ends_connection(refusal.denial) || is_banned;
            if is_banned && is_http2 {
                connection.wind_down();
            }
            if let (Some(name), Some(route)) = (&refusal.missing, &refusal.route) {
                worker.counters.borrow().header_missing(route, name);
            }
            let mut response = refuse(&worker, source, &method, &refusal, (&id, is_grpc));
            if method == Method::HEAD {
                // hyper takes away the body of HTTP/1.1 alone (RFC 9110 section 9.3.2).
                let body = std::mem::take(response.body_mut());
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            }
            refused = StatusCode::from_u16(refusal.denial.status()).ok();
            (refusal.route, response.map(|body| Answer::own(body, under_way)))
        }
    };
    answer::secure(&mut response, &secured);
    if let Some(nonce) = dpop_nonce {
        response.headers_mut().insert(DPOP_NONCE, nonce);
    }
    if let Some(route) = &route {
        answer::tell_limits(&mut response, &route.limits, left);
        if let Some(cors) = &route.cors {
            cors.share(origin.as_ref(), response.headers_mut());
        }
        worker.counters.borrow_mut().limited(route, marks);
        if let (Some(demand), Some(score)) = (&route.suspicion, suspicion) {
            let ja4 = connection.client.hello.as_deref().map(|hello| hello.ja4.as_str());
            demand.count(score, ja4, clock::unix_now());
        }
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        connection.switch();
    } else if (close || connection.is_last_answer()) && !is_http2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // What gRPC is told in trailers has no status of its own.
    let status = refused.unwrap_or(response.status());
    worker.counters.borrow_mut().answered(route.as_ref(), status);
    if is_early {
        worker.counters.borrow().early(status, denial);
    }
    match denial {
        // What stands for a head that did not arrive in time.
        Some(Denial::RequestTimeout) if stream::is_stand_in(&method) => {
            worker.counters.borrow().too_late(Stage::Head);
        }
        Some(Denial::BodyTimeout) => worker.counters.borrow().too_late(Stage::Body),
        _ => {}
    }
    if let Some(entry) = &mut entry {
        entry.answered(status.as_u16(), denial, route.as_ref(), marks);
        entry.suspected(suspicion);
    }
    tracing::debug!(
        source = %source.get(),
        %method,
        route = route.as_deref().map_or("none", |route: &Route| &route.name),
        status = status.as_u16(),
        request_id = %id,
        "request"
    );
    Ok(response.map(|answer| answer.logged(entry)))
}

/// Whether nothing that follows a refused request can be trusted to be what it seems.
#[allow(clippy::wildcard_enum_match_arm, reason = "all others leave a connection that can be read")]
const fn ends_connection(denial: Denial) -> bool {
    use Denial::{HeadersTooLarge, RequestAmbiguous, RequestMalformed, RequestTimeout};
    matches!(denial, HeadersTooLarge | RequestAmbiguous | RequestMalformed | RequestTimeout)
}

/// What becomes of a request that is not refused.
#[allow(clippy::large_enum_variant, reason = "it is moved once, and nearly always the large one")]
enum Admitted {
    /// It goes to a server.
    Granted(Grant),
    /// It is a browser's question, which is answered here.
    Preflight(Arc<Route>, Standing),
    /// It is a device's, likewise.
    Endpoint(Endpoint),
    /// It is an app's, for the pin document.
    Document(Arc<Signed>),
    /// It is an app's, for the keys of encrypted bodies.
    Keys(checks::payload::Published),
    /// It is an app's, that a pin did not fit.
    Report,
}

/// What a request that is not refused is answered with.
#[allow(clippy::large_enum_variant, reason = "it is moved once, and nearly always the large one")]
enum Outcome {
    Forwarded(Arc<Route>, Response<AnswerBody>),
    Preflight(Arc<Route>),
    Own(Response<bytes::Bytes>),
}

/// What a request is besides its head.
#[derive(Clone, Copy)]
struct Nature {
    is_early: bool,
    upgrades: bool,
}

/// What is said of a request: by proxies that are believed, its id; by anybody, that it was early data where it came from (RFC 8470
/// section 5.1), for that takes something away and gives nothing. It is early as well if its client's handshake with us is not
/// complete.
fn sayings(worker: &Worker, connection: &Connection, headers: &HeaderMap) -> (RequestId, bool) {
    let is_early = connection.is_early() || headers.contains_key(EARLY_DATA);
    if !headers.contains_key(answer::REQUEST_ID) {
        return (RequestId::new(), is_early);
    }
    let policy = worker.shared.policy.load();
    let is_believed = policy.trusts(connection.client.address.get());
    let id = RequestId::given(headers).filter(|_| is_believed).unwrap_or_else(RequestId::new);
    (id, is_early)
}

/// Has a request checked; `before` is what its limits made of it, if it was before.
fn admit(
    worker: &Worker,
    policy: &Policy,
    connection: &Connection,
    source: ClientAddr,
    head: &http::request::Parts,
    nature: Nature,
    before: Option<Standing>,
) -> Result<Admitted, Refusal> {
    if stream::is_stand_in(&head.method) {
        return Err(Refusal::plain(connection.why_unreadable()));
    }
    // HTTP/2 alone: the heads of HTTP/1.1 were counted before.
    if head.headers.len() > usize::from(policy.http.max_header_fields) {
        return Err(Refusal::plain(Denial::HeadersTooLarge));
    }
    let mut facts = RequestFacts::read(&connection.client, source, head).map_err(Refusal::plain)?;
    facts.is_early = nature.is_early;
    facts.upgrades = nature.upgrades;
    let now = Now { monotonic: clock::kernel_now(), unix: clock::unix_now() };
    facts.is_banned = worker.bans(policy, source, connection.port, now.monotonic);
    if let Some(judged) = checks::pins::document(policy, &facts, now) {
        return judged.map(Admitted::Document);
    }
    if let Some(judged) = checks::payload::keys(policy, &facts, now) {
        return judged.map(Admitted::Keys);
    }
    if let Some(judged) = checks::reports::endpoint(policy, &facts, now) {
        return judged.map(|()| Admitted::Report);
    }
    if let Some(judged) = checks::devices::endpoint(policy, &facts, now) {
        return judged.map(Admitted::Endpoint);
    }
    if let Some(judged) = checks::preflight(policy, &facts, now) {
        return judged.map(|(route, standing)| Admitted::Preflight(route, standing));
    }
    let mut known = worker.tokens.borrow_mut();
    let outcome = match before {
        None => checks::admit(policy, &facts, now, &mut known),
        Some(before) => checks::admit_again(policy, &facts, now, &mut known, before),
    };
    let (route, age) = match &outcome {
        Ok(grant) => (Some(grant.route()), grant.token_age()),
        Err(refusal) => (refusal.route.as_ref(), refusal.token_age),
    };
    if let (Some(route), Some(age)) = (route, age) {
        worker.counters.borrow_mut().token_seen(route, age);
    }
    outcome.map(Admitted::Granted)
}

/// Counts, reports and logs a refusal, and makes its answer.
fn refuse(
    worker: &Worker,
    source: ClientAddr,
    method: &Method,
    refusal: &Refusal,
    (id, is_grpc): (&RequestId, bool),
) -> Response<bytes::Bytes> {
    let Refusal { denial, route, .. } = refusal;
    if refusal.is_forgiven {
        worker.counters.borrow().denied(*denial);
    } else {
        worker.refused(source, *denial);
    }
    tracing::debug!(
        source = %source.get(),
        %method,
        route = route.as_deref().map_or("none", |route: &Route| &route.name),
        code = denial.code(),
        request_id = %id,
        "request refused"
    );
    if is_grpc { answer::call_failed(refusal, id) } else { answer::problem(refusal, id) }
}
