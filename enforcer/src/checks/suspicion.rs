//! Whether somebody seems to stand between an app and here: a score of what speaks for it, each part with a name.
//!
//! Asked by `checks` for routes that want to know, after the device, whose kind narrows what is expected. Nothing of it is proof: a
//! fingerprint can be imitated, and an honest client may have an unusual one. So nothing is refused unless the route says above which
//! score.

use enforcer_common::source::SourceKey;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{FORWARDED, VIA},
};

use super::{Now, Refusal, facts::RequestFacts, forwarded};
use crate::{
    config::{Platform, Signal},
    denial::Denial,
    policy::{
        Policy,
        suspicion::{Demand, Score},
    },
};

/// Where servers find it: nobody else may set it.
pub const SUSPICION: HeaderName = HeaderName::from_static("enforcer-suspicion");
/// What proxies add.
static ADDED: [HeaderName; 3] = [VIA, FORWARDED, HeaderName::from_static("x-forwarded-for")];

/// What speaks against a request.
pub(super) fn judge(
    policy: &Policy,
    demand: &Demand,
    facts: &RequestFacts<'_>,
    platform: Option<Platform>,
    now: Now,
) -> Score {
    let mut score = Score::default();
    let mut add = |signal| score.add(signal, demand.by.weight(signal));
    match facts.client.hello.as_deref() {
        Some(hello) if demand.expects(hello.ja4.as_str(), platform) == Some(false) => {
            add(Signal::Fingerprint);
        }
        None if demand.expects_any(platform) => add(Signal::NoFingerprint),
        Some(_) | None => {}
    }
    if has_strange_hops(policy, facts) {
        add(Signal::Hops);
    }
    if let Some(reports) = &demand.by.reports {
        let source = SourceKey::of(facts.address.get(), policy.v6_mask).get();
        let host = facts.host();
        if reports.has(&policy.pins().sets, source, host.as_deref().map(without_port), now.monotonic) {
            add(Signal::Reports);
        }
    }
    score
}

/// What becomes of a request with this score.
pub(super) fn check(demand: &Demand, score: Score) -> Result<(), Refusal> {
    let refuses = demand.refuses(score) && !demand.config.dry_run;
    if refuses { Err(Refusal::plain(Denial::ProxySuspected)) } else { Ok(()) }
}

/// As servers are told: an item with a parameter (RFC 9651 sections 3.3.1 and 3.1.2), like `70;signals="fingerprint hops"`.
pub fn told(score: Score) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{};signals=\"{}\"", score.points, score.names().join(" "))).ok()
}

/// Whether more hops have left their mark on a request than it came by proxies that are trusted: each of these adds one to a list.
fn has_strange_hops(policy: &Policy, facts: &RequestFacts<'_>) -> bool {
    if !ADDED.iter().any(|name| facts.headers.contains_key(name)) {
        return false;
    }
    let http = &policy.http;
    let own = forwarded::hops(facts.client.address, facts.headers, &http.trusted_proxies, http.forwarded_by);
    ADDED.iter().any(|name| entries(facts.headers, name) > own)
}

/// The members of a list that may stand in several fields (RFC 9110 section 5.3).
fn entries(headers: &HeaderMap, name: &HeaderName) -> usize {
    let lists = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let members = lists.flat_map(|list| list.split(|byte| *byte == b','));
    members.filter(|member| !member.trim_ascii().is_empty()).count()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_counted_over_all_fields() {
        let mut headers = HeaderMap::new();
        assert_eq!(entries(&headers, &VIA), 0);
        headers.append(VIA, HeaderValue::from_static("1.1 a, , 1.1 b"));
        headers.append(VIA, HeaderValue::from_static("2 c"));
        assert_eq!(entries(&headers, &VIA), 3);
    }

    #[test]
    fn servers_are_told_the_score_and_what_it_is_made_of() {
        let mut score = Score::default();
        assert_eq!(told(score).unwrap(), "0;signals=\"\"");
        score.add(Signal::Hops, 60);
        score.add(Signal::Fingerprint, 60);
        assert_eq!(told(score).unwrap(), "100;signals=\"fingerprint hops\"");
    }
}
