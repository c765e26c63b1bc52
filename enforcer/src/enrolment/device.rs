//! A device that has enrolled: what is known of it, and its name.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::Evidence;
use crate::config::{Environment, Level, Platform};

/// Bytes of a point of P-256 as it is sent uncompressed (SEC 1 section 2.3.3).
pub const POINT: usize = 65;

/// The name of a device: SHA-256 of its key's point, uncompressed. Apple calls it the key identifier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId([u8; 32]);

impl DeviceId {
    /// Of the device with this key.
    pub fn of_key(point: &[u8]) -> Self {
        let mut id = [0; 32];
        for (to, from) in id.iter_mut().zip(digest(&SHA256, point).as_ref()) {
            *to = *from;
        }
        Self(id)
    }

    /// As it is written: base64url without padding, 43 characters.
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of its bytes.
    pub const fn of_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A point of P-256, uncompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point(pub [u8; POINT]);

impl Point {
    /// Its thumbprint as a JWK (RFC 7638 section 3.2).
    pub fn thumbprint(&self) -> [u8; 32] {
        let [_, coordinates @ ..] = self.0;
        let (x, y) = coordinates.split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let canonical = format!("{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"{x}\",\"y\":\"{y}\"}}");
        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest(&SHA256, canonical.as_bytes()).as_ref());
        thumbprint
    }
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(D::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("not 65 bytes"))
    }
}

/// Who says what a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Apple, by App Attest.
    AppAttest,
    /// Its own hardware, by an attested key of Android.
    AndroidKey,
    /// Google, by Play Integrity.
    Play,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AppAttest, Self::AndroidKey, Self::Play];

    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AppAttest => "app-attest",
            Self::AndroidKey => "android-key",
            Self::Play => "play",
        }
    }
}

/// Since when a device is refused, seconds since 1970, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// Since when.
    pub since: u64,
    /// In the operator's words; may be empty.
    pub reason: Box<str>,
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What it signs with.
    pub key: Point,
    /// What it is.
    pub platform: Platform,
    /// Who says so.
    pub provider: Provider,
    /// Where its app comes from.
    pub environment: Environment,
    /// Which app that is.
    pub app: Box<str>,
    /// How well that was shown.
    pub level: Level,
    /// Of its last assertion; each one has a larger one.
    pub counter: u32,
    /// When it enrolled first, seconds since 1970.
    pub enrolled: u64,
    /// When it showed last what it is.
    pub seen: u64,
    /// How many keys its device had attested within 30 days, if its receipt says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<u32>,
    /// How well its hardware has shown what it is, if that is known: what Google says makes it less, and never more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Level>,
    /// When Google Play said last that all is well, seconds since 1970, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<u64>,
    /// Whether it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
    /// What it has shown besides.
    #[serde(default, skip_serializing_if = "Evidence::is_empty")]
    pub evidence: Evidence,
}

/// What requests of a device are judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it is.
    pub platform: Platform,
    /// How well that was shown.
    pub level: Level,
    /// Who says so; `None` where only its session is known.
    pub origin: Option<(Provider, Environment, Box<str>)>,
    /// How many keys its device had attested within 30 days, if that is known.
    pub risk: Option<u32>,
}

impl Device {
    /// What its requests are judged by.
    pub fn standing(&self) -> Standing {
        let origin = Some((self.provider, self.environment, self.app.clone()));
        Standing { platform: self.platform, level: self.level, origin, risk: self.risk }
    }
}
