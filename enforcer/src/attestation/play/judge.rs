//! Whether a verdict is good enough: of this app, for this request, recent, and as good as the rules ask. In this order, and nothing of
//! it can be left out by what a verdict does not say.

use std::time::Duration;

use serde::Serialize;

use super::verdict::{Activity, AppAccess, Label, Licensing, PlayProtect, Recognition, Verdict, Word, level};
use crate::{
    attestation::{Level, Refused, Steps},
    denial::Denial,
};

/// What is asked of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Packages that are ours; the request's and the app's have to be one of them, and the same.
    pub packages: Vec<String>,
    /// SHA-256 of the certificates that they are signed with. All that a verdict names have to be among them.
    pub certificates: Vec<[u8; 32]>,
    /// The oldest version (`versionCode`) that is taken; 0: any.
    pub min_version: u64,
    /// Labels that the device has to have, all of them, in any order.
    pub labels: Vec<Label>,
    /// Whether the user must have the app from Google Play.
    pub licensed: bool,
    /// How long ago it may have been asked for.
    pub max_age: Duration,
    /// How far in the future, for clocks that differ.
    pub skew: Duration,
    /// Whether answers that somebody chose for tests are taken. Never in production.
    pub testing: bool,
    /// What else may be refused.
    pub risk: Risk,
}

/// What is refused besides, if anything. What is refused on by name is asked for: a verdict without it is refused too, unless
/// `unevaluated` says otherwise. A word that is not known is refused in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Risk {
    /// The most that the device may ask (1 to 4).
    pub max_activity: Option<u8>,
    /// What Play Protect may not say.
    pub play_protect: Vec<PlayProtect>,
    /// What other apps may not be able to do.
    pub access: Vec<AppAccess>,
    /// Whether verdicts pass in which Google has not evaluated that.
    pub unevaluated: bool,
}

/// What the request was bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// A classic one, to the nonce that was issued.
    Nonce(&'a str),
    /// A standard one, to the hash of what is really asked, computed here.
    RequestHash(&'a str),
}

/// What is known of a device and an app that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Genuine {
    /// The app.
    pub package: String,
    /// Its `versionCode`.
    pub version: u64,
    /// The best that Google says of the device.
    pub level: Option<Level>,
    /// All that it says.
    pub labels: Vec<&'static str>,
    /// `LICENSED` and the like.
    pub licensing: Option<&'static str>,
    /// `LEVEL_1` and the like.
    pub activity: Option<&'static str>,
    /// `NO_ISSUES` and the like.
    pub play_protect: Option<&'static str>,
    /// What other apps can do.
    pub access: Vec<&'static str>,
    /// The API level.
    pub sdk: Option<u64>,
    /// When it was asked for, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Whether somebody chose the answer for tests.
    pub testing: bool,
}

/// Judges a verdict. `now`: milliseconds since 1970.
pub fn judge(
    verdict: &Verdict,
    rules: &Rules,
    expected: &Expected<'_>,
    now: u64,
    steps: Steps<'_>,
) -> Result<Genuine, Refused> {
    let asked = &verdict.request_package;
    if !rules.packages.contains(asked) {
        let why = format!("the request is of `{asked}`, not of {}", rules.packages.join(", "));
        return Err(Refused::new(Denial::AppNotRecognised, "request", why));
    }
    steps("request", format!("of {asked}"));
    bound(verdict, expected)?;
    steps("binding", "to this request".to_owned());
    recent(verdict.timestamp_ms, rules, now)?;
    steps(
        "time",
        format!("{} ms before", now.cast_signed().wrapping_sub(verdict.timestamp_ms.cast_signed())),
    );
    let version = app(verdict, rules)?;
    steps("app", format!("recognised, version {version}, {} certificate(s)", verdict.certificates.len()));
    let missing: Vec<&str> = rules
        .labels
        .iter()
        .filter(|label| !verdict.labels.known.contains(label))
        .map(|label| label.name())
        .collect();
    let labels: Vec<&str> = verdict.labels.known.iter().map(|label| label.name()).collect();
    if !missing.is_empty() {
        let why = format!("the device has [{}], and lacks {}", labels.join(", "), missing.join(", "));
        return Err(Refused::new(Denial::DeviceIntegrityFailed, "device", why));
    }
    steps("device", labels.join(", "));
    if rules.licensed && verdict.licensing != Word::Known(Licensing::Licensed) {
        let why =
            format!("the user has it not from Google Play: {}", show(verdict.licensing, Licensing::name));
        return Err(Refused::new(Denial::AppUnlicensed, "licence", why));
    }
    steps("licence", show(verdict.licensing, Licensing::name));
    if verdict.testing && !rules.testing {
        let why = "the answer was chosen for a tester in the Play Console, and says nothing of the device";
        return Err(Refused::new(Denial::AttestationEnvironment, "testing", why));
    }
    steps("testing", if verdict.testing { "a chosen answer, which is allowed" } else { "no" }.to_owned());
    risk(verdict, &rules.risk)?;
    steps("risk", "nothing that is refused".to_owned());
    Ok(Genuine {
        package: asked.clone(),
        version,
        level: level(&verdict.labels.known),
        labels,
        licensing: verdict.licensing.known().map(Licensing::name),
        activity: verdict.activity.known().map(Activity::name),
        play_protect: verdict.play_protect.known().map(PlayProtect::name),
        access: verdict.access.iter().flat_map(|set| &set.known).map(|word| word.name()).collect(),
        sdk: verdict.sdk,
        timestamp_ms: verdict.timestamp_ms,
        testing: verdict.testing,
    })
}

/// The one that is expected has to be there and right, and the other one absent: a verdict is for one kind of request.
fn bound(verdict: &Verdict, expected: &Expected<'_>) -> Result<(), Refused> {
    let (name, wanted, found, other) = match expected {
        Expected::Nonce(nonce) => ("nonce", *nonce, &verdict.nonce, &verdict.request_hash),
        Expected::RequestHash(hash) => ("requestHash", *hash, &verdict.request_hash, &verdict.nonce),
    };
    // Apps pad what Google returns unpadded, and the other way round.
    let is_it =
        |found: &str| !wanted.is_empty() && found.trim_end_matches('=') == wanted.trim_end_matches('=');
    let why = match (found, other) {
        (Some(found), None) if is_it(found) => return Ok(()),
        (Some(_), None) => format!("its {name} is not the one of this request"),
        (Some(_), Some(_)) => "it has both a nonce and a requestHash".to_owned(),
        (None, _) => format!("it has no {name}"),
    };
    Err(Refused::new(Denial::AttestationNonce, "binding", why))
}

fn recent(at: u64, rules: &Rules, now: u64) -> Result<(), Refused> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let why = if at > now.saturating_add(ms(rules.skew)) {
        format!("it was asked for {} ms in the future", at - now)
    } else if now.saturating_sub(at) > ms(rules.max_age) {
        format!("it was asked for {} ms ago, and {} ms are allowed", now - at, ms(rules.max_age))
    } else {
        return Ok(());
    };
    Err(Refused::new(Denial::AttestationOutdated, "time", why))
}

/// The version of an app that is ours.
fn app(verdict: &Verdict, rules: &Rules) -> Result<u64, Refused> {
    let refused = |why: String| Err(Refused::new(Denial::AppNotRecognised, "app", why));
    if verdict.recognition != Word::Known(Recognition::PlayRecognized) {
        return refused(format!("Google says {}", show(verdict.recognition, Recognition::name)));
    }
    if verdict.package.as_ref() != Some(&verdict.request_package) {
        let found = verdict.package.as_deref().unwrap_or("nothing");
        return refused(format!("the app is `{found}`, the request of `{}`", verdict.request_package));
    }
    if verdict.certificates.is_empty() {
        return refused("no certificate is named".to_owned());
    }
    let ours = |digest: &Option<[u8; 32]>| digest.is_some_and(|digest| rules.certificates.contains(&digest));
    if !verdict.certificates.iter().all(ours) {
        return refused("it is signed with a certificate that is not ours".to_owned());
    }
    match verdict.version {
        None => refused("no versionCode".to_owned()),
        Some(version) if version < rules.min_version => {
            let why = format!("version {version} is older than {}", rules.min_version);
            Err(Refused::new(Denial::AppOutdated, "app", why))
        }
        Some(version) => Ok(version),
    }
}

fn risk(verdict: &Verdict, risk: &Risk) -> Result<(), Refused> {
    let refused = |why: String| Err(Refused::new(Denial::DeviceRisk, "risk", why));
    if let Some(most) = risk.max_activity {
        let level = match verdict.activity {
            Word::Known(Activity::Level1) => Some(1),
            Word::Known(Activity::Level2) => Some(2),
            Word::Known(Activity::Level3) => Some(3),
            Word::Known(Activity::Level4) => Some(4),
            Word::Known(Activity::Unevaluated) | Word::Absent if risk.unevaluated => None,
            Word::Known(Activity::Unevaluated) | Word::Absent | Word::Other => Some(u8::MAX),
        };
        if level.is_some_and(|level| level > most) {
            return refused(format!("activity of the device: {}", show(verdict.activity, Activity::name)));
        }
    }
    if !risk.play_protect.is_empty() {
        let bad = match verdict.play_protect {
            // What is refused by name is refused even where what is not evaluated passes.
            Word::Known(word) if risk.play_protect.contains(&word) => true,
            Word::Known(PlayProtect::Unevaluated) | Word::Absent => !risk.unevaluated,
            Word::Known(_) => false,
            Word::Other => true,
        };
        if bad {
            return refused(format!("Play Protect: {}", show(verdict.play_protect, PlayProtect::name)));
        }
    }
    if !risk.access.is_empty() {
        match &verdict.access {
            None if risk.unevaluated => {}
            None => return refused("access of other apps is not evaluated".to_owned()),
            Some(set) => {
                let found: Vec<&str> = set
                    .known
                    .iter()
                    .filter(|word| risk.access.contains(word))
                    .map(|word| word.name())
                    .collect();
                if !found.is_empty() || set.others {
                    let other = if set.others { "something unknown" } else { "" };
                    return refused(format!("other apps: {} {other}", found.join(", ")));
                }
            }
        }
    }
    Ok(())
}

fn show<T: Copy>(word: Word<T>, name: fn(T) -> &'static str) -> String {
    match word {
        Word::Absent => "nothing",
        Word::Known(word) => name(word),
        Word::Other => "something unknown",
    }
    .to_owned()
}
