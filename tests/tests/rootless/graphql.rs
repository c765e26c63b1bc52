//! GraphQL routes from end to end: what documents may ask for, and that nothing unjudged reaches the server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use enforcer::config::{GraphQl, Limit, LimitKey, Meant, Operation, OperationKind, RateLimit};
use enforcer_tests::{
    edge::{Client, Edge, Site},
    origin::Origin,
};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::bodies::{Channel, within};

/// `/api/`, with a token and the scope `read`, as it is by default.
fn plain() -> GraphQl {
    GraphQl {
        max_body_bytes: 4_096,
        max_document_bytes: 1_024,
        max_depth: 3,
        max_aliases: 2,
        max_batch: 0,
        introspection: false,
        kinds: vec![OperationKind::Query, OperationKind::Mutation],
        others: true,
        operations: Vec::new(),
    }
}

async fn edge(graphql: GraphQl) -> Result<(Edge, Origin)> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.routes[1].graphql = Some(graphql);
    Ok((site.start()?, origin))
}

/// A request with a good token: status, and the code of a refusal, or else what arrived at the server.
async fn ask(
    edge: &Edge,
    client: &mut Client,
    method: Method,
    target: &str,
    kind: &str,
    body: &str,
) -> Result<(u16, String)> {
    let token = format!("Bearer {}", edge.site.token()?);
    let request = Request::builder().method(method).uri(target).header("authorization", token);
    let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
    let response = client.send(request.body(Full::new(Bytes::from(body.to_owned())).boxed())?).await?;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let code =
        serde_json::from_str::<Value>(&text).ok().and_then(|said| said["code"].as_str().map(str::to_owned));
    Ok((status, code.unwrap_or(text)))
}

/// `POST` of a document as JSON, to what gives the body back.
async fn post(edge: &Edge, client: &mut Client, document: &str) -> Result<(u16, String)> {
    let body = json!({ "query": document }).to_string();
    let (status, answer) = ask(edge, client, Method::POST, "/api/echo", "application/json", &body).await?;
    Ok((status, if answer == body { "echo".to_owned() } else { answer }))
}

#[tokio::test]
async fn documents_within_bounds_arrive_unchanged_and_others_do_not() -> Result<()> {
    let (edge, _origin) = edge(plain()).await?;
    let long = format!("{{ a }} #{}", "x".repeat(1_100));
    for mut client in edge.clients().await? {
        for (document, expected) in [
            ("{ a { b { c } } }", (200, "echo")),
            ("mutation M { x: pay { id } }", (200, "echo")),
            ("{ a { b { c { d } } } }", (400, "graphql_depth")),
            ("{ a ...F } fragment F on Q { b { c { d { e } } } }", (400, "graphql_depth")),
            ("{ ...F } fragment F on Q { ...F }", (400, "graphql_malformed")),
            ("{ x: a y: a z: a }", (400, "graphql_aliases")),
            ("{ __schema { types { name } } }", (403, "graphql_introspection")),
            ("subscription { s }", (403, "graphql_operation")),
            ("{ a", (400, "graphql_malformed")),
            (long.as_str(), (413, "graphql_too_large")),
        ] {
            let (status, code) = post(&edge, &mut client, document).await?;
            assert_eq!((status, code.as_str()), expected, "{document}");
        }
        let json = "application/json";
        let big = json!({ "query": "{ a }", "variables": { "x": "y".repeat(5_000) } }).to_string();
        for (method, target, kind, body, expected) in [
            (Method::POST, "/api/echo", json, big.as_str(), (413, "graphql_too_large")),
            (Method::POST, "/api/echo", json, r#"[{"query":"{a}"}]"#, (400, "graphql_batch")),
            (Method::POST, "/api/echo", json, r#"{"query":"{a}","query":"{b}"}"#, (400, "graphql_malformed")),
            (Method::POST, "/api/echo?query=%7Bb%7D", json, r#"{"query":"{a}"}"#, (400, "graphql_malformed")),
            (Method::POST, "/api/echo", "text/plain", "{ a }", (415, "graphql_media_type")),
            (Method::POST, "/api/echo", "application/graphql", "{ a }", (200, "{ a }")),
            (Method::POST, "/api/echo", json, "", (400, "graphql_malformed")),
            (Method::PUT, "/api/echo", json, r#"{"query":"{a}"}"#, (405, "method_not_allowed")),
            (Method::GET, "/api/echo?query=mutation%7Bpay%7D", "", "", (405, "method_not_allowed")),
            (Method::GET, "/api/echo?query=%7Ba%7D", "", "", (200, "")),
            (Method::GET, "/api/echo?query=%7Ba%7D", "", "{ b }", (400, "graphql_malformed")),
            (Method::GET, "/api/echo", "", "", (400, "graphql_malformed")),
        ] {
            let (status, said) = ask(&edge, &mut client, method, target, kind, body).await?;
            assert_eq!((status, said.as_str()), expected, "{target} {body}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn operations_need_scopes_and_have_limits_of_their_own() -> Result<()> {
    let rate = RateLimit { events: 1, period: Duration::from_secs(3600), burst: 0 };
    let limit = Limit { name: "pay".to_owned(), key: LimitKey::Subject, rate, delay: None, dry_run: false };
    let pay = Meant::Field(OperationKind::Mutation, "pay".to_owned());
    let close = Meant::Field(OperationKind::Mutation, "close".to_owned());
    let (edge, _origin) = edge(GraphQl {
        operations: vec![
            Operation { meant: pay, scopes: vec!["write".to_owned()], limits: vec![limit] },
            Operation { meant: close, scopes: vec!["admin".to_owned()], limits: Vec::new() },
            Operation {
                meant: Meant::Name("Old".to_owned()),
                scopes: vec!["old".to_owned()],
                limits: Vec::new(),
            },
        ],
        ..plain()
    })
    .await?;
    let mut client = edge.http2().await?;
    for (document, expected) in [
        // The token has `read` and `write`.
        ("mutation { harmless: close { id } }", (403, "scope_missing")),
        ("mutation { pay { id } ...F } fragment F on M { close }", (403, "scope_missing")),
        ("mutation { x: pay { id } }", (200, "echo")),
        ("mutation Other { pay { id } }", (429, "rate_limited")),
        ("mutation { other }", (200, "echo")),
        ("query Old { a }", (403, "scope_missing")),
        ("query { close }", (200, "echo")),
    ] {
        let (status, code) = post(&edge, &mut client, document).await?;
        assert_eq!((status, code.as_str()), expected, "{document}");
    }
    let counted = edge.metrics.limits.with_label_values(&["/api/", "pay", "refused"]).get();
    assert_eq!(counted, 1);
    Ok(())
}

#[tokio::test]
async fn what_is_not_listed_can_be_refused() -> Result<()> {
    let listed = |meant| Operation { meant, scopes: Vec::new(), limits: Vec::new() };
    let field = |name: &str| listed(Meant::Field(OperationKind::Query, name.to_owned()));
    let (edge, _origin) =
        edge(GraphQl { others: false, operations: vec![field("a"), field("b")], ..plain() }).await?;
    let mut client = edge.http1().await?;
    for (document, expected) in [
        ("{ a b }", (200, "echo")),
        ("{ a b c }", (403, "graphql_operation")),
        ("{ a ...F } fragment F on Q { c }", (403, "graphql_operation")),
        ("mutation { a }", (403, "graphql_operation")),
    ] {
        let (status, code) = post(&edge, &mut client, document).await?;
        assert_eq!((status, code.as_str()), expected, "{document}");
    }
    Ok(())
}

#[tokio::test]
async fn bodies_that_are_held_have_a_bound_together() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.routes[1].graphql = Some(plain());
    site.config.http.max_held_bytes = 2_000;
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    let document = format!("{{ a }} #{}", "x".repeat(500));
    for _ in 0..10 {
        assert_eq!(post(&edge, &mut client, &document).await?, (200, "echo".to_owned()), "it is given back");
    }
    let (sender, body) = Channel::open();
    sender.send(Bytes::from(vec![b' '; 1_800])).await?;
    let request =
        Request::post("/api/echo").header("authorization", format!("Bearer {}", edge.site.token()?));
    let request = request.header("content-type", "application/json").body(body)?;
    let mut slow = edge.http2().await?;
    let slow = tokio::spawn(async move { slow.send(request).await });
    let until = async |client: &mut Client, expected: (u16, &str)| {
        while post(&edge, client, &document).await? != (expected.0, expected.1.to_owned()) {}
        anyhow::Ok(())
    };
    within(until(&mut client, (503, "overloaded"))).await??;
    assert_eq!(edge.metrics.held_bytes.get(), 1_800, "and what is held can be seen");
    drop(sender);
    within(slow).await???;
    within(until(&mut client, (200, "echo"))).await??;
    let none = async {
        while edge.metrics.held_bytes.get() != 0 {
            tokio::task::yield_now().await
        }
    };
    within(none).await?;
    Ok(())
}
