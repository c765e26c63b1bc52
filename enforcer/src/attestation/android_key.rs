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
pub mod state;

use serde::Serialize;

use self::{
    chain::Chain,
    description::{Boot, Description, Security},
    revocation::Revocations,
    roots::Roots,
    state::State,
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
    /// Where that is what its owner has signed: the keys (`verifiedBootKey`) by which it may be; none: any.
    pub boot_keys: Vec<[u8; 32]>,
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
    /// What was said of the device and of its app.
    #[serde(flatten)]
    pub state: State,
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
    let root = chain.verify(roots, rules.expired_factory, now)?;
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
    if challenge.is_empty() || description.challenge != challenge {
        let why = "the challenge is not the one that was issued";
        return Err(Refused::new(Denial::AttestationNonce, "challenge", why));
    }
    steps("challenge", format!("the right one, {} bytes", challenge.len()));
    let Some(trust) = &description.hardware.root_of_trust else {
        let why = "the hardware does not say how the device was started";
        return Err(Refused::new(Denial::DeviceIntegrityFailed, "device", why));
    };
    // What the hardware does not enforce is believed of the app's name alone, which only the system knows.
    let state = State::of(&description, trust, &chain, root);
    state.device(rules, steps)?;
    state.patches(rules, steps)?;
    key_of_app(&description, rules)?;
    steps("key", "made in the hardware, of this app alone".to_owned());
    state.app(rules, steps)?;
    let level = match (state.boot, state.locked) {
        (Boot::Verified, true) if state.security > Security::Software => Level::Strong,
        (Boot::SelfSigned, true) if state.security > Security::Software => Level::Device,
        _ => Level::Basic,
    };
    Ok(Genuine { level, state, key: chain.key().to_vec() })
}

/// The key was made where it lives, signs, and is not every app's.
fn key_of_app(found: &Description, rules: &Rules) -> Result<(), Refused> {
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
