//! What a verdict says, read strictly where somebody could gain by its being misread, and tolerantly where Google may say more tomorrow.
//!
//! A value that is not known here is [`Word::Other`] or is left out of a set: it crashes nothing, and satisfies nothing. What is used has
//! to have its type, whatever the rest is. (Fields and values: discovery document of the Play Integrity API, revision 20260910.)

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

use crate::{
    attestation::{Level, Refused},
    denial::Denial,
    strict_json,
};

/// Bytes of a verdict, at most.
pub const MOST: usize = 16 << 10;
/// Entries of a list in it, at most.
const MOST_ENTRIES: usize = 64;

/// Web-safe base64, with or without its padding.
const WEB_SAFE: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident { $($variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "Google's own words")]
        pub enum $name { $($variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As Google writes it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The one of this name.
            pub fn of_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.name() == name)
            }
        }
    };
}

words! {
    /// What Google thinks of a device.
    Label {
        Basic = "MEETS_BASIC_INTEGRITY",
        Device = "MEETS_DEVICE_INTEGRITY",
        Strong = "MEETS_STRONG_INTEGRITY",
        Virtual = "MEETS_VIRTUAL_INTEGRITY",
    }
}
words! {
    /// Whether the app is one that Google Play has distributed.
    Recognition {
        PlayRecognized = "PLAY_RECOGNIZED",
        UnrecognizedVersion = "UNRECOGNIZED_VERSION",
        Unevaluated = "UNEVALUATED",
    }
}
words! {
    /// Whether the user has the app from Google Play.
    Licensing { Licensed = "LICENSED", Unlicensed = "UNLICENSED", Unevaluated = "UNEVALUATED", }
}
words! {
    /// How many tokens the device has asked for within an hour.
    Activity {
        Level1 = "LEVEL_1",
        Level2 = "LEVEL_2",
        Level3 = "LEVEL_3",
        Level4 = "LEVEL_4",
        Unevaluated = "UNEVALUATED",
    }
}
words! {
    /// What Play Protect has found.
    PlayProtect {
        NoIssues = "NO_ISSUES",
        NoData = "NO_DATA",
        PossibleRisk = "POSSIBLE_RISK",
        MediumRisk = "MEDIUM_RISK",
        HighRisk = "HIGH_RISK",
        Unevaluated = "UNEVALUATED",
    }
}
words! {
    /// What other apps on the device can do.
    AppAccess {
        KnownInstalled = "KNOWN_INSTALLED",
        KnownCapturing = "KNOWN_CAPTURING",
        KnownOverlays = "KNOWN_OVERLAYS",
        KnownControlling = "KNOWN_CONTROLLING",
        UnknownInstalled = "UNKNOWN_INSTALLED",
        UnknownCapturing = "UNKNOWN_CAPTURING",
        UnknownOverlays = "UNKNOWN_OVERLAYS",
        UnknownControlling = "UNKNOWN_CONTROLLING",
    }
}

/// One word of an enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<T> {
    /// It says nothing of it.
    Absent,
    /// One that is known.
    Known(T),
    /// One that is not: never as good as one that is.
    Other,
}

impl<T: Copy> Word<T> {
    /// The word that is known.
    pub const fn known(self) -> Option<T> {
        match self {
            Self::Known(word) => Some(word),
            Self::Absent | Self::Other => None,
        }
    }
}

/// A set of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    /// Those that are known, each once.
    pub known: Vec<T>,
    /// Whether there are others.
    pub others: bool,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { known: Vec::new(), others: false }
    }
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The app that says that it has asked. Not more than that.
    pub request_package: String,
    /// When it asked, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// What a classic request was bound to.
    pub nonce: Option<String>,
    /// What a standard request was bound to.
    pub request_hash: Option<String>,
    /// What Google thinks of the app.
    pub recognition: Word<Recognition>,
    /// Its package.
    pub package: Option<String>,
    /// SHA-256 of the certificates that it is signed with; `None` for what is none.
    pub certificates: Vec<Option<[u8; 32]>>,
    /// Its version.
    pub version: Option<u64>,
    /// What Google thinks of the device.
    pub labels: Set<Label>,
    /// Its API level, where it is said.
    pub sdk: Option<u64>,
    /// How much it asks.
    pub activity: Word<Activity>,
    /// Whether the user has the app from Google Play.
    pub licensing: Word<Licensing>,
    /// What Play Protect says.
    pub play_protect: Word<PlayProtect>,
    /// What other apps can do; `None`: not evaluated.
    pub access: Option<Set<AppAccess>>,
    /// Whether it is an answer that somebody has chosen for tests.
    pub testing: bool,
}

impl Verdict {
    /// Reads one, as it stands in a token.
    pub fn read(json: &[u8]) -> Result<Self, Refused> {
        if json.len() > MOST {
            return Err(malformed(format!("it has {} bytes, and none has more than {MOST}", json.len())));
        }
        let object = strict_json::object(json);
        Self::of(&object.ok_or_else(|| malformed("it is not a JSON object, or one with a member twice"))?)
    }

    /// One that was read as JSON, without duplicate members.
    pub fn of(verdict: &Map<String, Value>) -> Result<Self, Refused> {
        let request = section(verdict, "requestDetails")?.ok_or_else(|| malformed("no requestDetails"))?;
        let app = section(verdict, "appIntegrity")?;
        let device = section(verdict, "deviceIntegrity")?;
        let account = section(verdict, "accountDetails")?;
        let environment = section(verdict, "environmentDetails")?;
        let inside = |outer: Option<&'_ Map<String, Value>>, name: &str| match outer {
            Some(outer) => section(outer, name).map(|found| found.cloned()),
            None => Ok(None),
        };
        let recent = inside(device, "recentDeviceActivity")?;
        let attributes = inside(device, "deviceAttributes")?;
        let access = inside(environment, "appAccessRiskVerdict")?;
        Ok(Self {
            request_package: text(request, "requestPackageName")?
                .ok_or_else(|| malformed("no requestPackageName"))?,
            timestamp_ms: number(request, "timestampMillis")?
                .ok_or_else(|| malformed("no timestampMillis"))?,
            nonce: text(request, "nonce")?,
            request_hash: text(request, "requestHash")?,
            recognition: word(app, "appRecognitionVerdict", Recognition::of_name)?,
            package: app.map_or(Ok(None), |app| text(app, "packageName"))?,
            certificates: certificates(app)?,
            version: app.map_or(Ok(None), |app| number(app, "versionCode"))?,
            labels: set(device, "deviceRecognitionVerdict", Label::of_name)?.unwrap_or_default(),
            sdk: attributes.and_then(|attributes| attributes.get("sdkVersion")?.as_u64()),
            activity: word(recent.as_ref(), "deviceActivityLevel", Activity::of_name)?,
            licensing: word(account, "appLicensingVerdict", Licensing::of_name)?,
            play_protect: word(environment, "playProtectVerdict", PlayProtect::of_name)?,
            access: set(access.as_ref(), "appsDetected", AppAccess::of_name)?,
            testing: match verdict.get("testingDetails") {
                None => false,
                Some(Value::Object(details)) => details.get("isTestingResponse") != Some(&Value::Bool(false)),
                Some(_) => return Err(malformed("testingDetails is no object")),
            },
        })
    }

    /// The best that Google says of the device.
    pub fn level(&self) -> Option<Level> {
        level(&self.labels.known)
    }
}

/// The best of these labels. One for virtual devices is no level.
pub fn level(labels: &[Label]) -> Option<Level> {
    [(Label::Strong, Level::Strong), (Label::Device, Level::Device), (Label::Basic, Level::Basic)]
        .into_iter()
        .find_map(|(label, level)| labels.contains(&label).then_some(level))
}

fn malformed(why: impl Into<String>) -> Refused {
    Refused::new(Denial::AttestationMalformed, "verdict", why)
}

fn section<'a>(outer: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Map<String, Value>>, Refused> {
    match outer.get(name) {
        None => Ok(None),
        Some(Value::Object(section)) => Ok(Some(section)),
        Some(_) => Err(malformed(format!("{name} is no object"))),
    }
}

fn text(section: &Map<String, Value>, name: &str) -> Result<Option<String>, Refused> {
    match section.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(malformed(format!("{name} is no text"))),
    }
}

/// A 64-bit number, which Google writes as text (as protocol buffers do in JSON).
fn number(section: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refused> {
    let Some(text) = text(section, name)? else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number: &u64| digits && *number <= i64::MAX as u64);
    number.map(Some).ok_or_else(|| malformed(format!("{name} is no whole number in text")))
}

fn word<T>(
    section: Option<&Map<String, Value>>,
    name: &str,
    of_name: fn(&str) -> Option<T>,
) -> Result<Word<T>, Refused> {
    let found = section.map_or(Ok(None), |section| text(section, name))?;
    Ok(found.map_or(Word::Absent, |found| of_name(&found).map_or(Word::Other, Word::Known)))
}

fn list<'a>(section: Option<&'a Map<String, Value>>, name: &str) -> Result<Option<Vec<&'a str>>, Refused> {
    let Some(found) = section.and_then(|section| section.get(name)) else { return Ok(None) };
    let entries = found.as_array().filter(|entries| entries.len() <= MOST_ENTRIES);
    let entries = entries.and_then(|entries| entries.iter().map(Value::as_str).collect());
    entries.map(Some).ok_or_else(|| malformed(format!("{name} is no list of at most {MOST_ENTRIES} texts")))
}

fn set<T: PartialEq>(
    section: Option<&Map<String, Value>>,
    name: &str,
    of_name: fn(&str) -> Option<T>,
) -> Result<Option<Set<T>>, Refused> {
    let Some(names) = list(section, name)? else { return Ok(None) };
    let mut set = Set::default();
    for name in names {
        match of_name(name) {
            None => set.others = true,
            Some(word) if set.known.contains(&word) => {}
            Some(word) => set.known.push(word),
        }
    }
    Ok(Some(set))
}

fn certificates(app: Option<&Map<String, Value>>) -> Result<Vec<Option<[u8; 32]>>, Refused> {
    let found = list(app, "certificateSha256Digest")?.unwrap_or_default();
    Ok(found.into_iter().map(digest).collect())
}

/// SHA-256 as Google writes it: web-safe base64.
pub fn digest(text: &str) -> Option<[u8; 32]> {
    WEB_SAFE.decode(text).ok()?.try_into().ok()
}
