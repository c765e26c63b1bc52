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
    let known = head.headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = known.flat_map(|value| value.split(',')).map(str::trim);
    // By the weak comparison (RFC 9110 section 8.8.3.2).
    let own = signed.etag.to_str().unwrap_or_default();
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let has = tags.any(|tag| tag == "*" || opaque(tag) == opaque(own));
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(ETAG, signed.etag.clone());
    headers.insert(CACHE_CONTROL, signed.kept.clone());
    if has {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    // RFC 7515 section 9.2.1.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jose"));
    if head.method == Method::HEAD {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(signed.body.len()));
    } else {
        *response.body_mut() = signed.body.clone();
    }
    response
}
