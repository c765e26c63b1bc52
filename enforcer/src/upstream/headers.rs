//! Which header fields cross the border, and which are ours to set.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, ORIGIN,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SERVER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
    },
    request, response,
};

use super::Terms;
use crate::checks::{
    Grant,
    devices::ATTESTED,
    suspicion::{self, SUSPICION},
};

/// Fields that describe one connection (RFC 9110 section 7.6.1), besides those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 9] = [
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
const OWN_PREFIX: &str = "enforcer-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// RFC 8470 section 5.1.
pub const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");
const POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Takes out what `Connection` names before anybody looks at a request: what is judged has to be what the server gets. Fields that belong
/// to the connection anyway, that frame the message, or that are ours to judge and set, are taken out where that is done.
pub fn take_out_named(headers: &mut HeaderMap) {
    for name in named(headers) {
        if !HOP_BY_HOP.contains(&name) && name != CONTENT_LENGTH && !is_ours(&name) {
            headers.remove(name);
        }
    }
}

/// Prepares a request: what a client says of its own address is removed. Returns the host, which is taken out, because each
/// protocol says it in its own place, and the fields that say what we know.
pub(super) fn to_upstream(
    head: &mut request::Parts,
    grant: &Grant,
    terms: &Terms,
) -> (Option<HeaderValue>, Vec<(HeaderName, HeaderValue)>) {
    let headers = &mut head.headers;
    remove(headers, is_ours);
    // A gateway says in every request that it was here, and what was spoken to it (RFC 9110 section 7.6.3).
    let via = if head.version == Version::HTTP_2 { "2 enforcer" } else { "1.1 enforcer" };
    headers.append(VIA, HeaderValue::from_static(via));
    join_cookies(headers);
    let host = headers.remove(HOST).or_else(|| {
        // HTTP/2 says it in `:authority` (RFC 9113 section 8.3.1).
        HeaderValue::from_str(head.uri.authority()?.as_str()).ok()
    });
    // One more will say which trace it belongs to.
    let mut own = Vec::with_capacity(7);
    own.push((REQUEST_ID, terms.id.clone()));
    if terms.is_early {
        // RFC 8470 section 5.1, in the one form that it has, whatever was said before.
        own.push((EARLY_DATA, HeaderValue::from_static("1")));
    }
    own.push((FORWARDED_PROTO, HeaderValue::from_static("https")));
    own.extend(host.as_ref().map(|host| (FORWARDED_HOST, host.clone())));
    own.extend(spelled(grant.source().get()).map(|address| (FORWARDED_FOR, address)));
    own.extend(grant.standing.suspicion.and_then(suspicion::told).map(|score| (SUSPICION, score)));
    own.extend(grant.device_facts().map(|facts| (ATTESTED, facts.clone())));
    (host, own)
}

/// Whether a field of a request is nobody's to set but ours, or for us alone, as are sessions of devices.
///
/// The 100 is sent from here, when the server asks for the body by reading it (RFC 9110 section 10.1.1). Many servers read `_` and
/// `-` as the same (CGI, RFC 3875 section 4.1.18), so `x_real_ip` would pass for ours.
fn is_ours(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == EXPECT
        || *name == FORWARDED
        || *name == REAL_IP
        || *name == REQUEST_ID
        || *name == EARLY_DATA
        || text.starts_with(FORWARDED_PREFIX)
        || text.starts_with(OWN_PREFIX)
        || text.contains('_')
}

/// Fields that are judged, set or joined in the head, or frame a message: behind the body nobody has looked at them (RFC 9110 section
/// 6.5.1).
static IN_HEAD_ALONE: [HeaderName; 9] = [
    AUTHORIZATION,
    CONTENT_LENGTH,
    COOKIE,
    HOST,
    ORIGIN,
    VIA,
    HeaderName::from_static("dpop"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// Prepares the trailers of a request: a server that takes them for fields of the head must find nothing there that is not true.
pub(super) fn trailers_to_upstream(trailers: &mut HeaderMap) {
    remove(trailers, |name| is_ours(name) || IN_HEAD_ALONE.contains(name));
}

/// An address as text.
fn spelled(address: IpAddr) -> Option<HeaderValue> {
    let IpAddr::V4(address) = address else { return HeaderValue::try_from(address.to_string()).ok() };
    let (mut room, mut length) = ([0; 15], 0);
    for (number, octet) in address.octets().into_iter().enumerate() {
        let mut digits = itoa::Buffer::new();
        let dot = if number == 0 { "" } else { "." };
        for byte in dot.bytes().chain(digits.format(octet).bytes()) {
            *room.get_mut(length)? = byte;
            length += 1;
        }
    }
    HeaderValue::from_bytes(room.get(..length)?).ok()
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
    remove(&mut head.headers, |name| name == SERVER || name == POWERED_BY);
}

/// Fields that `Connection` names. A client must not be able to take away what every server relies on.
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
    names.filter(|name| name != HOST && name != AUTHORIZATION).collect()
}

/// Takes out the fields of one connection, and those that `unwanted` names. Most messages have hardly any, so they are looked for
/// once and together.
fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    for name in named(headers) {
        headers.remove(name);
    }
    let found = |name: &&HeaderName| HOP_BY_HOP.contains(name) || unwanted(name);
    let found: Vec<HeaderName> = headers.keys().filter(found).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_spelled_as_the_library_does_it() {
        for text in ["0.0.0.0", "198.18.0.1", "255.255.255.255", "127.10.99.100", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(spelled(address).unwrap(), text);
        }
    }
}
