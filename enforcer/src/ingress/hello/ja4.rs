//! JA4: a fingerprint of TLS clients that does not change with the order of their extensions, as FoxIO specifies it
//! (JA4 itself, which is free to use; none of the JA4+ methods).

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::Offer;
use crate::checks::facts::Ja4;

/// Extensions that the first part tells already, so that the third one is the same for every server.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = super::ALPN;
/// Two digits count to 99.
const MOST: usize = 99;
/// Characters of a digest.
const SHORT: usize = 12;

/// The fingerprint of a hello over TCP.
pub(super) fn fingerprint(offer: &Offer<'_>) -> Option<Ja4> {
    let mut text = String::with_capacity(36);
    let name = if offer.extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
    let (suites, extensions) = (offer.suites.len().min(MOST), offer.extensions.len().min(MOST));
    let [first, last] = protocol(offer.protocols.first().copied().unwrap_or_default());
    write!(text, "t{}{name}{suites:02}{extensions:02}{first}{last}_", version(offer.version())).ok()?;
    let mut suites = offer.suites.clone();
    suites.sort_unstable();
    text.push_str(&short(&list(&suites)));
    text.push('_');
    let mut extensions = offer.extensions.clone();
    extensions.retain(|kind| *kind != SERVER_NAME && *kind != ALPN);
    extensions.sort_unstable();
    let mut third = list(&extensions);
    if !third.is_empty() && !offer.signatures.is_empty() {
        third.push('_');
        third.push_str(&list(&offer.signatures));
    }
    text.push_str(&short(&third));
    Ja4::new(&text)
}

const fn version(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// First and last character of the first protocol; where one is no letter and no digit, of its hexadecimal form.
fn protocol(name: &[u8]) -> [char; 2] {
    let (Some(first), Some(last)) = (name.first().copied(), name.last().copied()) else { return ['0', '0'] };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [first.into(), last.into()];
    }
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 0xf)]
}

/// Four hexadecimal digits each, between commas.
fn list(numbers: &[u16]) -> String {
    let mut text = String::with_capacity(numbers.len() * 5);
    for number in numbers {
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{number:04x}");
    }
    text
}

/// The beginning of the digest; zeros for nothing, so that nothing can be seen as such.
fn short(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(SHORT);
    }
    let mut hex = String::with_capacity(SHORT);
    for byte in digest(&SHA256, text.as_bytes()).as_ref().iter().take(SHORT / 2) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
