//! Requests that come with a token of their own, where their route asks for one: bound to method, path, query and body, and good once.
//!
//! In three steps, because what the token says is known elsewhere: [`head`] is a part of `admit()`, [`question`] takes the body,
//! [`judge`] what Google has said. Until then the grant is worth nothing.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, Method};

use super::{
    Kind, Question, is_telling,
    ladder::{self, Decision},
};
use crate::{
    attestation::{
        Refused,
        play::{Outcome, budget::Who},
    },
    checks::{
        Grant, Now, Refusal,
        devices::{Failed, android, client_data, demand::Attested, key_hash, only},
        facts::{RequestFacts, Target},
    },
    config::{Platform, UnknownDevices},
    denial::Denial,
    enrolment::{Unfit, Verdict, facts::Said},
    policy::{
        Policy,
        attestation::{Attestation, Demand, Play, SKEW},
    },
    replay::{Life, Receipt, Spent, Token},
};

/// Where the token of a request is.
pub const TOKEN: HeaderName = HeaderName::from_static("enforcer-integrity-token");
/// What its app has drawn for this request alone.
pub const NONCE: HeaderName = HeaderName::from_static("enforcer-nonce");
/// Characters of that: what cannot be guessed. They are visible ASCII.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=128;

/// A token that was not looked into yet.
#[derive(Debug)]
pub struct Brought {
    package: String,
    token: String,
    nonce: String,
    who: Who,
    receipt: Receipt,
}

/// What a request has brought that Google is to be asked about; `None`: nothing, and nothing is needed.
pub(in crate::checks) fn head(
    policy: &Policy,
    Demand { config, by }: &Demand,
    attested: &mut Attested,
    facts: &RequestFacts<'_>,
    now: Now,
) -> Result<Option<Box<Brought>>, Refusal> {
    let Some(wanted) = config.play.as_ref().filter(|_| attested.standing.platform == Platform::Android)
    else {
        return Ok(None);
    };
    let play = by.play.as_ref().ok_or_else(|| Refusal::plain(Denial::AttestationUnavailable))?;
    let verdict = by.enrolment.devices.verdict(attested.id);
    if let Some(age) = ladder::age_within(verdict, wanted.reuse.as_secs(), now.unix) {
        attested.said = Some(Said::Recent(age));
        return Ok(None);
    }
    let field = |name| only(facts.headers, &name)?.ok_or(Denial::IntegrityTokenMissing);
    let refuse = |denial| Refusal { challenge: challenge(denial), ..Refusal::plain(denial) };
    let (token, nonce) = (field(TOKEN).map_err(refuse)?, field(NONCE).map_err(refuse)?);
    if !LENGTH.contains(&nonce.len()) || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::plain(Denial::AttestationRequest));
    }
    let package = package(play, attested).ok_or_else(|| refuse(Denial::DeviceUnknown))?;
    let once = Token::of("integrity token", &[attested.id.bytes(), nonce.as_bytes()]);
    // For as long as a token of now could be taken, by Google's clock. When it was made is known once it was looked into.
    let until = now.unix.saturating_add(play.rules.max_age.as_secs()).saturating_add(SKEW.as_secs() + 1);
    let life = Life { made: u64::MAX, ahead: 0, until, by_stranger: false };
    let receipt = policy.replay.spend_for_good(once, life, now.unix).map_err(|spent| {
        refuse(match spent {
            Spent::Before | Spent::Late => Denial::IntegrityTokenReplayed,
            Spent::Full => Denial::ReplayFull,
        })
    })?;
    let who = if verdict.is_some() { Who::Known } else { Who::New };
    Ok(Some(Box::new(Brought { package, token: token.to_owned(), nonce: nonce.to_owned(), who, receipt })))
}

/// RFC 9110 section 15.5.2.
fn challenge(denial: Denial) -> Option<http::HeaderValue> {
    (denial.status() == 401).then(|| http::HeaderValue::from_static("Attestation realm=\"enforcer\""))
}

/// Whose token it has to be: that of the app that has enrolled, or the only one that there is.
fn package(play: &Play, attested: &Attested) -> Option<String> {
    match (&attested.standing.origin, &play.rules.packages[..]) {
        (Some((_, _, app)), packages) => packages.iter().find(|one| ***one == **app).cloned(),
        (None, [package]) => Some(package.clone()),
        (None, _) => None,
    }
}

/// Bytes of the body of a request that was admitted, at most; `None`: no token has to be looked into.
pub fn most(grant: &Grant) -> Option<u64> {
    grant.brought.as_ref()?;
    grant.route.attestation.as_ref()?.config.play.as_ref().map(|play| play.max_body_bytes)
}

/// What Google is to be asked; `None`: nothing. The use of the nonce is written down before.
pub async fn question(
    grant: &mut Grant,
    method: &Method,
    target: Target<'_>,
    body: &[u8],
) -> Result<Option<Question>, Refusal> {
    let (Some(brought), Some(attested)) = (grant.brought.take(), &grant.attested) else { return Ok(None) };
    let Brought { package, token, nonce, who, receipt } = *brought;
    if !receipt.is_kept().await {
        return Err(Refusal::plain(Denial::ReplayStore));
    }
    // The device's name is a part of it: a token that somebody gets hold of is none for another device.
    let data = client_data(&key_hash(&nonce, attested.id), method, target, body);
    let bound = URL_SAFE_NO_PAD.encode(digest(&SHA256, data.as_bytes()));
    Ok(Some(Question { package, token, who, kind: Kind::Standard, bound }))
}

/// Judges what Google has said of a request. `found`: takes why it is refused, for the log alone.
pub fn judge(
    policy: &Policy,
    grant: &mut Grant,
    question: &Question,
    outcome: Outcome,
    now: u64,
    found: &mut dyn FnMut(&Refused),
) -> Result<(), Refusal> {
    let Grant { route, attested, is_vouched, .. } = grant;
    let (Some(demand), Some(attested)) = (&route.attestation, attested) else { return Ok(()) };
    let (Some(wanted), Some(play)) = (&demand.config.play, &demand.by.play) else { return Ok(()) };
    let devices = &demand.by.enrolment.devices;
    let mut distrusted = |refused: Refused| {
        found(&refused);
        if is_telling(&refused) {
            devices.distrust(attested.id);
        }
        Refusal { challenge: challenge(refused.denial), ..Refusal::plain(refused.denial) }
    };
    let said = match question.judge(play, outcome, now).map_err(&mut distrusted)? {
        Ok(genuine) => {
            // Without a store nobody knows what was used before the start.
            if policy.replay.is_from_before(genuine.timestamp_ms / 1_000, SKEW.as_secs()) {
                let late = Refusal::plain(Denial::AttestationOutdated);
                return Err(Refusal { server_time: Some(now), ..late });
            }
            let verdict = android::verdict(&genuine, now).map_err(&mut distrusted)?;
            vouch(&demand.by, attested, verdict, now).map_err(Refusal::plain)?;
            Said::Fresh
        }
        Err(unavailable) => match ladder::decide(wanted.unavailable, devices.verdict(attested.id), now) {
            Decision::Cached(age) => Said::Cached(age),
            Decision::Flagged => Said::Unavailable,
            Decision::Deny => {
                let retry_after = unavailable.retry_after.or(Some(1));
                return Err(Refusal { retry_after, ..Refusal::plain(Denial::AttestationUnavailable) });
            }
        },
    };
    if attested.standing.level < demand.config.level {
        return Err(Refusal::plain(Denial::AttestationLevel));
    }
    attested.said = Some(said);
    *is_vouched = true;
    Ok(())
}

/// The device is as good as Google says now, and no better than its hardware.
fn vouch(by: &Attestation, attested: &mut Attested, verdict: Verdict, now: u64) -> Result<(), Denial> {
    match by.enrolment.devices.vouch(attested.id, Some(verdict), now) {
        Ok(standing) => attested.standing = standing,
        Err(Unfit::Unknown) if by.config.unknown_devices == UnknownDevices::BySession => {
            attested.standing.level = attested.standing.level.min(verdict.level);
        }
        Err(why) => return Err(Failed::from(why).denial),
    }
    Ok(())
}
