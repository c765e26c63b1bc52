//! Rules for what requests meet: `[[route]]`.

use std::collections::{BTreeMap, HashMap};

use super::{LimitRules, Rules, names, quote, tokens};
use crate::config::{
    RateLimit, Route,
    file::{File, RouteSection},
    load::nearest,
};

mod coverage;
mod required;
mod upgrade;

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
            tokens: tokens::of_route(section, file, &mut rules),
            demands: tokens::demands(section, &mut rules),
            upgrade: upgrade::read(section, file, &mut rules),
            required_headers: required::read(section, &mut rules),
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

/// The name that is probably meant, and all that exist.
pub(super) fn meant<T>(name: &str, table: &BTreeMap<String, T>) -> String {
    let known: Vec<&str> = table.keys().map(String::as_str).collect();
    match nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => names(table),
    }
}
