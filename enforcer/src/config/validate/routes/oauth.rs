//! Rules for `oauth` of a route.

use std::{collections::BTreeMap, time::Duration};

use super::super::{LimitRules, Rules, entries, quote};
use crate::config::{
    Endpoint, Limit, LimitKey, OAuth, RateLimit,
    file::{Key, OauthSection, RouteSection},
    value::{DurationOrOff, Text},
};

/// Clients, and redirect URIs of each, at most.
const MOST: usize = 1_000;
/// Grants by which a user's password goes through the client (RFC 9700 section 2.4), or a token through the browser.
const REFUSED: [&str; 2] = ["password", "implicit"];

const CLIENT_LIMIT: LimitRules = LimitRules {
    default: RateLimit { events: 1, period: Duration::from_secs(1), burst: 0 },
    may_be_off: false,
    least_burst: 0,
};

pub(super) fn oauth(section: &RouteSection, limits: &[Limit], rules: &mut Rules<'_, '_>) -> Option<OAuth> {
    let value = section.oauth.as_ref()?;
    let oauth = value.get_ref();
    if let Some(graphql) = &section.graphql {
        rules.refuse(graphql.span(), "graphql", "stands beside `oauth`", "keep one of the two");
    }
    if let Some(upgrade) = section.upgrade.as_ref().filter(|list| !list.get_ref().is_empty()) {
        rules.refuse(upgrade.span(), "upgrade", "stands beside `oauth`", "remove it");
    }
    let path = rules.path("oauth");
    let mut rules = rules.within(path, value.span());
    let Some(endpoint) = oauth.endpoint.as_ref().map(|endpoint| *endpoint.get_ref()) else {
        rules.missing("endpoint", "write \"authorization\" or \"token\"");
        return None;
    };
    let clients = clients(oauth, &mut rules);
    if endpoint == Endpoint::Authorization && clients.is_empty() {
        rules.missing("clients", "name the clients and their redirect URIs: others would be sent codes, too");
    }
    let limited = limits.iter().any(|limit| limit.key == LimitKey::Address && !limit.dry_run);
    if endpoint == Endpoint::Token && !limited {
        let problem = "a token endpoint without a limit by address";
        rules.refuse(
            value.span(),
            "endpoint",
            problem,
            "add `limit = { rate = \"1/s\", burst = 5 }` to the route",
        );
    }
    let mut grants: Vec<String> = rules.texts("grants", &oauth.grants);
    for entry in entries(&oauth.grants).filter(|entry| REFUSED.contains(&entry.get_ref().0.as_str())) {
        let problem = format!("`{}` is never served (RFC 9700)", entry.get_ref().0);
        rules.refuse_entry(entry.span(), "grants", problem, "remove it; use authorization_code with PKCE");
    }
    if oauth.grants.is_none() {
        grants = ["authorization_code", "refresh_token"].map(str::to_owned).to_vec();
    }
    let client_limit = oauth
        .client_limit
        .as_ref()
        .and_then(|_| rules.limit("client_limit", &oauth.client_limit, CLIENT_LIMIT));
    let mut time = |key: &'static str, value: &Key<Text<DurationOrOff>>, days: u64| {
        let value = value.as_ref()?;
        let time = value.get_ref().0.0?;
        let range = Duration::from_secs(60)..=Duration::from_secs(days * 86_400);
        rules.in_range(value.span(), key, time, &range, |time| format!("{} s", time.as_secs()));
        Some(time)
    };
    let rotation = time("refresh_rotation", &oauth.refresh_rotation, 365);
    let refresh_lifetime = time("refresh_lifetime", &oauth.refresh_lifetime, 3_650);
    if let Some(value) = oauth.dpop.as_ref().filter(|_| endpoint == Endpoint::Authorization) {
        rules.refuse(value.span(), "dpop", "proofs go to the token endpoint", "move it there");
    }
    let dpop = oauth.dpop.as_ref().map(|value| *value.get_ref());
    Some(OAuth { endpoint, clients, grants, client_limit, rotation, refresh_lifetime, dpop })
}

fn clients(oauth: &OauthSection, rules: &mut Rules<'_, '_>) -> BTreeMap<String, Vec<String>> {
    let mut read = BTreeMap::new();
    for (id, uris) in oauth.clients.iter().flat_map(|table| table.get_ref()) {
        let key = format!("clients.{}", quote(id));
        let list = &uris.get_ref().0;
        if list.is_empty() || list.len() > MOST {
            rules.refuse(
                uris.span(),
                &key,
                format!("{} redirect URIs", list.len()),
                format!("write 1 to {MOST}"),
            );
        }
        for uri in list {
            // RFC 6749 section 3.1.2: absolute, no fragment; RFC 9700 section 4.1.3: no patterns.
            let absolute = uri.split_once(':').is_some_and(|(scheme, rest)| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
                    && !rest.is_empty()
            });
            let visible = uri.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'*');
            let scheme = uri.split(':').next().unwrap_or_default().to_ascii_lowercase();
            let script = ["javascript", "data", "vbscript"].contains(&scheme.as_str());
            let clear = scheme == "http" && !is_loopback(uri);
            if !absolute || !visible || script || clear {
                let problem = format!("`{}` is no redirect URI", uri.escape_debug());
                let remedy = "write it as the client sends it, with its scheme, without fragment and `*`; http is for loopback alone";
                rules.refuse(uris.span(), &key, problem, remedy);
            }
        }
        read.insert(id.clone(), list.clone());
    }
    if let Some(table) = oauth.clients.as_ref().filter(|_| read.len() > MOST) {
        rules.refuse(table.span(), "clients", "too many", format!("write at most {MOST}"));
    }
    read
}

/// RFC 8252 section 7.3.
fn is_loopback(uri: &str) -> bool {
    let parsed: Result<http::Uri, _> = uri.parse();
    parsed.is_ok_and(|uri| matches!(uri.host(), Some("127.0.0.1" | "[::1]")))
}
