//! Where the answers of servers end, and what may stand behind the bodies of requests: nobody reads an answer that has two ends, nobody
//! gets the rest of another one's, and trailers say nothing that the head may not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use enforcer_tests::{
    edge::{Client, Edge, Outgoing, Site},
    origin::Origin,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::bodies::{eventually, within};

/// How many connections a server has had, and how many of them have ended.
#[derive(Default)]
struct Count {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// A server whose answers are the last segment of the path: `script` makes bytes of it, and what it would send next if it were asked
/// again on the connection. Connections go on until the other side ends them.
async fn server(script: fn(&str) -> (&'static str, &'static str)) -> Result<(SocketAddr, Arc<Count>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let count = Arc::new(Count::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.begun.fetch_add(1, SeqCst);
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let _ = serve(stream, script).await;
                counted.ended.fetch_add(1, SeqCst);
            });
        }
    });
    Ok((address, count))
}

async fn serve(mut stream: TcpStream, script: fn(&str) -> (&'static str, &'static str)) -> Result<()> {
    let mut owed = "";
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head)?;
        if head.contains("content-length: 5") {
            stream.read_exact(&mut [0; 5]).await?;
        }
        let path = head.split(' ').nth(1).unwrap();
        let (answer, rest) = script(path.rsplit('/').next().unwrap());
        stream.write_all(owed.as_bytes()).await?;
        stream.write_all(answer.as_bytes()).await?;
        owed = rest;
    }
}

/// What goes on a connection that is read here, and what goes by hyper.
fn bodies() -> [Outgoing; 2] {
    [Empty::new().boxed(), Full::new(Bytes::from_static(b"hello")).boxed()]
}

fn edge(address: SocketAddr) -> Result<Edge> {
    let mut site = Site::new(address)?;
    site.config.http.workers = 1;
    site.start()
}

async fn ask(
    client: &mut Client,
    method: Method,
    path: &str,
    body: Outgoing,
) -> Result<(StatusCode, HeaderMap, Bytes)> {
    let request = Request::builder().method(method).uri(path).body(body)?;
    let (head, body) = within(client.send(request)).await??.into_parts();
    Ok((head.status, head.headers, within(body.collect()).await??.to_bytes()))
}

#[tokio::test]
async fn an_answer_with_two_lengths_is_none_unless_they_are_one() -> Result<()> {
    let (address, _) = server(|asked| {
        let answer = match asked {
            "two" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 4\r\n\r\nhello",
            "list" => "HTTP/1.1 200 OK\r\ncontent-length: 5, 4\r\n\r\nhello",
            "head" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 4\r\n\r\n",
            "old" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\ncontent-length: 4\r\n\r\n",
            "same" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello",
        };
        (answer, "")
    })
    .await?;
    let edge = edge(address)?;
    for mut client in edge.clients().await? {
        for asked in ["two", "list", "head", "old", "same", "same-list"] {
            let method = if asked == "head" { Method::HEAD } else { Method::PUT };
            for body in bodies() {
                let path = format!("/public/{asked}");
                let asking = ask(&mut client, method.clone(), &path, body).await;
                let (status, fields, text) = asking.with_context(|| asked)?;
                if asked.starts_with("same") {
                    let lengths = fields.get_all("content-length").iter();
                    let lengths: Vec<&[u8]> = lengths.map(HeaderValue::as_bytes).collect();
                    assert_eq!(
                        (status.as_u16(), &*text, lengths),
                        (200, &b"hello"[..], vec![&b"5"[..]]),
                        "{asked}"
                    );
                    continue;
                }
                assert_eq!(status, StatusCode::BAD_GATEWAY, "{asked}");
                if method != Method::HEAD {
                    let problem: Value = serde_json::from_slice(&text)?;
                    assert_eq!(problem["code"], "upstream_protocol", "{asked}");
                }
            }
        }
    }
    Ok(())
}

/// The client would get what is coded and not be told.
#[tokio::test]
async fn an_answer_in_another_coding_than_chunks_is_none() -> Result<()> {
    let (address, _) = server(|asked| {
        let answer = match asked {
            "gzip" => "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "twice" => {
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            }
            "fields" => {
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            }
            _ => "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        };
        (answer, "")
    })
    .await?;
    let edge = edge(address)?;
    for mut client in edge.clients().await? {
        for (asked, expected) in [("gzip", 502), ("twice", 502), ("fields", 502), ("good", 200)] {
            for body in bodies() {
                let path = format!("/public/{asked}");
                let (status, _, text) = ask(&mut client, Method::PUT, &path, body).await?;
                assert_eq!(status, expected, "{asked}");
                assert_eq!(&*text == b"hello", expected == 200, "{asked}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_length_beside_a_coding_ends_the_connection() -> Result<()> {
    let (address, count) = server(|asked| match asked {
        "both" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "",
        ),
        _ => ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ""),
    })
    .await?;
    let edge = edge(address)?;
    let mut client = edge.http2().await?;
    let mut expected = 0;
    for number in [0, 1] {
        let body = || { bodies() }.into_iter().nth(number).unwrap();
        for _ in 0..3 {
            let (status, fields, text) = ask(&mut client, Method::PUT, "/public/both", body()).await?;
            assert_eq!((status.as_u16(), &*text), (200, &b"hello"[..]));
            assert!(!fields.contains_key("content-length"), "{fields:?}");
            expected += 1;
            eventually(|| count.ended.load(SeqCst) == expected).await?;
            assert_eq!(count.begun.load(SeqCst), expected);
        }
    }
    for _ in 0..3 {
        ask(&mut client, Method::GET, "/public/good", Empty::new().boxed()).await?;
    }
    assert_eq!(count.begun.load(SeqCst), expected + 1, "others go on");
    Ok(())
}

#[tokio::test]
async fn nobody_gets_the_rest_of_an_answer_that_another_client_gave_up() -> Result<()> {
    let (address, count) = server(|asked| match asked {
        "long" => ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345", "67890"),
        _ => ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nown", ""),
    })
    .await?;
    let edge = edge(address)?;
    for number in [0, 1] {
        for mut client in edge.clients().await? {
            let body = bodies().into_iter().nth(number).unwrap();
            let request = Request::put("/public/long").body(body)?;
            let mut answer = within(client.send(request)).await??.into_body();
            let piece = within(answer.frame()).await?.unwrap()?;
            assert_eq!(piece.into_data().unwrap(), "12345");
            let ended = count.ended.load(SeqCst);
            drop((answer, client));
            eventually(|| count.ended.load(SeqCst) > ended).await?;
            for mut other in edge.clients().await? {
                for body in bodies() {
                    let (status, _, text) = ask(&mut other, Method::PUT, "/public/short", body).await?;
                    assert_eq!((status.as_u16(), &*text), (200, &b"own"[..]));
                }
            }
        }
    }
    Ok(())
}

/// The server gives back what it has got behind the body.
#[tokio::test]
async fn trailers_say_nothing_that_is_judged_or_set_in_the_head() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.upstreams.get_mut("api").unwrap().servers =
        vec![format!("h2c://{}", origin.address).parse()?];
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    let mut sent = HeaderMap::new();
    for name in [
        "x-forwarded-for",
        "x-forwarded-anything",
        "forwarded",
        "x-real-ip",
        "x_real_ip",
        "x-request-id",
        "early-data",
        "authorization",
        "proxy-authorization",
        "cookie",
        "dpop",
        "host",
        "origin",
        "via",
        "expect",
        "content-length",
        "traceparent",
        "tracestate",
        "x-checksum",
    ] {
        sent.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
    }
    for left in [&["x-checksum"][..], &[]] {
        if left.is_empty() {
            sent.remove("x-checksum");
        }
        let trailers = sent.clone();
        let body = Full::new(Bytes::from_static(b"hello")).with_trailers(async move { Some(Ok(trailers)) });
        let request = Request::post("/public/echo").body(body.boxed())?;
        let answer = within(client.send(request)).await??;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer = within(answer.into_body().collect()).await??;
        let seen = answer.trailers().cloned().unwrap_or_default();
        assert_eq!(answer.to_bytes(), "hello");
        let names: Vec<&str> = seen.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, left);
    }
    Ok(())
}
