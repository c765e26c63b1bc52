//! Warnings about routes that leave more open than they seem to: a path that needs a token beside a public prefix that
//! takes its variants. Decides about no request.

use std::collections::HashMap;

use http::Method;

use crate::config::{Route, file::File, validate::Rules};

/// By path. Only routes that take every request of their path and hosts, whatever it has in its fields.
type Routes<'r> = HashMap<&'r str, Vec<&'r Route>>;

/// Warns about a file without routes, and about public prefixes around paths that need a token.
pub(super) fn warn(file: &File, routes: &[Route], rules: &mut Rules<'_, '_>) {
    if file.route.is_empty() && !rules.errors.knows("route") {
        let problem = "there is no [[route]], so every request is refused".to_owned();
        rules.errors.warn(0..0, "route", problem, "add a [[route]] with a path and an upstream".to_owned());
    }
    let mut whole = Routes::new();
    for route in routes.iter().filter(|route| route.headers.is_empty()) {
        whole.entry(&route.path).or_default().push(route);
    }
    for (i, (route, section)) in routes.iter().zip(&file.route).enumerate() {
        let Some(value) = section.get_ref().path.as_ref().filter(|_| !route.tokens.is_empty()) else {
            continue;
        };
        let path = route.path.as_str();
        let key = format!("route[{i}].path");
        if !route.headers.is_empty()
            && let Some(public) = winner(&whole, route, path).filter(|taken| is_public(taken))
        {
            let problem = format!(
                "needs a token, but without the fields of `headers` it falls to the public route `{}`",
                public.path
            );
            let remedy =
                "a client chooses what it sends: give the path a route without `headers` that needs a token";
            rules.errors.warn(value.span(), &key, problem, remedy.to_owned());
        }
        // `/admin` and `/admin/` are two paths; whichever is protected, the other one goes elsewhere.
        let variant = match path.strip_suffix('/') {
            Some("") => continue,
            Some(bare) => bare.to_owned(),
            None => format!("{path}/"),
        };
        let Some(public) = winner(&whole, route, &variant).filter(|taken| is_public(taken)) else { continue };
        // Somebody who wrote the variant down meant it.
        if public.path == variant {
            continue;
        }
        let below = if path.ends_with('/') { "" } else { " and everything below it" };
        let problem =
            format!("needs a token, but `{variant}`{below} falls to the public route `{}`", public.path);
        let remedy =
            format!("add a route for `{variant}` with the same token, or make the public route narrower");
        rules.errors.warn(value.span(), &key, problem, remedy);
    }
}

/// The route that a request for `path` to a host of `of` gets: the exact one, else the longest prefix; among those of one path
/// rather a public one.
fn winner<'r>(routes: &Routes<'r>, of: &Route, path: &str) -> Option<&'r Route> {
    let at = |path: &str| {
        let meets = |route: &&&Route| route.hosts.is_empty() || route.hosts == of.hosts;
        let same = routes.get(path).into_iter().flatten().filter(meets);
        same.copied().min_by_key(|route| !is_public(route))
    };
    let prefix = |(end, _)| at(path.get(..=end)?);
    at(path).or_else(|| path.rmatch_indices('/').find_map(prefix))
}

/// A preflight carries no token, so a route for `OPTIONS` alone gives nothing away.
fn is_public(route: &Route) -> bool {
    route.tokens.is_empty() && route.methods != [Method::OPTIONS]
}
