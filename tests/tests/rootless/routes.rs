//! Which route a request gets: by host, path, fields and method, in the documented order.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::{
    checks::{
        Grant, Now, Refusal, admit,
        facts::{Client, ClientAddr, RequestFacts},
        token::KnownTokens,
    },
    clock::KernelTime,
    config::{self, HeaderRule, Unrouted},
    denial::Denial,
    policy::Policy,
};
use enforcer_tests::{
    edge::{NAME, Site, route},
    origin::Origin,
};
use http::{HeaderMap, HeaderName, Method, Request};
use http_body_util::{BodyExt, Empty};

/// A policy with these routes.
pub(super) fn policy(routes: Vec<config::Route>, change: impl FnOnce(&mut Site)) -> Result<Policy> {
    let mut site = Site::new("127.0.0.1:9".parse()?)?;
    site.config.routes = routes;
    change(&mut site);
    Policy::load(&site.config)
}

/// A request to decide upon: `GET host path`, and perhaps fields.
pub(super) struct Ask<'a> {
    pub(super) client: Client,
    pub(super) method: Method,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) at: u64,
}

impl<'a> Ask<'a> {
    pub(super) fn new(host: &'a str, path: &'a str) -> Self {
        let client = Client::at(ClientAddr::new("192.0.2.7".parse().unwrap()));
        Self { client, method: Method::GET, host, path, headers: HeaderMap::new(), at: 1_000_000_000_000 }
    }

    pub(super) fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    pub(super) fn field(mut self, name: &str, value: &str) -> Self {
        self.headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        self
    }

    pub(super) fn of(&self, policy: &Policy) -> Result<Grant, Refusal> {
        let facts = RequestFacts {
            client: &self.client,
            address: self.client.address,
            path: self.path.into(),
            method: &self.method,
            query: None,
            named: Some(self.host),
            headers: &self.headers,
        };
        let now = Now { monotonic: KernelTime(self.at), unix: super::admit::NOW };
        admit(policy, &facts, now, &mut KnownTokens::new(0))
    }

    fn name(&self, policy: &Policy) -> Result<String, Denial> {
        self.of(policy).map(|grant| grant.route().name.to_string()).map_err(|refusal| refusal.denial)
    }
}

fn named(name: &str, path: &str, hosts: &[&str]) -> config::Route {
    let hosts = hosts.iter().map(|host| host.to_string()).collect();
    config::Route { name: name.to_owned(), hosts, ..route(path, None, &[]) }
}

fn rule(name: &str, value: Option<&str>) -> HeaderRule {
    HeaderRule { name: name.parse().unwrap(), value: value.map(str::to_owned) }
}

#[test]
fn the_narrowest_host_and_then_the_narrowest_path_decides() -> Result<()> {
    let policy = policy(
        vec![
            named("any", "/", &[]),
            named("any-deep", "/a/b/c/", &[]),
            named("wild", "/a/", &["*.example.com"]),
            named("exact", "/a/b/", &["api.example.com", "www.example.net"]),
            named("exact-file", "/a/b/c", &["api.example.com"]),
        ],
        |_| (),
    )?;
    for (host, path, expected) in [
        ("api.example.com", "/a/b/x", "exact"),
        ("API.Example.COM", "/a/b/x", "exact"),
        ("www.example.net", "/a/b/", "exact"),
        ("api.example.com", "/a/b/c", "exact-file"),
        ("api.example.com", "/a/b/c/", "exact"),
        ("api.example.com", "/a/x", "wild"),
        ("api.example.com", "/x", "any"),
        ("shop.example.com", "/a/b/c/d", "wild"),
        ("a.b.example.com", "/a/b/c/d", "any-deep"),
        ("example.com", "/a/x", "any"),
        ("", "/a/b/c/d", "any-deep"),
        ("192.0.2.1", "/a", "any"),
    ] {
        assert_eq!(Ask::new(host, path).name(&policy), Ok(expected.to_owned()), "{host}{path}");
    }
    Ok(())
}

#[test]
fn another_method_finds_no_way_around() -> Result<()> {
    let with = |methods: &[Method], name| {
        let route = named(name, "/orders/", &[]);
        config::Route { methods: methods.to_vec(), ..route }
    };
    let policy = policy(
        vec![
            named("all", "/", &[]),
            with(&[Method::POST], "write"),
            with(&[Method::GET, Method::HEAD], "read"),
        ],
        |_| (),
    )?;
    let ask = |method: Method| Ask::new(NAME, "/orders/7").method(method);
    assert_eq!(ask(Method::GET).name(&policy), Ok("read".to_owned()));
    assert_eq!(ask(Method::POST).name(&policy), Ok("write".to_owned()));
    for method in [Method::DELETE, Method::OPTIONS, Method::from_bytes(b"post").unwrap()] {
        let refusal = ask(method.clone()).of(&policy).unwrap_err();
        assert_eq!(refusal.denial, Denial::MethodNotAllowed, "{method}");
        assert_eq!(*refusal.allow.unwrap(), "GET, HEAD, POST");
    }
    let elsewhere = Ask::new(NAME, "/other").method(Method::DELETE);
    assert_eq!(elsewhere.name(&policy), Ok("all".to_owned()));
    Ok(())
}

#[test]
fn a_preflight_can_have_a_public_route_beside_the_one_with_a_token() -> Result<()> {
    let preflight = config::Route { methods: vec![Method::OPTIONS], ..named("preflight", "/api/", &[]) };
    let policy = policy(vec![route("/api/", Some("main"), &["read"]), preflight], |_| ())?;
    assert_eq!(Ask::new(NAME, "/api/x").name(&policy), Err(Denial::TokenMissing));
    let asked = Ask::new(NAME, "/api/x").method(Method::OPTIONS).name(&policy);
    assert_eq!(asked, Ok("preflight".to_owned()));
    Ok(())
}

#[test]
fn conditions_on_fields_are_asked_from_the_most_to_the_fewest() -> Result<()> {
    let with = |rules: Vec<HeaderRule>, name| {
        let route = named(name, "/v/", &[]);
        config::Route { headers: rules, ..route }
    };
    let policy = policy(
        vec![
            named("plain", "/v/", &[]),
            with(vec![rule("x-version", None)], "some"),
            with(vec![rule("x-version", Some("2"))], "two"),
            with(vec![rule("x-version", Some("2")), rule("x-beta", None)], "two-beta"),
        ],
        |_| (),
    )?;
    let ask = || Ask::new(NAME, "/v/x");
    for (asked, expected) in [
        (ask(), "plain"),
        (ask().field("x-version", "1"), "some"),
        (ask().field("x-version", "2"), "two"),
        (ask().field("x-version", "2").field("x-beta", ""), "two-beta"),
        (ask().field("x-version", "2").field("x-version", "1"), "some"),
        (ask().field("x-beta", "1"), "plain"),
    ] {
        assert_eq!(asked.name(&policy), Ok(expected.to_owned()));
    }
    Ok(())
}

#[test]
fn what_no_route_is_for_is_not_found_or_refused() -> Result<()> {
    let load = |unrouted| {
        policy(vec![named("one", "/one/", &["api.example.com"])], |site| site.config.http.unrouted = unrouted)
    };
    let ask = Ask::new("other.example.com", "/one/x");
    assert_eq!(ask.name(&load(Unrouted::NotFound)?), Err(Denial::RouteNotFound));
    assert_eq!(ask.name(&load(Unrouted::Deny)?), Err(Denial::RouteDenied));
    assert_eq!((Denial::RouteDenied.status(), Denial::RouteDenied.weight() > 0), (403, true));
    Ok(())
}

/// Hundreds of routes, and the longest path that a head can hold: as many lookups as the longest prefix has segments.
#[test]
fn a_long_path_costs_no_more_than_the_longest_prefix() -> Result<()> {
    let routes = (0..500).map(|n| named(&format!("r{n}"), &format!("/r{n}/{}", "x/".repeat(n % 20)), &[]));
    let policy = policy(routes.collect(), |_| ())?;
    let long = "/a".repeat(16_000);
    // Looking up every segment would hash half a terabyte, which nobody waits for.
    for _ in 0..2_000 {
        assert_eq!(Ask::new(NAME, &long).name(&policy), Err(Denial::RouteNotFound));
    }
    assert_eq!(Ask::new(NAME, "/r499/x").name(&policy), Err(Denial::RouteNotFound));
    assert_eq!(Ask::new(NAME, "/r480/y").name(&policy), Ok("r480".to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_wrong_method_is_answered_with_the_right_ones() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.routes[0].methods = vec![Method::GET, Method::HEAD];
    let edge = site.start()?;
    for mut client in edge.clients().await? {
        let request = Request::delete("/public/x").body(Empty::new().boxed())?;
        let response = client.send(request).await?;
        assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"GET, HEAD".parse()?));
        let body = response.into_body().collect().await?.to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body)?;
        assert_eq!(problem["code"], "method_not_allowed");
    }
    Ok(())
}
