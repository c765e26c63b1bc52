//! Android Key Attestation: what a device's own hardware says of a key that it holds, of the app that asked for it, and of how the device
//! was started.
//!
//! A chain of certificates, from the key's to one of Google's two roots ([`chain`]), whose first certificate carries a description of the
//! key ([`description`]). No network is asked; what Google has revoked comes from a file ([`revocation`]).

pub mod chain;
mod der;
pub mod description;
pub mod revocation;
pub mod roots;

use serde::Serialize;

use self::{
    chain::{Chain, Provisioning},
    description::{Boot, Description, Security},
    revocation::Revocations,
    roots::Roots,
};
use super::{Level, Refused, Steps};
use crate::denial::Denial;

/// What is asked of a key and its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Packages that are ours. All that are named have to be among them: apps that share a user share keys.
    pub packages: Vec<String>,
    /// SHA-256 of the certificates that they are signed with. All that are named have to be among them.
    pub certificates: Vec<[u8; 32]>,
    /// The oldest version (`versionCode`) that is taken; 0: any.
    pub min_version: u64,
    /// Where the key has to live.
    pub security: Security,
    /// How the device has to have been started: the worst that is taken.
    pub boot: Boot,
    /// Whether its boot loader has to be locked.
    pub locked: bool,
    /// The oldest patch levels that are taken, like 202511 (year and month), of the system, the vendor's part and the boot loader; 0: any,
    /// and none at all.
    pub min_patch: u32,
    /// Whether the key has to be one for signatures.
    pub signs: bool,
    /// Whether certificates that makers put into devices are taken although they have run out: those of 2016 did in 2026.
    pub expired_factory: bool,
}

/// What is known of a key and a device that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Genuine {
    /// How far the device is to be trusted.
    pub level: Level,
    /// The app's packages.
    pub packages: Vec<String>,
    /// The lowest `versionCode` of them.
    pub version: u64,
    /// Where the key lives.
    pub security: Security,
    /// How the device was started.
    pub boot: Boot,
    /// Whether its boot loader is locked.
    pub locked: bool,
    /// `160000` is Android 16.
    pub os_version: Option<u64>,
    /// Patch level of the system.
    pub os_patch: Option<u32>,
    /// That of the vendor's part.
    pub vendor_patch: Option<u32>,
    /// That of the boot loader.
    pub boot_patch: Option<u32>,
    /// Who gave the device its certificates, and when.
    pub provisioning: Provisioning,
    /// Of the description: 3 is Keymaster 4, 300 KeyMint 3.
    pub attestation_version: u64,
    /// The key: a SubjectPublicKeyInfo in DER.
    #[serde(skip)]
    pub key: Vec<u8>,
}

/// Judges a chain, leaf first, in DER. `challenge`: what the key was asked for with. `now`: seconds since 1970.
pub fn verify(
    certificates: &[Vec<u8>],
    roots: &Roots,
    revoked: Option<&Revocations>,
    rules: &Rules,
    challenge: &[u8],
    now: u64,
    steps: Steps<'_>,
) -> Result<Genuine, Refused> {
    let chain = Chain::read(certificates)?;
    steps("form", format!("{} certificates", certificates.len()));
    chain.verify(roots, rules.expired_factory, now)?;
    steps("chain", format!("to a root that is trusted, good at {now}, {}", chain.provisioning().name()));
    match revoked {
        None => steps("revocation", "no list".to_owned()),
        Some(list) => {
            chain.serials().try_for_each(|serial| list.check(&serial))?;
            steps("revocation", format!("none of them is in the list of {}", list.len()));
        }
    }
    let description = Description::read(chain.description()?)?;
    steps(
        "description",
        format!(
            "version {}, by {}",
            description.attestation_version,
            description.attestation_security.name()
        ),
    );
    let genuine = judge(&description, rules, challenge, steps)?;
    Ok(Genuine { provisioning: chain.provisioning(), key: chain.key().to_vec(), ..genuine })
}

/// Judges what is said of the key. What the hardware does not enforce is believed of the app's name alone, which only the system knows.
fn judge(found: &Description, rules: &Rules, challenge: &[u8], steps: Steps<'_>) -> Result<Genuine, Refused> {
    if challenge.is_empty() || found.challenge != challenge {
        let why = "the challenge is not the one that was issued";
        return Err(Refused::new(Denial::AttestationNonce, "challenge", why));
    }
    steps("challenge", format!("the right one, {} bytes", challenge.len()));
    let untrusted = |why: String| Refused::new(Denial::DeviceIntegrityFailed, "device", why);
    let security = found.attestation_security.min(found.keymint_security);
    if security < rules.security {
        return Err(untrusted(format!(
            "the key lives in {}, not in {}",
            security.name(),
            rules.security.name()
        )));
    }
    let hardware = &found.hardware;
    let root = hardware.root_of_trust.as_ref();
    let root =
        root.ok_or_else(|| untrusted("the hardware does not say how the device was started".to_owned()))?;
    if root.boot > rules.boot {
        return Err(untrusted(format!("what was started is {}", root.boot.name())));
    }
    if rules.locked && !root.locked {
        return Err(untrusted("the boot loader is unlocked".to_owned()));
    }
    let locked = if root.locked { "locked" } else { "unlocked" };
    steps("device", format!("{}, {}, {locked}", security.name(), root.boot.name()));
    for (name, level) in [
        ("system", hardware.os_patch),
        ("vendor", hardware.vendor_patch),
        ("boot loader", hardware.boot_patch),
    ] {
        // Keymaster 3 and earlier know the system's alone.
        let is_known = level.is_some() || (name != "system" && found.attestation_version < 3);
        if rules.min_patch != 0 && is_known && level.unwrap_or(0) < rules.min_patch {
            let level = level.unwrap_or(0);
            let why = format!("patch level of the {name}: {level}, older than {}", rules.min_patch);
            return Err(Refused::new(Denial::DeviceOutdated, "patches", why));
        }
        if rules.min_patch != 0 && !is_known {
            let why = format!("the hardware does not tell the patch level of the {name}");
            return Err(Refused::new(Denial::DeviceOutdated, "patches", why));
        }
    }
    steps("patches", format!("system {:?}, vendor {:?}", hardware.os_patch, hardware.vendor_patch));
    key(found, rules)?;
    steps("key", "made in the hardware, of this app alone".to_owned());
    let (packages, version) = app(found, rules)?;
    steps("app", format!("{}, version {version}", packages.join(", ")));
    let level = match (root.boot, root.locked) {
        (Boot::Verified, true) if security > Security::Software => Level::Strong,
        (Boot::SelfSigned, true) if security > Security::Software => Level::Device,
        _ => Level::Basic,
    };
    Ok(Genuine {
        level,
        packages,
        version,
        security,
        boot: root.boot,
        locked: root.locked,
        os_version: hardware.os_version,
        os_patch: hardware.os_patch,
        vendor_patch: hardware.vendor_patch,
        boot_patch: hardware.boot_patch,
        provisioning: Provisioning::Factory,
        attestation_version: found.attestation_version,
        key: Vec::new(),
    })
}

/// The key was made where it lives, signs, and is not every app's.
fn key(found: &Description, rules: &Rules) -> Result<(), Refused> {
    const GENERATED: u64 = 0;
    const SIGN: u64 = 2;
    let refused = |why: &str| Err(Refused::new(Denial::AttestationKey, "key", why));
    if found.hardware.origin != Some(GENERATED) {
        return refused("it was not made in the hardware: somebody else may have it");
    }
    if found.hardware.all_applications || found.software.all_applications {
        return refused("every app of the device may use it");
    }
    if rules.signs && !found.hardware.purposes.contains(&SIGN) {
        return refused("it is not for signatures");
    }
    Ok(())
}

fn app(found: &Description, rules: &Rules) -> Result<(Vec<String>, u64), Refused> {
    let refused = |why: String| Refused::new(Denial::AppNotRecognised, "app", why);
    let Some(app) = &found.software.application else { return Err(refused("no app is named".to_owned())) };
    if app.packages.is_empty() || app.certificates.is_empty() {
        return Err(refused("it names no package, or no certificate".to_owned()));
    }
    if let Some((other, _)) = app.packages.iter().find(|(name, _)| !rules.packages.contains(name)) {
        return Err(refused(format!("`{other}` is none of {}", rules.packages.join(", "))));
    }
    let ours = |digest: &Vec<u8>| rules.certificates.iter().any(|known| known[..] == digest[..]);
    if !app.certificates.iter().all(ours) {
        return Err(refused("it is signed with a certificate that is not ours".to_owned()));
    }
    let version = app.packages.iter().map(|(_, version)| *version).min().unwrap_or(0);
    if version < rules.min_version {
        let why = format!("version {version} is older than {}", rules.min_version);
        return Err(Refused::new(Denial::AppOutdated, "app", why));
    }
    Ok((app.packages.iter().map(|(name, _)| name.clone()).collect(), version))
}
