//! The edge from end to end on loopback: real TLS, HTTP/1.1 and HTTP/2 clients, a real server behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use enforcer::{
    config::{Certificate, Limit, RateLimit},
    denial::Denial,
};
use enforcer_tests::{
    edge::{Client, Edge, NAME, Outgoing, Site, route, upstream},
    origin::Origin,
    pki::KeyKind,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bodies::{Channel, Unannounced, eventually, within};

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

#[tokio::test]
async fn bodies_stream_both_ways_at_once() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    for mut client in edge.clients().await? {
        let (sender, body) = Channel::open();
        let response = client.send(Request::post("/public/echo").body(body)?).await?;
        assert_eq!(response.status(), StatusCode::OK);
        let mut echo = response.into_body();
        for round in 0..5 {
            // The next piece is sent only after the last one came back: nothing may be collected on the way.
            let piece = Bytes::from(format!("piece {round}"));
            sender.send(piece.clone()).await?;
            let frame = within(echo.frame()).await?.unwrap()?;
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        drop(sender);
        assert!(is_over(&mut echo).await?);
    }
    Ok(())
}

/// Whether nothing more comes; an empty DATA frame may mark the end.
async fn is_over(body: &mut Incoming) -> Result<bool> {
    Ok(within(body.collect()).await??.to_bytes().is_empty())
}

#[tokio::test]
async fn a_body_beyond_its_bound_is_refused_announced_or_not() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.max_body_bytes = 1000;
    let edge = site.start()?;
    for announced in [true, false] {
        for mut client in edge.clients().await? {
            let body = Full::new(Bytes::from(vec![b'x'; 1001]));
            let body = if announced { body.boxed() } else { Unannounced(body).boxed() };
            let response = client.send(Request::post("/public/sink").body(body)?).await?;
            assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "announced: {announced}");
            assert_eq!(json(response).await?["code"], "body_too_large");
        }
    }
    let mut client = edge.http2().await?;
    let body = Full::new(Bytes::from(vec![b'x'; 1000])).boxed();
    let response = client.send(Request::post("/public/sink").body(body)?).await?;
    assert_eq!(text(response).await?, "1000");
    Ok(())
}

#[tokio::test]
async fn refusals_are_problem_documents_and_offences() -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    for mut client in edge.clients().await? {
        let response = client.send(get("/api/x").body(nothing())?).await?;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["www-authenticate"], r#"Bearer realm="main""#);
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["strict-transport-security"], "max-age=31536000");
        let problem = json(response).await?;
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["title"], "Unauthorized");
        assert_eq!(problem["status"], 401);
        assert_eq!(problem["code"], "token_missing");
        assert_eq!(problem["detail"], Denial::TokenMissing.message());
        assert_eq!(problem["request_id"].as_str().unwrap().len(), 32);

        let response = client.send(get("/nowhere").body(nothing())?).await?;
        assert_eq!(
            (response.status(), json(response).await?["code"].clone()),
            (StatusCode::NOT_FOUND, "route_not_found".into())
        );
        let response = client.send(get("/public/%2e%2e/api/x").body(nothing())?).await?;
        assert_eq!(
            (response.status(), json(response).await?["code"].clone()),
            (StatusCode::BAD_REQUEST, "request_malformed".into())
        );
    }
    let expected = [Denial::TokenMissing, Denial::RouteNotFound, Denial::RequestMalformed];
    for denial in expected.iter().chain(&expected) {
        let offence = within(edge.offences.recv()).await?.unwrap();
        assert_eq!((offence.source.to_string().as_str(), offence.denial), ("127.0.0.1", *denial));
    }
    let counted = |code: &str| edge.metrics.denials.with_label_values(&[code]).get();
    assert_eq!((counted("token_missing"), counted("route_not_found"), counted("tls_handshake")), (2, 2, 0));
    assert_eq!(edge.metrics.requests.with_label_values(&["/api/", "4xx"]).get(), 2);
    assert_eq!(edge.metrics.requests.with_label_values(&["none", "4xx"]).get(), 4);
    assert_eq!(edge.metrics.connections.with_label_values(&["accepted"]).get(), 2);
    Ok(())
}

#[tokio::test]
async fn a_limited_route_answers_429_with_retry_after() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    // One an hour and two more at once: no timing can admit a fourth.
    let limit = RateLimit { events: 1, period: Duration::from_secs(3600), burst: 2 };
    site.config.routes[0].limits = vec![Limit::by_address(limit)];
    let edge = site.start()?;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        for mut client in edge.clients().await? {
            let response = client.send(get("/public/x").body(nothing())?).await?;
            let wait = response
                .headers()
                .get("retry-after")
                .map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
            statuses.push(response.status().as_u16());
            assert_eq!(wait.is_some(), response.status() == StatusCode::TOO_MANY_REQUESTS);
            assert!(wait.is_none_or(|wait| (3500..=3600).contains(&wait)), "{wait:?}");
        }
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    Ok(())
}

#[tokio::test]
async fn a_reload_changes_the_certificate_and_keeps_connections() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    let mut open = edge.clients().await?;
    let before = edge.certificate("api.example.com").await?;
    edge.site.authority.issue(&["api.example.com"], KeyKind::Rsa2048)?.write(edge.site.dir.path(), "api")?;
    let old = edge.policy.load_full();
    edge.policy.store(old.reload(&edge.site.config)?.into());
    assert_ne!(edge.certificate("api.example.com").await?, before);
    for client in &mut open {
        let response = client.send(get("/public/x").body(nothing())?).await?;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!client.is_closed());
    }
    let key = &edge.site.config.listeners[0].certificates[0].key;
    std::fs::write(key, edge.site.authority.issue(&["api.example.com"], KeyKind::P256)?.key_pem)?;
    let error = format!("{:#}", edge.policy.load().reload(&edge.site.config).unwrap_err());
    assert!(
        error.contains("api.key does not belong")
            || error.contains("does not belong to the first certificate"),
        "{error}"
    );
    assert!(error.contains("api.pem") && error.contains("api.key"), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let (chain, key) = site
        .authority
        .issue(&["a.example.org", "*.example.net"], KeyKind::Rsa2048)?
        .write(site.dir.path(), "second")?;
    site.config.listeners[0].certificates.push(Certificate { chain, key, ocsp: None });
    let edge = site.start()?;
    let first = edge.certificate("api.example.com").await?;
    let second = edge.certificate("a.example.org").await?;
    assert_ne!(first, second, "an exact name wins over the other's wildcard");
    assert_eq!(edge.certificate("b.example.org").await?, first);
    assert_eq!(edge.certificate("x.example.net").await?, second);
    // The first one is shown to everybody else, and the client refuses it.
    assert!(edge.certificate("unknown.example").await.is_err());
    Ok(())
}

#[tokio::test]
async fn alpn_decides_and_a_foreign_protocol_is_refused() -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    let chosen = |stream: &tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    };
    assert_eq!(chosen(&edge.tls(NAME, &["http/1.1", "h2"]).await?), Some(b"h2".to_vec()));
    assert_eq!(chosen(&edge.tls(NAME, &["http/1.1"]).await?), Some(b"http/1.1".to_vec()));
    assert_eq!(chosen(&edge.tls(NAME, &[]).await?), None);
    assert!(edge.tls(NAME, &["spdy/3"]).await.is_err());
    assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::TlsHandshake);
    Ok(())
}

#[tokio::test]
async fn tls_1_1_and_plain_http_are_refused() -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    // RFC 4346: a ClientHello of TLS 1.1 with one suite and the extension signature_algorithms.
    let mut hello = vec![0x16, 3, 1, 0, 55, 1, 0, 0, 51, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x14, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let answer = raw(&edge, &hello).await?;
    assert_eq!(answer[0], 0x15, "an alert");
    assert_eq!(answer[5..7], [2, 70], "fatal protocol_version (RFC 8446 section 6.2)");
    raw(&edge, b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n").await?;
    for _ in 0..2 {
        assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::TlsHandshake);
    }
    assert_eq!(edge.metrics.connections.with_label_values(&["tls_handshake"]).get(), 2);
    Ok(())
}

async fn raw(edge: &Edge, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = tokio::net::TcpStream::connect(edge.address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    // A reset after the alert is as good an end as any.
    let _ = within(stream.read_to_end(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test]
async fn heads_that_cannot_be_read_end_the_connection() -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    let large = format!("GET /public/x HTTP/1.1\r\nhost: {NAME}\r\nx: {}\r\n\r\n", "x".repeat(40 << 10));
    let two_hosts =
        format!("GET /public/x HTTP/1.1\r\nhost: {NAME}\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    for (bytes, status, denial) in [
        (large.as_str(), "HTTP/1.1 431", Denial::HeadersTooLarge),
        ("GET /public/x HTTP/1.1\r\nno colon\r\n\r\n", "HTTP/1.1 400", Denial::RequestMalformed),
        ("GET /public/x HTTP/1.1\r\nconnection: close\r\n\r\n", "HTTP/1.1 400", Denial::RequestMalformed),
        (two_hosts.as_str(), "HTTP/1.1 400", Denial::RequestMalformed),
    ] {
        let answer = exchange(&edge, bytes).await?;
        assert!(answer.starts_with(status), "{bytes:.40}: {answer:.40}");
        assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, denial, "{bytes:.40}");
    }
    Ok(())
}

/// Sends bytes over TLS and reads until the server closes.
async fn exchange(edge: &Edge, bytes: &str) -> Result<String> {
    let mut stream = edge.tls(NAME, &["http/1.1"]).await?;
    // The server may close before it has read everything, and without a farewell.
    let _ = stream.write_all(bytes.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn slow_heads_and_slow_handshakes_are_cut() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.header_timeout = Duration::from_millis(200);
    let mut edge = site.start()?;
    let answer = exchange(&edge, "GET /public/x HTTP/1.1\r\nhost: api.exa").await?;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::RequestTimeout);
    assert_eq!(edge.metrics.time_limits.with_label_values(&["head"]).get(), 1);

    let mut site = Site::new(origin.address)?;
    site.config.listeners[0].handshake_timeout = Duration::from_millis(200);
    let mut edge = site.start()?;
    assert!(raw(&edge, b"\x16").await?.is_empty());
    assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::TlsTimeout);
    assert_eq!(edge.metrics.time_limits.with_label_values(&["handshake"]).get(), 1);
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_fails_is_named_and_nobody_is_blamed() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    // A port that was free a moment ago and that nobody listens on.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut impatient = upstream(origin.address)?;
    impatient.response_timeout = Duration::from_millis(200);
    for (name, upstream) in [("gone", upstream(closed)?), ("impatient", impatient)] {
        site.config.upstreams.insert(name.to_owned(), upstream);
        let mut route = route(&format!("/{name}/"), None, &[]);
        route.upstream = name.to_owned();
        site.config.routes.push(route);
    }
    let mut edge = site.start()?;
    for mut client in edge.clients().await? {
        for (path, status, code) in [
            ("/gone/x", 502, "upstream_unreachable"),
            ("/impatient/stall", 504, "upstream_timeout"),
            ("/public/break", 502, "upstream_protocol"),
            ("/public/empty", 204, ""),
        ] {
            let response = client.send(get(path).body(nothing())?).await?;
            assert_eq!(response.status().as_u16(), status, "{path}");
            if !code.is_empty() {
                assert_eq!(json(response).await?["code"], code);
            }
        }
    }
    assert!(edge.offences.try_recv().is_err());
    Ok(())
}

#[tokio::test]
async fn an_upload_that_stalls_is_the_clients_fault() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.upstreams.get_mut("api").unwrap().response_timeout = Duration::from_millis(200);
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    let (sender, body) = Channel::open();
    sender.send(Bytes::from_static(b"and then nothing")).await?;
    let response = client.send(Request::post("/public/stall").body(body)?).await?;
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    drop(sender);
    assert_eq!(edge.metrics.time_limits.with_label_values(&["body"]).get(), 1);
    Ok(())
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_and_counted() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.max_connections = 2;
    let edge = site.start()?;
    let open = edge.clients().await?;
    assert!(edge.tls(NAME, &[]).await.is_err());
    assert_eq!(edge.metrics.connections.with_label_values(&["overloaded"]).get(), 1);
    assert_eq!(edge.metrics.connections_open.get(), 2);
    drop(open);
    eventually(|| edge.metrics.connections_open.get() == 0).await?;
    assert!(edge.tls(NAME, &[]).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn idle_connections_are_closed() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.idle_timeout = Duration::from_millis(700);
    let edge = site.start()?;
    for is_http2 in [false, true] {
        let mut client = if is_http2 { edge.http2().await? } else { edge.http1().await? };
        // Longer than the idle time, but not idle.
        let response = client.send(get("/public/slow").body(nothing())?).await?;
        assert!(!text(response).await?.is_empty());
        eventually(|| edge.metrics.connections_open.get() == 0 && client.is_closed()).await?;
    }
    assert_eq!(edge.metrics.time_limits.with_label_values(&["idle"]).get(), 2);
    Ok(())
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_refuses_the_rest() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    let address = edge.address;
    let mut clients = edge.clients().await?;
    let mut answers = Vec::new();
    let mut senders = Vec::new();
    for client in &mut clients {
        let (sender, body) = Channel::open();
        // The answer has begun, so the request is under way beyond doubt.
        answers.push(client.send(Request::post("/public/echo").body(body)?).await?.into_body());
        senders.push(sender);
    }
    let idle = edge.clients().await?;
    let drain = tokio::spawn(edge.ingress.drain(Duration::from_secs(20)));
    eventually(|| idle.iter().all(Client::is_closed)).await?;
    eventually(|| std::net::TcpStream::connect(address).is_err()).await?;
    assert!(!drain.is_finished());
    for (sender, mut answer) in senders.into_iter().zip(answers) {
        sender.send(Bytes::from_static(b"late")).await?;
        assert_eq!(within(answer.frame()).await?.unwrap()?.into_data().unwrap(), "late");
        drop(sender);
        assert!(is_over(&mut answer).await?);
    }
    let report = within(drain).await??;
    assert_eq!(report.aborted, 0);
    Ok(())
}

#[tokio::test]
async fn a_drain_that_runs_out_of_time_cuts_what_is_left() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    let mut client = edge.http2().await?;
    let (sender, body) = Channel::open();
    let answer = client.send(Request::post("/public/echo").body(body)?).await?;
    let report = within(edge.ingress.drain(Duration::from_millis(50))).await?;
    assert_eq!(report.aborted, 1);
    drop((sender, answer));
    Ok(())
}

#[tokio::test]
async fn a_field_that_a_route_requires_and_something_took_away_is_named_and_counted() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.routes[1].required_headers = vec!["x-device-id".parse()?, "x-attestation".parse()?];
    let token = site.token()?;
    let mut edge = site.start()?;
    for mut client in edge.clients().await? {
        for (device, attestation, status) in
            [(Some("d"), Some("a"), 200), (Some("d"), None, 400), (Some(""), Some("a"), 400)]
        {
            // Without the field the token is not even looked at.
            let bearer = if status == 200 { format!("Bearer {token}") } else { "Bearer x".to_owned() };
            let mut request = get("/api/x").header("authorization", bearer);
            for (name, value) in [("x-device-id", device), ("x-attestation", attestation)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let response = client.send(request.body(nothing())?).await?;
            assert_eq!(response.status().as_u16(), status);
            if status == 400 {
                assert_eq!(json(response).await?["code"], "header_missing");
            } else {
                text(response).await?;
            }
        }
    }
    let missing = |name: &str| edge.metrics.headers_missing.with_label_values(&["/api/", name]).get();
    assert_eq!((missing("x-device-id"), missing("x-attestation")), (2, 2));
    assert!(edge.offences.try_recv().is_err(), "nobody is banned for what a middlebox does");
    Ok(())
}
