//! What belongs to App Attest after an enrolment: assertions with requests, and newer receipts.

use std::{path::PathBuf, time::Duration};

use http::Uri;

/// What each request is signed over by the device's own key, besides method, path and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assertion {
    /// A challenge of the route's group, which is asked for before.
    Challenge,
    /// The time by the device's clock, or such a challenge.
    Time,
}

/// What becomes of a request whose device has a higher risk metric than its route takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverRisk {
    /// It is refused.
    #[default]
    Deny,
    /// It is taken, its server is told, and it is counted.
    Flag,
}

/// How Apple is asked for newer receipts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// `key`: the file with the private key for DeviceCheck, as a developer account gives it (`.p8`).
    pub key: PathBuf,
    /// `key_id`: its id, ten characters.
    pub key_id: String,
    /// The team of the apps, whose key it is: ten characters.
    pub team: String,
    /// `api`: where, without a path. Default: Apple's, by the environment.
    pub api: Option<Uri>,
    /// `authorities`: the file with roots for it; none (default): those of the system.
    pub authorities: Option<PathBuf>,
    /// `private_addresses`: whether it may be at an address that is not public. Default false.
    pub private_addresses: bool,
    /// `timeout`: for one call, default 10 s.
    pub timeout: Duration,
    /// `every`: between two receipts of one device, default 24 h; never before Apple allows it.
    pub every: Duration,
    /// `calls_per_day`: default 10,000. They are spread.
    pub calls_per_day: u32,
    /// `max_receipts`: that are kept, default 100,000. Reached: further devices keep the metric that they have.
    pub max_receipts: u32,
    /// `root`: the file with another root of receipts than Apple's, for tests. Default: Apple's.
    pub root: Option<PathBuf>,
}
