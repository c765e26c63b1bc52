//! Which header fields cross the border, and which are ours to set.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
        SERVER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
    },
    request, response,
};

use super::Terms;
use crate::checks::facts::ClientAddr;

/// Fields that describe one connection (RFC 9110 section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

const FORWARDED_PREFIX: &str = "x-forwarded-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// RFC 8470 section 5.1.
pub const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");
const POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Prepares a request: what a client says of its own address is removed, what we know is set.
pub(super) fn to_upstream(head: &mut request::Parts, source: ClientAddr, terms: &Terms) {
    let headers = &mut head.headers;
    remove_hop_by_hop(headers);
    // A gateway says in every request that it was here, and what was spoken to it (RFC 9110 section 7.6.3).
    let via = if head.version == Version::HTTP_2 { "2 enforcer" } else { "1.1 enforcer" };
    headers.append(VIA, HeaderValue::from_static(via));
    // The 100 is sent from here, when the server asks for the body by reading it (RFC 9110 section 10.1.1).
    headers.remove(EXPECT);
    headers.remove(FORWARDED);
    headers.remove(REAL_IP);
    // Many servers read `_` and `-` as the same (CGI, RFC 3875 section 4.1.18), so `x_real_ip` would pass for ours.
    let claimed =
        |name: &&HeaderName| name.as_str().starts_with(FORWARDED_PREFIX) || name.as_str().contains('_');
    let claimed: Vec<HeaderName> = headers.keys().filter(claimed).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    join_cookies(headers);
    headers.insert(REQUEST_ID, terms.id.clone());
    // RFC 8470 section 5.1; a client's own word is none.
    headers.remove(EARLY_DATA);
    if terms.is_early {
        headers.insert(EARLY_DATA, HeaderValue::from_static("1"));
    }
    if !headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        // HTTP/2 says it in `:authority` (RFC 9113 section 8.3.1).
        headers.insert(HOST, host);
    }
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(FORWARDED_HOST, host);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    if let Ok(address) = HeaderValue::try_from(source.get().to_string()) {
        headers.insert(FORWARDED_FOR, address);
    }
}

/// HTTP/2 clients may send one cookie per field; HTTP/1.1 has one field for all (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

/// Prepares an answer; what software serves it is nobody's business.
pub(super) fn to_client(head: &mut response::Parts) {
    if head.headers.contains_key(TRANSFER_ENCODING) {
        // The coding overrides the length (RFC 9112 section 6.3), which may be a lie.
        head.headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(&mut head.headers);
    head.headers.remove(SERVER);
    head.headers.remove(POWERED_BY);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named: Vec<HeaderName> = named
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .collect();
        for name in named {
            // A client must not be able to take away what the server relies on.
            if name != HOST && name != http::header::AUTHORIZATION {
                headers.remove(name);
            }
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}
