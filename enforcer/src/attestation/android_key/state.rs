//! What a device's hardware has said of it and of its app, as far as that is kept: it is judged when it is said, and again whenever the
//! rules or the list of what is revoked have changed, for as long as the device is known.

use serde::{Deserialize, Serialize};

use super::{
    Rules,
    chain::{Chain, Provisioning},
    description::{Boot, Description, RootOfTrust, Security},
    revocation::{Revocations, normal},
    roots::Roots,
};
use crate::{
    attestation::{Refused, Steps},
    denial::Denial,
};

/// What was said. Digests and serial numbers are in hexadecimal digits, in small letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Serial numbers of the chain, the key's own certificate first, as the list of what is revoked has them: without leading zeros.
    pub serials: Box<[Box<str>]>,
    /// SHA-256 of the key of the root that the chain ended at.
    pub root: Box<str>,
    /// The app's packages.
    pub packages: Box<[Box<str>]>,
    /// Digests of the certificates that they are signed with.
    pub certificates: Box<[Box<str>]>,
    /// The lowest `versionCode` of them.
    pub version: u64,
    /// Where the key lives.
    pub security: Security,
    /// How the device was started.
    pub boot: Boot,
    /// What verified that (`verifiedBootKey`); zeros where nothing did.
    pub boot_key: Box<str>,
    /// Whether its boot loader is locked.
    pub locked: bool,
    /// `160000` is Android 16.
    pub os_version: Option<u64>,
    /// Patch level of the system, year and month.
    pub os_patch: Option<u32>,
    /// That of the vendor's part.
    pub vendor_patch: Option<u32>,
    /// That of the boot loader.
    pub boot_patch: Option<u32>,
    /// Who gave the device its certificates, and when.
    pub provisioning: Provisioning,
    /// Of the description: 3 is Keymaster 4, 300 KeyMint 3.
    pub attestation_version: u64,
}

/// The first version whose hardware knows patch levels besides the system's: that of Keymaster 4.
const KNOWS_ALL_PATCHES: u64 = 3;

impl State {
    /// Of a key that is described so, behind certificates that were verified up to the root with this key.
    pub(super) fn of(found: &Description, trust: &RootOfTrust, chain: &Chain<'_>, root: &[u8]) -> Self {
        let app = found.software.application.as_ref();
        let packages = app.map(|app| &app.packages[..]).unwrap_or_default();
        let certificates = app.map(|app| &app.certificates[..]).unwrap_or_default();
        let hardware = &found.hardware;
        Self {
            serials: chain.serials().map(|serial| normal(&serial)).collect(),
            root: Roots::name(root),
            packages: packages.iter().map(|(name, _)| name.as_str().into()).collect(),
            certificates: certificates.iter().map(|digest| hex(digest)).collect(),
            version: packages.iter().map(|(_, version)| *version).min().unwrap_or(0),
            security: found.attestation_security.min(found.keymint_security),
            boot: trust.boot,
            boot_key: hex(&trust.key),
            locked: trust.locked,
            os_version: hardware.os_version,
            os_patch: hardware.os_patch,
            vendor_patch: hardware.vendor_patch,
            boot_patch: hardware.boot_patch,
            provisioning: chain.provisioning(),
            attestation_version: found.attestation_version,
        }
    }

    /// Whether a device that has said this would be let in today. Signatures and dates were judged when it was said.
    pub fn judge(
        &self,
        rules: &Rules,
        roots: &Roots,
        revoked: Option<&Revocations>,
        steps: Steps<'_>,
    ) -> Result<(), Refused> {
        if !roots.names().any(|known| known == self.root) {
            let why = "its certificates lead to a root that is trusted no longer";
            return Err(Refused::new(Denial::AttestationChain, "chain", why));
        }
        if let Some(list) = revoked {
            self.serials.iter().try_for_each(|serial| list.check(serial))?;
        }
        self.device(rules, steps)?;
        self.patches(rules, steps)?;
        self.app(rules, steps)
    }

    /// Whether one of the certificates above the key's own has this serial number, in its normal form. A key's own is chosen by the device,
    /// most of which say 1.
    pub fn has_serial(&self, serial: &str) -> bool {
        self.serials.iter().skip(1).any(|known| **known == *serial)
    }

    pub(super) fn device(&self, rules: &Rules, steps: Steps<'_>) -> Result<(), Refused> {
        let untrusted = |why: String| Err(Refused::new(Denial::DeviceIntegrityFailed, "device", why));
        if self.security < rules.security {
            return untrusted(format!(
                "the key lives in {}, not in {}",
                self.security.name(),
                rules.security.name()
            ));
        }
        if self.boot > rules.boot {
            return untrusted(format!("what was started is {}", self.boot.name()));
        }
        let is_known = || rules.boot_keys.iter().any(|key| *hex(key) == *self.boot_key);
        if self.boot == Boot::SelfSigned && !rules.boot_keys.is_empty() && !is_known() {
            return untrusted(format!(
                "what was started is signed by its owner, with the key {}, which is none that is taken",
                self.boot_key
            ));
        }
        if rules.locked && !self.locked {
            return untrusted("the boot loader is unlocked".to_owned());
        }
        let locked = if self.locked { "locked" } else { "unlocked" };
        steps("device", format!("{}, {}, {locked}", self.security.name(), self.boot.name()));
        Ok(())
    }

    pub(super) fn patches(&self, rules: &Rules, steps: Steps<'_>) -> Result<(), Refused> {
        let outdated = |why: String| Err(Refused::new(Denial::DeviceOutdated, "patches", why));
        for (name, level) in
            [("system", self.os_patch), ("vendor", self.vendor_patch), ("boot loader", self.boot_patch)]
        {
            // Keymaster 3 and earlier know the system's alone, so the others are not asked of them.
            let is_asked = name == "system" || self.attestation_version >= KNOWS_ALL_PATCHES;
            match level {
                Some(level) if level < rules.min_patch => {
                    return outdated(format!(
                        "patch level of the {name}: {level}, older than {}",
                        rules.min_patch
                    ));
                }
                None if rules.min_patch != 0 && is_asked => {
                    return outdated(format!("the hardware does not tell the patch level of the {name}"));
                }
                Some(_) | None => {}
            }
        }
        steps("patches", format!("system {:?}, vendor {:?}", self.os_patch, self.vendor_patch));
        Ok(())
    }

    pub(super) fn app(&self, rules: &Rules, steps: Steps<'_>) -> Result<(), Refused> {
        let refused = |why: String| Err(Refused::new(Denial::AppNotRecognised, "app", why));
        if self.packages.is_empty() || self.certificates.is_empty() {
            return refused("it names no app: no package, or no certificate".to_owned());
        }
        let is_ours = |name: &str| rules.packages.iter().any(|known| known == name);
        if let Some(other) = self.packages.iter().map(|name| &**name).find(|name| !is_ours(name)) {
            return refused(format!("`{other}` is none of {}", rules.packages.join(", ")));
        }
        let ours: Vec<Box<str>> = rules.certificates.iter().map(|digest| hex(digest)).collect();
        if !self.certificates.iter().all(|digest| ours.contains(digest)) {
            return refused("it is signed with a certificate that is not ours".to_owned());
        }
        if self.version < rules.min_version {
            let why = format!("version {} is older than {}", self.version, rules.min_version);
            return Err(Refused::new(Denial::AppOutdated, "app", why));
        }
        steps("app", format!("{}, version {}", self.packages.join(", "), self.version));
        Ok(())
    }
}

/// Hexadecimal digits, in small letters.
pub(super) fn hex(bytes: &[u8]) -> Box<str> {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A text takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}
