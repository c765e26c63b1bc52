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
