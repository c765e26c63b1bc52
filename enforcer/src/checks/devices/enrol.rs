//! Enrolment: a device shows once, by what its maker signs, what it is and which key is its own.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

use super::{Answer, Failed, again, android, bytes, object, spend, text};
use crate::{
    attestation::app_attest,
    config::{Level, Platform},
    denial::Denial,
    enrolment::{
        Bond, Device, DeviceId, Distributed, Evidence, Provider, Purpose, device::Point, receipts::Held,
    },
    policy::attestation::{AppAttest, Attestation},
};

/// Enrols a device.
pub(super) fn enrol(attestation: &Attestation, body: &[u8], now: u64) -> Result<Answer, Failed> {
    let asked = object(body)?;
    let challenge = text(&asked, "challenge")?;
    let provider = text(&asked, "provider")?;
    let spent =
        || spend(attestation, challenge, Bond { purpose: Purpose::Enrol, group: None, device: None }, now);
    let by = Provider::ALL.into_iter().find(|one| one.name() == provider);
    let by = by.ok_or(Denial::AttestationRequest)?;
    // One that is not configured is none.
    let mut receipt = None;
    let mut shown = || match by {
        Provider::AppAttest => {
            let by = attestation.app_attest.as_ref().ok_or(Denial::AttestationRequest)?;
            let object = bytes(text(&asked, "attestation")?)?;
            let key_id = bytes(text(&asked, "key_id")?)?;
            spent()?;
            let (id, device, held) = apple(by, challenge, &object, &key_id, now)?;
            receipt = by.exchange.as_ref().zip(held);
            Ok((id, device))
        }
        Provider::AndroidKey => {
            let claim = android::Attested::read(attestation, &asked)?;
            spent()?;
            claim.verify(attestation, challenge, now)
        }
        Provider::Play => {
            let claim = android::Own::read(attestation, &asked)?;
            spent()?;
            claim.verify(attestation, challenge, now)
        }
    };
    let of_provider = |failed: Failed| Failed { provider: Some(by), ..failed };
    let (id, device) = shown().map_err(of_provider)?;
    let answer = take_up(attestation, id, device).map_err(of_provider)?;
    if let Some((exchange, held)) = receipt {
        // Without room the device is as good; its metric stays what it is.
        attestation.enrolment.devices.keep_receipt(id, held, exchange.config.max_receipts);
    }
    Ok(answer)
}

/// Takes up a device that has shown what it is.
pub(super) fn take_up(attestation: &Attestation, id: DeviceId, device: Device) -> Result<Answer, Failed> {
    let known = attestation.enrolment.devices.enrol(id, device)?;
    let standing = again::standing(attestation, id)?;
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
) -> Result<(DeviceId, Device, Option<Held>), Failed> {
    let hash = digest(&SHA256, challenge.as_bytes());
    let expected = app_attest::attestation::Expected {
        apps: &by.apps,
        environment: by.environment,
        client_data_hash: hash.as_ref(),
        key_id: Some(key_id),
        distribution: &by.distribution,
        roots: by.roots(),
        receipts: by.receipts(),
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
        risk: attested.received.as_ref().and_then(|receipt| receipt.risk),
        hardware: None,
        verdict: None,
        blocked: None,
        evidence: Evidence {
            distributed: Some(Box::new(distributed(&attested.extensions))),
            ..Evidence::default()
        },
    };
    let held = attested.received.map(|received| Held {
        due: received.not_before.unwrap_or(now),
        until: received.expires,
        receipt: attested.receipt.into(),
    });
    Ok((DeviceId::of_key(&attested.public_key), device, held))
}

/// What the system says of the app, as it is kept.
pub(super) fn distributed(extensions: &app_attest::Extensions) -> Distributed {
    Distributed {
        category: extensions.category.map(|category| category.0),
        version: extensions.bundle_version.as_deref().map(Into::into),
    }
}
