//! Enrolment: a device shows once, by what its maker signs, what it is and which key is its own.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

use super::{Answer, Failed, again, android, bytes, object, spend, text};
use crate::{
    attestation::app_attest::{self, chain::Roots},
    config::{Level, Platform},
    denial::Denial,
    enrolment::{Bond, Device, DeviceId, Distributed, Evidence, Provider, Purpose, device::Point},
    policy::attestation::{AppAttest, Attestation},
};

/// Enrols a device.
pub(super) fn enrol(attestation: &Attestation, body: &[u8], now: u64) -> Result<Answer, Failed> {
    let asked = object(body)?;
    let challenge = text(&asked, "challenge")?;
    let provider = text(&asked, "provider")?;
    let spent = || spend(attestation, challenge, Bond { purpose: Purpose::Enrol, device: None }, now);
    let by = Provider::ALL.into_iter().find(|one| one.name() == provider);
    let by = by.ok_or(Denial::AttestationRequest)?;
    // One that is not configured is none.
    let shown = || match by {
        Provider::AppAttest => {
            let by = attestation.app_attest.as_ref().ok_or(Denial::AttestationRequest)?;
            let object = bytes(text(&asked, "attestation")?)?;
            let key_id = bytes(text(&asked, "key_id")?)?;
            spent()?;
            apple(by, challenge, &object, &key_id, now)
        }
        Provider::AndroidKey => {
            let claim = android::Attested::read(attestation, &asked)?;
            spent()?;
            claim.verify(challenge, now)
        }
        Provider::Play => {
            let claim = android::Own::read(attestation, &asked)?;
            spent()?;
            claim.verify(challenge, now)
        }
    };
    let of_provider = |failed: Failed| Failed { provider: Some(by), ..failed };
    let (id, device) = shown().map_err(of_provider)?;
    let known = attestation.enrolment.devices.enrol(id, device).map_err(|unfit| of_provider(unfit.into()))?;
    let standing = again::standing(attestation, id).map_err(of_provider)?;
    Ok(Answer {
        status: 201,
        body: json!({
            "device": id.to_string(),
            "platform": standing.platform.name(),
            "level": standing.level.name(),
        })
        .to_string(),
        is_public: false,
        device: Some(id),
        event: if known { "enrolled_again" } else { "enrolled" },
    })
}

/// What App Attest says of a key: Apple's hardware keeps it, so it is as strong as there is.
fn apple(
    by: &AppAttest,
    challenge: &str,
    object: &[u8],
    key_id: &[u8],
    now: u64,
) -> Result<(DeviceId, Device), Failed> {
    let hash = digest(&SHA256, challenge.as_bytes());
    let expected = app_attest::attestation::Expected {
        apps: &by.apps,
        environment: by.environment,
        client_data_hash: hash.as_ref(),
        key_id: Some(key_id),
        distribution: &by.distribution,
        roots: by.roots(),
        // Those of another root come with receipts of nobody.
        receipts: by.is_genuine().then(Roots::receipts),
    };
    let attested = app_attest::attestation::verify(object, &expected, now, &mut |_, _| ())?;
    let device = Device {
        key: Point(attested.public_key),
        platform: Platform::Ios,
        provider: Provider::AppAttest,
        environment: by.configured,
        app: attested.app.as_str().into(),
        level: Level::Strong,
        counter: 0,
        enrolled: now,
        seen: now,
        risk: attested.received.and_then(|receipt| receipt.risk),
        verdict: None,
        blocked: None,
        evidence: Evidence {
            distributed: Some(Box::new(distributed(&attested.extensions))),
            ..Evidence::default()
        },
    };
    Ok((DeviceId::of_key(&attested.public_key), device))
}

/// What the system says of the app, as it is kept.
pub(super) fn distributed(extensions: &app_attest::Extensions) -> Distributed {
    Distributed {
        category: extensions.category.map(|category| category.0),
        version: extensions.bundle_version.as_deref().map(Into::into),
    }
}
