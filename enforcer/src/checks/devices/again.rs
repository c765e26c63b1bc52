//! Whether a device that has enrolled would be let in today, by what it showed then: asked at each of its sessions, and where a session is
//! used whenever the policy has changed since it was asked last. What is revoked, raised or taken away so reaches whoever has enrolled before.

use super::Failed;
use crate::{
    attestation::{Refused, app_attest::Extensions},
    denial::Denial,
    enrolment::{Device, DeviceId, Provider, Standing},
    policy::attestation::Attestation,
};

/// What is known of a device, if that is good still.
pub(super) fn standing(by: &Attestation, id: DeviceId) -> Result<Standing, Failed> {
    by.enrolment.devices.standing(id, by.number, |device| judge(by, device))
}

/// Whether a device is good under this policy.
pub fn judge(by: &Attestation, device: &Device) -> Result<(), Failed> {
    // What the configuration has taken away counts no longer, and who enrolled by it is nobody.
    let gone = |why: &str| Err(Refused::new(Denial::DeviceUnknown, "evidence", why).into());
    let is_among = |packages: &[String]| packages.iter().any(|name| **name == *device.app);
    match device.provider {
        Provider::AndroidKey => {
            let Some(by) = by.android_key.as_ref().filter(|by| is_among(&by.rules.packages)) else {
                return gone("keys of this app are taken no longer");
            };
            let Some(shown) = &device.evidence.hardware else {
                return gone("it enrolled before it was kept what its hardware says: it has to enrol anew");
            };
            Ok(shown.judge(&by.rules, &by.roots, by.revoked.as_ref(), &mut |_, _| ())?)
        }
        Provider::Play => {
            let Some(by) = by.play.as_ref().filter(|by| is_among(&by.rules.packages)) else {
                return gone("tokens of this app are taken no longer");
            };
            match device.evidence.play_version {
                Some(version) if version < by.rules.min_version => {
                    let why = format!("version {version} is older than {}", by.rules.min_version);
                    Err(Refused::new(Denial::AppOutdated, "app", why).into())
                }
                Some(_) | None => Ok(()),
            }
        }
        Provider::AppAttest => {
            let by = by.app_attest.as_ref().filter(|by| {
                by.apps.iter().any(|app| app.as_str() == &*device.app) && device.environment == by.configured
            });
            let Some(by) = by else { return gone("attestations of this app are taken no longer") };
            // Not known of who enrolled before it was kept; its next assertion tells.
            let Some(shown) = &device.evidence.distributed else { return Ok(()) };
            let extensions = Extensions {
                category: shown.category.map(crate::attestation::app_attest::Category),
                bundle_version: shown.version.as_deref().map(str::to_owned),
                ..Extensions::default()
            };
            Ok(by.distribution.judge(&extensions, by.environment)?)
        }
    }
}
