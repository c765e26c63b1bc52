//! Devices of Android: by a key that their hardware attests, by what Google Play says of app and device, or by both.
//!
//! What Google says is bound to the challenge and to the key ([`key_hash`]): whoever gets hold of a token cannot enrol another key with it.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::{Map, Value};

use super::{Failed, bytes, key_data, key_hash, session::Shown, text};
use crate::{
    attestation::{self as judged, Refused, android_key, play},
    config::{Environment, Level, Platform},
    denial::Denial,
    enrolment::{
        Device, DeviceId, Evidence, Provider, Verdict,
        device::{POINT, Point},
        session::Binding,
    },
    policy::attestation::{AndroidKey, Attestation, Play},
};

/// A key that hardware attests, and what Google Play says beside it.
pub(super) struct Attested<'a> {
    by: &'a AndroidKey,
    chain: Vec<Vec<u8>>,
    token: Option<Token<'a>>,
}

/// A key that an app calls its own, and what Google Play says of the app.
pub(super) struct Own<'a> {
    key: Vec<u8>,
    signature: Vec<u8>,
    token: Token<'a>,
}

/// A classic token, and what it is judged by.
struct Token<'a> {
    by: &'a Play,
    text: &'a str,
}

impl<'a> Attested<'a> {
    /// `chain`: certificates in base64, leaf first; `token`.
    pub(super) fn read(attestation: &'a Attestation, asked: &'a Map<String, Value>) -> Result<Self, Denial> {
        let by = attestation.android_key.as_ref().ok_or(Denial::AttestationRequest)?;
        let Some(Value::Array(chain)) = asked.get("chain") else { return Err(Denial::AttestationRequest) };
        // The reader of chains says what is wrong with one that is too long; it gets no more of it than shows that.
        let chain = chain.get(..=android_key::chain::MOST_CERTIFICATES).unwrap_or(chain);
        let certificate = |one: &Value| one.as_str().ok_or(Denial::AttestationRequest).and_then(bytes);
        let chain = chain.iter().map(certificate).collect::<Result<_, _>>()?;
        // One that is sent is judged, whether or not one has to be.
        let token = match asked.get("token") {
            None if by.require_play => return Err(Denial::AttestationRequest),
            None => None,
            Some(_) => Some(Token::read(attestation, asked)?),
        };
        Ok(Self { by, chain, token })
    }

    /// What the device is.
    pub(super) fn verify(&self, challenge: &str, now: u64) -> Result<(DeviceId, Device), Failed> {
        let Self { by, chain, token } = self;
        let revoked = by.revoked.as_ref();
        let found = android_key::verify(
            chain,
            &by.roots,
            revoked,
            &by.rules,
            challenge.as_bytes(),
            now,
            &mut |_, _| (),
        )?;
        let point = point(&found.key)?;
        let mut level = level(Some(found.level))?;
        let id = DeviceId::of_key(&point);
        let mut verdict = None;
        let mut evidence = Evidence { hardware: Some(Box::new(found.state)), ..Evidence::default() };
        let packages = evidence.hardware.as_ref().map(|shown| &shown.packages[..]).unwrap_or_default();
        // The rules know every package of those that share the key.
        let app: Box<str> = packages.first().cloned().unwrap_or_default();
        if let Some(token) = token {
            let said = token.verify(&key_hash(challenge, id), now)?;
            if !packages.iter().any(|name| **name == *said.package) {
                return Err(foreign(&said.package));
            }
            level = level.min(self::level(said.level)?);
            verdict = Some(asked(&said, now));
            evidence.play_version = Some(said.version);
        }
        Ok((id, Device { evidence, ..device(point, Provider::AndroidKey, app, level, verdict, now) }))
    }
}

impl<'a> Own<'a> {
    /// `key`: its SubjectPublicKeyInfo in base64; `signature`: of [`key_data`], by it; `token`.
    pub(super) fn read(attestation: &'a Attestation, asked: &'a Map<String, Value>) -> Result<Self, Denial> {
        Ok(Self {
            key: bytes(text(asked, "key")?)?,
            signature: bytes(text(asked, "signature")?)?,
            token: Token::read(attestation, asked)?,
        })
    }

    /// What the device is.
    pub(super) fn verify(&self, challenge: &str, now: u64) -> Result<(DeviceId, Device), Failed> {
        let point = point(&self.key)?;
        let id = DeviceId::of_key(&point);
        // Nobody enrols the key of another one.
        signed(&point, &key_data(challenge, id), &self.signature)?;
        let said = self.token.verify(&key_hash(challenge, id), now)?;
        let level = level(said.level)?;
        let (verdict, evidence) =
            (asked(&said, now), Evidence { play_version: Some(said.version), ..Evidence::default() });
        let device = device(point, Provider::Play, said.package.into(), level, Some(verdict), now);
        Ok((id, Device { evidence, ..device }))
    }
}

impl<'a> Token<'a> {
    fn read(attestation: &'a Attestation, asked: &'a Map<String, Value>) -> Result<Self, Denial> {
        let by = attestation.play.as_ref().ok_or(Denial::AttestationRequest)?;
        Ok(Self { by, text: text(asked, "token")? })
    }

    fn verify(&self, nonce: &str, now: u64) -> Result<play::Genuine, Refused> {
        let Play { keys, rules, .. } = self.by;
        let now = now.saturating_mul(1_000);
        play::verify(self.text, keys, rules, &play::Expected::Nonce(nonce), now, &mut |_, _| ())
    }
}

/// Whether a device has its key still, and is as good as it has to be; how good, if Google was asked.
pub(super) fn assert(
    attestation: &Attestation,
    id: DeviceId,
    device: &Device,
    shown: &Shown<'_>,
    now: u64,
) -> Result<Option<Verdict>, Failed> {
    // Its key signs requests, too, so no other one takes its place.
    if matches!(shown.binding, Binding::Key(thumbprint) if thumbprint != device.key.thumbprint()) {
        return Err(Denial::DpopWrongKey.into());
    }
    signed(&device.key.0, shown.data, shown.assertion)?;
    if let Some(text) = shown.token {
        let by = attestation.play.as_ref().ok_or(Denial::AttestationRequest)?;
        let said = Token { by, text }.verify(&key_hash(shown.challenge, id), now)?;
        if said.package != *device.app {
            return Err(foreign(&said.package));
        }
        return Ok(Some(Verdict { level: level(said.level)?, at: asked(&said, now), version: said.version }));
    }
    let needed = device.provider == Provider::Play
        || attestation.android_key.as_ref().is_some_and(|by| by.require_play);
    let lifetime = attestation.play.as_ref().map_or(0, |play| play.lifetime);
    // A clock that stepped back makes nothing younger.
    let is_young = device.verdict.and_then(|at| now.checked_sub(at)).is_some_and(|age| age < lifetime);
    if needed && !is_young {
        let why = "what Google said of the device counts no longer: a token is needed";
        return Err(Refused::new(Denial::AttestationOutdated, "verdict", why).into());
    }
    Ok(None)
}

fn point(key: &[u8]) -> Result<[u8; POINT], Refused> {
    let why = "the key is none of P-256, or not written as a SubjectPublicKeyInfo";
    judged::point(key).ok_or_else(|| Refused::new(Denial::AttestationKey, "key", why))
}

/// ECDSA with SHA-256, the signature in DER as Android's `Signature` returns it.
fn signed(point: &[u8; POINT], data: &str, signature: &[u8]) -> Result<(), Refused> {
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point[..]);
    key.verify(data.as_bytes(), signature).map_err(|_| {
        let why = "not signed with the device's key, or for another request";
        Refused::new(Denial::AssertionBadSignature, "signature", why)
    })
}

fn level(found: Option<judged::Level>) -> Result<Level, Refused> {
    match found {
        Some(judged::Level::Strong) => Ok(Level::Strong),
        Some(judged::Level::Device) => Ok(Level::Device),
        Some(judged::Level::Basic) | None => {
            let why = "the device is not in the state in which its maker sold it";
            Err(Refused::new(Denial::DeviceIntegrityFailed, "device", why))
        }
    }
}

/// When Google was asked, seconds since 1970: what was said counts from then on, whenever it comes here. Its clock may be ahead of ours.
fn asked(said: &play::Genuine, now: u64) -> u64 {
    (said.timestamp_ms / 1_000).min(now)
}

fn foreign(package: &str) -> Failed {
    let why = format!("the token is of `{package}`, the key of another app");
    Refused::new(Denial::AppNotRecognised, "app", why).into()
}

fn device(
    point: [u8; POINT],
    provider: Provider,
    app: Box<str>,
    level: Level,
    verdict: Option<u64>,
    now: u64,
) -> Device {
    Device {
        key: Point(point),
        platform: Platform::Android,
        provider,
        environment: Environment::Production,
        app,
        level,
        counter: 0,
        enrolled: now,
        seen: now,
        risk: None,
        verdict,
        blocked: None,
        evidence: Evidence::default(),
    }
}
