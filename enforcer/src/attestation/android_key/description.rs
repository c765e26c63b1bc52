//! `KeyDescription`: what the hardware says of a key (source.android.com/docs/security/features/keystore/attestation#schema), versions
//! 1 (Keymaster 2) to 500 (KeyMint 5) and later, whose unknown fields are passed over.

use serde::{Deserialize, Serialize};

use super::der::{CONTEXT, Reader, tag};
use crate::{attestation::Refused, denial::Denial};

/// Entries of a list, at most.
const MOST_ENTRIES: usize = 64;
/// Bytes of a key that verified what was started, at most, that are kept.
const MOST_KEY: usize = 64;

/// Where a key lives, or who describes it; the better, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// In the system: whoever controls that has it.
    Software,
    /// In a part of the processor that the system does not control.
    TrustedEnvironment,
    /// In a chip of its own.
    StrongBox,
}

impl Security {
    /// As `enforcer` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::TrustedEnvironment => "trusted_environment",
            Self::StrongBox => "strong_box",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Software, Self::TrustedEnvironment, Self::StrongBox].into_iter().find(|one| one.name() == name)
    }

    const fn of(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Software),
            1 => Some(Self::TrustedEnvironment),
            2 => Some(Self::StrongBox),
            _ => None,
        }
    }
}

/// What was started, by the boot loader; the worse, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// What the maker has signed.
    Verified,
    /// What the owner has signed.
    SelfSigned,
    /// Anything.
    Unverified,
    /// Something whose verification has failed.
    Failed,
}

impl Boot {
    /// As `enforcer` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::SelfSigned => "self_signed",
            Self::Unverified => "unverified",
            Self::Failed => "failed",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Verified, Self::SelfSigned, Self::Unverified, Self::Failed]
            .into_iter()
            .find(|one| one.name() == name)
    }

    const fn of(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Verified),
            1 => Some(Self::SelfSigned),
            2 => Some(Self::Unverified),
            3 => Some(Self::Failed),
            _ => None,
        }
    }
}

/// How the device was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootOfTrust {
    /// Whether its boot loader is locked.
    pub locked: bool,
    /// What was started.
    pub boot: Boot,
    /// The key that verified that, or its digest, 32 bytes as devices have it; zeros where nothing was verified.
    pub key: Vec<u8>,
}

/// The app that asked for the key, as the system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Packages with their versions.
    pub packages: Vec<(String, u64)>,
    /// SHA-256 of the certificates that they are signed with.
    pub certificates: Vec<Vec<u8>>,
}

/// What is promised of the key, by the system or by the hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// What it may be used for; 2: signatures.
    pub purposes: Vec<u64>,
    /// 1: RSA, 3: EC.
    pub algorithm: Option<u64>,
    /// Whether every app may use it.
    pub all_applications: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: Option<u64>,
    /// 0: made there.
    pub origin: Option<u64>,
    /// How the device was started.
    pub root_of_trust: Option<RootOfTrust>,
    /// `160000` is Android 16.
    pub os_version: Option<u64>,
    /// Year and month.
    pub os_patch: Option<u32>,
    /// Who asked for it.
    pub application: Option<Application>,
    /// Year and month.
    pub vendor_patch: Option<u32>,
    /// Year and month.
    pub boot_patch: Option<u32>,
}

/// What is said of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The description's version.
    pub attestation_version: u64,
    /// Who describes.
    pub attestation_security: Security,
    /// The version of Keymaster or KeyMint.
    pub keymint_version: u64,
    /// Where the key lives.
    pub keymint_security: Security,
    /// What it was asked for with.
    pub challenge: Vec<u8>,
    /// What the system promises.
    pub software: Promises,
    /// What the hardware promises.
    pub hardware: Promises,
}

impl Description {
    /// Reads the content of the extension.
    pub fn read(der: &[u8]) -> Result<Self, Refused> {
        let malformed = || {
            let why = "the description of the key is no KeyDescription in DER, or has a field twice or out of order";
            Refused::new(Denial::AttestationMalformed, "description", why)
        };
        read(der).ok_or_else(malformed)
    }
}

fn read(der: &[u8]) -> Option<Description> {
    let mut outer = Reader::new(der);
    let mut inner = outer.inside(tag::SEQUENCE)?;
    outer.end(())?;
    let description = Description {
        attestation_version: inner.number(tag::INTEGER)?,
        attestation_security: Security::of(inner.number(tag::ENUMERATED)?)?,
        keymint_version: inner.number(tag::INTEGER)?,
        keymint_security: Security::of(inner.number(tag::ENUMERATED)?)?,
        challenge: inner.expect(tag::OCTETS)?.to_vec(),
        software: {
            // A number that names the device for a while; not used.
            inner.expect(tag::OCTETS)?;
            promises(inner.inside(tag::SEQUENCE)?)?
        },
        hardware: promises(inner.inside(tag::SEQUENCE)?)?,
    };
    inner.end(description)
}

/// `AuthorizationList`: fields by their numbers, in their order, each once.
fn promises(mut list: Reader<'_>) -> Option<Promises> {
    let mut found = Promises::default();
    let mut before = None;
    while !list.is_empty() {
        let (class, number, content) = list.element()?;
        if class != CONTEXT || before.is_some_and(|before| number <= before) {
            return None;
        }
        before = Some(number);
        let mut field = Reader::new(content);
        match number {
            1 => found.purposes = numbers(field.inside(tag::SET)?)?,
            2 => found.algorithm = Some(field.number(tag::INTEGER)?),
            600 => {
                found.all_applications = true;
                field.element()?;
            }
            701 => found.created_ms = Some(field.number(tag::INTEGER)?),
            702 => found.origin = Some(field.number(tag::INTEGER)?),
            704 => found.root_of_trust = Some(root_of_trust(field.inside(tag::SEQUENCE)?)?),
            705 => found.os_version = Some(field.number(tag::INTEGER)?),
            706 => found.os_patch = Some(month(field.number(tag::INTEGER)?)?),
            709 => found.application = Some(application(field.expect(tag::OCTETS)?)?),
            718 => found.vendor_patch = Some(month(field.number(tag::INTEGER)?)?),
            719 => found.boot_patch = Some(month(field.number(tag::INTEGER)?)?),
            _ => {
                field.element()?;
            }
        }
        field.end(())?;
    }
    Some(found)
}

fn numbers(mut set: Reader<'_>) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    while !set.is_empty() {
        numbers.push(set.number(tag::INTEGER)?);
        if numbers.len() > MOST_ENTRIES {
            return None;
        }
    }
    Some(numbers)
}

/// Patch levels are written as year and month, or with the day behind.
fn month(level: u64) -> Option<u32> {
    let level = u32::try_from(level).ok()?;
    Some(if level > 999_999 { level / 100 } else { level })
}

fn root_of_trust(mut root: Reader<'_>) -> Option<RootOfTrust> {
    // Longer ones are no digest; what they are cut to is nobody's.
    let key = root.expect(tag::OCTETS)?.iter().copied().take(MOST_KEY).collect();
    let found = RootOfTrust { key, locked: root.boolean()?, boot: Boot::of(root.number(tag::ENUMERATED)?)? };
    // Its hash, since version 3.
    if !root.is_empty() {
        root.expect(tag::OCTETS)?;
    }
    root.end(found)
}

/// `AttestationApplicationId`, which stands as DER in an OCTET STRING.
fn application(der: &[u8]) -> Option<Application> {
    let mut outer = Reader::new(der);
    let mut inner = outer.inside(tag::SEQUENCE)?;
    outer.end(())?;
    let mut found = Application { packages: Vec::new(), certificates: Vec::new() };
    let mut packages = inner.inside(tag::SET)?;
    while !packages.is_empty() && found.packages.len() <= MOST_ENTRIES {
        let mut package = packages.inside(tag::SEQUENCE)?;
        let name = String::from_utf8(package.expect(tag::OCTETS)?.to_vec()).ok()?;
        let version = package.number(tag::INTEGER)?;
        package.end(())?;
        found.packages.push((name, version));
    }
    let mut certificates = inner.inside(tag::SET)?;
    while !certificates.is_empty() && found.certificates.len() <= MOST_ENTRIES {
        found.certificates.push(certificates.expect(tag::OCTETS)?.to_vec());
    }
    packages.end(())?;
    certificates.end(())?;
    inner.end(found)
}
