//! What the file says about pins: `[pins]`, with every default filled in. Part of [`super::Config`]; reads nothing.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    ServerName,
    value::{Written, quantity},
};
use crate::pins::Pin;

/// `[pins]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pins {
    /// `[pins.set.NAME]`
    pub sets: BTreeMap<String, PinSet>,
    /// `[pins.document]`; none: no document is served.
    pub document: Option<PinDocument>,
    /// `switches`: the file that remembers which sets are served by their backup. Default `pin-switches` beside `bans.store`.
    pub switches: PathBuf,
}

/// `[pins.set.NAME]`: what apps know of some hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct PinSet {
    /// `hosts`, one at least.
    pub hosts: Vec<ServerName>,
    /// `pins`, two at least.
    pub pins: Vec<PinEntry>,
    /// `min_overlap` between the publication of a pin and the first use of its key, default 30 days.
    pub min_overlap: Duration,
    /// `backup`: a certificate and its key to switch to.
    pub backup: Option<Backup>,
    /// `force`: pins whose keys are served whatever else stands here. Default: none.
    pub force: Vec<Pin>,
}

/// An entry of `pins`.
#[derive(Clone, Debug, PartialEq)]
pub struct PinEntry {
    /// `sha256` or `file`.
    pub key: PinnedKey,
    /// `published`, seconds since 1970.
    pub published: u64,
}

/// Which key is pinned.
#[derive(Clone, Debug, PartialEq)]
pub enum PinnedKey {
    /// `sha256`
    Pin(Pin),
    /// `file`: a certificate or a public key, PEM.
    File(PathBuf),
}

/// A certificate that is kept ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// `chain`: leaf first.
    pub chain: PathBuf,
    /// `key`: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// `[pins.document]`
#[derive(Clone, Debug, PartialEq)]
pub struct PinDocument {
    /// `key`: a private key of P-256, PEM.
    pub key: PathBuf,
    /// `path`, default `/.well-known/enforcer/pins`.
    pub path: String,
    /// `version`: apps take no older one.
    pub version: u64,
    /// `lifetime`, default 7 days.
    pub lifetime: Duration,
}

/// A day, as seconds since 1970 at its beginning, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day(pub(super) u64);

impl Written for Day {
    const EXPECTED: &'static str = "a day like \"2026-01-31\"";
    fn read(text: &str) -> Result<Self, String> {
        let read = || {
            let mut parts = text.split('-');
            let mut part = |length: usize| {
                let part = parts.next()?;
                (part.len() == length && part.bytes().all(|b| b.is_ascii_digit())).then_some(part)
            };
            let (year, month, day) = (part(4)?, part(2)?, part(2)?);
            if parts.next().is_some() {
                return None;
            }
            let month = time::Month::try_from(month.parse::<u8>().ok()?).ok()?;
            let date = time::Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
            u64::try_from(date.midnight().assume_utc().unix_timestamp()).ok().map(Self)
        };
        read().ok_or_else(String::new)
    }
}

/// A duration of days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Days(pub(super) Duration);

impl Written for Days {
    const EXPECTED: &'static str = "a duration like \"30d\" (units s, m, h, d)";
    fn read(text: &str) -> Result<Self, String> {
        let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
        quantity(text, &units).map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(String::new)
    }
}

impl Written for Pin {
    const EXPECTED: &'static str = "a pin: the base64 of 32 bytes, as `enforcer pins show` prints it";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|()| String::new())
    }
}

impl super::Config {
    /// Files behind `[pins]`: a change of one changes the policy.
    pub(super) fn pin_files(&self) -> Vec<&std::path::Path> {
        let Pins { sets, document, switches } = &self.pins;
        let mut files: Vec<&std::path::Path> = Vec::new();
        for set in sets.values() {
            files.extend(set.pins.iter().filter_map(|entry| match &entry.key {
                PinnedKey::File(path) => Some(path.as_path()),
                PinnedKey::Pin(_) => None,
            }));
            files.extend(set.backup.iter().flat_map(|backup| [backup.chain.as_path(), backup.key.as_path()]));
        }
        files.extend(document.as_ref().map(|document| document.key.as_path()));
        files.extend((!sets.is_empty()).then_some(switches.as_path()));
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_nothing_else() {
        assert_eq!(Day::read("2026-01-01"), Ok(Day(1_767_225_600)));
        for bad in
            ["", "2026-1-1", "2026-02-30", "2026-01-01T00:00:00Z", "+026-01-01", "1969-12-31", "01-01-2026"]
        {
            assert!(Day::read(bad).is_err(), "{bad}");
        }
        assert_eq!(Days::read("30d"), Ok(Days(Duration::from_secs(30 * 86_400))));
        assert!(Days::read("30").is_err() && Days::read("1w").is_err());
    }
}
