//! Rules for the limits of a route.

use std::time::Duration;

use toml::Spanned;

use super::{LimitRules, RateLimit, Rules, entries};
use crate::config::{
    Limit, LimitKey,
    file::{LimitSection, List, RouteLimitSection, RouteSection},
};

/// Limits of a route at most: each one is asked for every request.
const MOST: usize = 8;
/// A client that waits longer than this has given up.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

const RULES: LimitRules =
    LimitRules { default: RateLimit::per_second(1, 0), may_be_off: false, least_burst: 0 };

/// `limit` and `limits`; `has_device`: some listener asks for client certificates, or the route for an attestation.
pub(super) fn limits(section: &RouteSection, has_device: bool, rules: &mut Rules<'_, '_>) -> Vec<Limit> {
    let mut limits = Vec::new();
    if section.limit.is_some() {
        limits.extend(rules.limit("limit", &section.limit, RULES).map(Limit::by_address));
    }
    stacked(&section.limits, "", section.token.is_some(), has_device, &mut limits, rules);
    limits
}

/// Limits of a list, besides those that are there already. Without names of their own they are called as their keys, behind
/// `whose`.
pub(super) fn stacked(
    list: &List<RouteLimitSection>,
    whose: &str,
    has_token: bool,
    has_device: bool,
    limits: &mut Vec<Limit>,
    rules: &mut Rules<'_, '_>,
) {
    for (i, entry) in entries(list).enumerate() {
        let section = entry.get_ref();
        let at = |key: &str| format!("limits[{i}].{key}");
        let Some(key) = &section.key else {
            if !rules.errors.knows(&rules.path(&at("key"))) {
                let remedy = "write whose requests are counted together, like key = \"address\"";
                rules.refuse(entry.span(), &at("key"), "missing", remedy);
            }
            continue;
        };
        let written = LimitSection { rate: section.rate.clone(), burst: section.burst.clone() };
        let written = Some(Spanned::new(entry.span(), written));
        let rate = rules.limit(&format!("limits[{i}]"), &written, RULES).unwrap_or(RULES.default);
        let key_span = key.span();
        let key = key.get_ref().0.clone();
        if key == LimitKey::Subject && !has_token {
            let problem = "subjects are read from a token, and this route asks for none";
            rules.refuse(key_span.clone(), &at("key"), problem, "add `token`, or limit by another key");
        }
        if key == LimitKey::Device && !has_device {
            let problem = "devices are told by attestations and client certificates; this route asks for none, and no listener for the other";
            rules.refuse(
                key_span.clone(),
                &at("key"),
                problem,
                "add `attestation`, set `client_certificates`, or limit by another key",
            );
        }
        let delay = section.delay.as_ref().map(|delay| (delay.span(), delay.get_ref().0));
        if let Some((span, delay)) = &delay {
            let waiting = rate.burst.saturating_sub(*delay);
            let longest = rate.period.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX))
                / u32::try_from(rate.events).unwrap_or(u32::MAX).max(1);
            if *delay > rate.burst {
                let problem = format!("more than the burst of {}, so nothing ever waits", rate.burst);
                rules.refuse(span.clone(), &at("delay"), problem, "write less, or remove the key");
            } else if longest > LONGEST_DELAY {
                let problem = format!("the last of the burst would wait for {} s", longest.as_secs());
                rules.refuse(span.clone(), &at("delay"), problem, "let nobody wait longer than 60s");
            }
        }
        let name = match &section.name {
            Some(_) => rules.text(&at("name"), &section.name, "write a name, or remove the key"),
            None => format!("{whose}{key}"),
        };
        let name_span = section.name.as_ref().map_or(key_span, Spanned::span);
        if !name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') || name.len() > 64 {
            let problem = format!("`{}` is not a usable name", name.escape_debug());
            let remedy = "use 1 to 64 visible characters of ASCII, without quotes and backslashes";
            rules.refuse(name_span.clone(), &at("name"), problem, remedy);
        }
        if limits.iter().any(|other| other.name == name) {
            let problem = format!("two limits of this route are called `{name}`");
            rules.refuse(name_span, &at("name"), problem, "give one of them another `name`");
        }
        let dry_run = section.dry_run.as_ref().is_some_and(|dry| *dry.get_ref());
        limits.push(Limit { name, key, rate, delay: delay.map(|(_, delay)| delay), dry_run });
    }
    if limits.len() > MOST {
        let span = list.as_ref().map_or(rules.span.clone(), Spanned::span);
        rules.refuse(
            span,
            "limits",
            format!("{} are too many", limits.len()),
            format!("stack {MOST} at most"),
        );
    }
}
