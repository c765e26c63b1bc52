//! Whether a request's target means the same to everybody: to the routes here and to the upstream.
//!
//! Nothing is normalised. A path that would need it is refused, because a route that was chosen for one spelling must
//! not protect a resource that the upstream finds under another.

use http::{HeaderMap, Method, header, request, uri::Authority};

use crate::denial::Denial;

/// The path to route by.
pub fn check(head: &request::Parts) -> Result<&str, Denial> {
    let path = head.uri.path();
    // CONNECT asks for a tunnel, `OPTIONS *` has no path; neither has a route.
    if head.method == Method::CONNECT || !path.starts_with('/') || !is_plain(path) {
        return Err(Denial::RequestMalformed);
    }
    host(&head.headers, head.uri.authority(), head.version)?;
    Ok(path)
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

/// No dot segments, no backslash, no control bytes; nothing percent-encoded that would become one of these or a slash;
/// no broken encoding. No empty segments either: many servers read `/a//b` as `/a/b`, and some `//a` as a host.
fn is_plain(path: &str) -> bool {
    !path.contains("//") && path.split('/').all(is_plain_segment)
}

fn is_plain_segment(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let (mut at, mut length, mut only_dots) = (0, 0, true);
    while at < bytes.len() {
        let byte = match bytes[at] {
            b'%' => {
                let digits = bytes.get(at + 1).zip(bytes.get(at + 2));
                let Some(byte) = digits.and_then(|(high, low)| Some(hex(*high)? << 4 | hex(*low)?)) else {
                    return false;
                };
                at += 2;
                byte
            }
            byte => byte,
        };
        // A second round of decoding must not change anything either: `%25` is refused where it would.
        if matches!(byte, b'/' | b'\\' | 0x00..=0x1f | 0x7f) || byte == b'%' {
            return false;
        }
        // `..;x` is `..` to servers that strip path parameters.
        if byte == b';' && only_dots && length > 0 {
            return false;
        }
        only_dots &= byte == b'.';
        length += 1;
        at += 1;
    }
    !(only_dots && (length == 1 || length == 2))
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
    fn paths_with_one_reading_pass() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/a/...",
            "/%41",
            "/a%20b",
            "/caf%C3%A9",
            "/a;v=1",
            "/.well-known/x",
            "/a..",
        ] {
            assert!(is_plain(path), "{path}");
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
            "/a/..;/b",
            "/a/.;x/b",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
