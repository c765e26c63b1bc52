//! What bytes on the wire may do to the edge, and the edge to them: early answers, dead connections, framing, stalls.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use enforcer::denial::Denial;
use enforcer_tests::{
    edge::{Edge, NAME, Outgoing, Site},
    frames::{self, ACK, END_HEADERS, END_STREAM, Frame, frame, kind::*, preface, request},
    origin::Origin,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::bodies::{eventually, within};

fn nothing() -> Outgoing {
    Empty::new().boxed()
}

fn hello() -> Outgoing {
    Full::new(Bytes::from_static(b"hello")).boxed()
}

async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Frame> {
    within(frames::next(stream)).await??.context("the end")
}

/// A server that gives every connection to `script`, and counts them.
async fn scripted<F, S>(script: F) -> Result<(SocketAddr, Arc<AtomicU32>)>
where
    F: Fn(TcpStream, Arc<AtomicU32>) -> S + Send + 'static,
    S: Future<Output = Option<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let heads = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream, Arc::clone(&counter)));
        }
    });
    Ok((address, heads))
}

/// Reads to the end of a head; what follows it in the same packets is lost.
async fn head(stream: &mut TcpStream, heads: &AtomicU32) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    heads.fetch_add(1, SeqCst);
    String::from_utf8(bytes).ok()
}

/// Sends bytes over TLS and reads until the server closes.
async fn exchange(edge: &Edge, bytes: &str) -> Result<String> {
    let mut stream = edge.tls(NAME, &["http/1.1"]).await?;
    let _ = stream.write_all(bytes.as_bytes()).await;
    read_all(&mut stream).await
}

async fn read_all(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<String> {
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn an_early_answer_is_not_followed_by_a_reset() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    let mut stream = edge.tls(NAME, &["h2"]).await?;
    stream.write_all(&preface()).await?;
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/api/x"))).await?;
    loop {
        let Frame { kind, flags, .. } = next_frame(&mut stream).await?;
        assert_ne!(kind, RST_STREAM);
        if (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
            break;
        }
    }
    // The answer is complete and the body is not: only now does the rest come, and nobody minds.
    stream.write_all(&frame(DATA, END_STREAM, 1, b"hello")).await?;
    stream.write_all(&frame(PING, 0, 0, b"are you?")).await?;
    loop {
        let Frame { kind, flags, .. } = next_frame(&mut stream).await?;
        assert_ne!(kind, RST_STREAM);
        if kind == PING && flags & ACK != 0 {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_refused_upload_leaves_an_http1_connection_usable() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    let request = format!("POST /api/x HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: 5\r\n\r\nhello");
    let last = format!("GET /public/x HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
    let answer = exchange(&edge, &format!("{request}{request}{last}")).await?;
    assert_eq!(answer.matches("HTTP/1.1 401").count(), 2, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    // Who waits for a 100 gets the refusal instead.
    let waiting = format!(
        "POST /api/x HTTP/1.1\r\nhost: {NAME}\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 5\r\n\r\n"
    );
    let answer = exchange(&edge, &waiting).await?;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn cookies_are_joined_and_our_fields_are_ours() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    for mut client in edge.clients().await? {
        let request = Request::get("/public/x")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("cookie", "c=3")
            .header("x-request-id", "forged")
            .header("x_real_ip", "203.0.113.9")
            .header("x_forwarded_for", "203.0.113.9");
        let response = client.send(request.body(nothing())?).await?;
        let seen: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        let sent = |name: &str| -> Vec<&str> {
            let headers = seen["headers"].as_array().unwrap().iter();
            headers.filter(|h| h[0] == name).map(|h| h[1].as_str().unwrap()).collect()
        };
        assert_eq!(sent("cookie"), ["a=1; b=2; c=3"]);
        assert!(sent("x_real_ip").is_empty() && sent("x_forwarded_for").is_empty());
        let ids = sent("x-request-id");
        assert_eq!(ids.len(), 1);
        assert!(ids[0].len() == 32 && ids[0].bytes().all(|byte| byte.is_ascii_hexdigit()), "{ids:?}");
    }
    Ok(())
}

/// Answers the first request of a connection and hangs up on the second, once it has read it.
async fn hang_up_on_the_second(mut stream: TcpStream, heads: Arc<AtomicU32>) -> Option<()> {
    head(&mut stream, &heads).await?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?;
    head(&mut stream, &heads).await.map(drop)
}

#[tokio::test]
async fn a_connection_that_died_costs_an_idempotent_request_nothing() -> Result<()> {
    let (address, heads) = scripted(hang_up_on_the_second).await?;
    let edge = Site::new(address)?.start()?;
    let mut client = edge.http1().await?;
    let mut sent = 0;
    // Some requests meet a connection that is in the pool already, and are sent twice.
    while heads.load(SeqCst) <= sent {
        assert!(sent < 1000, "no connection was used again");
        sent += 1;
        let response = client.send(Request::get("/public/x").body(nothing())?).await?;
        assert_eq!(response.status(), StatusCode::OK);
        within(response.into_body().collect()).await??;
    }
    Ok(())
}

#[tokio::test]
async fn a_post_is_never_sent_twice() -> Result<()> {
    let (address, heads) = scripted(hang_up_on_the_second).await?;
    let edge = Site::new(address)?.start()?;
    let mut client = edge.http2().await?;
    let (mut sent, mut failed) = (0, 0);
    while failed == 0 {
        assert!(sent < 1000, "no connection was used again");
        sent += 1;
        let response = client.send(Request::post("/public/x").body(nothing())?).await?;
        failed += u32::from(response.status() == StatusCode::BAD_GATEWAY);
        within(response.into_body().collect()).await??;
    }
    assert_eq!(heads.load(SeqCst), sent);
    Ok(())
}

#[tokio::test]
async fn a_server_that_refuses_is_passed_over() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let upstream = site.config.upstreams.get_mut("api").unwrap();
    upstream.servers.insert(0, format!("http://{closed}").parse()?);
    let edge = site.start()?;
    for mut client in edge.clients().await? {
        for _ in 0..4 {
            let response = client.send(Request::post("/public/sink").body(hello())?).await?;
            assert_eq!(within(response.into_body().collect()).await??.to_bytes(), "5");
            let response = client.send(Request::get("/public/x").body(nothing())?).await?;
            assert_eq!(response.status(), StatusCode::OK);
            within(response.into_body().collect()).await??;
        }
    }
    Ok(())
}

#[tokio::test]
async fn heads_with_two_readings_are_refused_and_end_the_connection() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    let host = format!("host: {NAME}\r\n");
    for (name, request) in [
        ("empty host", "GET /public/x HTTP/1.1\r\nhost: \r\n\r\n".to_owned()),
        ("user information", "GET /public/x HTTP/1.1\r\nhost: u:p@evil\r\n\r\n".to_owned()),
        ("markup", "GET /public/x HTTP/1.1\r\nhost: a/b?c, d<script>\r\n\r\n".to_owned()),
        ("a quote", "GET /public/x HTTP/1.1\r\nhost: a\"b\r\n\r\n".to_owned()),
        ("absolute form without host", format!("GET http://{NAME}/public/x HTTP/1.1\r\n\r\n")),
        ("another host", format!("GET http://evil/public/x HTTP/1.1\r\n{host}\r\n")),
        ("user in the target", format!("GET http://u@{NAME}/public/x HTTP/1.1\r\nhost: u@{NAME}\r\n\r\n")),
        (
            "two codings",
            format!("POST /public/sink HTTP/1.1\r\n{host}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunked twice",
            format!(
                "POST /public/sink HTTP/1.1\r\n{host}transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "two fields",
            format!(
                "POST /public/sink HTTP/1.1\r\n{host}transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "a chunk size that is none",
            format!("POST /public/sink HTTP/1.1\r\n{host}transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n"),
        ),
    ] {
        let answer = exchange(&edge, &request).await?;
        assert!(answer.starts_with("HTTP/1.1 400"), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{name}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_coding_beside_a_length_says_where_an_answer_ends() -> Result<()> {
    let (address, _) = scripted(|mut stream: TcpStream, heads| async move {
        head(&mut stream, &heads).await?;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.ok()
    })
    .await?;
    let edge = Site::new(address)?.start()?;
    for mut client in edge.clients().await? {
        let response = client.send(Request::get("/public/x").body(nothing())?).await?;
        assert_eq!(within(response.into_body().collect()).await??.to_bytes(), "hello");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_ends() -> Result<()> {
    let (address, _) = scripted(|mut stream: TcpStream, heads| async move {
        head(&mut stream, &heads).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n1").await.ok()?;
        // Until the other side hangs up.
        stream.read_u8().await.ok().map(drop)
    })
    .await?;
    let mut site = Site::new(address)?;
    site.config.upstreams.get_mut("api").unwrap().stream_timeout = Duration::from_millis(200);
    let edge = site.start()?;
    for mut client in edge.clients().await? {
        let response = client.send(Request::get("/public/x").body(nothing())?).await?;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(within(response.into_body().collect()).await?.is_err());
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() -> Result<()> {
    let (address, _) = scripted(|mut stream: TcpStream, heads| async move {
        head(&mut stream, &heads).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.ok()?;
        let piece = vec![b'x'; 64 << 10];
        while stream.write_all(&piece).await.is_ok() {}
        None
    })
    .await?;
    let mut site = Site::new(address)?;
    site.config.http.write_timeout = Duration::from_millis(300);
    let mut edge = site.start()?;
    let mut http1 = edge.tls(NAME, &["http/1.1"]).await?;
    http1.write_all(format!("GET /public/x HTTP/1.1\r\nhost: {NAME}\r\n\r\n").as_bytes()).await?;
    let mut http2 = edge.tls(NAME, &["h2"]).await?;
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/public/x"));
    http2.write_all(&[preface(), request].concat()).await?;
    eventually(|| edge.metrics.connections.with_label_values(&["accepted"]).get() == 2).await?;
    eventually(|| edge.metrics.connections_open.get() == 0).await?;
    for _ in 0..2 {
        assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::AnswerUnread);
    }
    assert_eq!(edge.metrics.time_limits.with_label_values(&["write"]).get(), 2);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_though_others_are_read() -> Result<()> {
    let (address, let_go) = scripted(|mut stream: TcpStream, let_go| async move {
        let heads = AtomicU32::new(0);
        while !head(&mut stream, &heads).await?.starts_with("GET /public/large") {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.ok()?;
        while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
        let_go.fetch_add(1, SeqCst);
        None
    })
    .await?;
    let mut site = Site::new(address)?;
    site.config.http.write_timeout = Duration::from_millis(300);
    let mut edge = site.start()?;
    let mut client = edge.tls(NAME, &["h2"]).await?;
    let get = |stream, path| frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", path));
    // Nothing of an answer's body is taken: SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2).
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let begin = [preface(), no_window, get(1, "/public/large"), get(3, "/public/small")].concat();
    client.write_all(&begin).await?;
    let mut last = 3;
    let ask_on = async {
        loop {
            let Frame { kind, flags, stream, payload } = next_frame(&mut client).await?;
            match (kind, stream) {
                (RST_STREAM, 1) => return anyhow::Ok(Frame { kind, flags, stream, payload }),
                (HEADERS, answered) if answered == last => {
                    last += 2;
                    client.write_all(&get(last, "/public/small")).await?;
                }
                _ => {}
            }
        }
    };
    assert_eq!(within(ask_on).await??.reason(), Some("CANCEL"));
    eventually(|| let_go.load(SeqCst) == 1).await?;
    assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::AnswerUnread);
    assert_eq!(edge.metrics.time_limits.with_label_values(&["write"]).get(), 1);
    assert_eq!(edge.metrics.connections_open.get(), 1, "the others go on");
    Ok(())
}

#[tokio::test]
async fn bodies_that_stop_or_trickle_are_cut() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.body_timeout = Duration::from_millis(300);
    site.config.http.min_body_rate = 1 << 20;
    let mut edge = site.start()?;
    let head = format!("POST /public/sink HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: 1000000\r\n\r\n");
    for pieces in [1, usize::MAX] {
        let mut stream = edge.tls(NAME, &["http/1.1"]).await?;
        stream.write_all(head.as_bytes()).await?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let trickle = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            let mut sent = 0;
            while sent < pieces && writer.write_all(b"x").await.is_ok() {
                let _ = writer.flush().await;
                sent += 1;
                pace.tick().await;
            }
            std::future::pending::<()>().await;
        });
        let mut answer = [0; 12];
        within(reader.read_exact(&mut answer)).await??;
        assert_eq!(&answer, b"HTTP/1.1 408");
        assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::BodyTimeout);
        trickle.abort();
    }
    Ok(())
}

#[tokio::test]
async fn the_time_for_a_head_begins_with_its_first_byte() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.header_timeout = Duration::from_millis(100);
    site.config.http.idle_timeout = Duration::from_secs(15);
    let mut edge = site.start()?;
    let mut stream = edge.tls(NAME, &["http/1.1"]).await?;
    for _ in 0..2 {
        // Longer than a head may take: a connection that waits for its next request is not late.
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.write_all(format!("HEAD /public/empty HTTP/1.1\r\nhost: {NAME}\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(within(stream.read_u8()).await??);
        }
        assert!(answer.starts_with(b"HTTP/1.1 204"));
    }
    assert!(edge.offences.try_recv().is_err());
    stream.write_all(b"GET /pub").await?;
    let answer = read_all(&mut stream).await?;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains(r#""code":"request_timeout""#), "{answer}");
    assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::RequestTimeout);
    Ok(())
}

#[tokio::test]
async fn a_connection_made_in_advance_is_no_offence() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.header_timeout = Duration::from_millis(100);
    site.config.http.idle_timeout = Duration::from_millis(200);
    let mut edge = site.start()?;
    for alpn in ["http/1.1", "h2"] {
        let mut stream = edge.tls(NAME, &[alpn]).await?;
        read_all(&mut stream).await?;
    }
    eventually(|| edge.metrics.connections_open.get() == 0).await?;
    assert!(edge.offences.try_recv().is_err());
    Ok(())
}

#[tokio::test]
async fn breaches_of_http2_are_offences() -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    // RFC 9113 section 6.5: the length is a multiple of six.
    let settings = [preface(), frame(SETTINGS, 0, 0, b"abcd")].concat();
    // Requests that are taken back at once, in one piece so that the server sees many of them.
    let mut resets = preface();
    for stream in (1..=251).step_by(2) {
        let request = request("GET", "/public/slow");
        resets.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &request));
        resets.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    for (name, bytes, denial) in
        [("settings", settings, Denial::RequestMalformed), ("resets", resets, Denial::Http2Flood)]
    {
        let mut stream = edge.tls(NAME, &["h2"]).await?;
        stream.write_all(&bytes).await?;
        read_all(&mut stream).await?;
        let offence = within(edge.offences.recv()).await.context(name)?.unwrap();
        assert_eq!(offence.denial, denial, "{name}");
    }
    // A client that leaves is none.
    let mut stream = edge.tls(NAME, &["h2"]).await?;
    stream.write_all(&preface()).await?;
    next_frame(&mut stream).await?;
    drop(stream);
    eventually(|| edge.metrics.connections_open.get() == 0).await?;
    assert!(edge.offences.try_recv().is_err());
    Ok(())
}

#[tokio::test]
async fn a_source_has_only_so_many_connections() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.max_connections_per_source = 2;
    let mut edge = site.start()?;
    let open = edge.clients().await?;
    assert!(edge.tls(NAME, &[]).await.is_err());
    assert_eq!(edge.metrics.connections.with_label_values(&["connection_limit"]).get(), 1);
    assert_eq!(edge.metrics.connections_open.get(), 2);
    drop(open);
    eventually(|| edge.metrics.connections_open.get() == 0).await?;
    assert!(edge.tls(NAME, &[]).await.is_ok());
    assert!(edge.offences.try_recv().is_err(), "many people may share an address");
    Ok(())
}
