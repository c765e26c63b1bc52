//! Warnings about routes that leave more open than they seem to: a path that needs a token beside a public prefix that
//! takes its variants. Decides about no request; the longest matching path still wins.

use std::collections::HashMap;

use toml::Spanned;

use crate::config::{
    file::{File, RouteSection},
    validate::Rules,
};

/// By path.
type Routes<'f> = HashMap<&'f str, &'f RouteSection>;

/// Warns about a file without routes, and about public prefixes around paths that need a token.
pub(super) fn warn<'f>(file: &'f File, rules: &mut Rules<'_, '_>) {
    if file.route.is_empty() && !rules.errors.knows("route") {
        let problem = "there is no [[route]], so every request is refused".to_owned();
        rules.errors.warn(0..0, "route", problem, "add a [[route]] with a path and an upstream".to_owned());
    }
    let named = |route: &'f RouteSection| route.path.as_ref().map(|path| (path.get_ref().0.as_str(), route));
    let routes: Routes<'f> = file.route.iter().map(Spanned::get_ref).filter_map(named).collect();
    for (i, route) in file.route.iter().enumerate() {
        let route = route.get_ref();
        let Some(value) = route.path.as_ref().filter(|_| route.token.is_some()) else { continue };
        let path = value.get_ref().0.as_str();
        // `/admin` and `/admin/` are two paths; whichever is protected, the other one goes elsewhere.
        let variant = match path.strip_suffix('/') {
            Some("") => continue,
            Some(bare) => bare.to_owned(),
            None => format!("{path}/"),
        };
        let Some(taken) = winner(&routes, &variant).filter(|route| is_public(route)) else { continue };
        let public = taken.path.as_ref().map_or("", |path| path.get_ref().0.as_str());
        // Somebody who wrote the variant down meant it.
        if public == variant {
            continue;
        }
        let below = if path.ends_with('/') { "" } else { " and everything below it" };
        let problem = format!("needs a token, but `{variant}`{below} falls to the public route `{public}`");
        let remedy =
            format!("add a route for `{variant}` with the same token, or make the public route narrower");
        rules.errors.warn(value.span(), &format!("route[{i}].path"), problem, remedy);
    }
}

/// The route that a request for `path` gets: the exact one, else the longest prefix.
fn winner<'f>(routes: &Routes<'f>, path: &str) -> Option<&'f RouteSection> {
    let prefix = |(end, _)| routes.get(path.get(..=end)?).copied();
    routes.get(path).copied().or_else(|| path.rmatch_indices('/').find_map(prefix))
}

fn is_public(route: &RouteSection) -> bool {
    route.token.is_none() && route.public.as_ref().is_some_and(|public| *public.get_ref())
}
