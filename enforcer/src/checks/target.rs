//! Whether a request's target means the same to everybody: to the routes here and to the upstream.
//!
//! Routes are chosen by the decoded path, the upstream gets the path as it came and decodes it once, like every server. What
//! would still leave two readings is refused, because a route that was chosen for one spelling must not protect a
//! resource that the upstream finds under another. Nothing is ever rewritten.

use std::{borrow::Cow, net::Ipv6Addr};

use http::{HeaderMap, Method, header, request, uri::Authority};

use crate::denial::Denial;

/// The path to route by.
pub fn check(head: &request::Parts) -> Result<Cow<'_, str>, Denial> {
    let path = head.uri.path();
    // CONNECT asks for a tunnel, `OPTIONS *` has no path; neither has a route.
    if head.method == Method::CONNECT || !path.starts_with('/') {
        return Err(Denial::RequestMalformed);
    }
    coding(&head.headers)?;
    // Servers do not agree on which of two counts (RFC 9110 section 8.6); HTTP/2 lets them through.
    if head.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Denial::RequestAmbiguous);
    }
    host(&head.headers, head.uri.authority(), head.version)?;
    read(path).ok_or(Denial::RequestMalformed)
}

/// `Transfer-Encoding` is `chunked` or absent. Other codings may be legal (RFC 9112 section 6.1), but servers disagree on what
/// frames such a body. HTTP/2 has none (RFC 9113 section 8.2.2).
fn coding(headers: &HeaderMap) -> Result<(), Denial> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Denial::RequestMalformed),
    }
}

/// Exactly one host (RFC 9112 section 3.2), the same one wherever it is said, and nothing but a host. An HTTP/1.1 request
/// says it in `Host` whatever its target is; HTTP/2 may say it in `:authority` alone.
fn host(headers: &HeaderMap, authority: Option<&Authority>, version: http::Version) -> Result<(), Denial> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    let good = host.is_none_or(|host| is_host(host.as_bytes()))
        && authority.is_none_or(|authority| is_host(authority.as_str().as_bytes()));
    if !good {
        return Err(Denial::RequestMalformed);
    }
    match (host, authority) {
        (Some(_), _) if hosts.next().is_some() => Err(Denial::RequestMalformed),
        (Some(host), Some(authority))
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            Err(Denial::RequestMalformed)
        }
        (None, None) if version != http::Version::HTTP_10 => Err(Denial::RequestMalformed),
        (None, Some(_)) if version == http::Version::HTTP_11 => Err(Denial::RequestMalformed),
        _ => Ok(()),
    }
}

/// Whether a request is for the server that its connection asked for. A client that keeps a connection for another name
/// learns by 421 that it needs one of its own (RFC 9110 section 15.5.20, RFC 9113 section 9.1.2). Ports are no matter
/// here, and a client that named no server may ask for any.
pub fn is_for(head: &request::Parts, server_name: Option<&str>) -> bool {
    let Some(server_name) = server_name else { return true };
    named(head).is_none_or(|host| host.eq_ignore_ascii_case(server_name))
}

/// The host that a request names, with its port, as it is written there.
pub fn authority(head: &request::Parts) -> Option<&str> {
    match head.headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => Some(head.uri.authority()?.as_str()),
    }
}

/// The host that a request names, without port and without the dot at the end of a name.
pub fn named(head: &request::Parts) -> Option<&str> {
    let host = authority(head)?;
    // An address in brackets has colons of its own.
    let name = match host.rfind(':').filter(|colon| host.rfind(']').is_none_or(|end| end < *colon)) {
        Some(colon) => &host[..colon],
        None => host,
    };
    Some(name.strip_suffix('.').unwrap_or(name))
}

/// Whether a text is a host with or without a port: a name as the DNS and certificates have it, or an address. RFC 3986
/// section 3.2.2 allows more, none of which names a server; user information is none of a host's (RFC 9113 section 8.3.1).
fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let (host_is_good, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            (!name.is_empty() && name.bytes().all(good), rest)
        }
    };
    let port_is_good = match rest.strip_prefix(':') {
        Some(port) => port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()),
        None => rest.is_empty(),
    };
    host_is_good && port_is_good
}

/// The decoded path, if it has one reading only. Refused are:
/// - dot segments, also encoded ones, and empty segments: many servers read `/a//b` as `/a/b`, and some `//a` as a host;
/// - backslashes and encoded slashes, which some servers take for separators, control bytes, and broken encoding;
/// - encoded letters, digits and `-._~`, which RFC 3986 section 6.2.2.2 calls the same as plain ones: nobody needs them;
/// - encodings of encodings, for servers that decode twice;
/// - what is not UTF-8 once decoded, like the overlong forms that some decoders take for dots and slashes (RFC 3629
///   section 10);
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
    String::from_utf8(decoded).ok().map(Cow::Owned)
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
        ] {
            assert_eq!(read(path).as_deref(), Some(decoded));
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in ["a", "api.example.com", "a_b-c.d", "192.0.2.1:8443", "[2001:db8::1]", "[::1]:443", "a:"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":443",
            "u@a",
            "u:p@evil",
            "a b",
            "a/b",
            "a?b",
            "a,b",
            "a<b>",
            "a\"b",
            "a'b",
            "a\\b",
            "a#b",
            "a:b",
            "a:1:2",
            "a:123456",
            "[::1",
            "::1",
            "[a]",
            "[::1]x",
            "a\t",
            "a%20b",
            "caf\u{e9}",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
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
            "/a%ff",
            "/x/%c0%ae%c0%ae/b",
            "/x/%c0%af",
            "/a%e2%82",
            "/a%ed%a0%80",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }
}
