//! `[attestation]`: how devices show that they and their apps are genuine, and what a `[[route]]` asks for of that.

mod play;

use std::{path::PathBuf, time::Duration};

use super::RateLimit;
pub use play::{Play, PlayDemand, PlayRemote, PlayRisk, PlayUnavailable};

mod apple;

pub use apple::{Assertion, OverRisk, Receipts};

/// Challenges, enrolment, sessions, and what servers are told of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Where its endpoints are.
    pub paths: AttestationPaths,
    /// `limit`: requests to the endpoints of one address, default 60/min with a burst of 60.
    pub limit: RateLimit,
    /// `challenge_lifetime`: until a challenge has to be used, default 2 min.
    pub challenge_lifetime: Duration,
    /// `max_challenges`: used ones that are remembered at once, default 262,144. Reached: further ones are refused.
    pub max_challenges: u32,
    /// `assertion_window`: how old the time may be that an assertion of a request is over, default 1 min.
    pub assertion_window: Duration,
    /// `session_lifetime`: how long a session is good, default 15 min.
    pub session_lifetime: Duration,
    /// `session_keys`: the file with the secrets of sessions; none (default): drawn at the start, sessions end with the daemon.
    pub session_keys: Option<PathBuf>,
    /// `facts_key`: the file with the key that facts for servers are signed with; none (default): drawn at the start.
    pub facts_key: Option<PathBuf>,
    /// `facts_previous_keys`: files with keys that are published beside that, so that servers know them before and after; default none.
    pub facts_previous_keys: Vec<PathBuf>,
    /// `facts_issuer`: `iss` of them, default `enforcer`.
    pub facts_issuer: String,
    /// `facts_audience`: `aud` of them; none (default): the name of the upstream that the request goes to.
    pub facts_audience: Option<String>,
    /// `facts_lifetime`: how long they are good, default 60 s.
    pub facts_lifetime: Duration,
    /// `store`: the file that devices are kept in, default `devices.redb` beside `bans.store`; none (`"off"`): they enrol anew after a
    /// start.
    pub store: Option<PathBuf>,
    /// `max_devices`: default 1,000,000. Reached: further ones are refused.
    pub max_devices: u32,
    /// `forget_after`: a device that was not seen for so long has to enrol anew, default 4320 h, which are 180 days.
    pub forget_after: Duration,
    /// `unknown_devices`: what a session of a device is worth that is not known here, default nothing.
    pub unknown_devices: UnknownDevices,
    /// `[attestation.app_attest]`; none: devices of Apple cannot enrol.
    pub app_attest: Option<AppAttest>,
    /// `[attestation.android_key]`; none: keys that Android's hardware attests cannot enrol.
    pub android_key: Option<AndroidKey>,
    /// `[attestation.play]`; none: tokens of Google Play are not taken.
    pub play: Option<Play>,
}

/// Paths that the daemon answers itself; they are the same on every host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationPaths {
    /// `challenge_path`, default `/.well-known/enforcer/challenge`.
    pub challenge: String,
    /// `enrol_path`, default `/.well-known/enforcer/enrol`.
    pub enrol: String,
    /// `session_path`, default `/.well-known/enforcer/session`.
    pub session: String,
    /// `keys_path`, default `/.well-known/enforcer/keys`.
    pub keys: String,
}

/// What a good session is worth whose device is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownDevices {
    /// Nothing.
    Refuse,
    /// What it says itself: another daemon that has the same `session_keys` knows the device.
    BySession,
}

/// Whose apps may enrol by App Attest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppAttest {
    /// `apps`: their identifiers, the team's and the bundle's joined by a dot; at least one.
    pub apps: Vec<String>,
    /// `environment`, default `production`.
    pub environment: Environment,
    /// `categories`: how an app may have come to its device, in Apple's words; none (default): as the environment allows.
    pub categories: Vec<String>,
    /// `minimum_version`: the oldest bundle version that is accepted. Default: any.
    pub minimum_version: Option<String>,
    /// `require_distribution`: whether devices are refused whose system says neither. Default false.
    pub require_distribution: bool,
    /// `root`: the file with another root than Apple's, for tests. Default: Apple's.
    pub root: Option<PathBuf>,
    /// `[attestation.app_attest.receipts]`; none: no receipt is exchanged for a newer one.
    pub receipts: Option<Receipts>,
}

/// Apps of Android, as their publisher knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AndroidApps {
    /// `packages`: at least one.
    pub packages: Vec<String>,
    /// `certificates`: SHA-256 of those that they are signed with; at least one.
    pub certificates: Vec<[u8; 32]>,
    /// `min_version`: the oldest `versionCode` that is accepted, default 0, which is any.
    pub min_version: u64,
}

/// Whose apps may enrol by a key that Android's hardware attests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AndroidKey {
    /// The apps.
    pub apps: AndroidApps,
    /// `security`: where the key has to live, default `trusted-environment`.
    pub security: KeySecurity,
    /// `boot`: how the device has to have been started, default `verified`.
    pub boot: BootState,
    /// `boot_keys`: with `self-signed` the keys that owners may have signed with, at least one; else none.
    pub boot_keys: Vec<[u8; 32]>,
    /// `min_patch`: the oldest patch level that is accepted, like 202511, default 0, which is any.
    pub min_patch: u32,
    /// `expired_factory`: whether certificates that makers put into devices are taken although they have run out. Default false.
    pub expired_factory: bool,
    /// `require_play`: whether a token of Google Play has to come beside the key. Default false.
    pub require_play: bool,
    /// `revocations`: the file with what Google has revoked. Default: none, nothing is known to be.
    pub revocations: Option<PathBuf>,
    /// `root`: the file with other roots than Google's, for tests. Default: Google's.
    pub root: Option<PathBuf>,
}

/// Where a key lives at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySecurity {
    /// In a part of the processor that the system does not control.
    TrustedEnvironment,
    /// In a chip of its own.
    StrongBox,
}

/// The worst start of a device that is accepted. Its boot loader is locked in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootState {
    /// With what its maker has signed.
    Verified,
    /// With what its owner has signed, with a key that is named.
    SelfSigned,
}

/// Where an app comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// What people have.
    Production,
    /// What developers run on their own devices.
    Development,
}

impl Environment {
    /// As configured and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
        }
    }
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// Of Apple.
    Ios,
    /// Of whoever builds Android devices.
    Android,
}

impl Platform {
    /// As configured and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ios => "ios",
            Self::Android => "android",
        }
    }
}

/// How well a device has shown what it is; a higher one is as good as every lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A genuine app on a genuine device.
    Device,
    /// The same, shown by its hardware.
    Strong,
}

impl Level {
    /// As configured and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Strong => "strong",
        }
    }
}

/// What a route asks for of the device that its requests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationDemand {
    /// `max_age`: since the device showed last what it is, default `session_lifetime`.
    pub max_age: Duration,
    /// `level`: default `device`.
    pub level: Level,
    /// `platform`: default: all of them.
    pub platforms: Vec<Platform>,
    /// `assertion`: what each request has to be signed over by the device's own key, beside the session. Default: nothing.
    pub assertion: Option<Assertion>,
    /// `group`: routes of one group take one another's challenges; default the route's name.
    pub group: String,
    /// `max_body_bytes`: of a body that an assertion is over, which is held until it is verified. Default 1 MiB.
    pub max_body_bytes: u64,
    /// `max_risk`: the highest risk metric of Apple's that is taken without more. Default: any.
    pub max_risk: Option<u32>,
    /// `over_risk`: what becomes of requests above it, default `deny`.
    pub over_risk: OverRisk,
    /// `play`: what Google has to say of each request of an Android device. Default: nothing.
    pub play: Option<PlayDemand>,
}
