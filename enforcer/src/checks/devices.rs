//! Devices: the endpoints where they show what they are, and what routes ask of them.
//!
//! Endpoints are answered here and never forwarded. Cheap questions come first: who may ask at all, then form, then the challenge,
//! which is used up whatever follows, and only then what costs: so every verification needs a challenge of its own.

pub mod again;
mod android;
pub mod assertion;
mod client_data;
pub(super) mod demand;
mod enrol;
pub mod play;
mod session;

use enforcer_common::{limiter::Charge, source::SourceKey};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header::ALLOW};
use serde_json::{Map, Value, json};

use super::{Now, Refusal, facts::RequestFacts};
pub use crate::attestation::Refused;
use crate::{
    attestation::{android_key::chain, play::token},
    denial::Denial,
    enrolment::{Bond, DeviceId, Provider, Purpose, Unfit, challenge::Unusable},
    policy::{Policy, attestation::Attestation},
    strict_json,
};
pub use client_data::{client_data, key_data, key_hash};
pub use demand::{ATTESTED, Attested};

/// Bytes of a body, at most. An attestation of Apple has some 6,000, and a third more in base64. A chain of Android may be as large as
/// its reader takes it: every certificate in base64 between quotes, a token of Google Play, and what stands around them.
pub const MOST_BYTES: u64 =
    (chain::MOST_CERTIFICATES * (chain::MOST.div_ceil(3) * 4 + 4) + token::MOST + (4 << 10)) as u64;

/// Where the assertion of a request is, in base64.
pub const ASSERTION: HeaderName = HeaderName::from_static("enforcer-assertion");
/// The challenge that it answers.
pub const CHALLENGE: HeaderName = HeaderName::from_static("enforcer-challenge");
/// Whose it is.
pub const DEVICE: HeaderName = HeaderName::from_static("enforcer-device");

/// What is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A challenge.
    Challenge,
    /// What came of an enrolment.
    Enrol,
    /// A session.
    Session,
    /// The keys that facts for servers are signed with.
    Keys,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// A JSON document.
    pub body: String,
    /// Whether everybody may keep it for a while.
    pub is_public: bool,
    /// Whom it is about.
    pub device: Option<DeviceId>,
    /// As metrics name it.
    pub event: &'static str,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What its sender is told.
    pub denial: Denial,
    /// What was found, for the log alone.
    pub why: Option<Refused>,
    /// By whom the device was to be shown, as far as it got.
    pub provider: Option<Provider>,
    /// Seconds after which it may be tried again.
    pub retry_after: Option<u64>,
    /// Google has to be asked: with what that comes to [`play::resume`] may decide otherwise.
    pub pending: Option<Box<play::Pending>>,
}

impl Failed {
    /// The step at which it ended, for metrics: one of a few words of the code.
    pub fn step(&self) -> &'static str {
        match (&self.why, self.denial) {
            (Some(why), _) => why.step,
            (
                None,
                Denial::AttestationNonceUnknown
                | Denial::AttestationNonceStale
                | Denial::AttestationNonceReused
                | Denial::ReplayFull,
            ) => "challenge",
            (
                None,
                Denial::DeviceUnknown
                | Denial::DeviceBlocked
                | Denial::DeviceRegistryFull
                | Denial::AssertionCounterReplayed,
            ) => "registry",
            (None, _) => "request",
        }
    }
}

impl From<Denial> for Failed {
    fn from(denial: Denial) -> Self {
        Self { denial, why: None, provider: None, retry_after: None, pending: None }
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self { why: Some(refused.clone()), ..Self::from(refused.denial) }
    }
}

impl From<play::Pending> for Failed {
    fn from(pending: play::Pending) -> Self {
        Self { pending: Some(Box::new(pending)), ..Self::from(Denial::AttestationUnavailable) }
    }
}

impl From<Unfit> for Failed {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Unknown => Denial::DeviceUnknown,
            Unfit::Blocked => Denial::DeviceBlocked,
            Unfit::Replayed => Denial::AssertionCounterReplayed,
            Unfit::Full => Denial::DeviceRegistryFull,
        }
        .into()
    }
}

/// Whether a request is for one of the endpoints, and whether it may be: then its body is read for [`answer`]. Bans and a limit by
/// address hold there.
pub fn endpoint(policy: &Policy, facts: &RequestFacts<'_>, now: Now) -> Option<Result<Endpoint, Refusal>> {
    let attestation = policy.attestation.as_deref()?;
    let paths = &attestation.config.paths;
    let all = [
        (&paths.challenge, Endpoint::Challenge),
        (&paths.enrol, Endpoint::Enrol),
        (&paths.session, Endpoint::Session),
        (&paths.keys, Endpoint::Keys),
    ];
    let (_, endpoint) = all.into_iter().find(|(path, _)| **path == facts.path)?;
    Some(may_ask(policy, attestation, endpoint, facts, now).map(|()| endpoint))
}

fn may_ask(
    policy: &Policy,
    attestation: &Attestation,
    endpoint: Endpoint,
    facts: &RequestFacts<'_>,
    now: Now,
) -> Result<(), Refusal> {
    if facts.is_banned {
        return Err(Refusal::plain(Denial::Banned));
    }
    let (method, allow) = match endpoint {
        Endpoint::Keys => (Method::GET, "GET"),
        Endpoint::Challenge | Endpoint::Enrol | Endpoint::Session => (Method::POST, "POST"),
    };
    if *facts.method != method {
        let allow = Some((ALLOW, HeaderValue::from_static(allow)));
        return Err(Refusal::plain(Denial::MethodNotAllowed).with(allow));
    }
    if endpoint == Endpoint::Keys {
        return Ok(());
    }
    // What comes as early data can be replayed, and each of these changes something.
    if facts.is_early {
        return Err(Refusal::plain(Denial::TooEarly));
    }
    let key = SourceKey::of(facts.address.get(), policy.v6_mask).get();
    let (denial, wait) = match attestation.limiter.charge(key, now.monotonic) {
        Charge::Within => return Ok(()),
        Charge::Exceeded(wait) => (Denial::RateLimited, wait),
        // Nobody bans in this table.
        Charge::Full | Charge::Banned(_) => (Denial::LimiterFull, 1),
    };
    Err(Refusal { retry_after: Some(wait.div_ceil(1_000_000_000).max(1)), ..Refusal::plain(denial) })
}

/// Answers a request for an endpoint.
pub fn answer(
    policy: &Policy,
    endpoint: Endpoint,
    facts: &RequestFacts<'_>,
    body: &[u8],
    now: Now,
) -> Result<Answer, Failed> {
    // It was there when the endpoint was found; a reload may have come between.
    let Some(attestation) = policy.attestation.as_deref() else { return Err(Denial::RouteNotFound.into()) };
    match endpoint {
        Endpoint::Challenge => challenge(policy, attestation, body, now.unix),
        Endpoint::Enrol => enrol::enrol(attestation, body, now.unix),
        Endpoint::Session => session::begin(attestation, facts, body, now.unix),
        Endpoint::Keys => Ok(Answer {
            status: 200,
            body: attestation.facts.published().to_string(),
            is_public: true,
            device: None,
            event: "keys",
        }),
    }
}

fn challenge(policy: &Policy, attestation: &Attestation, body: &[u8], now: u64) -> Result<Answer, Failed> {
    let asked = object(body)?;
    let purpose = Purpose::of_label(text(&asked, "purpose")?).ok_or(Denial::AttestationRequest)?;
    let device = match asked.get("device") {
        None => None,
        // Whoever enrols has no name yet: no enrolment could use it.
        Some(_) if purpose == Purpose::Enrol => return Err(Denial::AttestationRequest.into()),
        Some(_) => Some(DeviceId::parse(text(&asked, "device")?).ok_or(Denial::AttestationRequest)?),
    };
    // Only requests are of a route, and it is one that there is.
    let group = match (purpose, asked.get("group")) {
        (Purpose::Request, _) => Some(text(&asked, "group")?).filter(|group| policy.has_group(group)),
        (Purpose::Enrol | Purpose::Session, None) => None,
        (Purpose::Enrol | Purpose::Session, Some(_)) => return Err(Denial::AttestationRequest.into()),
    };
    if purpose == Purpose::Request && group.is_none() {
        return Err(Denial::AttestationRequest.into());
    }
    let lifetime = attestation.config.challenge_lifetime.as_secs();
    let issued = attestation.enrolment.challenges.issue(Bond { purpose, group, device }, now, lifetime);
    let challenge = issued.ok_or(Denial::Overloaded)?;
    Ok(Answer {
        status: 200,
        body: json!({ "challenge": challenge, "expires_in": lifetime }).to_string(),
        is_public: false,
        device: None,
        event: "challenge",
    })
}

/// Uses a challenge up.
fn spend(attestation: &Attestation, challenge: &str, bond: Bond<'_>, now: u64) -> Result<(), Denial> {
    attestation.enrolment.challenges.spend(challenge, bond, now).map_err(|unusable| match unusable {
        Unusable::Unknown => Denial::AttestationNonceUnknown,
        Unusable::Late => Denial::AttestationNonceStale,
        Unusable::Before => Denial::AttestationNonceReused,
        Unusable::Full => Denial::ReplayFull,
    })
}

/// The one object that a body is.
fn object(body: &[u8]) -> Result<Map<String, Value>, Denial> {
    strict_json::object(body).ok_or(Denial::AttestationRequest)
}

/// A member that is a text.
fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, Denial> {
    object.get(name).and_then(Value::as_str).ok_or(Denial::AttestationRequest)
}

/// Bytes in either alphabet of base64 (RFC 4648 sections 4 and 5): apps write them with what their system has.
fn bytes(text: &str) -> Result<Vec<u8>, Denial> {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    let read = STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text));
    read.map_err(|_| Denial::AttestationRequest)
}

/// The one value of a field; `None` where there is none.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Denial> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denial::AttestationRequest);
    }
    value.to_str().map(Some).map_err(|_| Denial::AttestationRequest)
}
