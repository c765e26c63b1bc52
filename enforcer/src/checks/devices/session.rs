//! Sessions: an enrolled device shows that it has its key still, and says which key or certificate its next requests come with.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{
    ASSERTION, Answer, CHALLENGE, DEVICE, Failed, again, android, bytes, client_data, enrol, object, only,
    spend, text,
};
use crate::{
    attestation::app_attest,
    checks::facts::RequestFacts,
    denial::Denial,
    enrolment::{
        Bond, Device, DeviceId, Provider, Purpose, Standing,
        session::{Binding, Session},
    },
    policy::attestation::Attestation,
};

/// Begins a session.
pub(super) fn begin(
    attestation: &Attestation,
    facts: &RequestFacts<'_>,
    body: &[u8],
    now: u64,
) -> Result<Answer, Failed> {
    let field = |name| only(facts.headers, &name)?.ok_or(Denial::AttestationRequest);
    let id = DeviceId::parse(field(DEVICE)?).ok_or(Denial::AttestationRequest)?;
    let challenge = field(CHALLENGE)?;
    let assertion = bytes(field(ASSERTION)?)?;
    let asked = object(body)?;
    let binding = binding(facts, &asked)?;
    let token = asked.get("token").map(|_| text(&asked, "token")).transpose()?;
    spend(attestation, challenge, Bond { purpose: Purpose::Session, device: Some(id) }, now)?;
    let data = client_data(challenge, facts.method, facts.target, body);
    let shown = Shown { challenge, assertion: &assertion, data: &data, token, binding };
    let standing = assert(attestation, id, &shown, now)?;
    let lifetime = attestation.config.session_lifetime.as_secs();
    let session = Session {
        device: id,
        issued: now,
        expires: now.saturating_add(lifetime),
        platform: standing.platform,
        level: standing.level,
        binding,
    };
    Ok(Answer {
        status: 200,
        body: json!({
            "session": attestation.sessions.seal(&session),
            "expires_in": lifetime,
            "level": standing.level.name(),
        })
        .to_string(),
        is_public: false,
        device: Some(id),
        event: "session",
    })
}

/// What a device shows for a session.
pub(super) struct Shown<'a> {
    /// The challenge that it answers.
    pub(super) challenge: &'a str,
    /// What it has signed with its key.
    pub(super) assertion: &'a [u8],
    /// Over this: its client data.
    pub(super) data: &'a str,
    /// What Google Play says of it.
    pub(super) token: Option<&'a str>,
    /// What its session is to be bound to.
    pub(super) binding: Binding,
}

/// Whether a device made an assertion for this, which nobody has shown before.
fn assert(attestation: &Attestation, id: DeviceId, shown: &Shown<'_>, now: u64) -> Result<Standing, Failed> {
    let devices = &attestation.enrolment.devices;
    let device = devices.find(id).ok_or_else(|| devices.missing(id))?;
    if device.blocked.is_some() {
        return Err(Denial::DeviceBlocked.into());
    }
    let by = |failed: Failed| Failed { provider: Some(device.provider), ..failed };
    let standing = || -> Result<Standing, Failed> {
        let proven = prove(attestation, id, &device, shown, now)?;
        // What was revoked or raised since it enrolled holds for it, too.
        again::judge(attestation, &devices.find(id).ok_or(Denial::DeviceUnknown)?)?;
        Ok(proven)
    };
    standing().map_err(by)
}

/// Whether it has its key still.
fn prove(
    attestation: &Attestation,
    id: DeviceId,
    device: &Device,
    shown: &Shown<'_>,
    now: u64,
) -> Result<Standing, Failed> {
    let devices = &attestation.enrolment.devices;
    match device.provider {
        Provider::AppAttest => {
            if shown.token.is_some() {
                return Err(Denial::AttestationRequest.into());
            }
            let asserted = apple(attestation, device, shown.assertion, shown.data)?;
            // Of two that come at the same time one is refused here.
            let standing = devices.advance(id, asserted.counter, now)?;
            devices.learn(id, enrol::distributed(&asserted.extensions));
            Ok(standing)
        }
        Provider::AndroidKey | Provider::Play => {
            again::judge(attestation, device)?;
            let verdict = android::assert(attestation, id, device, shown, now)?;
            Ok(devices.vouch(id, verdict, now)?)
        }
    }
}

fn apple(
    attestation: &Attestation,
    device: &Device,
    object: &[u8],
    data: &str,
) -> Result<app_attest::assertion::Asserted, Failed> {
    // What the configuration has taken away since counts no longer.
    let by = attestation.app_attest.as_ref().ok_or(Denial::DeviceUnknown)?;
    let app = by.apps.iter().find(|app| app.as_str() == &*device.app).ok_or(Denial::DeviceUnknown)?;
    if device.environment != by.configured {
        return Err(Denial::DeviceUnknown.into());
    }
    let hash = digest(&SHA256, data.as_bytes());
    let expected = app_attest::assertion::Expected {
        app,
        environment: by.environment,
        public_key: &device.key.0,
        counter: device.counter,
        client_data_hash: hash.as_ref(),
        distribution: &by.distribution,
    };
    Ok(app_attest::assertion::verify(object, &expected, &mut |_, _| ())?)
}

/// What the session is to be bound to: `{"cnf": {"jkt": ...}}` or `{"cnf": {"x5t#S256": ...}}`, as tokens have it (RFC 9449 section
/// 6.1, RFC 8705 section 3.1). A certificate has to be that of this connection.
fn binding(facts: &RequestFacts<'_>, asked: &Map<String, Value>) -> Result<Binding, Denial> {
    let Some(Value::Object(confirmation)) = asked.get("cnf") else { return Err(Denial::AttestationRequest) };
    let mut members = confirmation.iter();
    let (Some((name, Value::String(text))), None) = (members.next(), members.next()) else {
        return Err(Denial::AttestationRequest);
    };
    let thumbprint: Option<[u8; 32]> =
        URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    let thumbprint = thumbprint.ok_or(Denial::AttestationRequest)?;
    match name.as_str() {
        "jkt" => Ok(Binding::Key(thumbprint)),
        "x5t#S256" => match facts.client.identity.as_deref() {
            None => Err(Denial::CertificateMissing),
            Some(identity) if *identity.thumbprint == **text => Ok(Binding::Certificate(thumbprint)),
            Some(_) => Err(Denial::CertificateMismatch),
        },
        _ => Err(Denial::AttestationRequest),
    }
}
