//! Rules for `[[route]]`: which requests it is for, and what they need.

use std::collections::{BTreeMap, HashMap};

use http::{HeaderName, Method};

use super::{LimitRules, Rules, attestation, entries, integrity, names, payload, quote, suspicion, tokens};
use crate::config::{
    HeaderRule, RateLimit, Route,
    file::{File, RouteSection},
    load::nearest,
};

mod bounds;
mod cors;
mod coverage;
mod early;
mod graphql;
mod limits;
mod oauth;
mod required;
mod upgrade;

/// Routes for the same requests, but for their methods.
type Twins = HashMap<(String, String, String), Vec<(usize, Vec<Method>)>>;

pub(super) fn routes(file: &File, rules: &mut Rules<'_, '_>) -> Vec<Route> {
    let mut twins = Twins::new();
    let mut routes = Vec::new();
    let certified = file.listener.iter().any(|listener| listener.get_ref().client_certificates.is_some());
    for (i, route) in file.route.iter().enumerate() {
        let mut rules = rules.within(format!("route[{i}]"), route.span());
        let section = route.get_ref();
        let path = path(section, &mut rules);
        let has_device = certified || section.attestation.is_some();
        let limits = limits::limits(section, has_device, &mut rules);
        let name = name(section, &path, &mut rules);
        let mut route = Route {
            hosts: hosts(section, &mut rules),
            methods: methods(section, &mut rules),
            headers: headers(section, &mut rules),
            upstream: upstream(section, file, &mut rules),
            tokens: tokens::of_route(section, file, &mut rules),
            demands: tokens::demands(section, &mut rules),
            bindings: integrity::bindings(section, certified, &mut rules),
            signature: integrity::of_route(section, file, &mut rules),
            payload: payload::of_route(section, file, &mut rules),
            attestation: attestation::of_route(section, file, &name, &mut rules),
            suspicion: suspicion::of_route(section, file, &mut rules),
            name,
            upgrade: upgrade::read(section, file, &mut rules),
            graphql: graphql::graphql(section, has_device, &limits, &mut rules),
            oauth: oauth::oauth(section, &limits, &mut rules),
            required_headers: required::read(section, &mut rules),
            early_data: false,
            cors: None,
            limits,
            path,
        };
        route.early_data = early::read(section, &route, &mut rules);
        route.cors = cors::read(section, &route, &mut rules);
        bounds::warn(section, file, &mut rules);
        if section.path.is_some() {
            alone(i, &route, section, &mut twins, &mut rules);
        }
        routes.push(route);
    }
    coverage::warn(file, &routes, rules);
    routes
}

/// Refuses a route that another one hides, or would hide.
fn alone(i: usize, route: &Route, section: &RouteSection, twins: &mut Twins, rules: &mut Rules<'_, '_>) {
    let any = [String::new()];
    let hosts: &[String] = if route.hosts.is_empty() { &any } else { &route.hosts };
    let mut headers: Vec<String> =
        route.headers.iter().map(|rule| format!("{}={:?}", rule.name, rule.value)).collect();
    headers.sort();
    let headers = headers.join("\n");
    for host in hosts {
        let twins = twins.entry((host.clone(), route.path.clone(), headers.clone())).or_default();
        let same = |(other, methods): &&(usize, Vec<Method>)| {
            *other != i
                && methods.is_empty() == route.methods.is_empty()
                && (methods.is_empty() || methods.iter().any(|method| route.methods.contains(method)))
        };
        if let Some((first, methods)) = twins.iter().find(same) {
            let shared = methods.iter().find(|method| route.methods.contains(method));
            let more = shared.map_or_else(String::new, |method| format!(" for {method}"));
            let problem = format!("route[{first}] has the path `{}` already{more}", route.path);
            let span = section.path.as_ref().map_or(rules.span.clone(), |path| path.span());
            let remedy = "remove one of the two, or tell them apart by `hosts`, `methods` or `headers`";
            rules.refuse(span, "path", problem, remedy);
            return;
        }
        twins.push((i, route.methods.clone()));
    }
}

fn name(section: &RouteSection, path: &str, rules: &mut Rules<'_, '_>) -> String {
    let Some(value) = &section.name else { return path.to_owned() };
    let name = rules.text("name", &section.name, "write a name, or remove the key");
    if name.len() > 64 || !name.chars().all(|c| c.is_ascii_graphic()) {
        let problem = format!("`{}` is not a usable name", name.escape_debug());
        rules.refuse(value.span(), "name", problem, "use 1 to 64 visible characters of ASCII");
    }
    name
}

fn hosts(section: &RouteSection, rules: &mut Rules<'_, '_>) -> Vec<String> {
    let lower: Vec<_> =
        entries(&section.hosts).map(|host| (host.span(), host.get_ref().0.to_ascii_lowercase())).collect();
    for (span, host) in &lower {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        // A port is no part of what is compared; a colon stands in an address in brackets only.
        let port = !name.starts_with('[') && name.contains(':');
        if name.is_empty() || name.ends_with('.') || port || !name.bytes().all(good) {
            let problem = format!("`{}` is no host", host.escape_debug());
            let remedy = "write a name like \"api.example.com\" or \"*.example.com\", without a port";
            rules.refuse_entry(span.clone(), "hosts", problem, remedy);
        }
    }
    rules.distinct("hosts", lower.iter().map(|(span, host)| (span.clone(), host.as_str())));
    if let Some(hosts) = section.hosts.as_ref().filter(|hosts| hosts.get_ref().is_empty()) {
        rules.refuse(hosts.span(), "hosts", "empty", "list a host, or remove the key to take every host");
    }
    lower.into_iter().map(|(_, host)| host).collect()
}

fn methods(section: &RouteSection, rules: &mut Rules<'_, '_>) -> Vec<Method> {
    let mut methods = Vec::new();
    for entry in entries(&section.methods) {
        let text = &entry.get_ref().0;
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if method != Method::CONNECT && !text.bytes().any(|b| b.is_ascii_lowercase()) => {
                methods.push(method);
            }
            Ok(_) | Err(_) => {
                let problem = format!("`{}` is no method of a route", text.escape_debug());
                let remedy = "write methods like \"GET\" and \"POST\", in capitals";
                rules.refuse_entry(entry.span(), "methods", problem, remedy);
            }
        }
    }
    rules.distinct("methods", entries(&section.methods).map(|one| (one.span(), one.get_ref().0.as_str())));
    if let Some(list) = section.methods.as_ref().filter(|list| list.get_ref().is_empty()) {
        rules.refuse(
            list.span(),
            "methods",
            "empty",
            "list a method, or remove the key to take every method",
        );
    }
    // What answers GET answers HEAD (RFC 9110 section 9.3.2).
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    methods
}

fn headers(section: &RouteSection, rules: &mut Rules<'_, '_>) -> Vec<HeaderRule> {
    let mut read = Vec::new();
    for (name, value) in section.headers.iter().flat_map(|headers| headers.get_ref()) {
        let key = format!("headers.{}", quote(name));
        let text = &value.get_ref().0;
        let Ok(name) = name.parse::<HeaderName>() else {
            rules.refuse(value.span(), &key, "no name of a header field", "write one like X-Api-Version");
            continue;
        };
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            let remedy = "write the value that the field must have, or \"*\" for any";
            rules.refuse(value.span(), &key, "no value that a field could have", remedy);
        }
        if read.iter().any(|rule: &HeaderRule| rule.name == name) {
            rules.refuse(value.span(), &key, "stands here twice", "remove one");
        }
        read.push(HeaderRule { name, value: (text != "*").then(|| text.clone()) });
    }
    read
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

/// The name that is probably meant, and all that exist.
pub(super) fn meant<T>(name: &str, table: &BTreeMap<String, T>) -> String {
    let known: Vec<&str> = table.keys().map(String::as_str).collect();
    match nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => names(table),
    }
}
