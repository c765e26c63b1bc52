//! Whether the sender of a good token has what the token is bound to: a client certificate (RFC 8705 section 3) or a key
//! (RFC 9449). Asked with every request, whether or not the token is known, and whatever the configuration says of the route:
//! a bound token that is stolen is worth nothing.

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Checked, Presented, Scheme, presented,
    proof::{self, Expected, Proof},
};
use crate::{
    checks::{
        Now, Refusal,
        facts::RequestFacts,
        origin::{self, Origin},
    },
    config::Binding,
    denial::Denial,
    policy::{
        Policy,
        dpop::Nonce,
        route::{Route, Tokens},
    },
    replay::{Life, Receipt, Spent, Token},
};

/// Where proofs are (RFC 9449 section 4.1).
pub const DPOP: HeaderName = HeaderName::from_static("dpop");
/// Where nonces are given out (section 8).
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Whether the sender has what the token is bound to; a nonce that the client shall use from now on.
pub(in crate::checks) fn check(
    policy: &Policy,
    (route, tokens): (&Route, &Tokens),
    facts: &RequestFacts<'_>,
    token: &Checked,
    now: Now,
) -> Result<Option<HeaderValue>, Refusal> {
    let confirmation = token.claims.confirmation.as_deref();
    certificate(
        confirmation.and_then(|confirmation| confirmation.certificate.as_deref()),
        tokens.bindings.certificate,
        facts,
    )
    .map_err(Refusal::plain)?;
    let key = confirmation.and_then(|confirmation| confirmation.key.as_deref());
    let Presented { scheme, token } = presented(facts.headers).map_err(Refusal::plain)?;
    match (scheme, key) {
        // Whoever stole it tries this first (RFC 9449 section 7.2).
        (Scheme::Bearer, Some(_)) => Err(Refusal::plain(Denial::DpopMissing)),
        (Scheme::Bearer, None) if tokens.bindings.dpop == Binding::Required => {
            Err(Refusal::plain(Denial::DpopMissing))
        }
        (Scheme::Bearer, None) => Ok(None),
        (Scheme::Dpop, None) => Err(Refusal::plain(Denial::DpopUnbound)),
        (Scheme::Dpop, Some(key)) => prove(policy, route, facts, &Shown { field: &DPOP, key, token }, now),
    }
}

/// What a field says of a certificate is never looked at: only the connection knows.
fn certificate(bound: Option<&str>, demand: Binding, facts: &RequestFacts<'_>) -> Result<(), Denial> {
    let shown = facts.client.identity.as_deref().map(|identity| &*identity.thumbprint);
    match (bound, shown) {
        (None, _) if demand == Binding::Required => Err(Denial::CertificateUnbound),
        (None, _) => Ok(()),
        (Some(_), None) => Err(Denial::CertificateMissing),
        (Some(bound), Some(shown)) if bound == shown => Ok(()),
        (Some(_), Some(_)) => Err(Denial::CertificateMismatch),
    }
}

/// Something that is bound to a key, and where the proof of having that is.
pub(in crate::checks) struct Shown<'a> {
    /// The field with the proof.
    pub field: &'a HeaderName,
    /// The thumbprint of the key.
    pub key: &'a str,
    /// What is bound to it, as it was sent.
    pub token: &'a [u8],
}

/// Whether the sender has the key, and proves it for this request and for the first time; a nonce that the client shall use from now
/// on.
pub(in crate::checks) fn prove(
    policy: &Policy,
    route: &Route,
    facts: &RequestFacts<'_>,
    &Shown { field, key, token }: &Shown<'_>,
    now: Now,
) -> Result<Option<HeaderValue>, Refusal> {
    let rules = &policy.dpop;
    let proof = only(facts.headers, field).map_err(Refusal::plain)?;
    let (origin, hash) = (our_origin(policy, route, facts), digest(&SHA256, token));
    let expected = Expected {
        rules,
        method: facts.method,
        origin: origin.as_ref(),
        path: facts.target.path,
        key: Some(key),
        token: Some(hash.as_ref()),
        now: now.unix,
    };
    let fresh = || Some((DPOP_NONCE, rules.nonce(now.monotonic)));
    let refuse = |denial: Denial| {
        let field = if denial == Denial::DpopNonce { fresh() } else { None };
        // A client whose clock is wrong can see by how much.
        let server_time = (denial == Denial::DpopStale).then_some(now.unix);
        Refusal { server_time, ..Refusal::plain(denial) }.with(field)
    };
    let proof = proof::verify(proof, &expected, &mut |_| ()).map_err(refuse)?;
    let nonce = proof.nonce.as_deref().map(|nonce| rules.judge_nonce(nonce, now.monotonic));
    // A proof that was made before this process may have been used before it, and only a nonce shows that it was not.
    let is_old = proof.issued <= policy.replay.began().saturating_add(rules.leeway);
    match nonce {
        Some(Nonce::Current | Nonce::Previous) => {}
        None if !rules.needs_nonce && !is_old => {}
        // One that is not ours is refused even where none is needed: it says that the client means to prove more than it can.
        Some(Nonce::Unknown) | None => return Err(refuse(Denial::DpopNonce)),
    }
    let (once, until) = use_of(policy, &proof);
    policy.replay.spend(once, until, now.unix).map_err(|why| refuse(spent(why)))?;
    Ok(Some(rules.nonce(now.monotonic)).filter(|_| nonce == Some(Nonce::Previous)))
}

/// The thumbprint of the key that the sender of a token request has (RFC 9449 section 5), and what is to be waited for before that counts;
/// `None` if it shows none and need not. Its nonce is the authorization server's, which judges the proof once more; so that it could not
/// show here that a proof is new, its use is written down. Whoever asks for a token has none: of the room for uses such proofs have a
/// part, for anybody can make keys.
pub(in crate::checks) fn holder(
    policy: &Policy,
    route: &Route,
    facts: &RequestFacts<'_>,
    demand: Binding,
    now: Now,
) -> Result<Option<(Box<str>, Receipt)>, Refusal> {
    let rules = &policy.dpop;
    let prove = || {
        if !facts.headers.contains_key(DPOP) {
            return if demand == Binding::Required { Err(Denial::DpopMissing) } else { Ok(None) };
        }
        let origin = our_origin(policy, route, facts);
        let expected = Expected {
            rules,
            method: facts.method,
            origin: origin.as_ref(),
            path: facts.target.path,
            key: None,
            token: None,
            now: now.unix,
        };
        let proof = proof::verify(only(facts.headers, &DPOP)?, &expected, &mut |_| ())?;
        let (once, until) = use_of(policy, &proof);
        let life = Life { made: proof.issued, ahead: rules.leeway, until, by_stranger: true };
        let receipt = policy.replay.spend_for_good(once, life, now.unix).map_err(spent)?;
        Ok(Some((proof.key, receipt)))
    };
    prove().map_err(|denial| without_key(policy, denial, now))
}

/// A refusal of a token request for want of a key.
pub(in crate::checks) fn without_key(policy: &Policy, denial: Denial, now: Now) -> Refusal {
    let challenge = format!("DPoP error=\"invalid_dpop_proof\", algs=\"{}\"", policy.dpop.algs);
    let challenge = HeaderValue::try_from(challenge).ok().filter(|_| denial.status() == 401);
    let server_time = (denial == Denial::DpopStale).then_some(now.unix);
    Refusal { challenge, server_time, ..Refusal::plain(denial) }
}

/// The origin of a request's URL, if it is one of ours: whom a client trusts with a proof for its own host could send it on to us under
/// that name.
fn our_origin(policy: &Policy, route: &Route, facts: &RequestFacts<'_>) -> Option<Origin> {
    let ours = || route.names_hosts || facts.named.is_some_and(|host| policy.serves(host));
    origin::of(facts, &policy.http).filter(|said| said.by_proxy || ours()).map(|said| said.origin)
}

/// What tells the use of a proof from others, and until when it could be used again.
fn use_of(policy: &Policy, proof: &Proof) -> (Token, u64) {
    let until = proof.issued.saturating_add(policy.dpop.max_age).saturating_add(1);
    (Token::of("dpop", &[proof.key.as_bytes(), proof.id.as_bytes()]), until)
}

const fn spent(spent: Spent) -> Denial {
    match spent {
        Spent::Before => Denial::DpopReplayed,
        Spent::Late => Denial::DpopStale,
        Spent::Full => Denial::ReplayFull,
    }
}

/// The one proof of a request (RFC 9449 section 4.3, check 1).
fn only<'h>(headers: &'h HeaderMap, field: &HeaderName) -> Result<&'h [u8], Denial> {
    let mut proofs = headers.get_all(field).iter();
    let proof = proofs.next().ok_or(Denial::DpopMissing)?;
    if proofs.next().is_some() {
        return Err(Denial::DpopMalformed);
    }
    Ok(proof.as_bytes())
}

/// A refusal with the challenge of the scheme that the request used, or that its route wants (RFC 9449 section 7.1).
pub(in crate::checks) fn challenge(refusal: Refusal, tokens: &Tokens, headers: &HeaderMap) -> Refusal {
    let dpop = tokens.bindings.dpop == Binding::Required
        || presented(headers).is_ok_and(|presented| presented.scheme == Scheme::Dpop)
        || refusal.denial == Denial::DpopMissing;
    let own = made_for(refusal.denial).and_then(|attributes| tokens.first()?.challenge(attributes).ok());
    let Some(challenge) = own.or_else(|| refusal.challenge.clone()) else { return refusal };
    let challenge = if dpop { in_dpop(&challenge, &tokens.algs) } else { Some(challenge) };
    Refusal { challenge, ..refusal }
}

/// What a challenge says of a refusal that is made here; `None` for others.
#[allow(clippy::wildcard_enum_match_arm, reason = "all others are made elsewhere")]
fn made_for(denial: Denial) -> Option<&'static str> {
    match denial {
        Denial::DpopNonce => Some(", error=\"use_dpop_nonce\""),
        Denial::DpopMissing
        | Denial::DpopUnbound
        | Denial::CertificateMissing
        | Denial::CertificateMismatch
        | Denial::CertificateUnbound => Some(", error=\"invalid_token\""),
        Denial::DpopMalformed
        | Denial::DpopAlgorithm
        | Denial::DpopKey
        | Denial::DpopWrongKey
        | Denial::DpopBadSignature
        | Denial::DpopWrongRequest
        | Denial::DpopWrongToken
        | Denial::DpopStale
        | Denial::DpopReplayed => Some(", error=\"invalid_dpop_proof\""),
        _ => None,
    }
}

fn in_dpop(challenge: &HeaderValue, algs: &str) -> Option<HeaderValue> {
    let attributes = challenge.to_str().ok()?.strip_prefix("Bearer")?;
    HeaderValue::try_from(format!("DPoP{attributes}, algs=\"{algs}\"")).ok()
}
