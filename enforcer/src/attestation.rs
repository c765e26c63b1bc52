//! Whether a device, and the app on it, are what they say they are: what Apple, Google and the hardware of Android sign about them.
//!
//! Pure: objects, what is expected of them, and the time are arguments. Nothing here asks a network, keeps a state, or knows a
//! request; whoever calls decides what follows. Requests and `enforcer attestation verify` take the very same way.

pub mod android_key;
pub mod app_attest;
pub mod ber;
pub mod cbor;
pub mod play;

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use serde::Serialize;

use crate::denial::Denial;

/// How far a device is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is some device, perhaps one that its owner has opened.
    Basic,
    /// It is a device in the state in which its maker sold it.
    Device,
    /// The same, shown by its hardware.
    Strong,
}

/// Takes what a verification has found, step by step, in the order in which it looks: the name of the step, and what was found.
pub type Steps<'a> = &'a mut dyn FnMut(&'static str, String);

/// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING } up to the point (RFC 5480 section 2).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The point of a key of P-256, uncompressed (SEC 1 section 2.3.3) and on the curve, from its SubjectPublicKeyInfo in DER; `None` for every
/// other key, and every other way to write it.
pub fn point(key: &[u8]) -> Option<[u8; 65]> {
    let point: [u8; 65] = key.strip_prefix(&P256)?.try_into().ok()?;
    let is_on_curve = point[0] == 4 && ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point[..]).is_ok();
    is_on_curve.then_some(point)
}

/// Why something is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What its sender is told.
    pub denial: Denial,
    /// The step that it did not pass, as in [`Steps`].
    pub step: &'static str,
    /// What was expected and what was found: for operators and app developers, never for who sent it.
    pub why: String,
}

impl Refused {
    /// At `step`, because of `why`.
    pub fn new(denial: Denial, step: &'static str, why: impl Into<String>) -> Self {
        Self { denial, step, why: why.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.step, self.why, self.denial.code())
    }
}

impl std::error::Error for Refused {}
