//! What operators and the authorization server take back: their words as marks and terms, and what came of them. The time is an
//! argument; nothing here waits.

use std::sync::Arc;

use super::{
    span,
    wire::{Answer, Done, Failure, FailureKind, FoundRow, JudgedRow, Named, RevokedRow, TokenCommand},
};
use crate::{
    checks::token::{self, Step},
    policy::{Policy, issuer::Issuer},
    revoked::{FOREVER, Kind, Mark, Terms, WHENEVER, mark::token_body},
};

/// Longest value that can be named, bytes: a whole token.
const LONGEST: usize = 32 << 10;
/// How long tokens live where there is no issuer to say so.
const LIFETIME: u64 = 86_400;

/// Carries out a command.
pub fn carry_out(policy: &Policy, command: TokenCommand, now: u64) -> Result<Answer, Failure> {
    match command {
        TokenCommand::Revoke { what, issued_before, whenever, seconds, forever } => {
            let terms = Asked { issued_before, whenever, seconds, forever };
            revoke(policy, &what, &terms, now).map(Answer::Done)
        }
        TokenCommand::Restore { what } => restore(policy, &what, now).map(Answer::Done),
        TokenCommand::Revoked { what } => {
            let mut row = row(policy);
            row.found = what.map(|what| found(policy, &what, now)).transpose()?;
            Ok(Answer::Revoked(row))
        }
        TokenCommand::Judge { token } => Ok(Answer::Judged(judge(policy, token.trim().as_bytes(), now))),
    }
}

/// What a request with a token meets, by the issuers that there are.
fn judge(policy: &Policy, token: &[u8], now: u64) -> JudgedRow {
    let issuers: Vec<Arc<Issuer>> = policy.issuers().cloned().collect();
    let mut by = None;
    let outcome = token::verify(&issuers, token, now, &mut |step| {
        if let Step::Revocation(_, Some(kind)) = step {
            by = Some(kind.label().to_owned());
        }
    });
    JudgedRow { refused: outcome.err().map(|denial| denial.code().to_owned()), revoked_by: by }
}

/// How much is revoked.
pub fn row(policy: &Policy) -> RevokedRow {
    let look = policy.revoked().look();
    RevokedRow {
        entries: look.entries,
        listed: look.listed,
        most: look.most,
        bytes: look.bytes,
        refused: look.refused,
        is_kept: look.is_kept,
        found: None,
    }
}

/// Until when an entry has to hold that means tokens issued up to `from`: until the last of them has expired. Forever where nobody knows
/// when that is: of refresh tokens whose server does not say, and of what issuers say that are asked, who need not say it.
pub fn end(policy: &Policy, kind: Kind, issuer: Option<&Issuer>, from: u64) -> u32 {
    let meant = |one: &&Arc<Issuer>| issuer.is_none_or(|issuer| issuer.name == one.name);
    if policy.issuers().filter(meant).any(|issuer| issuer.introspector().is_some()) {
        return FOREVER;
    }
    let access = policy.issuers().filter(meant).map(|issuer| issuer.longest()).max().unwrap_or(LIFETIME);
    let mut lifetimes = policy.token_endpoints().map(|oauth| oauth.refresh_lifetime);
    let refresh = if kind == Kind::Token {
        lifetimes.try_fold(0, |longest, lifetime| lifetime.map(|lifetime| lifetime.max(longest)))
    } else {
        Some(0)
    };
    refresh.map_or(FOREVER, |refresh| second(from.saturating_add(access.max(refresh)).saturating_add(1)))
}

/// As entries keep times; what lies too far away is the last second that has an end.
pub fn second(unix: u64) -> u32 {
    u32::try_from(unix).unwrap_or(FOREVER).min(FOREVER - 1)
}

struct Asked {
    issued_before: Option<u64>,
    whenever: bool,
    seconds: Option<u64>,
    forever: bool,
}

fn revoke(policy: &Policy, what: &Named, asked: &Asked, now: u64) -> Result<Done, Failure> {
    let (kind, mark, issuer) = named(policy, what)?;
    let malformed = |text: &str| Err(Failure::new(FailureKind::Malformed, text));
    if asked.seconds.is_some() && asked.forever {
        return malformed("a revocation holds either some seconds or forever");
    }
    let before = match (asked.issued_before, asked.whenever) {
        (Some(_), true) => return malformed("tokens are issued either before a time or whenever"),
        (Some(at), false) => second(at.max(1)),
        (None, false) if kind.goes_on() => second(now + 1),
        (None, _) => WHENEVER,
    };
    let until = match (asked.seconds, asked.forever) {
        (Some(seconds), _) => second(now.saturating_add(seconds.max(1))),
        (None, true) => FOREVER,
        // A key goes on signing, whoever has it; and where all tokens are meant, also those to come, there is no last one.
        (None, false) if kind == Kind::Key || kind.goes_on() && before == WHENEVER => FOREVER,
        (None, false) => {
            let last = if before == WHENEVER { now } else { now.max(before.into()) };
            end(policy, kind, issuer.map(Arc::as_ref), last)
        }
    };
    let terms = Terms { until, before };
    policy.revoked().revoke(mark, terms, now).map_err(|_| full(policy))?;
    tracing::info!(
        kind = kind.label(),
        issuer = what.issuer.as_deref().unwrap_or("any"),
        "tokens are revoked"
    );
    let issued = match before {
        WHENEVER => String::new(),
        before => format!(" that were issued before {before}"),
    };
    let span = match until {
        FOREVER => "until it is restored".to_owned(),
        until => format!("for {}", span::remaining(u64::from(until).saturating_sub(now))),
    };
    let mut remarks = Vec::new();
    if !policy.revoked().look().is_kept {
        remarks.push("revocation.store is \"off\": it is forgotten when the daemon ends".to_owned());
    }
    Ok(Done {
        message: format!("tokens of this {}{issued} are refused {span}", kind.label()),
        remarks,
        ban: None,
    })
}

/// What is said where there is no room.
pub fn full(policy: &Policy) -> Failure {
    let most = policy.revoked().look().most;
    let text = format!(
        "NOT REVOKED: all {most} entries are in use; raise revocation.max_entries and restart, or revoke by subject, key or `every`, which take one entry for many tokens"
    );
    tracing::error!(most, "a revocation was refused: revocation.max_entries is reached");
    Failure::new(FailureKind::Refused, text)
}

fn restore(policy: &Policy, what: &Named, now: u64) -> Result<Done, Failure> {
    let (kind, mark, _) = named(policy, what)?;
    if !policy.revoked().restore(mark, now) {
        let text = match policy.revoked().terms(mark, now).1 {
            Some(_) => "it is revoked by revocation.file alone: take its line out of there",
            None => "it is not revoked, or not for this issuer",
        };
        return Err(Failure::new(FailureKind::Refused, text));
    }
    tracing::info!(
        kind = kind.label(),
        issuer = what.issuer.as_deref().unwrap_or("any"),
        "tokens are restored"
    );
    let mut remarks = Vec::new();
    if policy.revoked().terms(mark, now).1.is_some() {
        remarks.push("it stays revoked by revocation.file".to_owned());
    }
    Ok(Done { message: format!("tokens of this {} are good again", kind.label()), remarks, ban: None })
}

fn found(policy: &Policy, what: &Named, now: u64) -> Result<FoundRow, Failure> {
    let (_, mark, issuer) = named(policy, what)?;
    let revoked = policy.revoked();
    let mut own = revoked.terms(mark, now);
    if issuer.is_some() {
        // What holds for every issuer holds for this one.
        let wide = revoked.terms(named(policy, &Named { issuer: None, ..what.clone() })?.1, now);
        own = (own.0.or(wide.0), own.1.or(wide.1));
    }
    let terms = match own {
        (Some(one), Some(other)) => Some(one.and(other)),
        (one, other) => one.or(other),
    };
    Ok(FoundRow {
        is_revoked: terms.is_some(),
        is_listed: own.1.is_some(),
        issued_before: terms.map(|terms| terms.before).filter(|before| *before != WHENEVER).map(u64::from),
        remaining_seconds: terms
            .map(|terms| terms.until)
            .filter(|until| *until != FOREVER)
            .map(|until| u64::from(until).saturating_sub(now)),
    })
}

fn named<'p>(policy: &'p Policy, what: &Named) -> Result<(Kind, Mark, Option<&'p Arc<Issuer>>), Failure> {
    let refused = |text: String| Failure::new(FailureKind::Refused, text);
    let kind = Kind::of_label(&what.kind).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::label).join(", ");
        refused(format!(
            "`{}` is nothing that a token is known by: name one of {known}",
            what.kind.escape_debug()
        ))
    })?;
    let text = what.text.as_bytes();
    if (kind == Kind::Every) != text.is_empty() || text.len() > LONGEST {
        return Err(refused(format!("a {} of {} bytes cannot be revoked", kind.label(), text.len())));
    }
    let text = if kind == Kind::Token { token_body(text.trim_ascii()) } else { text };
    let marker = policy.revoked().marker();
    let mark = marker.mark(kind, text);
    let Some(name) = &what.issuer else { return Ok((kind, mark, None)) };
    let issuer = policy.issuers().find(|issuer| issuer.name == *name).ok_or_else(|| {
        let known: Vec<&str> = policy.issuers().map(|issuer| issuer.name.as_str()).collect();
        refused(format!("there is no [token.{name}]; there are: {}", known.join(", ")))
    })?;
    Ok((kind, mark.of(issuer.mark()), Some(issuer)))
}

/// How long a token that an authorization server revokes has to be remembered: as long as it may live, see [`end`], or less if it says that it
/// ends before. It was not verified: who lies about that only shortens the memory of a token that is good for nothing.
pub fn token_terms(policy: &Policy, expires: Option<u64>, now: u64) -> Terms {
    let longest = end(policy, Kind::Token, None, now);
    let leeway = policy.issuers().map(|issuer| issuer.leeway).max().unwrap_or_default();
    let own = expires.map(|at| second(at.saturating_add(leeway).saturating_add(1)));
    Terms { until: own.map_or(longest, |own| own.clamp(second(now + 1), longest)), before: WHENEVER }
}
