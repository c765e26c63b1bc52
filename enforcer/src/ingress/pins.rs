//! The pin document as an answer: cacheable, and not sent to those who have it (RFC 9110 section 13.1.2).

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    request,
};

use crate::policy::pins::Signed;

/// What the request of `head` gets.
pub(super) fn answer(head: &request::Parts, signed: &Signed) -> Response<Bytes> {
    // RFC 7515 section 9.2.1.
    kept(head, "application/jose", &signed.body, (&signed.etag, &signed.kept))
}

/// A document that clients may keep: `etag` tells it from others, `for_how_long` is its `Cache-Control`.
pub(super) fn kept(
    head: &request::Parts,
    kind: &'static str,
    body: &Bytes,
    (etag, for_how_long): (&HeaderValue, &HeaderValue),
) -> Response<Bytes> {
    let known = head.headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = known.flat_map(|value| value.split(',')).map(str::trim);
    let has = tags.any(|tag| tag == "*" || *etag == tag.strip_prefix("W/").unwrap_or(tag));
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(ETAG, etag.clone());
    headers.insert(CACHE_CONTROL, for_how_long.clone());
    if has {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if head.method == Method::HEAD {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    } else {
        *response.body_mut() = body.clone();
    }
    response
}
