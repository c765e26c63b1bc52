//! What a device signs to show that a request is its own.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;

use crate::{checks::facts::Target, enrolment::DeviceId};

/// The first line; another layout has another one.
const KEY_LAYOUT: &str = "enforcer-key-1";
/// The same of a request.
const LAYOUT: &str = "enforcer-request-1";

/// The client data of a request: five lines with a line feed between, and none at the end.
///
/// `enforcer-request-1`, the challenge, the method, the path with its query as they are sent, and SHA-256 of the body in base64url
/// without padding. None of them can hold a line feed.
pub fn client_data(challenge: &str, method: &Method, target: Target<'_>, body: &[u8]) -> String {
    let mut data = format!("{LAYOUT}\n{challenge}\n{method}\n{}", target.path);
    if let Some(query) = target.query {
        data.push('?');
        data.push_str(query);
    }
    data.push('\n');
    URL_SAFE_NO_PAD.encode_string(digest(&SHA256, body), &mut data);
    data
}

/// What binds a challenge to the key of a device of Android: `enforcer-key-1`, the challenge and the device's name, a line feed between.
pub fn key_data(challenge: &str, device: DeviceId) -> String {
    format!("{KEY_LAYOUT}\n{challenge}\n{device}")
}

/// The nonce or the requestHash of a token of Google Play: SHA-256 of [`key_data`] in base64url without padding.
pub fn key_hash(challenge: &str, device: DeviceId) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, key_data(challenge, device).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_bound_as_apps_were_told() {
        let device = DeviceId::of_bytes([0; 32]);
        let zeros = "A".repeat(43);
        assert_eq!(key_data("abc", device), format!("enforcer-key-1\nabc\n{zeros}"));
        // printf 'enforcer-key-1\nabc\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA' | openssl dgst -sha256 -binary | basenc --base64url
        assert_eq!(key_hash("abc", device), "DmcWPUOJIZWVmJ6RwXH-oQ1MEV3Hj53fWJC1Q46lpb4");
    }

    #[test]
    fn the_layout_is_what_apps_were_told() {
        let of = |query| client_data("abc", &Method::POST, Target { path: "/a%20b", query }, b"{}");
        // printf '{}' | openssl dgst -sha256 -binary | basenc --base64url | tr -d =
        let digest = "RBNvo1WzZ4oRRq0W9-hknpT7T8If536DEMBg9hyq_4o";
        assert_eq!(of(None), format!("enforcer-request-1\nabc\nPOST\n/a%20b\n{digest}"));
        assert_eq!(of(Some("x=1")), format!("enforcer-request-1\nabc\nPOST\n/a%20b?x=1\n{digest}"));
        assert_eq!(of(Some("")), format!("enforcer-request-1\nabc\nPOST\n/a%20b?\n{digest}"));
    }
}
