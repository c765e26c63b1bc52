//! Sessions: an enrolled device shows that it has its key still, and says which key or certificate its next requests come with.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{
    ASSERTION, Answer, CHALLENGE, DEVICE, Failed, again, android, bytes, client_data, enrol, object, only,
    play::Token, spend,
};
use crate::{
    attestation::app_attest,
    checks::facts::RequestFacts,
    denial::Denial,
    enrolment::{
        Bond, Device, DeviceId, Provider, Purpose, Standing, Verdict,
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
    let token = asked.get("token").map(|_| Token::read(attestation, &asked)).transpose()?;
    spend(attestation, challenge, Bond { purpose: Purpose::Session, group: None, device: Some(id) }, now)?;
    let data = client_data(challenge, facts.method, facts.target, body);
    let shown = Shown { challenge, assertion: &assertion, data: &data, token, binding };
    let standing = assert(attestation, id, &shown, now)?;
    Ok(answer(attestation, id, &standing, binding, now))
}

/// A session that waits for what Google says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Whose it will be.
    pub(super) device: DeviceId,
    /// What it will be bound to.
    pub(super) binding: Binding,
}

/// Begins a session of a device that has shown that it has its key; how good it is, if Google has said so.
pub(super) fn finish(
    attestation: &Attestation,
    asked: &Asked,
    verdict: Option<Verdict>,
    now: u64,
) -> Result<Answer, Failed> {
    attestation.enrolment.devices.vouch(asked.device, verdict, now)?;
    // A reload may have come while Google was asked.
    let standing = again::standing(attestation, asked.device)?;
    Ok(answer(attestation, asked.device, &standing, asked.binding, now))
}

fn answer(
    attestation: &Attestation,
    id: DeviceId,
    standing: &Standing,
    binding: Binding,
    now: u64,
) -> Answer {
    let lifetime = attestation.config.session_lifetime.as_secs();
    let session = Session {
        device: id,
        issued: now,
        expires: now.saturating_add(lifetime),
        platform: standing.platform,
        level: standing.level,
        binding,
    };
    Answer {
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
    }
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
    pub(super) token: Option<Token<'a>>,
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
            let hash = digest(&SHA256, shown.data.as_bytes());
            let asserted = apple(attestation, device, shown.assertion, hash.as_ref())?;
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

/// What an assertion over this says, made with the key of a device of Apple.
pub(super) fn apple(
    attestation: &Attestation,
    device: &Device,
    object: &[u8],
    client_data_hash: &[u8],
) -> Result<app_attest::assertion::Asserted, Failed> {
    // What the configuration has taken away since counts no longer.
    let by = attestation.app_attest.as_ref().ok_or(Denial::DeviceUnknown)?;
    let app = by.apps.iter().find(|app| app.as_str() == &*device.app).ok_or(Denial::DeviceUnknown)?;
    if device.environment != by.configured {
        return Err(Denial::DeviceUnknown.into());
    }
    let expected = app_attest::assertion::Expected {
        app,
        environment: by.environment,
        public_key: &device.key.0,
        counter: device.counter,
        client_data_hash,
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
