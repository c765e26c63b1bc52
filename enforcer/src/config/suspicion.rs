//! `[suspicion]`: what makes a connection look as if somebody stood in its middle, and how much it weighs.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use super::{Platform, RateLimit, value::Written};

/// What speaks for a proxy between an app and here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// The ClientHello has a fingerprint that is none of the app's.
    Fingerprint,
    /// The ClientHello has none: it was too long to be kept.
    NoFingerprint,
    /// Fields that proxies add, by none that is trusted.
    Hops,
    /// Apps at the same source have reported that a pin did not fit.
    Reports,
}

impl Signal {
    /// Every one, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Fingerprint, Self::NoFingerprint, Self::Hops, Self::Reports];

    /// In configurations, logs and metrics, and for servers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fingerprint => "fingerprint",
            Self::NoFingerprint => "no_fingerprint",
            Self::Hops => "hops",
            Self::Reports => "reports",
        }
    }
}

/// `[suspicion]`
#[derive(Clone, Debug, PartialEq)]
pub struct Suspicion {
    /// `weights`, 0 to 100 each, by [`Signal::ALL`]. Default 40, 10, 30, 30.
    pub weights: [u8; 4],
    /// `[suspicion.app.NAME]`
    pub apps: BTreeMap<String, App>,
    /// `[suspicion.reports]`; none: no reports are taken.
    pub reports: Option<Reports>,
}

/// `[suspicion.app.NAME]`: what the hellos of an app look like.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// `platform`: judges requests of attested devices of this kind alone. None: of every kind.
    pub platform: Option<Platform>,
    /// `ja4`, one at least.
    pub ja4: Vec<Ja4Pattern>,
}

/// `[suspicion.reports]`
#[derive(Clone, Debug, PartialEq)]
pub struct Reports {
    /// `path`, default `/.well-known/enforcer/pin-reports`.
    pub path: String,
    /// `remember`: for how long a report speaks against its source. Default 1 h.
    pub remember: Duration,
    /// `limit`: of each source. Default 10 in a minute.
    pub limit: RateLimit,
    /// `max_entries`: pairs of a source and a host that are remembered. Default 65,536.
    pub max_entries: u32,
}

/// `suspicion = { ... }` of a route
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuspicionDemand {
    /// `apps`: names below `[suspicion.app]`, whose hellos are expected; empty (default): fingerprints are not looked at.
    pub apps: Vec<String>,
    /// `refuse_above`: a request with a higher score is refused. None (default): none is.
    pub refuse_above: Option<u8>,
    /// `dry_run`: what would be refused is counted and passes. Default false.
    pub dry_run: bool,
}

/// A JA4 fingerprint, of whose three parts each may be `*` (any).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ja4Pattern {
    text: String,
    parts: [Option<(usize, Box<[u8]>)>; 3],
}

/// Where the parts of a fingerprint stand, and how long they are.
const PARTS: [(usize, usize); 3] = [(0, 10), (11, 12), (24, 12)];

impl Ja4Pattern {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a fingerprint of 36 characters fits.
    pub fn fits(&self, ja4: &str) -> bool {
        let ja4 = ja4.as_bytes();
        let fits = |(at, part): &(usize, Box<[u8]>)| ja4.get(*at..*at + part.len()) == Some(&**part);
        ja4.len() == 36 && self.parts.iter().flatten().all(fits)
    }
}

impl Written for Ja4Pattern {
    const EXPECTED: &'static str = "a JA4 fingerprint like \"t13d1516h2_8daaf6152771_02713d6af862\", of which each part but one may be \"*\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|()| String::new())
    }
}

impl FromStr for Ja4Pattern {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = [const { None }; 3];
        let mut written = text.split('_');
        for (part, (at, length)) in parts.iter_mut().zip(PARTS) {
            match written.next() {
                Some("*") => {}
                Some(one) if one.len() == length && is_part(one, at == 0) => {
                    *part = Some((at, one.as_bytes().into()));
                }
                _ => return Err(()),
            }
        }
        let is_any = parts.iter().all(Option::is_none);
        if written.next().is_some() || is_any {
            return Err(());
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

fn is_part(text: &str, is_first: bool) -> bool {
    let good = |byte: u8| {
        if is_first { byte.is_ascii_alphanumeric() } else { matches!(byte, b'0'..=b'9' | b'a'..=b'f') }
    };
    text.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JA4: &str = "t13d1516h2_8daaf6152771_02713d6af862";

    #[test]
    fn a_pattern_fits_what_it_spells_and_any_part_for_a_star() {
        let fits = |pattern: &str, ja4: &str| Ja4Pattern::read(pattern).unwrap().fits(ja4);
        assert!(fits(JA4, JA4));
        assert!(fits("t13d1516h2_*_02713d6af862", JA4) && fits("*_8daaf6152771_*", JA4));
        assert!(!fits("t13d1517h2_*_*", JA4) && !fits("*_*_02713d6af863", JA4));
        assert!(!fits(JA4, "") && !fits("*_*_02713d6af862", &JA4[1..]));
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        for bad in [
            "",
            "*_*_*",
            "*",
            "t13d1516h2",
            "t13d1516h2_8daaf6152771",
            "t13d1516h2_8daaf6152771_02713d6af862_",
            "t13d1516h2_8DAAF6152771_02713d6af862",
            "t13d1516h_8daaf6152771_02713d6af862",
            "t13d15*6h2_8daaf6152771_02713d6af862",
            "t13d1516h2_8daaf6152771_02713d6af86g",
        ] {
            assert!(Ja4Pattern::read(bad).is_err(), "{bad}");
        }
    }
}
