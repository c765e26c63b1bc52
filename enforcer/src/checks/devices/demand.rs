//! Whether a request comes from a device that has shown what its route asks for: by a session, and by what that is bound to.
//!
//! The session says when the device showed what it is; the registry, whether it is still welcome. A proof of having the key comes
//! last, because it is used up.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};

use super::{again, only};
use crate::{
    checks::{
        Now, Refusal,
        facts::RequestFacts,
        token::binding::{self, Shown},
    },
    config::{OverRisk, Platform, UnknownDevices},
    denial::Denial,
    enrolment::{
        DeviceId, Standing,
        facts::{Said, Told},
        session::{Binding, Session},
    },
    policy::{
        Policy,
        attestation::{Attestation, Demand},
        route::Route,
        suspicion::Score,
    },
    revoked::{Kind, Marks},
};

/// Where servers find what is known of the device: nobody else may set it.
pub const ATTESTED: HeaderName = HeaderName::from_static("enforcer-attested");
/// Where sessions are.
const SESSION: HeaderName = HeaderName::from_static("enforcer-session");
/// Where proofs are of having the key that a session is bound to: as those of DPoP, with the session in the token's place.
const PROOF: HeaderName = HeaderName::from_static("enforcer-proof");
/// Seconds by which the clock of another daemon may be ahead.
const AHEAD: u64 = 60;

/// A device that a request comes from.
#[derive(Debug)]
pub struct Attested {
    /// Its name as it is written.
    pub name: Box<str>,
    pub(super) id: DeviceId,
    pub(super) standing: Standing,
    age: u64,
    over_risk: bool,
    /// What Google has said of it, where the route asks.
    pub(in crate::checks) said: Option<Said>,
    /// What servers are told, once all else is well.
    pub(in crate::checks) facts: Option<HeaderValue>,
}

impl Attested {
    /// Of which kind it is.
    pub(in crate::checks) const fn platform(&self) -> Platform {
        self.standing.platform
    }

    /// Whether its risk metric is above what its route takes without more.
    pub(in crate::checks) const fn is_over_risk(&self) -> bool {
        self.over_risk
    }

    /// Puts into words what servers are told.
    pub(in crate::checks) fn tell(
        &mut self,
        by: &Attestation,
        upstream: &str,
        suspicion: Option<Score>,
        now: u64,
    ) -> Result<(), Denial> {
        let told = Told {
            device: self.id,
            standing: &self.standing,
            age: self.age,
            over_risk: self.over_risk,
            play: self.said,
            suspicion: suspicion.map(|score| (score.points, score.names())),
            upstream,
        };
        let facts = by.facts.sign(&told, now).ok_or(Denial::Overloaded)?;
        self.facts = Some(facts);
        Ok(())
    }
}

/// The device of a request, and a nonce that its client shall use in its next proof.
pub(in crate::checks) fn check(
    policy: &Policy,
    route: &Route,
    demand: &Demand,
    facts: &RequestFacts<'_>,
    now: Now,
) -> Result<(Attested, Option<HeaderValue>), Refusal> {
    judge(policy, route, demand, facts, now).map_err(|refusal| {
        // RFC 9110 section 15.5.2.
        let challenge = HeaderValue::from_static("Attestation realm=\"enforcer\"");
        let is_unauthorized = refusal.denial.status() == 401 && refusal.challenge.is_none();
        Refusal { challenge: is_unauthorized.then_some(challenge).or(refusal.challenge), ..refusal }
    })
}

fn judge(
    policy: &Policy,
    route: &Route,
    Demand { config, by }: &Demand,
    facts: &RequestFacts<'_>,
    now: Now,
) -> Result<(Attested, Option<HeaderValue>), Refusal> {
    let text = only(facts.headers, &SESSION).map_err(Refusal::plain)?;
    let text = text.ok_or_else(|| Refusal::plain(Denial::AttestationMissing))?.as_bytes();
    let session = by.sessions.open(text).ok_or_else(|| Refusal::plain(Denial::AttestationSession))?;
    let age = age(&session, now.unix, config.max_age.as_secs())
        .map_err(|denial| Refusal { server_time: Some(now.unix), ..Refusal::plain(denial) })?;
    let standing = standing(policy, by, &session, now.unix).map_err(Refusal::plain)?;
    if !config.platforms.is_empty() && !config.platforms.contains(&standing.platform) {
        return Err(Refusal::plain(Denial::AttestationPlatform));
    }
    if standing.level < config.level {
        return Err(Refusal::plain(Denial::AttestationLevel));
    }
    let over_risk = config.max_risk.zip(standing.risk).is_some_and(|(most, risk)| risk > most);
    if over_risk && config.over_risk == OverRisk::Deny {
        return Err(Refusal::plain(Denial::DeviceRisk));
    }
    let nonce = match session.binding {
        Binding::Certificate(thumbprint) => {
            let bound = URL_SAFE_NO_PAD.encode(thumbprint);
            match facts.client.identity.as_deref() {
                None => return Err(Refusal::plain(Denial::CertificateMissing)),
                Some(identity) if *identity.thumbprint == *bound => None,
                Some(_) => return Err(Refusal::plain(Denial::CertificateMismatch)),
            }
        }
        Binding::Key(thumbprint) => {
            let key = URL_SAFE_NO_PAD.encode(thumbprint);
            let shown = Shown { field: &PROOF, key: &key, token: text };
            binding::prove(policy, route, facts, &shown, now)?
        }
    };
    let name = session.device.to_string().into();
    Ok((Attested { name, id: session.device, standing, age, over_risk, said: None, facts: None }, nonce))
}

/// Seconds since the device showed what it is.
fn age(session: &Session, now: u64, most: u64) -> Result<u64, Denial> {
    let age = now.saturating_sub(session.issued);
    let good = now < session.expires && session.issued <= now.saturating_add(AHEAD) && age <= most;
    if good { Ok(age) } else { Err(Denial::AttestationStale) }
}

/// What is known of the device now, whatever it was when the session began.
fn standing(policy: &Policy, by: &Attestation, session: &Session, now: u64) -> Result<Standing, Denial> {
    let by_session = by.config.unknown_devices == UnknownDevices::BySession;
    let standing = match again::standing(by, session.device) {
        Ok(standing) => standing,
        // Without a reason nobody of this name has enrolled here.
        Err(failed) if failed.denial == Denial::DeviceUnknown && failed.why.is_none() && by_session => {
            Standing { platform: session.platform, level: session.level, origin: None, risk: None }
        }
        Err(failed) => return Err(failed.denial),
    };
    let revoked = policy.revoked();
    if revoked.is_empty() {
        return Ok(standing);
    }
    let mark = revoked.marker().mark(Kind::Device, session.device.to_string().as_bytes());
    let marks = Marks { issued: Some(session.issued), all: vec![(Kind::Device, mark)] };
    match revoked.covers_any(&marks, now) {
        true => Err(Denial::DeviceBlocked),
        false => Ok(standing),
    }
}
