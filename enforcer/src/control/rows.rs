//! The ledger's records as the control socket tells them.

use super::{
    span,
    wire::{AllowanceRow, BanRow, ScoreRow, TierRow, UpstreamRow},
};
use crate::{
    bans::{
        ledger::TierEntry,
        record::{Allowance, Ban, FOREVER},
        score::Score,
    },
    clock::KernelTime,
    kernel::{Attachment, Explanation},
    policy::Policy,
    prefix::Prefix,
};
use std::net::IpAddr;

/// Servers behind as they are at `now`, in the order of the configuration.
pub fn upstreams(policy: &Policy, now: KernelTime) -> Vec<UpstreamRow> {
    let mut rows = Vec::new();
    for upstream in policy.upstreams() {
        for (index, server) in upstream.config.servers.iter().enumerate() {
            let Some(look) = upstream.health.look(index, now) else { continue };
            rows.push(UpstreamRow {
                upstream: upstream.name.clone(),
                server: server.to_string().trim_end_matches('/').to_owned(),
                state: look.state.label().to_owned(),
                requests: look.in_flight,
                connections: look.connections,
                ejections: look.ejections,
                retries: look.retries,
            });
        }
    }
    rows
}

/// A ban as told at `now`.
pub fn ban(ban: &Ban, shadowed_by: Option<Prefix>, now: KernelTime) -> BanRow {
    BanRow {
        prefix: ban.prefix,
        origin: ban.cause.origin().label().to_owned(),
        cause: ban.cause.to_string(),
        age_seconds: elapsed(ban.since, now),
        remaining_seconds: (ban.until != FOREVER).then(|| ban.until.seconds_from(now)),
        offences: ban.offences,
        shadowed_by,
    }
}

/// An allowance as told at `now`.
pub fn allowance(prefix: Prefix, allowance: &Allowance, now: KernelTime) -> AllowanceRow {
    let origin = match (allowance.configured, &allowance.operator) {
        (true, Some(_)) => "both",
        (true, None) => "configuration",
        (false, _) => "operator",
    };
    AllowanceRow {
        prefix,
        origin: origin.to_owned(),
        reason: allowance.operator.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default(),
        age_seconds: elapsed(allowance.since, now),
    }
}

/// A score as told.
pub fn score(score: Score, threshold: u32) -> ScoreRow {
    ScoreRow {
        points: score.points,
        threshold,
        offences: score.offences,
        bans: score.bans,
        last: score.last.code().to_owned(),
    }
}

/// Whether any program sees the packets from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// One does.
    Attached,
    /// No interface is attached.
    Nowhere,
    /// Loopback packets cross the interface `lo` alone, and that is not attached.
    NotOnLoopback,
}

impl Hook {
    /// For packets from `address`.
    pub fn of(address: IpAddr, attachments: &[Attachment]) -> Self {
        let mut attached = attachments.iter().filter(|one| one.is_attached()).peekable();
        if attached.peek().is_none() {
            Self::Nowhere
        } else if address.to_canonical().is_loopback() && attached.all(|one| one.interface != "lo") {
            Self::NotOnLoopback
        } else {
            Self::Attached
        }
    }
}

/// What would happen to a packet, in one sentence.
pub fn sentence(
    address: IpAddr,
    port: u16,
    explanation: &Explanation,
    ban: Option<&BanRow>,
    allowance: Option<&AllowanceRow>,
    hook: Hook,
) -> String {
    let address = address.to_canonical();
    let whole = |prefix: &Prefix| *prefix == Prefix::host(address);
    let state = match (ban, allowance) {
        (_, Some(row)) if whole(&row.prefix) => format!("{address} is allowed"),
        (_, Some(row)) => format!("{address} is allowed by {}", row.prefix),
        (Some(row), None) => {
            let how = if whole(&row.prefix) { String::new() } else { format!(" by {}", row.prefix) };
            let end = match row.remaining_seconds {
                Some(seconds) => format!("for {} more", span::remaining(seconds)),
                None => "until the ban is lifted".to_owned(),
            };
            format!("{address} is banned{how} {end}")
        }
        (None, None) => format!("{address} is neither banned nor allowed"),
    };
    let reason = match explanation.would_drop.first() {
        Some(spared) => format!("{}; {spared} is only rehearsed", explanation.reason),
        None => explanation.reason.clone(),
    };
    match (hook, explanation.verdict == "drop", ban.is_some()) {
        (Hook::Nowhere, _, _) => format!("{state}, but no interface is attached: no packet is judged"),
        (Hook::NotOnLoopback, _, _) => {
            format!("{state}, but loopback has no program, for `lo` is not attached: its packets pass")
        }
        (Hook::Attached, true, _) => format!("{state}: its packets are dropped ({reason})"),
        (Hook::Attached, false, true) => format!("{state}, but its packets to port {port} pass ({reason})"),
        (Hook::Attached, false, false) => format!("{state}: its packets pass ({reason})"),
    }
}

/// A prefix in a tier.
pub fn tier(entry: &TierEntry, now: KernelTime) -> TierRow {
    let TierEntry { prefix, tier, operator, holds } = entry;
    let origin = if operator.is_some() { "operator" } else { "configuration" };
    TierRow {
        prefix: *prefix,
        tier: tier.clone(),
        origin: origin.to_owned(),
        reason: operator.as_ref().map(|tiered| tiered.reason.as_str().to_owned()).unwrap_or_default(),
        age_seconds: operator.as_ref().map(|tiered| elapsed(tiered.since, now)),
        holds: *holds,
    }
}

/// Whole seconds from `since` to `now`.
fn elapsed(since: KernelTime, now: KernelTime) -> u64 {
    now.0.saturating_sub(since.0) / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explanation(verdict: &str, reason: &str) -> Explanation {
        Explanation {
            verdict: verdict.into(),
            reason: reason.into(),
            description: String::new(),
            rule: String::new(),
            would_drop: Vec::new(),
            source: String::new(),
            tier: String::new(),
            limits: Vec::new(),
        }
    }

    fn row(prefix: &str, remaining_seconds: Option<u64>) -> BanRow {
        BanRow {
            prefix: prefix.parse().unwrap(),
            origin: "offence".into(),
            cause: "token_missing".into(),
            age_seconds: 19,
            remaining_seconds,
            offences: 20,
            shadowed_by: None,
        }
    }

    #[test]
    fn the_sentence_says_what_happens_and_why() {
        let address: IpAddr = "198.18.0.2".parse().unwrap();
        let allowed = AllowanceRow {
            prefix: "198.18.0.0/24".parse().unwrap(),
            origin: "operator".into(),
            reason: String::new(),
            age_seconds: 1,
        };
        let (dropped, passed) = (explanation("drop", "banned"), explanation("pass", "clean"));
        let ban = row("198.18.0.2", Some(581));
        assert_eq!(
            sentence(address, 443, &dropped, Some(&ban), None, Hook::Attached),
            "198.18.0.2 is banned for 9m 41s more: its packets are dropped (banned)"
        );
        assert_eq!(
            sentence(
                address,
                443,
                &explanation("drop", "banned_prefix"),
                Some(&row("198.18.0.0/24", None)),
                None,
                Hook::Attached
            ),
            "198.18.0.2 is banned by 198.18.0.0/24 until the ban is lifted: its packets are dropped (banned_prefix)"
        );
        assert_eq!(
            sentence(address, 22, &explanation("pass", "management"), Some(&ban), None, Hook::Attached),
            "198.18.0.2 is banned for 9m 41s more, but its packets to port 22 pass (management)"
        );
        assert_eq!(
            sentence(address, 443, &explanation("pass", "allowed"), None, Some(&allowed), Hook::Attached),
            "198.18.0.2 is allowed by 198.18.0.0/24: its packets pass (allowed)"
        );
        assert_eq!(
            sentence(address, 443, &passed, None, None, Hook::Attached),
            "198.18.0.2 is neither banned nor allowed: its packets pass (clean)"
        );
        assert_eq!(
            sentence(address, 443, &passed, Some(&ban), None, Hook::Nowhere),
            "198.18.0.2 is banned for 9m 41s more, but no interface is attached: no packet is judged"
        );
        let attached =
            |name: &str| vec![Attachment { interface: name.into(), index: 1, mode: "generic".into() }];
        let loopback: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        assert_eq!(Hook::of(loopback, &attached("lo")), Hook::Attached);
        assert_eq!(
            sentence(loopback, 443, &passed, None, None, Hook::of(loopback, &attached("eth0"))),
            "127.0.0.1 is neither banned nor allowed, but loopback has no program, for `lo` is not attached: its packets pass"
        );
    }
}
