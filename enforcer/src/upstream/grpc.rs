//! What gRPC adds to HTTP/2 (github.com/grpc/grpc, PROTOCOL-HTTP2): how calls are known, how long they may take, and how they
//! are told of a failure. Messages are never looked at.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header::CONTENT_TYPE, request};

use crate::denial::Denial;

const CONTENT: &str = "application/grpc";
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What problem documents say as `code`, in the metadata of a call that ends.
const CODE: HeaderName = HeaderName::from_static("x-denial-code");
/// What they say as `request_id`.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether a request is a gRPC call. gRPC-Web is none: it is plain HTTP, and its clients read plain answers.
pub fn is_call(head: &request::Parts) -> bool {
    head.version == Version::HTTP_2 && head.headers.get(CONTENT_TYPE).is_some_and(is_content)
}

fn is_content(value: &HeaderValue) -> bool {
    let rest = value.as_bytes().strip_prefix(CONTENT.as_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// How long the caller will wait: at most eight digits and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// How a call ends that is refused or that fails; `id` ties it to the lines of logs.
pub fn trailers(denial: Denial, id: HeaderValue) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(4);
    trailers.insert(STATUS, HeaderValue::from(status(denial)));
    // All messages are plain ASCII without a percent sign, as this field has to be.
    trailers.insert(MESSAGE, HeaderValue::from_static(denial.message()));
    trailers.insert(CODE, HeaderValue::from_static(denial.code()));
    trailers.insert(REQUEST_ID, id);
    trailers
}

/// The content type of an answer that has trailers and nothing else.
pub const fn content_type() -> HeaderValue {
    HeaderValue::from_static(CONTENT)
}

/// The status code that says most of a refusal. What HTTP has no code of its own for is told by its class.
const fn status(denial: Denial) -> u16 {
    const UNKNOWN: u16 = 2;
    const INVALID_ARGUMENT: u16 = 3;
    const DEADLINE_EXCEEDED: u16 = 4;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match denial.status() {
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 405 | 501 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 429 | 431 => RESOURCE_EXHAUSTED,
        421 | 425 | 502 | 503 => UNAVAILABLE,
        400..=499 => INVALID_ARGUMENT,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_str(text).unwrap());
            timeout(&headers)
        };
        for (text, expected) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("30S", Duration::from_secs(30)),
            ("100m", Duration::from_millis(100)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "+1S", "1.5S", "1 S", "S1"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn calls_are_known_by_their_content_type() {
        for (text, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            assert_eq!(is_content(&HeaderValue::from_static(text)), expected, "{text}");
        }
    }

    #[test]
    fn every_refusal_has_a_status_and_a_message_that_fit_into_trailers() {
        for denial in Denial::ALL {
            let trailers = trailers(*denial, HeaderValue::from_static("an-id"));
            assert_eq!(
                (&trailers[CODE], &trailers[REQUEST_ID]),
                (&denial.code().parse().unwrap(), &"an-id".parse().unwrap())
            );
            let status: u16 = trailers[STATUS].to_str().unwrap().parse().unwrap();
            assert!((1..=16).contains(&status), "{}", denial.code());
            let message = denial.message();
            assert!(message.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'%'), "{message}");
        }
        let of = |denial| status(denial);
        assert_eq!(
            [Denial::TokenMissing, Denial::ScopeMissing, Denial::RateLimited, Denial::UpstreamBusy].map(of),
            [16, 7, 8, 14]
        );
        assert_eq!([Denial::DeadlineExceeded, Denial::RouteNotFound].map(of), [4, 12]);
    }
}
