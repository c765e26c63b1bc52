//! Under which address a client asked: scheme, host and port as they stand in its URL, whatever stood in between. Signatures and
//! proofs that are made over a URL are held against this.
//!
//! The host is the one that the request names, which proxies hand on. A trusted proxy that rewrites it, or that ends TLS for a client
//! of plain HTTP, is believed what it says instead, but only where the configuration says so: one that hands on these fields as
//! its clients send them would let them choose the address that their proofs are good for.

use std::{borrow::Cow, fmt::Write as _, net::Ipv6Addr};

use http::{HeaderMap, HeaderName, header::FORWARDED};

use super::facts::RequestFacts;
use crate::config::{ForwardedBy, Http};

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Scheme and authority in the form in which they are compared: small letters, no default port (RFC 3986 section 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// Host, and a port that is not the scheme's own.
    pub authority: String,
}

impl Origin {
    /// `None` for a scheme that is not HTTP's, and what is no host with or without a port.
    pub fn new(scheme: &str, authority: &str) -> Option<Self> {
        let scheme = ["https", "http"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))?;
        let (host, port) = split(authority)?;
        let mut authority = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
            None => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
        };
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~[]:".contains(&b);
        if authority.is_empty() || !authority.bytes().all(good) {
            return None;
        }
        match port {
            Some(443) if scheme == "https" => {}
            Some(80) if scheme == "http" => {}
            Some(port) => authority += &format!(":{port}"),
            None => {}
        }
        Some(Self { scheme, authority })
    }
}

/// Host and port of an authority; an empty port is none.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = authority.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = authority[end..].find(':').map(|at| at + end) else { return Some((authority, None)) };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    match port {
        "" => Some((host, None)),
        port if port.bytes().all(|b| b.is_ascii_digit()) => Some((host, Some(port.parse().ok()?))),
        _ => None,
    }
}

/// The origin of a request's URL, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The origin.
    pub origin: Origin,
    /// Whether a trusted proxy names the host, and not the request itself.
    pub by_proxy: bool,
}

/// The origin of a request's URL as its client has it; `None` if nobody says it, or more than one.
pub fn of(facts: &RequestFacts<'_>, http: &Http) -> Option<Said> {
    let peer = facts.client.address.get();
    let believed = http.forwarded_origin && http.trusts(peer);
    let (mut scheme, mut host) = (None, None);
    if believed {
        (scheme, host) = match http.forwarded_by {
            ForwardedBy::XForwardedFor => {
                (only(facts.headers, &FORWARDED_PROTO)?, only(facts.headers, &FORWARDED_HOST)?)
            }
            ForwardedBy::Forwarded => {
                let list = only_list(facts.headers)?;
                (parameter(&list, "proto")?, parameter(&list, "host")?)
            }
        };
    }
    // Nothing but TLS comes here.
    let origin = Origin::new(scheme.as_deref().unwrap_or("https"), host.as_deref().or(facts.authority)?)?;
    Some(Said { origin, by_proxy: host.is_some() })
}

/// The one value of a field: `Some(None)` where there is none, `None` where there are several, in one line or more.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Option<Cow<'h, str>>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Some(None) };
    let value = value.to_str().ok()?.trim();
    (values.next().is_none() && !value.contains(',')).then(|| Some(value.into()))
}

fn only_list(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(FORWARDED).iter().map(|value| value.to_str().ok());
    Some(values.collect::<Option<Vec<_>>>()?.join(","))
}

/// The one parameter of this name in `Forwarded` (RFC 7239 section 4), whichever proxy says it.
fn parameter(list: &str, name: &str) -> Option<Option<Cow<'static, str>>> {
    let mut found = None;
    for pair in list.split([',', ';']).filter(|pair| !pair.trim().is_empty()) {
        let (key, value) = pair.split_once('=')?;
        if !key.trim().eq_ignore_ascii_case(name) {
            continue;
        }
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        if found.replace(Cow::Owned(value.to_owned())).is_some() {
            return None;
        }
    }
    Some(found)
}

/// Whether `url` is that of a request: its origin's, with this path as it was sent. Query and fragment are left out (RFC 9449
/// section 4.3).
pub fn is_url_of(url: &str, origin: &Origin, path: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let said = &tail[..tail.find(['?', '#']).unwrap_or(tail.len())];
    Origin::new(scheme, authority).is_some_and(|said| said == *origin) && plain(said) == plain(path)
}

/// A path with one spelling (RFC 3986 sections 6.2.2.1, 6.2.2.2, 6.2.3): capitals in what is encoded, unreserved characters
/// as they are.
fn plain(path: &str) -> String {
    let mut out = String::with_capacity(path.len().max(1));
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 3).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) else {
            out.push('%');
            rest = &rest[at + 1..];
            continue;
        };
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // A `String` takes everything.
            let _ = write!(out, "%{byte:02X}");
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    if out.is_empty() { "/".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_compared_as_uris_are() {
        let origin = Origin::new("https", "API.example.com:443").unwrap();
        for url in [
            "https://api.example.com/a/b%2Fc",
            "HTTPS://API.EXAMPLE.COM/a/b%2fc",
            "https://api.example.com:443/a/b%2Fc",
            "https://api.example.com:/a/b%2Fc",
            "https://api.example.com./a/b%2Fc",
            "https://api.example.com/a/b%2Fc?x=1#y",
            "https://api.example.com/%61/b%2Fc",
        ] {
            assert!(is_url_of(url, &origin, "/a/b%2fc"), "{url}");
        }
        for url in [
            "",
            "/a/b%2Fc",
            "api.example.com/a/b%2Fc",
            "http://api.example.com/a/b%2Fc",
            "http://api.example.com:443/a/b%2Fc",
            "https://api.example.com:8443/a/b%2Fc",
            "https://api.example.com:0443443/a/b%2Fc",
            "https://api.example.com/A/b%2Fc",
            "https://api.example.com/a/b/c",
            "https://api.example.com/a/b%252Fc",
            "https://api.example.com/a/b%2Fc/",
            "https://api.example.com//a/b%2Fc",
            "https://api.example.com/x/../a/b%2Fc",
            "https://user@api.example.com/a/b%2Fc",
            "https://api.example.com.evil.example/a/b%2Fc",
            "https://evil.example/https://api.example.com/a/b%2Fc",
            "wss://api.example.com/a/b%2Fc",
        ] {
            assert!(!is_url_of(url, &origin, "/a/b%2fc"), "{url}");
        }
        assert!(is_url_of("https://api.example.com", &origin, "/"));
        let v6 = Origin::new("https", "[2001:DB8:0::1]:8443").unwrap();
        assert_eq!(v6.authority, "[2001:db8::1]:8443");
        assert!(is_url_of("https://[2001:db8::0:1]:8443/", &v6, "/"));
        assert!(!is_url_of("https://[2001:db8::1]/", &v6, "/"));
        for authority in ["", ":443", "[::1", "a b", "u@a", "a:65536", "a:-1", "a:+1", "[x]"] {
            assert_eq!(Origin::new("https", authority), None, "{authority}");
        }
    }
}
