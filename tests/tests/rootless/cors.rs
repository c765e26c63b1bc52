//! Pages of other origins: what their browsers ask beforehand, and what they are told of every answer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::Result;
use enforcer::config::{Cors, Limit, RateLimit};
use enforcer_tests::{
    edge::{Client, Edge, Site, route},
    origin::Origin,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;

const PAGE: &str = "https://app.example.com";

fn cors(origins: &[&str], credentials: bool) -> Cors {
    Cors {
        origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
        methods: vec![Method::GET, Method::POST],
        headers: vec![http::header::AUTHORIZATION, http::header::CONTENT_TYPE],
        expose: vec!["x-total-count".parse().unwrap(), http::header::RETRY_AFTER],
        credentials,
        max_age: Duration::from_secs(600),
    }
}

/// `/api/` needs a token, `/open/` is for every page, `/public/` says nothing of pages.
async fn edge() -> Result<(Edge, Origin)> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.routes[1].cors = Some(cors(&[PAGE, "http://localhost:3000"], true));
    let mut open = route("/open/", None, &[]);
    (open.methods, open.cors) = (vec![Method::GET, Method::HEAD], Some(cors(&[], false)));
    let rate = RateLimit { events: 1, period: Duration::from_secs(3600), burst: 2 };
    open.limits = vec![Limit::by_address(rate)];
    site.config.routes.push(open);
    Ok((site.start()?, origin))
}

async fn ask(
    client: &mut Client,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Response<Incoming>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    client.send(request.body(Empty::new().boxed())?).await
}

fn field<'r>(response: &'r Response<Incoming>, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

fn varies(response: &Response<Incoming>) -> String {
    let values = response.headers().get_all("vary").iter().map(|value| value.to_str().unwrap());
    values.collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn a_browser_is_told_what_its_page_may_ask_for() -> Result<()> {
    let (edge, origin) = edge().await?;
    for mut client in edge.clients().await? {
        for page in [PAGE, "http://localhost:3000"] {
            let fields = [
                ("origin", page),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "authorization"),
            ];
            // Without a token, which the route needs of everything else.
            let told = ask(&mut client, Method::OPTIONS, "/api/x", &fields).await?;
            assert_eq!(told.status(), StatusCode::NO_CONTENT);
            assert_eq!(field(&told, "access-control-allow-origin"), Some(page));
            assert_eq!(field(&told, "access-control-allow-methods"), Some("GET, POST"));
            assert_eq!(field(&told, "access-control-allow-headers"), Some("authorization, content-type"));
            assert_eq!(field(&told, "access-control-allow-credentials"), Some("true"));
            assert_eq!(field(&told, "access-control-max-age"), Some("600"));
            assert!(varies(&told).contains("origin"), "{}", varies(&told));
            assert!(field(&told, "strict-transport-security").is_some());
        }
        for page in [
            "https://evil.example",
            "https://app.example.com.evil.example",
            "null",
            "HTTPS://app.example.com",
        ] {
            let fields = [("origin", page), ("access-control-request-method", "POST")];
            let told = ask(&mut client, Method::OPTIONS, "/api/x", &fields).await?;
            assert_eq!(told.status(), StatusCode::NO_CONTENT);
            let says =
                told.headers().keys().filter(|name| name.as_str().starts_with("access-control")).count();
            assert_eq!(says, 0, "{page}: {:?}", told.headers());
            assert!(varies(&told).contains("origin"));
        }
    }
    assert_eq!(origin.requests(), 0, "nothing of it reaches the upstream");
    Ok(())
}

#[tokio::test]
async fn every_answer_of_the_route_says_who_may_read_it() -> Result<()> {
    let (edge, _origin) = edge().await?;
    let token = format!("Bearer {}", edge.site.token()?);
    let mut client = edge.http2().await?;
    for (fields, status) in
        [(&[("origin", PAGE)][..], 401), (&[("origin", PAGE), ("authorization", token.as_str())], 200)]
    {
        let answer = ask(&mut client, Method::GET, "/api/x", fields).await?;
        assert_eq!(answer.status(), status);
        assert_eq!(field(&answer, "access-control-allow-origin"), Some(PAGE), "{status}");
        assert_eq!(field(&answer, "access-control-allow-credentials"), Some("true"));
        let exposed = field(&answer, "access-control-expose-headers").unwrap();
        let own = "dpop-nonce, www-authenticate, retry-after, ratelimit, ratelimit-policy, x-request-id";
        assert_eq!(exposed, format!("{own}, x-total-count"), "{status}");
    }
    let other = [("origin", "https://evil.example"), ("authorization", token.as_str())];
    let answer = ask(&mut client, Method::GET, "/api/x", &other).await?;
    assert_eq!((answer.status().as_u16(), field(&answer, "access-control-allow-origin")), (200, None));
    assert_eq!(field(&answer, "access-control-expose-headers"), None);
    let answer = ask(&mut client, Method::GET, "/public/x", &[("origin", PAGE)]).await?;
    assert_eq!((field(&answer, "access-control-allow-origin"), varies(&answer).as_str()), (None, ""));
    Ok(())
}

/// A question without what makes it one is a request like others; limits by address hold for questions, too.
#[tokio::test]
async fn what_is_no_preflight_is_judged_like_everything_else() -> Result<()> {
    let (edge, origin) = edge().await?;
    let mut client = edge.http1().await?;
    let asks = ("access-control-request-method", "POST");
    for (path, fields, status) in [
        ("/api/x", &[asks][..], 401),
        ("/api/x", &[("origin", PAGE)], 401),
        ("/api/x", &[("origin", PAGE), ("origin", PAGE), asks], 401),
        ("/api/x", &[("origin", PAGE), ("access-control-request-method", "a b")], 401),
        // The announced request has no route.
        ("/open/x", &[("origin", PAGE), asks], 405),
        ("/nowhere", &[("origin", PAGE), asks], 404),
    ] {
        let answer = ask(&mut client, Method::OPTIONS, path, fields).await?;
        assert_eq!(answer.status(), status, "{path} {fields:?}");
        answer.into_body().collect().await?;
    }
    let answer = ask(&mut client, Method::OPTIONS, "/public/x", &[("origin", PAGE), asks]).await?;
    assert_eq!(
        (answer.status().as_u16(), origin.requests()),
        (200, 1),
        "without `cors` the upstream answers"
    );
    answer.into_body().collect().await?;
    let asks = [("origin", "null"), ("access-control-request-method", "GET")];
    for status in [204, 204, 204, 429] {
        let answer = ask(&mut client, Method::OPTIONS, "/open/x", &asks).await?;
        assert_eq!(answer.status(), status);
        assert_eq!(field(&answer, "access-control-allow-origin"), Some("*"));
        assert_eq!(field(&answer, "access-control-allow-credentials"), None);
        answer.into_body().collect().await?;
    }
    Ok(())
}
