//! `[attestation.play]`: what Google Play says of devices and apps, and what a route asks for of that.

use std::{path::PathBuf, time::Duration};

use super::AndroidApps;

/// Whose apps may enrol by what Google Play says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Play {
    /// The apps.
    pub apps: AndroidApps,
    /// `keys`: the file with the keys that classic tokens are opened with; none: Google is asked about them, too.
    pub keys: Option<PathBuf>,
    /// `licensed`: whether the user has to have the app from Google Play. Default true.
    pub licensed: bool,
    /// `max_age`: how long ago a token may have been asked for, default 2 min.
    pub max_age: Duration,
    /// `verdict_lifetime`: how long what Google said of a device counts, default 24 h; then a session needs another token.
    pub verdict_lifetime: Duration,
    /// `labels`: what Google has to say of a device, in its words, all of it; default `MEETS_DEVICE_INTEGRITY`.
    pub labels: Vec<String>,
    /// `testing`: whether answers are taken that somebody chose for tests. Default false.
    pub testing: bool,
    /// What else is refused.
    pub risk: PlayRisk,
    /// `[attestation.play.remote]`; none: Google is never asked, and standard tokens are not taken.
    pub remote: Option<PlayRemote>,
}

/// What is refused besides, if anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlayRisk {
    /// `max_activity`: the most that a device may ask, 1 to 4. Default: anything.
    pub max_activity: Option<u8>,
    /// `refuse_play_protect`: what Play Protect may not say, in Google's words. Default: nothing.
    pub play_protect: Vec<String>,
    /// `refuse_app_access`: what other apps may not be able to do, in Google's words. Default: nothing.
    pub app_access: Vec<String>,
    /// `unevaluated`: whether verdicts pass in which Google has not evaluated that. Default false.
    pub unevaluated: bool,
}

/// How Google is asked what tokens say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayRemote {
    /// `account`: the key file (JSON) of the service account in whose name.
    pub account: PathBuf,
    /// `api`: where, default Google's own address.
    pub api: http::Uri,
    /// `token_url`: where the account's tokens are fetched; none (default): where its key file says.
    pub token_url: Option<http::Uri>,
    /// `authorities`: the file with roots for both; none (default): those of the system.
    pub authorities: Option<PathBuf>,
    /// `private_addresses`: whether both may be at addresses that are not public. Default false.
    pub private_addresses: bool,
    /// `timeout`: for one call, default 3 s.
    pub timeout: Duration,
    /// `max_calls`: calls at once, default 64. Reached: further ones are not made.
    pub max_calls: u32,
    /// `calls_per_day`: in any 24 hours, default 10,000.
    pub calls_per_day: u32,
    /// `burst`: of them at once, after a pause, default a twentieth.
    pub burst: u32,
    /// `reserve`: of them, for devices that have passed before, default a tenth.
    pub reserve: u32,
    /// `unavailable`: what becomes of sessions where Google cannot be asked; never [`PlayUnavailable::AllowAndFlag`].
    pub unavailable: PlayUnavailable,
}

/// What becomes of a request whose verdict cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlayUnavailable {
    /// `deny`: it is refused.
    #[default]
    Deny,
    /// `allow-and-flag`: it passes, and whoever is behind is told that nothing is known.
    AllowAndFlag,
    /// `require-cached-verdict-younger-than`: it passes if the device had a good verdict within this time.
    Cached(Duration),
}

/// `play` of a route's `attestation`: requests of Android devices come with a token of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayDemand {
    /// `unavailable`: default `deny`.
    pub unavailable: PlayUnavailable,
    /// `reuse`: how long a verdict counts for further requests, which then need no token. Default 0: for none.
    pub reuse: Duration,
    /// `max_body_bytes`: of the body of a request, which is held until it is judged. Default 1 MiB.
    pub max_body_bytes: u64,
}
