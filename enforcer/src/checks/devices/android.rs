//! Devices of Android: by a key that their hardware attests, by what Google Play says of app and device, or by both.
//!
//! What Google says is bound to the challenge and to the key ([`key_hash`]): whoever gets hold of a token cannot enrol another key with it.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::{Map, Value};

use super::{
    Failed, bytes, key_data, key_hash,
    play::{Pending, Said, Then, Token, distrusted},
    session::{Asked, Shown},
    text,
};
use crate::{
    attestation::{self as judged, Refused, android_key, play::Genuine},
    config::{Environment, Level, Platform},
    denial::Denial,
    enrolment::{
        Device, DeviceId, Evidence, Provider, Verdict,
        device::{POINT, Point},
        session::Binding,
    },
    policy::attestation::{AndroidKey, Attestation},
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
    pub(super) fn verify(
        &self,
        attestation: &Attestation,
        challenge: &str,
        now: u64,
    ) -> Result<(DeviceId, Device), Failed> {
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
        let level = level(Some(found.level))?;
        let id = DeviceId::of_key(&point);
        // The rules know every package of those that share the key.
        let packages: Vec<String> = found.state.packages.iter().map(|name| String::from(&**name)).collect();
        let app = packages.first().map(|name| name.as_str().into()).unwrap_or_default();
        let mut device = device(point, Provider::AndroidKey, app, level, now);
        device.hardware = Some(level);
        device.evidence.hardware = Some(Box::new(found.state));
        if let Some(token) = token {
            let bound = key_hash(challenge, id);
            match token.open((attestation, id), bound, &packages, now)? {
                Said::Known(genuine) => vouched((attestation, id), &mut device, &packages, &genuine, now)?,
                Said::Asked(question) => {
                    let then = Then::Enrol(id, Box::new(device), packages);
                    return Err(Pending { question, then }.into());
                }
            }
        }
        Ok((id, device))
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
    pub(super) fn verify(
        &self,
        attestation: &Attestation,
        challenge: &str,
        now: u64,
    ) -> Result<(DeviceId, Device), Failed> {
        let point = point(&self.key)?;
        let id = DeviceId::of_key(&point);
        // Nobody enrols the key of another one.
        signed(&point, &key_data(challenge, id), &self.signature)?;
        // What it is, Google alone says.
        let mut device = device(point, Provider::Play, Box::default(), Level::Device, now);
        let packages = attestation.play.as_ref().map_or(&[][..], |play| &play.rules.packages);
        match self.token.open((attestation, id), key_hash(challenge, id), packages, now)? {
            Said::Known(genuine) => vouched((attestation, id), &mut device, packages, &genuine, now)?,
            Said::Asked(question) => {
                let then = Then::Enrol(id, Box::new(device), packages.to_vec());
                return Err(Pending { question, then }.into());
            }
        }
        Ok((id, device))
    }
}

/// Enters what Google has said into what is known of a device that enrols, or takes away what was known of it. `packages`: of which apps
/// it may be.
pub(super) fn vouched(
    (attestation, id): (&Attestation, DeviceId),
    device: &mut Device,
    packages: &[String],
    genuine: &Genuine,
    now: u64,
) -> Result<(), Failed> {
    if !packages.contains(&genuine.package) {
        return Err(foreign(&genuine.package));
    }
    let Verdict { level, at, version } = verdict(genuine, now).map_err(distrusted(attestation, id))?;
    if device.provider == Provider::Play {
        device.app = genuine.package.as_str().into();
    }
    device.level = device.hardware.map_or(level, |hardware| hardware.min(level));
    device.verdict = Some(at);
    device.evidence.play_version = Some(version);
    Ok(())
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
    if let Some(token) = &shown.token {
        let packages = [String::from(device.app.clone())];
        let said = token.open((attestation, id), key_hash(shown.challenge, id), &packages, now)?;
        return match said {
            Said::Known(genuine) if !packages.contains(&genuine.package) => Err(foreign(&genuine.package)),
            Said::Known(genuine) => Ok(Some(verdict(&genuine, now).map_err(distrusted(attestation, id))?)),
            Said::Asked(question) => {
                let then = Then::Session(Asked { device: id, binding: shown.binding });
                Err(Pending { question, then }.into())
            }
        };
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

/// Whether the key of a device has signed this.
pub(super) fn own(device: &Device, data: &str, signature: &[u8]) -> Result<(), Failed> {
    Ok(signed(&device.key.0, data, signature)?)
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

/// What Google has said, as it is kept: it counts from when Google was asked, whenever it comes here. Its clock may be ahead of ours.
pub(super) fn verdict(said: &Genuine, now: u64) -> Result<Verdict, Refused> {
    let at = (said.timestamp_ms / 1_000).min(now);
    Ok(Verdict { level: level(said.level)?, at, version: said.version })
}

fn foreign(package: &str) -> Failed {
    let why = format!("the token is of `{package}`, the key of another app");
    Refused::new(Denial::AppNotRecognised, "app", why).into()
}

fn device(point: [u8; POINT], provider: Provider, app: Box<str>, level: Level, now: u64) -> Device {
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
        hardware: None,
        verdict: None,
        blocked: None,
        evidence: Evidence::default(),
    }
}
