//! Rules for `cors` of a route.

use std::time::Duration;

use http::{HeaderName, Method, Uri};

use super::super::{Rules, entries};
use crate::config::{
    Cors, Route,
    file::{CorsSection, List, RouteSection},
    value::Text,
};

const DAY_MS: u64 = 24 * 3_600_000;
const ORIGINS: &str = "write the origins of pages, like [\"https://app.example.com\"], or [\"*\"]";
/// What a route without `methods` is asked for.
const COMMON: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

pub(super) fn read(section: &RouteSection, route: &Route, rules: &mut Rules<'_, '_>) -> Option<Cors> {
    let value = section.cors.as_ref()?;
    let cors = value.get_ref();
    let mut rules = rules.within(format!("{}.cors", rules.prefix), value.span());
    let credentials = cors.credentials.as_ref().is_some_and(|given| *given.get_ref());
    let max_age = rules.duration("max_age", &cors.max_age, Duration::from_secs(600), 0..=DAY_MS);
    Some(Cors {
        origins: origins(cors, credentials, &mut rules),
        methods: methods(cors, route, &mut rules),
        headers: headers(cors, &mut rules),
        expose: names(&cors.expose, "expose", "write names like \"X-Total-Count\", each once", &mut rules),
        credentials,
        max_age,
    })
}

fn origins(cors: &CorsSection, credentials: bool, rules: &mut Rules<'_, '_>) -> Vec<String> {
    rules.not_empty("origins", &cors.origins, ORIGINS);
    let mut origins = Vec::new();
    let count = entries(&cors.origins).count();
    for entry in entries(&cors.origins) {
        let text = &entry.get_ref().0;
        if text == "*" {
            if count > 1 {
                rules.refuse_entry(
                    entry.span(),
                    "origins",
                    "`*` stands beside others",
                    "keep one of the two",
                );
            } else if credentials {
                let problem = "`*` with credentials: any page could act in the name of whoever visits it";
                rules.refuse_entry(entry.span(), "origins", problem, "list the origins");
            }
        } else if is_origin(text) {
            origins.push(text.clone());
        } else {
            let problem = format!("`{}` is no origin", text.escape_debug());
            let remedy = "write scheme and host in small letters, and the port if it is not the scheme's own, and nothing more";
            rules.refuse_entry(entry.span(), "origins", problem, remedy);
        }
    }
    let lists = entries(&cors.origins).map(|one| (one.span(), one.get_ref().0.as_str()));
    rules.distinct("origins", lists);
    origins
}

/// RFC 6454 section 6.2, as browsers write it: compared byte for byte.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let own_port = match uri.scheme_str() {
        Some("https") => 443,
        Some("http") => 80,
        _ => return false,
    };
    let bare = text.split_once("://").is_some_and(|(_, rest)| {
        uri.authority().is_some_and(|authority| authority.as_str() == rest) && !rest.contains('@')
    });
    bare && uri.port_u16() != Some(own_port) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn methods(cors: &CorsSection, route: &Route, rules: &mut Rules<'_, '_>) -> Vec<Method> {
    if cors.methods.is_none() {
        let all = if route.methods.is_empty() { &COMMON[..] } else { &route.methods };
        return all.iter().filter(|method| **method != Method::OPTIONS).cloned().collect();
    }
    rules.not_empty("methods", &cors.methods, "list a method, or remove the key to allow those of the route");
    let mut methods = Vec::new();
    for entry in entries(&cors.methods) {
        let text = &entry.get_ref().0;
        let method = Method::from_bytes(text.as_bytes()).ok();
        match method.filter(|method| route.methods.is_empty() || route.methods.contains(method)) {
            Some(method) => methods.push(method),
            None => {
                let problem = format!("`{}` is no method of the route", text.escape_debug());
                rules.refuse_entry(entry.span(), "methods", problem, "list some of the route's methods");
            }
        }
    }
    let lists = entries(&cors.methods).map(|one| (one.span(), one.get_ref().0.as_str()));
    rules.distinct("methods", lists);
    methods
}

fn headers(cors: &CorsSection, rules: &mut Rules<'_, '_>) -> Vec<HeaderName> {
    if cors.headers.is_none() {
        return vec![http::header::AUTHORIZATION, http::header::CONTENT_TYPE];
    }
    let remedy = "write names like \"X-Api-Version\", each once; `*` would not mean Authorization";
    names(&cors.headers, "headers", remedy, rules)
}

/// A list of names of fields.
fn names(list: &List<Text<String>>, key: &str, remedy: &str, rules: &mut Rules<'_, '_>) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for entry in entries(list) {
        let text = &entry.get_ref().0;
        match text.parse::<HeaderName>() {
            Ok(name) if text != "*" && !names.contains(&name) => names.push(name),
            _ => {
                let problem =
                    format!("`{}` is no name of a field, or stands here twice", text.escape_debug());
                rules.refuse_entry(entry.span(), key, problem, remedy);
            }
        }
    }
    names
}
