//! For whom a proxy of the operator's speaks. Each proxy appends the address that it got a request from, so the list is read from
//! its end, as long as those that speak are trusted: what stands before the first stranger is the stranger's own invention.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, header::FORWARDED};

use super::facts::ClientAddr;
use crate::{config::ForwardedBy, prefix::Prefix};

/// Hops that are looked at; nobody has more proxies.
const MOST: usize = 32;

/// Whose request it is that came from `peer`.
pub fn client(peer: ClientAddr, headers: &HeaderMap, trusted: &[Prefix], by: ForwardedBy) -> ClientAddr {
    walk(peer, headers, trusted, by).0
}

/// Proxies that are trusted and have handed on a request that came from `peer`.
pub fn hops(peer: ClientAddr, headers: &HeaderMap, trusted: &[Prefix], by: ForwardedBy) -> usize {
    walk(peer, headers, trusted, by).1
}

/// Whose request it is, and how many trusted proxies have handed it on.
fn walk(peer: ClientAddr, headers: &HeaderMap, trusted: &[Prefix], by: ForwardedBy) -> (ClientAddr, usize) {
    let is_trusted = |address: ClientAddr| Prefix::any_contains(trusted, address.get());
    let mut client = peer;
    if !is_trusted(peer) {
        return (peer, 0);
    }
    let mut hops = 1;
    let values: Vec<&[u8]> = match by {
        ForwardedBy::XForwardedFor => {
            headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes()).collect()
        }
        ForwardedBy::Forwarded => headers.get_all(FORWARDED).iter().map(|value| value.as_bytes()).collect(),
    };
    // Several fields are one list (RFC 9110 section 5.3).
    let list = values.join(&b","[..]);
    let Ok(list) = std::str::from_utf8(&list) else { return (peer, hops) };
    for entry in list.rsplit(',').take(MOST) {
        let said = match by {
            ForwardedBy::XForwardedFor => address(entry.trim()),
            ForwardedBy::Forwarded => node(entry).and_then(address),
        };
        // A proxy that does not say for whom it speaks speaks for itself.
        let Some(said) = said else { return (client, hops) };
        client = ClientAddr::new(said);
        if !is_trusted(client) {
            return (client, hops);
        }
        hops += 1;
    }
    (client, hops)
}

/// `for` of an element of `Forwarded` (RFC 7239 section 4), without its quotes.
fn node(element: &str) -> Option<&str> {
    let mut found = None;
    for pair in element.split(';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") && found.replace(value.trim()).is_some() {
            return None;
        }
    }
    let value = found?;
    match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(value),
    }
}

/// An address, in brackets or not, with a port or not.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ForwardedBy::{Forwarded, XForwardedFor};

    fn judge(peer: &str, by: ForwardedBy, values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        let (name, other) = match by {
            XForwardedFor => ("x-forwarded-for", "forwarded"),
            Forwarded => ("forwarded", "x-forwarded-for"),
        };
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers.append(other, "for=203.0.113.66".parse().unwrap());
        let trusted: Vec<Prefix> =
            ["198.18.0.0/24", "2001:db8::/64"].iter().map(|p| p.parse().unwrap()).collect();
        client(ClientAddr::new(peer.parse().unwrap()), &headers, &trusted, by).get().to_string()
    }

    #[test]
    fn only_proxies_are_believed_and_only_as_far_as_they_speak() {
        for (peer, values, expected) in [
            ("203.0.113.1", &["203.0.113.9"][..], "203.0.113.1"),
            ("198.18.0.1", &[], "198.18.0.1"),
            ("198.18.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("198.18.0.1", &["192.0.2.66, 203.0.113.9"], "203.0.113.9"),
            ("198.18.0.1", &["192.0.2.66", "203.0.113.9 , 198.18.0.2"], "203.0.113.9"),
            ("198.18.0.1", &["198.18.0.3, 198.18.0.2"], "198.18.0.3"),
            ("198.18.0.1", &["192.0.2.66, unknown"], "198.18.0.1"),
            ("198.18.0.1", &["192.0.2.66, , 198.18.0.2"], "198.18.0.2"),
            ("198.18.0.1", &["203.0.113.9:1234"], "203.0.113.9"),
            ("198.18.0.1", &["[2001:db8:1::9]:1234"], "2001:db8:1::9"),
            ("2001:db8::1", &["::ffff:203.0.113.9"], "203.0.113.9"),
        ] {
            assert_eq!(judge(peer, XForwardedFor, values), expected, "{values:?}");
        }
        for (values, expected) in [
            (&["for=203.0.113.9;proto=https;by=198.18.0.1"][..], "203.0.113.9"),
            (&["For=\"[2001:db8:1::9]:443\""], "2001:db8:1::9"),
            (&["for=192.0.2.66, FOR = \"203.0.113.9:1\""], "203.0.113.9"),
            (&["for=192.0.2.66, for=_hidden"], "198.18.0.1"),
            (&["for=192.0.2.66;for=203.0.113.9"], "198.18.0.1"),
            (&["proto=https"], "198.18.0.1"),
            (&["for=\"203.0.113.9"], "198.18.0.1"),
        ] {
            assert_eq!(judge("198.18.0.1", Forwarded, values), expected, "{values:?}");
        }
    }
}
