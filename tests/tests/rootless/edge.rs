//! The edge from end to end on loopback: real TLS, HTTP/1.1 and HTTP/2 clients, a real server behind.

use std::{convert::Infallible, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use enforcer::denial::Denial;
use enforcer_tests::{
    edge::{Client, Outgoing, Site},
    origin::Origin,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use serde_json::Value;

fn get(path: &str) -> http::request::Builder {
    Request::get(path)
}

fn nothing() -> Outgoing {
    Empty::new().boxed()
}

async fn text(response: Response<Incoming>) -> Result<String> {
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
}

async fn json(response: Response<Incoming>) -> Result<Value> {
    Ok(serde_json::from_str(&text(response).await?)?)
}

#[tokio::test]
async fn a_good_request_is_proxied_over_both_protocols() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    let token = edge.site.token()?;
    for mut client in edge.clients().await? {
        let request = get("/api/things?x=1&y=%2F")
            .header("authorization", format!("Bearer {token}"))
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-user", "root")
            .header("forwarded", "for=203.0.113.9")
            .header("x-real-ip", "203.0.113.9")
            .header("x-plain", "kept");
        let response = client.send(request.body(nothing())?).await?;
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers().clone();
        assert_eq!(headers["strict-transport-security"], "max-age=31536000");
        assert_eq!(headers["x-kept"], "yes");
        for removed in ["server", "connection", "x-internal"] {
            assert!(!headers.contains_key(removed), "{removed}");
        }
        let seen = json(response).await?;
        assert_eq!(seen["target"], "/api/things?x=1&y=%2F");
        assert_eq!(seen["version"], "HTTP/1.1");
        let sent = |name: &str| -> Vec<String> {
            let headers = seen["headers"].as_array().unwrap().iter();
            headers.filter(|h| h[0] == name).map(|h| h[1].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(sent("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(sent("x-forwarded-proto"), ["https"]);
        assert_eq!(sent("x-forwarded-host"), ["api.example.com"]);
        assert_eq!(sent("host"), ["api.example.com"]);
        assert_eq!(sent("x-plain"), ["kept"]);
        assert_eq!(sent("authorization"), [format!("Bearer {token}")]);
        for removed in ["x-forwarded-user", "forwarded", "x-real-ip"] {
            assert!(sent(removed).is_empty(), "{removed}");
        }
    }
    Ok(())
}
