//! Which route a request belongs to.
//!
//! The order, from the narrowest to the widest: hosts (exact, then `*.`, then any), within a host paths (exact, then the longest
//! prefix), within a path conditions on fields (most first, values before mere presence), then routes that name methods, then the
//! order of the file. The first
//! path at which some route's conditions hold decides; if none of its routes takes the method, nothing wider is looked at,
//! so that another method never finds a way around. A lookup costs a hash per host form and per segment of the path, however
//! many routes there are. Paths are compared decoded; whoever asks has refused every path that two parties could read
//! differently.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use anyhow::{Result, bail};
use http::{HeaderMap, HeaderValue, Method};

use super::Route;
use crate::config;

/// All routes.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: HashMap<Box<str>, Paths>,
    /// By the name behind `*.`.
    wildcards: HashMap<Box<str>, Paths>,
    any: Paths,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Vec<Arc<Route>>>,
    prefixes: HashMap<Box<str>, Vec<Arc<Route>>>,
    /// Length of the longest prefix: what is longer need not be looked up.
    longest: usize,
}

/// Why there is no route.
#[derive(Debug, PartialEq, Eq)]
pub enum Miss {
    /// For nothing of the kind.
    Nothing,
    /// The path is known; these are its methods (RFC 9110 section 10.2.1).
    Method(HeaderValue),
}

impl RouteTable {
    /// A table over `routes`, each with the hosts that it is for; two for the same requests would hide each other and are an error.
    pub fn new(routes: Vec<(&[String], Arc<Route>)>) -> Result<Self> {
        let mut table = Self::default();
        for (hosts, route) in routes {
            if hosts.is_empty() {
                table.any.add(&route)?;
            }
            for host in hosts {
                let paths = match host.strip_prefix("*.") {
                    Some(behind) => table.wildcards.entry(behind.into()).or_default(),
                    None => table.exact.entry(host.as_str().into()).or_default(),
                };
                paths.add(&route)?;
            }
        }
        let hosts = table.exact.values_mut().chain(table.wildcards.values_mut());
        for paths in hosts.chain([&mut table.any]) {
            for routes in paths.exact.values_mut().chain(paths.prefixes.values_mut()) {
                // Stable: what is equal keeps the order of the file.
                routes.sort_by_key(|route| {
                    let values = route.headers.iter().filter(|rule| rule.value.is_some()).count();
                    Reverse((route.headers.len(), values, !route.methods.is_empty()))
                });
            }
        }
        Ok(table)
    }

    /// The route of a request. `host` is in lower case.
    pub fn find(
        &self,
        host: Option<&str>,
        path: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<&Arc<Route>, Miss> {
        let exact = host.and_then(|host| self.exact.get(host));
        // One label in the place of the asterisk, as in certificates (RFC 9525 section 6.3).
        let wildcard = host.and_then(|host| self.wildcards.get(host.split_once('.')?.1));
        for paths in exact.into_iter().chain(wildcard).chain([&self.any]) {
            if let Some(found) = paths.find(path, method, headers) {
                return found;
            }
        }
        Err(Miss::Nothing)
    }

    /// Whether any route asks for the host.
    pub fn needs_host(&self) -> bool {
        !self.exact.is_empty() || !self.wildcards.is_empty()
    }
}

impl Paths {
    fn add(&mut self, route: &Arc<Route>) -> Result<()> {
        let kind = if route.path.ends_with('/') {
            self.longest = self.longest.max(route.path.len());
            &mut self.prefixes
        } else {
            &mut self.exact
        };
        let routes = kind.entry(route.path.clone()).or_default();
        if routes.iter().any(|other| hides(other, route)) {
            bail!("two routes for {}: remove one", route.path);
        }
        routes.push(Arc::clone(route));
        Ok(())
    }

    fn find(&self, path: &str, method: &Method, headers: &HeaderMap) -> Option<Result<&Arc<Route>, Miss>> {
        let exact = self.exact.get(path).and_then(|routes| choose(routes, method, headers));
        exact.or_else(|| {
            let known = path.as_bytes().get(..self.longest).unwrap_or(path.as_bytes());
            let ends = known.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
            ends.filter_map(|(end, _)| self.prefixes.get(path.get(..=end)?))
                .find_map(|routes| choose(routes, method, headers))
        })
    }
}

/// The route among those of a path; `None` if the conditions of none hold.
fn choose<'r>(
    routes: &'r [Arc<Route>],
    method: &Method,
    headers: &HeaderMap,
) -> Option<Result<&'r Arc<Route>, Miss>> {
    let meant = || routes.iter().filter(|route| route.headers.iter().all(|rule| holds(rule, headers)));
    let takes = |route: &&Arc<Route>| route.methods.is_empty() || route.methods.contains(method);
    if let Some(found) = meant().find(takes) {
        return Some(Ok(found));
    }
    let mut allowed: Vec<&str> = meant().flat_map(|route| &route.methods).map(Method::as_str).collect();
    if allowed.is_empty() {
        return None;
    }
    allowed.sort_unstable();
    allowed.dedup();
    // Methods are tokens, which are good header values.
    let allowed = HeaderValue::try_from(allowed.join(", ")).unwrap_or(HeaderValue::from_static(""));
    Some(Err(Miss::Method(allowed)))
}

/// Whether two routes of one path take the same request.
fn hides(one: &Route, other: &Route) -> bool {
    let same = one.headers.len() == other.headers.len()
        && one.headers.iter().all(|rule| other.headers.contains(rule));
    same && match (one.methods.is_empty(), other.methods.is_empty()) {
        (true, true) => true,
        (false, false) => one.methods.iter().any(|method| other.methods.contains(method)),
        _ => false,
    }
}

fn holds(rule: &config::HeaderRule, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(&rule.name).iter();
    match (values.next(), &rule.value) {
        (None, _) => false,
        (Some(_), None) => true,
        // Of two fields nobody knows which one the server behind believes.
        (Some(value), Some(wanted)) => values.next().is_none() && value.as_bytes() == wanted.as_bytes(),
    }
}
