//! Whether a request's target means the same to everybody: to the routes here and to the upstream.
//!
//! Routes are chosen by the decoded path, the upstream gets the path as it came and decodes it once, like every server. What
//! would still leave two readings is refused, because a route that was chosen for one spelling must not protect a
//! resource that the upstream finds under another. Nothing is ever rewritten.

use std::borrow::Cow;

use http::{HeaderMap, Method, header, request, uri::Authority};

use crate::denial::Denial;

/// The path to route by.
pub fn check(head: &request::Parts) -> Result<Cow<'_, str>, Denial> {
    let path = head.uri.path();
    // CONNECT asks for a tunnel, `OPTIONS *` has no path; neither has a route.
    if head.method == Method::CONNECT || !path.starts_with('/') {
        return Err(Denial::RequestMalformed);
    }
    host(&head.headers, head.uri.authority(), head.version)?;
    read(path).ok_or(Denial::RequestMalformed)
}

/// Exactly one host (RFC 9112 section 3.2), and the same one wherever it is said.
fn host(headers: &HeaderMap, authority: Option<&Authority>, version: http::Version) -> Result<(), Denial> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), authority) {
        (Some(_), _) if hosts.next().is_some() => Err(Denial::RequestMalformed),
        (Some(host), Some(authority))
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            Err(Denial::RequestMalformed)
        }
        (None, None) if version != http::Version::HTTP_10 => Err(Denial::RequestMalformed),
        _ => Ok(()),
    }
}

/// The decoded path, if it has one reading only. Refused are:
/// - dot segments, also encoded ones, and empty segments: many servers read `/a//b` as `/a/b`, and some `//a` as a host;
/// - backslashes and encoded slashes, which some servers take for separators, control bytes, and broken encoding;
/// - encoded letters, digits and `-._~`, which RFC 3986 section 6.2.2.2 calls the same as plain ones: nobody needs them;
/// - encodings of encodings, for servers that decode twice;
/// - `;`, behind which servlet containers drop the rest of a segment before they look for a resource.
fn read(path: &str) -> Option<Cow<'_, str>> {
    let has_dots = |path: &str| path.split('/').any(|segment| segment == "." || segment == "..");
    if path.contains("//") || path.contains(['\\', ';']) || has_dots(path) {
        return None;
    }
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let bytes = path.as_bytes();
    let encoded = |at: usize| Some(hex(*bytes.get(at)?)? << 4 | hex(*bytes.get(at + 1)?)?);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte != b'%' {
            decoded.push(*byte);
            at += 1;
            continue;
        }
        let byte = encoded(at + 1)?;
        at += 3;
        let twice = byte == b'%' && encoded(at).is_some();
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if twice || unreserved || byte.is_ascii_control() || byte == b'/' || byte == b'\\' {
            return None;
        }
        decoded.push(byte);
    }
    // No route holds what is not UTF-8, so what replaces it does not matter.
    Some(Cow::Owned(
        String::from_utf8(decoded)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    ))
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_one_reading_pass_and_are_decoded_once() {
        for path in ["/", "/a", "/a/", "/a/b.c", "/a/...", "/.well-known/x", "/a..", "/a:b@c", "/a+b", "/~a"]
        {
            assert_eq!(read(path).as_deref(), Some(path));
        }
        for (path, decoded) in [
            ("/a%20b", "/a b"),
            ("/caf%C3%A9", "/caf\u{e9}"),
            ("/v1/x%3Ay", "/v1/x:y"),
            ("/100%25", "/100%"),
            ("/%25x/y", "/%x/y"),
            ("/a%3Bb", "/a;b"),
            ("/a%ff", "/a\u{fffd}"),
        ] {
            assert_eq!(read(path).as_deref(), Some(decoded));
        }
    }

    #[test]
    fn paths_with_two_readings_do_not() {
        for path in [
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/a/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/b",
            "/a/.%2E/b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0a",
            "/a%7f",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%252e",
            "/%252e%252e/b",
            "/a%2541",
            "/a/..;/b",
            "/a/.;x/b",
            "/a;v=1/b",
            "/%61pi",
            "/a%2Db",
            "/%7Ea",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }
}
