//! Whether a request is signed by one of its route's keys: its head first, then its body, and only then it is forwarded.
//!
//! Two schemes: HMAC over lines ([`hmac`]), and HTTP Message Signatures (RFC 9421, [`message`]). Both name what the body must
//! digest to, so that nothing is held for a request whose head is not signed, and a body that is not what was signed goes no
//! further. A signature is good once: its nonce is written down before anybody acts on it.

pub mod base;
mod digest;
mod hmac;
mod message;

use super::{Grant, Now, Refusal, facts::RequestFacts};
use crate::{
    config::SignatureScheme,
    denial::Denial,
    policy::{Policy, signature::Signers},
    replay::{Life, Receipt, Spent, Token},
};
use digest::Digests;

/// Characters of a nonce: what cannot be guessed, and fits into a line. They are visible ASCII.
const NONCE: std::ops::RangeInclusive<usize> = 16..=256;

/// A head whose signature is good.
#[derive(Debug)]
pub(super) struct Signed {
    /// What the body must digest to; `None`: there must be none.
    digests: Option<Digests>,
    receipt: Receipt,
}

/// What a good signature says of itself.
#[derive(Debug)]
struct Claimed<'a> {
    key: &'a str,
    nonce: &'a str,
    /// When it was made, seconds since 1970.
    made: u64,
    digests: Option<Digests>,
}

/// Verifies the signature of a head, and uses it up.
pub(super) fn head(
    policy: &Policy,
    signers: &Signers,
    facts: &RequestFacts<'_>,
    now: Now,
) -> Result<Signed, Refusal> {
    let refuse = |denial: Denial| Refusal {
        challenge: (denial.status() == 401).then(|| signers.challenge.clone()),
        // A client whose clock is wrong can see by how much.
        server_time: (denial == Denial::SignatureStale).then_some(now.unix),
        ..Refusal::plain(denial)
    };
    match signers.config.scheme {
        SignatureScheme::Hmac => {
            let claimed = hmac::verify(signers, facts, now.unix).map_err(refuse)?;
            spend(policy, signers, claimed, now).map_err(refuse)
        }
        SignatureScheme::Message => {
            let signature = message::Signature::read(signers, facts.headers).map_err(refuse)?;
            let origin = super::origin::of(facts, &policy.http).map(|said| said.origin);
            let claimed = signature.verify(signers, facts, origin.as_ref(), now.unix).map_err(refuse)?;
            spend(policy, signers, claimed, now).map_err(refuse)
        }
    }
}

/// Uses a signature up.
fn spend(policy: &Policy, signers: &Signers, claimed: Claimed<'_>, now: Now) -> Result<Signed, Denial> {
    let Claimed { key, nonce, made, digests } = claimed;
    if !NONCE.contains(&nonce.len()) || !nonce.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Denial::SignatureMalformed);
    }
    let window = signers.config.window.as_secs();
    let once = Token::of("signature", &[signers.name.as_bytes(), key.as_bytes(), nonce.as_bytes()]);
    // Twice the window: for as long as a signature with this nonce could be taken that was made as early as this one.
    let until = now.unix.saturating_add(2 * window).saturating_add(1);
    let spent =
        policy.replay.spend_for_good(once, Life { made, ahead: window, until, by_stranger: false }, now.unix);
    let receipt = spent.map_err(|spent| match spent {
        Spent::Before => Denial::SignatureReplayed,
        Spent::Late => Denial::SignatureStale,
        Spent::Full => Denial::ReplayFull,
    })?;
    Ok(Signed { digests, receipt })
}

/// Whether `made` is within the window.
fn is_recent(signers: &Signers, made: u64, now: u64) -> bool {
    made.abs_diff(now) <= signers.config.window.as_secs()
}

/// Bytes of the body of a request that was admitted, at most.
pub fn most(grant: &Grant, signers: &Signers) -> u64 {
    match &grant.signed {
        Some(Signed { digests: Some(_), .. }) => signers.config.max_body_bytes,
        Some(Signed { digests: None, .. }) | None => 0,
    }
}

/// What a body is that is longer than that: too large, or not covered by the signature.
pub fn beyond(grant: &Grant) -> Denial {
    match &grant.signed {
        Some(Signed { digests: Some(_), .. }) => Denial::BodyTooLarge,
        Some(Signed { digests: None, .. }) | None => Denial::SignatureIncomplete,
    }
}

/// Holds the body against the signature, and waits until its use is written down. Before that a grant is worth nothing.
pub async fn body(grant: &mut Grant, body: &[u8]) -> Result<(), Refusal> {
    let Some(Signed { digests, receipt }) = grant.signed.take() else { return Ok(()) };
    let good = digests.map_or(body.is_empty(), |digests| digests.are_of(body));
    if !good {
        return Err(Refusal::plain(Denial::DigestMismatch));
    }
    if !receipt.is_kept().await {
        return Err(Refusal::plain(Denial::ReplayStore));
    }
    grant.is_signed = true;
    Ok(())
}
