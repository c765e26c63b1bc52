//! Rules for what requests meet: `[token.NAME]`, `[[route]]`.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use toml::Spanned;

use super::{LimitRules, Rules, entries, names, quote};
use crate::config::{
    RateLimit, Route, Token, TokenAlgorithm,
    file::{File, RouteSection},
    load::nearest,
    named::Named,
};

mod coverage;

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
            rules.not_empty("algorithms", &section.algorithms, "list one, or remove the key to accept both");
        } else {
            algorithms = vec![TokenAlgorithm::Rs256, TokenAlgorithm::Es256];
        }
        if let Some((place, path)) = rules.named_file("jwks", &section.jwks) {
            rules.errors.named.push((place, Named::KeySet(path, algorithms.clone())));
        }
        let day = Duration::from_secs(86_400);
        let token = Token {
            issuer: rules.text("issuer", &section.issuer, "write what `iss` must be"),
            audience: rules.texts("audience", &section.audience),
            jwks: rules.file("jwks", &section.jwks, "name the file with the JWK set"),
            algorithms,
            leeway: rules.duration("leeway", &section.leeway, Duration::from_secs(60), 0..=300_000),
            max_lifetime: rules.duration("max_lifetime", &section.max_lifetime, day, 1_000..=31_536_000_000),
        };
        (name.clone(), token)
    };
    file.token.iter().map(read).collect()
}

pub(super) fn routes(file: &File, rules: &mut Rules<'_, '_>) -> Vec<Route> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut routes = Vec::new();
    for (i, route) in file.route.iter().enumerate() {
        let mut rules = rules.within(format!("route[{i}]"), route.span());
        let section = route.get_ref();
        if let Some(path) = &section.path
            && let Some(first) = seen.insert(&path.get_ref().0, i)
        {
            let problem = format!("route[{first}] has the path `{}` already", path.get_ref().0);
            rules.refuse(path.span(), "path", problem, "remove one of the two");
        }
        let limit = LimitRules { default: RateLimit::per_second(1, 0), may_be_off: false, least_burst: 0 };
        routes.push(Route {
            path: path(section, &mut rules),
            upstream: upstream(section, file, &mut rules),
            token: token(section, file, &mut rules),
            scopes: scopes(section, &mut rules),
            limit: section.limit.as_ref().and_then(|_| rules.limit("limit", &section.limit, limit)),
        });
    }
    coverage::warn(file, rules);
    routes
}

fn path(section: &RouteSection, rules: &mut Rules<'_, '_>) -> String {
    let path = rules.text("path", &section.path, "write a path like \"/api/v1/\"");
    let Some(value) = &section.path else { return path };
    let problem = if path.is_empty() {
        return path;
    } else if !path.starts_with('/') {
        "does not begin with `/`"
    } else if path.contains("//") {
        "has an empty segment (`//`)"
    } else if path.split('/').any(|segment| segment == "." || segment == "..") {
        "has a `.` or `..` segment, which requests never keep"
    } else if path.contains(['?', '#', '*', '\\', '%', ';']) {
        "has a character that no path can match (`?`, `#`, `*`, `\\`, `%`, `;`: paths are compared decoded)"
    } else if !path.bytes().all(|b| b.is_ascii_graphic()) {
        "has a space, a control character or one outside ASCII"
    } else {
        return path;
    };
    let problem = format!("`{}` {problem}", path.escape_debug());
    rules.refuse(
        value.span(),
        "path",
        problem,
        "write a path like \"/api/v1/\" (prefix) or \"/health\" (exact)",
    );
    path
}

fn upstream(section: &RouteSection, file: &File, rules: &mut Rules<'_, '_>) -> String {
    let name = rules.text("upstream", &section.upstream, "name the upstream that requests go to");
    if let Some(value) = &section.upstream
        && !name.is_empty()
        && !file.upstream.contains_key(&name)
        && !rules.errors.knows_section("upstream", &quote(&name))
    {
        let problem = format!("there is no [upstream.{}]", quote(&name));
        rules.refuse(value.span(), "upstream", problem, meant(&name, &file.upstream));
    }
    name
}

fn token(section: &RouteSection, file: &File, rules: &mut Rules<'_, '_>) -> Option<String> {
    let public = section.public.as_ref().is_some_and(|public| *public.get_ref());
    let Some(value) = &section.token else {
        if !public && !rules.errors.knows(&rules.path("public")) {
            rules.missing(
                "token",
                "name the token that requests need, or write `public = true` to let everyone in",
            );
        }
        return None;
    };
    let name = rules.text("token", &section.token, "name the token that requests need");
    if public {
        let remedy = "remove `token` or `public`";
        rules.refuse(value.span(), "token", "a public route asks for a token", remedy);
    }
    if !name.is_empty()
        && !file.token.contains_key(&name)
        && !rules.errors.knows_section("token", &quote(&name))
    {
        let problem = format!("there is no [token.{}]", quote(&name));
        rules.refuse(value.span(), "token", problem, meant(&name, &file.token));
    }
    Some(name)
}

fn scopes(section: &RouteSection, rules: &mut Rules<'_, '_>) -> Vec<String> {
    if let Some(scopes) = &section.scopes
        && section.token.is_none()
        && !scopes.get_ref().is_empty()
        && !rules.errors.knows(&rules.path("token"))
    {
        rules.refuse(
            scopes.span(),
            "scopes",
            "scopes are read from a token, and this route asks for none",
            "add `token` or remove `scopes`",
        );
    }
    for scope in entries(&section.scopes) {
        // RFC 6749 section 3.3: scope-token.
        let good = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !scope.get_ref().0.bytes().all(good) {
            let problem = format!("`{}` cannot be a scope", scope.get_ref().0.escape_debug());
            rules.refuse_entry(
                scope.span(),
                "scopes",
                problem,
                "write one scope per entry, without spaces, quotes and backslashes",
            );
        }
    }
    rules.texts("scopes", &section.scopes)
}

/// The name that is probably meant, and all that exist.
fn meant<T>(name: &str, table: &BTreeMap<String, T>) -> String {
    let known: Vec<&str> = table.keys().map(String::as_str).collect();
    match nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => names(table),
    }
}
