//! What clients get to see: problem documents of refusals, and the headers that every answer carries.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE},
};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::json;

use super::{access::Entry, connection::UnderWay};
use crate::{
    checks::Refusal,
    config::Endpoint,
    policy::{
        Answers,
        route::{Route, limits::Limits},
    },
    random,
    upstream::{AnswerBody, grpc},
};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Where proxies, and servers behind, find it.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of an id that a proxy has given.
const LONGEST_ID: usize = 128;

/// Ties an answer to its log line and to the upstream's.
#[derive(Clone, Debug)]
pub(super) enum RequestId {
    /// Made here, 32 hexadecimal digits; random, so that nobody learns how many requests there are.
    Own([u8; 32]),
    /// Given by a proxy that is believed.
    Given(HeaderValue),
}

impl RequestId {
    pub(super) fn new() -> Self {
        // Without randomness there is no TLS either; an id of zeros is the least of it.
        let bytes = random::bytes::<16>().unwrap_or_default();
        let mut text = [b'0'; 32];
        random::hex(&bytes, &mut text);
        Self::Own(text)
    }

    /// The id that a request brings along, if there is exactly one, and it is one: what goes into logs and to servers must not be
    /// able to mean anything there.
    pub(super) fn given(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(REQUEST_ID).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~:+/=@".contains(byte);
        let fits = (1..=LONGEST_ID).contains(&value.len()) && value.as_bytes().iter().all(is_good);
        fits.then(|| Self::Given(value.clone()))
    }

    pub(super) fn header(&self) -> HeaderValue {
        match self {
            // Hexadecimal digits are always a header value.
            Self::Own(text) => HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("")),
            Self::Given(value) => value.clone(),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Own(text) => std::str::from_utf8(text).unwrap_or_default(),
            Self::Given(value) => value.to_str().unwrap_or_default(),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to a refused request: RFC 9457, with `code` and `request_id` as extension members, and `server_time` for a
/// client whose token was refused for its times. At a token endpoint it is that of RFC 6749 section 5.2 as well.
pub(super) fn problem(refusal: &Refusal, id: &RequestId) -> Response<Bytes> {
    let denial = refusal.denial;
    let status = StatusCode::from_u16(denial.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut document = json!({
        "type": "about:blank",
        // RFC 9457 section 4.2.1: with `about:blank` the title is that of the status.
        "title": status.canonical_reason().unwrap_or("Refused"),
        "status": status.as_u16(),
        "detail": denial.message(),
        "code": denial.code(),
        "request_id": id.to_string(),
    });
    if let Some(fault) = denial.fault() {
        document["fault"] = fault.into();
    }
    if let Some(seconds) = refusal.server_time {
        document["server_time"] = seconds.into();
    }
    let error = denial.oauth_error().filter(|_| is_for_tokens(refusal));
    if let Some(error) = error {
        document["error"] = error.into();
    }
    let mut response = Response::new(Bytes::from(document.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Clients of token endpoints read no other type.
    let kind = if error.is_some() { "application/json" } else { "application/problem+json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    tell(headers, refusal);
    if let Some(challenge) = &refusal.challenge {
        headers.insert(WWW_AUTHENTICATE, challenge.clone());
    }
    response
}

fn is_for_tokens(refusal: &Refusal) -> bool {
    let oauth = refusal.route.as_ref().and_then(|route| route.oauth.as_ref());
    oauth.is_some_and(|oauth| oauth.endpoint == Endpoint::Token)
}

fn tell(headers: &mut HeaderMap, refusal: &Refusal) {
    if let Some((name, value)) = refusal.field.as_deref() {
        headers.insert(name.clone(), value.clone());
    }
}

/// The answer to a refused gRPC call: trailers and nothing else, with status 200 as they must have.
pub(super) fn call_failed(refusal: &Refusal, id: &RequestId) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.extend(grpc::trailers(refusal.denial, id.header()));
    headers.insert(CONTENT_TYPE, grpc::content_type());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    tell(headers, refusal);
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(challenge) = &refusal.challenge {
        headers.insert(WWW_AUTHENTICATE, challenge.clone());
    }
    response
}

/// The answer to a browser that asks what a page may ask for.
pub(super) fn preflight(route: &Route, origin: Option<&HeaderValue>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Some(cors) = &route.cors {
        cors.permit(origin, response.headers_mut());
    }
    response
}

/// Adds what every answer carries. Whether clients must come by TLS is decided here, the rest by an upstream that knows its
/// pages better.
pub(super) fn secure<B>(response: &mut Response<B>, answers: &Answers) {
    let headers = response.headers_mut();
    if let Some(hsts) = &answers.hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    for (name, value) in &answers.headers {
        if !headers.contains_key(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// Tells what is left of the limits of a route. An upstream may have limits of its own, which stand beside.
pub(super) fn tell_limits<B>(response: &mut Response<B>, limits: &Limits, left: Option<HeaderValue>) {
    if let (Some(policy), Some(left)) = (&limits.policy, left) {
        response.headers_mut().append(RATELIMIT_POLICY, policy.clone());
        response.headers_mut().append(RATELIMIT, left);
    }
}

/// An answer's body. Its request is under way until the body was sent or dropped.
pub(super) struct Answer {
    content: Content,
    under_way: UnderWay,
    entry: Option<Box<Entry>>,
}

enum Content {
    Forwarded(AnswerBody),
    Own(Option<Bytes>),
}

type Failure = Box<dyn Error + Send + Sync>;

impl Answer {
    /// An upstream's body.
    pub(super) fn forwarded(body: AnswerBody, under_way: UnderWay) -> Self {
        Self { content: Content::Forwarded(body), under_way, entry: None }
    }

    pub(super) fn own(body: Bytes, under_way: UnderWay) -> Self {
        let content = Content::Own(Some(body).filter(|body| !body.is_empty()));
        Self { content, under_way, entry: None }
    }

    /// What to write down when it is over.
    pub(super) fn logged(self, mut entry: Option<Box<Entry>>) -> Self {
        // What is empty is asked for nothing.
        if let Some(entry) = entry.as_mut().filter(|_| self.is_end_stream()) {
            entry.complete();
        }
        Self { entry, ..self }
    }
}

impl Content {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self {
            Self::Forwarded(body) => Pin::new(body).poll_frame(context),
            Self::Own(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let polled = self.content.poll(context);
        // Whoever asks again has taken what was there before.
        self.under_way.offers(polled.is_ready());
        let over = self.is_end_stream();
        if let (Some(entry), Poll::Ready(frame)) = (&mut self.entry, &polled) {
            match frame {
                Some(Ok(frame)) => entry.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => {}
                None => entry.complete(),
            }
            if over {
                entry.complete();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Forwarded(body) => body.is_end_stream(),
            Content::Own(body) => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Forwarded(body) => body.size_hint(),
            Content::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::Denial;

    #[test]
    fn apps_find_the_name_that_they_know() {
        let fault = |denial| {
            let answer = problem(&Refusal::plain(denial), &RequestId::Own([b'0'; 32]));
            serde_json::from_slice::<serde_json::Value>(answer.body()).unwrap()["fault"].clone()
        };
        assert_eq!(fault(Denial::DeviceIntegrityFailed), "INTEGRITY_VERIFICATION_FAILED");
        assert!(fault(Denial::RateLimited).is_null());
    }
}
