//! Rules for tokens: `[token.NAME]`, and what a `[[route]]` demands of them.

use std::{collections::BTreeMap, time::Duration};

use toml::Spanned;

use super::{Rules, entries, introspection::introspection, quote, routes::meant};
use crate::config::{
    Demands, KeySource, RemoteKeys, TlsFile, Token, TokenAlgorithm, TokenType,
    file::{File, List, RouteSection, TokenSection},
    named::Named,
    value::Text,
};

/// Values of one claim, and claims of one route, at most: they are gone through for every request.
const MOST_VALUES: usize = 64;

pub(super) fn tokens(file: &File, rules: &mut Rules<'_, '_>) -> BTreeMap<String, Token> {
    let read = |(name, token): (&String, &Spanned<_>)| {
        let section: &crate::config::file::TokenSection = token.get_ref();
        let mut rules = rules.within(format!("token.{}", quote(name)), token.span());
        rules.name(name);
        rules.not_empty("audience", &section.audience, "list what `aud` must contain one of, like [\"api\"]");
        let mut algorithms: Vec<_> = entries(&section.algorithms).map(|name| *name.get_ref()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        if section.algorithms.is_some() {
            let remedy = "list one, or remove the key to accept RS256 and ES256";
            rules.not_empty("algorithms", &section.algorithms, remedy);
        } else {
            algorithms = vec![TokenAlgorithm::Rs256, TokenAlgorithm::Es256];
        }
        let day = Duration::from_secs(86_400);
        let token = Token {
            issuer: rules.text("issuer", &section.issuer, "write what `iss` must be"),
            audience: rules.texts("audience", &section.audience),
            keys: keys(section, &algorithms, &mut rules),
            algorithms,
            kind: section.typ.as_ref().map_or(TokenType::Any, |kind| *kind.get_ref()),
            leeway: rules.duration("leeway", &section.leeway, Duration::from_secs(60), 0..=300_000),
            max_lifetime: rules.duration("max_lifetime", &section.max_lifetime, day, 1_000..=31_536_000_000),
            device_claim: match &section.device_claim {
                None => "device_id".to_owned(),
                named => rules.text("device_claim", named, "name a claim, or remove the key"),
            },
            introspection: introspection(&section.introspection, &mut rules),
        };
        (name.clone(), token)
    };
    file.token.iter().map(read).collect()
}

/// Where the keys are: one of three.
fn keys(section: &TokenSection, algorithms: &[TokenAlgorithm], rules: &mut Rules<'_, '_>) -> KeySource {
    let discovery = section.discovery.as_ref().filter(|discovery| *discovery.get_ref());
    let url = section.jwks_url.as_ref();
    if let (Some(jwks), true) = (&section.jwks, url.is_some() || discovery.is_some()) {
        let problem = "stands beside another place for the same keys";
        rules.refuse(jwks.span(), "jwks", problem, "keep one of `jwks`, `jwks_url` and `discovery`");
    }
    if let (Some(url), true) = (url, discovery.is_some()) {
        rules.refuse(url.span(), "jwks_url", "is what `discovery` finds out", "keep one of the two");
    }
    let of_issuer =
        |issuer: &str| format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let issuer = section.issuer.as_ref();
    let (key, named) = match (url, discovery) {
        (Some(url), _) => ("jwks_url", Some((url.span(), url.get_ref().0.clone()))),
        (None, Some(discovery)) => {
            ("discovery", issuer.map(|issuer| (discovery.span(), of_issuer(&issuer.get_ref().0))))
        }
        (None, None) => return file(section, algorithms, rules),
    };
    let mut address = http::Uri::default();
    if let Some((span, text)) = named {
        match text.parse::<http::Uri>() {
            Ok(uri) if uri.scheme_str() == Some("https") && !text.contains(['@', '#']) => address = uri,
            Ok(_) | Err(_) => {
                let problem = format!("`{}` is no https address", text.escape_debug());
                rules.refuse(span, key, problem, "write one like \"https://id.example.com/keys\"");
            }
        }
    }
    let authorities = section.jwks_authorities.as_ref().map(|_| {
        if let Some((place, path)) = rules.named_file("jwks_authorities", &section.jwks_authorities) {
            rules.errors.named.push((place, Named::TlsFile(path, TlsFile::ServerAuthorities)));
        }
        rules.file("jwks_authorities", &section.jwks_authorities, "name a PEM file with roots")
    });
    let seconds = Duration::from_secs;
    KeySource::Remote(RemoteKeys {
        address,
        discovery: discovery.and(issuer).map(|issuer| issuer.get_ref().0.clone()),
        authorities,
        private_addresses: section.jwks_private_addresses.as_ref().is_some_and(|allowed| *allowed.get_ref()),
        refresh: rules.duration("jwks_refresh", &section.jwks_refresh, seconds(900), 60_000..=86_400_000),
        interval: rules.duration("jwks_interval", &section.jwks_interval, seconds(10), 1_000..=3_600_000),
        max_stale: rules.duration(
            "jwks_max_stale",
            &section.jwks_max_stale,
            seconds(86_400),
            60_000..=2_592_000_000,
        ),
    })
}

fn file(section: &TokenSection, algorithms: &[TokenAlgorithm], rules: &mut Rules<'_, '_>) -> KeySource {
    if section.jwks.is_none() && section.introspection.is_some() {
        return KeySource::None;
    }
    let beside: [(&str, Option<std::ops::Range<usize>>); 5] = [
        ("jwks_authorities", section.jwks_authorities.as_ref().map(Spanned::span)),
        ("jwks_private_addresses", section.jwks_private_addresses.as_ref().map(Spanned::span)),
        ("jwks_refresh", section.jwks_refresh.as_ref().map(Spanned::span)),
        ("jwks_interval", section.jwks_interval.as_ref().map(Spanned::span)),
        ("jwks_max_stale", section.jwks_max_stale.as_ref().map(Spanned::span)),
    ];
    for (key, span) in beside {
        let Some(span) = span else { continue };
        let problem = "is for keys that are fetched, and these are in a file";
        rules.refuse(span, key, problem, format!("remove `{key}`, or write `jwks_url` in place of `jwks`"));
    }
    if let Some((place, path)) = rules.named_file("jwks", &section.jwks) {
        rules.errors.named.push((place, Named::KeySet(path, algorithms.to_vec())));
    }
    let remedy = "name the file with the JWK set, or write `jwks_url` or `discovery`";
    KeySource::File(rules.file("jwks", &section.jwks, remedy))
}

/// Whose tokens open a route. Issuers are told apart by `iss`, so no two may have the same.
pub(super) fn of_route(section: &RouteSection, file: &File, rules: &mut Rules<'_, '_>) -> Vec<String> {
    let public = section.public.as_ref().is_some_and(|public| *public.get_ref());
    let Some(value) = &section.token else {
        if !public && !rules.errors.knows(&rules.path("public")) {
            rules.missing(
                "token",
                "name the token that requests need, or write `public = true` to let everyone in",
            );
        }
        return Vec::new();
    };
    let names = &value.get_ref().0;
    if names.is_empty() || names.iter().any(String::is_empty) {
        rules.refuse(value.span(), "token", "empty", "name the token that requests need");
    }
    if public {
        let remedy = "remove `token` or `public`";
        rules.refuse(value.span(), "token", "a public route asks for a token", remedy);
    }
    let mut issuers: Vec<(&str, &str)> = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        let Some(token) = file.token.get(name) else {
            if !rules.errors.knows_section("token", &quote(name)) {
                let problem = format!("there is no [token.{}]", quote(name));
                rules.refuse(value.span(), "token", problem, meant(name, &file.token));
            }
            continue;
        };
        let Some(issuer) = token.get_ref().issuer.as_ref().map(|issuer| issuer.get_ref().0.as_str()) else {
            continue;
        };
        if let Some((other, _)) = issuers.iter().find(|(_, known)| *known == issuer) {
            let problem =
                format!("`{other}` and `{name}` have the same issuer, and nothing else tells them apart");
            rules.refuse(value.span(), "token", problem, "name one of the two");
        }
        issuers.push((name, issuer));
    }
    let asked =
        |name: &&String| file.token.get(*name).is_some_and(|token| token.get_ref().introspection.is_some());
    if names.iter().filter(asked).count() > 1 {
        let problem = "two issuers with `introspection`: a token that says nothing does not say whose it is";
        rules.refuse(value.span(), "token", problem, "name one of the two");
    }
    names.clone()
}

pub(super) fn demands(section: &RouteSection, rules: &mut Rules<'_, '_>) -> Demands {
    let mut method_scopes = BTreeMap::new();
    for (method, scopes) in section.method_scopes.iter().flat_map(|table| table.get_ref()) {
        let key = format!("method_scopes.{}", quote(method));
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            let problem = format!("`{}` is no method", method.escape_debug());
            rules.refuse(scopes.span(), &key, problem, "write it in capitals, like POST");
        }
        method_scopes.insert(method.clone(), scopes_of(&key, &Some(scopes.clone()), rules));
    }
    let mut claims = BTreeMap::new();
    for (name, values) in section.claims.iter().flat_map(|table| table.get_ref()) {
        let key = format!("claims.{}", quote(name));
        let values_given = &values.get_ref().0;
        if values_given.is_empty() || values_given.len() > MOST_VALUES {
            let problem = format!("{} values", values_given.len());
            rules.refuse(values.span(), &key, problem, format!("write 1 to {MOST_VALUES} of them"));
        }
        claims.insert(name.clone(), values_given.clone());
    }
    if let Some(table) = section.claims.as_ref().filter(|_| claims.len() > MOST_VALUES) {
        rules.refuse(table.span(), "claims", "too many", format!("write at most {MOST_VALUES}"));
    }
    for entry in entries(&section.acr) {
        // They are listed in a challenge, with spaces between (RFC 9470 section 3).
        let good = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !entry.get_ref().0.bytes().all(good) {
            let problem = format!("`{}` cannot be an `acr`", entry.get_ref().0.escape_debug());
            rules.refuse_entry(
                entry.span(),
                "acr",
                problem,
                "write one per entry, without spaces and quotes",
            );
        }
    }
    let age = |value| rules.duration("max_auth_age", value, Duration::ZERO, 1_000..=31_536_000_000);
    let max_auth_age = section.max_auth_age.as_ref().map(|_| &section.max_auth_age).map(age);
    let demands = Demands {
        scopes: scopes_of("scopes", &section.scopes, rules),
        any_scope: scopes_of("any_scope", &section.any_scope, rules),
        method_scopes,
        claims,
        acr: rules.texts("acr", &section.acr),
        max_auth_age,
    };
    needs_token(section, &demands, rules);
    demands
}

/// Whatever is demanded of a token needs one.
fn needs_token(section: &RouteSection, demands: &Demands, rules: &mut Rules<'_, '_>) {
    if demands.is_empty() || section.token.is_some() || rules.errors.knows(&rules.path("token")) {
        return;
    }
    let span =
        |key: &Option<_>| -> Option<std::ops::Range<usize>> { key.as_ref().map(Spanned::<Vec<_>>::span) };
    let keys = [
        ("scopes", span(&section.scopes)),
        ("any_scope", span(&section.any_scope)),
        ("method_scopes", section.method_scopes.as_ref().map(Spanned::span)),
        ("claims", section.claims.as_ref().map(Spanned::span)),
        ("acr", span(&section.acr)),
        ("max_auth_age", section.max_auth_age.as_ref().map(Spanned::span)),
    ];
    for (key, span) in keys {
        let Some(span) = span else { continue };
        let problem = match key {
            "scopes" => "scopes are read from a token, and this route asks for none",
            _ => "is read from a token, and this route asks for none",
        };
        rules.refuse(span, key, problem, format!("add `token` or remove `{key}`"));
    }
}

/// Scopes by RFC 6749 section 3.3: scope-token.
pub(super) fn scopes_of(key: &str, scopes: &List<Text<String>>, rules: &mut Rules<'_, '_>) -> Vec<String> {
    for scope in entries(scopes) {
        let good = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !scope.get_ref().0.bytes().all(good) {
            let problem = format!("`{}` cannot be a scope", scope.get_ref().0.escape_debug());
            rules.refuse_entry(
                scope.span(),
                key,
                problem,
                "write one scope per entry, without spaces, quotes and backslashes",
            );
        }
    }
    rules.texts(key, scopes)
}
