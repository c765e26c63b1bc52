//! Assertions of requests: whether a request was signed, as it came, with the key of the device that its session is of.
//!
//! The head first: what it is signed over is new, and of this route's group; a challenge is used up by that. Then the body, which is
//! held meanwhile, and with it the signature; last the counter, which one of two requests with the same one gets. What a crash may
//! lose of counters helps nobody: challenges are of one process, and a time from before its start is refused.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderName, HeaderValue};

use super::{
    ASSERTION, Attested, CHALLENGE, DEVICE, Failed, android, bytes, client_data, enrol, only, session, spend,
};
use crate::{
    checks::{Grant, Now, Refusal, facts::RequestFacts},
    config::Assertion,
    denial::Denial,
    enrolment::{Bond, Device, DeviceId, Provider, Purpose},
    policy::attestation::{Attestation, Demand},
};

/// Where the time is that an assertion is over: seconds since 1970, in decimal.
const TIME: HeaderName = HeaderName::from_static("enforcer-time");
/// Seconds by which the clock of a device may be ahead.
const AHEAD: u64 = 10;

/// A head whose assertion is good, if its body is.
#[derive(Debug)]
pub(in crate::checks) struct Asserted {
    by: Arc<Attestation>,
    device: DeviceId,
    assertion: Vec<u8>,
    /// The challenge or the time, as it was sent.
    over: Box<str>,
    most: u64,
}

/// Reads the assertion of a request, and uses up what it is over.
pub(in crate::checks) fn head(
    Demand { config, by }: &Demand,
    facts: &RequestFacts<'_>,
    attested: &Attested,
    now: Now,
) -> Result<Option<Box<Asserted>>, Refusal> {
    let Some(kind) = config.assertion else { return Ok(None) };
    let device = attested.id;
    let read = || {
        let field = |name| only(facts.headers, &name);
        let assertion = bytes(field(ASSERTION)?.ok_or(Denial::AssertionMissing)?)?;
        // The session says whose it is; who says so once more says the same.
        if field(DEVICE)?.is_some_and(|named| DeviceId::parse(named) != Some(device)) {
            return Err(Denial::AttestationRequest);
        }
        let over = match (field(CHALLENGE)?, field(TIME)?) {
            (Some(_), Some(_)) => return Err(Denial::AttestationRequest),
            (None, None) => return Err(Denial::AssertionMissing),
            (Some(challenge), None) => {
                let bond =
                    Bond { purpose: Purpose::Request, group: Some(&config.group), device: Some(device) };
                spend(by, challenge, bond, now.unix)?;
                challenge
            }
            (None, Some(time)) if kind == Assertion::Time => {
                is_now(by, time, now.unix)?;
                // Only a counter tells a second use of the same time.
                let known = by.enrolment.devices.find(device).ok_or(Denial::DeviceUnknown)?;
                match known.provider {
                    Provider::AppAttest => time,
                    Provider::AndroidKey | Provider::Play => return Err(Denial::AssertionMissing),
                }
            }
            (None, Some(_)) => return Err(Denial::AssertionMissing),
        };
        Ok(Asserted { by: Arc::clone(by), device, assertion, over: over.into(), most: config.max_body_bytes })
    };
    read().map(|read| Some(Box::new(read))).map_err(|denial| refusal(denial, now.unix))
}

/// Whether an assertion that says this time can be new: not too old, not ahead, and not from before the start of this process, which
/// does not know what was used then.
fn is_now(by: &Attestation, text: &str, now: u64) -> Result<(), Denial> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let time: u64 = text.parse().ok().filter(|_| is_plain).ok_or(Denial::AttestationRequest)?;
    let window = by.config.assertion_window.as_secs();
    // The process before took times that were ahead of its clock, too.
    let is_of_this_process = time > by.enrolment.began.saturating_add(AHEAD);
    let is_fresh = time <= now.saturating_add(AHEAD) && time.saturating_add(window) > now;
    if is_of_this_process && is_fresh { Ok(()) } else { Err(Denial::AssertionStale) }
}

/// What a client is told besides the reason.
pub fn refusal(denial: Denial, now: u64) -> Refusal {
    // RFC 9110 section 15.5.2.
    let challenge = HeaderValue::from_static("Attestation realm=\"enforcer\"");
    let is_of_clocks = matches!(denial, Denial::AttestationNonceStale | Denial::AssertionStale);
    Refusal {
        challenge: (denial.status() == 401).then_some(challenge),
        // An app can see by how much its clock is wrong.
        server_time: is_of_clocks.then_some(now),
        ..Refusal::plain(denial)
    }
}

/// Bytes of the body that an assertion is over, at most; `None`: none is awaited.
pub fn most(grant: &Grant) -> Option<u64> {
    grant.asserted.as_ref().map(|asserted| asserted.most)
}

/// Holds the whole request against its assertion, and takes its counter. Before that a grant is worth nothing.
pub fn body(grant: &mut Grant, facts: &RequestFacts<'_>, body: &[u8], now: u64) -> Result<(), Failed> {
    let Some(asserted) = grant.asserted.take() else { return Ok(()) };
    let Asserted { by, device: id, assertion, over, .. } = *asserted;
    let devices = &by.enrolment.devices;
    let device = devices.find(id).ok_or_else(|| devices.missing(id))?;
    if device.blocked.is_some() {
        return Err(Denial::DeviceBlocked.into());
    }
    let data = client_data(&over, facts.method, facts.target, body);
    prove(&by, (id, &device), &assertion, &data, now)
        .map_err(|failed| Failed { provider: Some(device.provider), ..failed })?;
    grant.is_asserted = true;
    Ok(())
}

/// Whether the device's key has signed this now.
fn prove(
    by: &Attestation,
    (id, device): (DeviceId, &Device),
    assertion: &[u8],
    data: &str,
    now: u64,
) -> Result<(), Failed> {
    let devices = &by.enrolment.devices;
    match device.provider {
        Provider::AppAttest => {
            let hash = digest(&SHA256, data.as_bytes());
            let asserted = session::apple(by, device, assertion, hash.as_ref())?;
            // Of two that come at the same time one is refused here.
            devices.advance(id, asserted.counter, now)?;
            devices.learn(id, enrol::distributed(&asserted.extensions));
        }
        // The challenge was used up, so this is the first and only one over it.
        Provider::AndroidKey | Provider::Play => android::own(device, data, assertion)?,
    }
    Ok(())
}
