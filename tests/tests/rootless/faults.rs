//! Servers that are half there: that swallow a connection, take it and say nothing, break off in the middle of what they say, or close
//! what they were just asked on. And clients that wait for a 100 before they send a body.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use enforcer_tests::{
    edge::{Client, Edge, NAME, Outgoing, Site},
    origin::Origin,
    tls::curl,
    witness::Witness,
};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

use super::bodies::{Channel, within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const HALF_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-len";
const HALF_BODY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf of it";
const HALF_CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo";

/// What a server does to one request.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Says this, and goes on.
    Keep(&'static str),
    /// Says this, and closes.
    Close(&'static str),
    /// Says this, and breaks the connection (RST).
    Reset(&'static str),
    /// Says this, and nothing more.
    Hold(&'static str),
}

/// A server that does as it is told, request by request, and notes what it was asked.
struct Script {
    address: SocketAddr,
    deeds: Arc<Mutex<VecDeque<Deed>>>,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Script {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (deeds, asked) = (Arc::<Mutex<VecDeque<Deed>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (todo, done) = (Arc::clone(&deeds), Arc::clone(&asked));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(follow(stream, Arc::clone(&todo), Arc::clone(&done)));
            }
        });
        Ok(Self { address, deeds, asked, _serving: serving })
    }

    fn tell(&self, deeds: &[Deed]) {
        *self.deeds.lock().unwrap() = deeds.iter().copied().collect();
    }

    /// How often it was asked since this was asked last.
    fn asked(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap()).len()
    }
}

async fn follow(mut stream: TcpStream, deeds: Arc<Mutex<VecDeque<Deed>>>, asked: Arc<Mutex<Vec<String>>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        asked.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
        let Some(deed) = deeds.lock().unwrap().pop_front() else { return };
        let (Deed::Keep(text) | Deed::Close(text) | Deed::Reset(text) | Deed::Hold(text)) = deed;
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
        match deed {
            Deed::Keep(_) => {}
            Deed::Close(_) => return,
            Deed::Reset(_) => {
                let _ = stream.set_zero_linger();
                return;
            }
            Deed::Hold(_) => std::future::pending().await,
        }
    }
}

fn nothing() -> Outgoing {
    Empty::new().boxed()
}

async fn send(client: &mut Client, method: &Method) -> Result<Response<Incoming>> {
    let request = Request::builder().method(method).uri("/public/x").body(nothing())?;
    within(client.send(request)).await?
}

async fn ask(client: &mut Client, method: &Method) -> Result<(u16, String)> {
    let response = send(client, method).await?;
    let status = response.status().as_u16();
    let body = within(response.into_body().collect()).await??.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    Ok((status, problem["code"].as_str().map_or(body, str::to_owned)))
}

fn edge(upstream: SocketAddr, change: impl FnOnce(&mut Site)) -> Result<Edge> {
    let mut site = Site::new(upstream)?;
    change(&mut site);
    site.start()
}

const FAILED: (u16, &str) = (502, "upstream_protocol");

fn is(got: &(u16, String), expected: (u16, &str)) -> bool {
    (got.0, got.1.as_str()) == expected
}

/// What may be done twice is, once; the rest is answered with 502 and was sent once.
#[tokio::test]
async fn a_server_that_breaks_off_before_the_end_of_its_head() -> Result<()> {
    let script = Script::start().await?;
    let edge = edge(script.address, |_| ())?;
    for mut client in edge.clients().await? {
        for deed in [Deed::Reset(""), Deed::Close(""), Deed::Reset(HALF_HEAD), Deed::Close(HALF_HEAD)] {
            script.tell(&[deed, Deed::Keep(OK)]);
            let got = ask(&mut client, &Method::GET).await?;
            assert!(is(&got, (200, "ok")), "{deed:?}: {got:?}");
            assert_eq!(script.asked(), 2, "{deed:?}");
            script.tell(&[deed, Deed::Keep(OK)]);
            let got = ask(&mut client, &Method::POST).await?;
            assert!(is(&got, FAILED), "{deed:?}: {got:?}");
            assert_eq!(script.asked(), 1, "{deed:?}: a POST is not sent twice");
            script.tell(&[deed, deed, deed]);
            let got = ask(&mut client, &Method::GET).await?;
            assert!(is(&got, FAILED), "{deed:?}: {got:?}");
            assert_eq!(script.asked(), 2, "{deed:?}: and what may be is sent twice at most");
        }
    }
    Ok(())
}

/// Half an answer never looks like a whole one.
#[tokio::test]
async fn a_server_that_breaks_off_in_the_middle_of_its_body() -> Result<()> {
    let script = Script::start().await?;
    let mut edge = edge(script.address, |_| ())?;
    for is_http2 in [false, true] {
        for half in [HALF_BODY, HALF_CHUNKS] {
            for deed in [Deed::Close(half), Deed::Reset(half)] {
                let mut client = if is_http2 { edge.http2().await? } else { edge.http1().await? };
                script.tell(&[deed]);
                match send(&mut client, &Method::GET).await {
                    Ok(response) if response.status() == 200 => {
                        let body = within(response.into_body().collect()).await?;
                        assert!(body.is_err(), "{deed:?}: {body:?}");
                    }
                    // The reset overtook the head.
                    Ok(response) => assert_eq!(response.status(), 502, "{deed:?}"),
                    // It was known before the head was sent: then connection or stream end without one.
                    Err(error) => {
                        let (text, end) =
                            (format!("{error:#}"), if is_http2 { "stream error" } else { "closed" });
                        assert!(text.contains(end), "{deed:?}: {text}");
                    }
                }
                script.asked();
                script.tell(&[Deed::Keep(OK)]);
                let mut next = edge.http1().await?;
                assert!(is(&ask(&mut next, &Method::POST).await?, (200, "ok")), "others are served");
                script.asked();
            }
        }
    }
    assert!(edge.offences.try_recv().is_err(), "no client is to blame");
    Ok(())
}

#[tokio::test]
async fn a_connection_that_is_closed_at_its_second_request() -> Result<()> {
    let script = Script::start().await?;
    for deed in [Deed::Close(""), Deed::Reset("")] {
        let edge = edge(script.address, |site| site.config.http.workers = 1)?;
        let mut client = edge.http2().await?;
        for (method, expected) in
            [(Method::GET, (200, "ok")), (Method::PUT, (200, "ok")), (Method::POST, FAILED)]
        {
            script.tell(&[Deed::Keep(OK), deed, Deed::Keep(OK), Deed::Keep(OK)]);
            assert!(is(&ask(&mut client, &Method::POST).await?, (200, "ok")));
            script.asked();
            let got = ask(&mut client, &method).await?;
            assert!(is(&got, expected), "{method} {deed:?}: {got:?}");
            assert_eq!(script.asked(), if method == Method::POST { 1 } else { 2 }, "{method} {deed:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_takes_a_request_and_says_nothing() -> Result<()> {
    let script = Script::start().await?;
    let edge = edge(script.address, |site| {
        let api = site.config.upstreams.get_mut("api").unwrap();
        (api.response_timeout, api.stream_timeout) = (Duration::from_millis(300), Duration::from_millis(300));
    })?;
    for mut client in edge.clients().await? {
        for deed in [Deed::Hold(""), Deed::Hold(HALF_HEAD)] {
            for method in [Method::GET, Method::POST] {
                script.tell(&[deed, Deed::Keep(OK)]);
                let got = ask(&mut client, &method).await?;
                assert!(is(&got, (504, "upstream_timeout")), "{method} {deed:?}: {got:?}");
                assert_eq!(script.asked(), 1, "it may be at work on it: nothing is sent twice");
            }
        }
        script.tell(&[Deed::Hold(HALF_BODY)]);
        let response = send(&mut client, &Method::GET).await?;
        assert_eq!(response.status(), 200);
        assert!(within(response.into_body().collect()).await?.is_err(), "half an answer");
        script.asked();
    }
    Ok(())
}

/// A listener whose queue is full: Linux drops what else comes, as a firewall would.
struct Hole {
    address: SocketAddr,
    _queue: (TcpListener, Vec<TcpStream>),
}

impl Hole {
    async fn dig() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse()?)?;
        let listener = socket.listen(0)?;
        let address = listener.local_addr()?;
        let mut waiting = Vec::new();
        for _ in 0..16 {
            match tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
                Ok(connected) => waiting.push(connected?),
                Err(_) => return Ok(Self { address, _queue: (listener, waiting) }),
            }
        }
        bail!("the queue does not fill")
    }
}

#[tokio::test]
async fn a_server_that_swallows_connections() -> Result<()> {
    let (hole, origin) = (Hole::dig().await?, Origin::start().await?);
    let alone = edge(hole.address, |site| {
        site.config.upstreams.get_mut("api").unwrap().connect_timeout = Duration::from_millis(200);
    })?;
    let beside = edge(origin.address, |site| {
        let api = site.config.upstreams.get_mut("api").unwrap();
        api.servers.push(format!("http://{}", hole.address).parse().unwrap());
        api.connect_timeout = Duration::from_millis(200);
    })?;
    for method in [Method::GET, Method::POST] {
        for mut client in alone.clients().await? {
            let got = ask(&mut client, &method).await?;
            assert!(is(&got, (502, "upstream_unreachable")), "{method}: {got:?}");
        }
        for mut client in beside.clients().await? {
            for _ in 0..6 {
                let (status, _) = ask(&mut client, &method).await?;
                assert_eq!(status, 200, "no server has seen it, so another one is asked: {method}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_takes_connections_and_never_shakes_hands() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let silent = listener.local_addr()?;
    let edge = edge(silent, |site| {
        let api = site.config.upstreams.get_mut("api").unwrap();
        api.servers = vec![format!("https://{silent}").parse().unwrap()];
        api.connect_timeout = Duration::from_millis(200);
    })?;
    for mut client in edge.clients().await? {
        let got = ask(&mut client, &Method::POST).await?;
        assert!(is(&got, (502, "upstream_unreachable")), "{got:?}");
    }
    Ok(())
}

#[tokio::test]
async fn no_more_requests_wait_for_a_handshake_than_for_a_connection() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let silent = listener.local_addr()?;
    let edge = edge(silent, |site| {
        site.config.http.workers = 1;
        let api = site.config.upstreams.get_mut("api").unwrap();
        api.servers = vec![format!("https://{silent}").parse().unwrap()];
        api.connect_timeout = Duration::from_secs(3600);
        (api.max_connections, api.max_pending) = (1, 1);
    })?;
    let mut asking = JoinSet::new();
    for _ in 0..3 {
        let mut client = edge.http2().await?;
        asking.spawn(async move { ask(&mut client, &Method::GET).await });
    }
    // One shakes hands, one waits for it.
    let got = within(asking.join_next()).await?.unwrap()??;
    assert!(is(&got, (503, "upstream_busy")), "{got:?}");
    Ok(())
}

fn waiting(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {NAME}\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_client_of_http1_is_told_to_go_on_once_its_body_is_wanted() -> Result<()> {
    let witness = Witness::start().await?;
    let edge = edge(witness.address, |_| ())?;
    let mut stream = edge.tls(NAME, &["http/1.1"]).await?;
    stream.write_all(waiting("/public/x", 5).as_bytes()).await?;
    let mut told = [0; 25];
    within(stream.read_exact(&mut told)).await??;
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await?;
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await??;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = witness.take();
    assert_eq!(seen[0].body, b"hello");
    assert!(seen[0].values("expect").is_empty(), "it was met here");
    // What is refused is refused before anything of it was sent.
    for (path, length, status) in
        [("/api/x", 5, "401"), ("/nowhere", 5, "404"), ("/public/x", 2 << 20, "413")]
    {
        let mut stream = edge.tls(NAME, &["http/1.1"]).await?;
        stream.write_all(waiting(path, length).as_bytes()).await?;
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await??;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert!(witness.take().is_empty());
    Ok(())
}

#[tokio::test]
async fn curl_waits_for_its_100() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = edge(origin.address, |_| ())?;
    let body = "x".repeat(100_000);
    // It would wait for longer than it has time.
    let words = ["--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout", "60", "--data", &body];
    let answer = curl(&edge, "/public/sink", &words).await?.success("curl")?;
    assert!(answer.starts_with("HTTP/1.1 100 Continue") && answer.ends_with("100000"), "{answer}");
    // Over HTTP/2 nobody is told; curl sends its body after a second all the same.
    let words = ["--http2", "-H", "Expect: 100-continue", "--data", &body];
    let answer = curl(&edge, "/public/sink", &words).await?.success("curl")?;
    assert!(answer.starts_with("HTTP/2 200") && answer.ends_with("100000"), "{answer}");
    Ok(())
}

/// No 100 is sent over HTTP/2; a client that says it expects one is served like any other, and refused before it has sent a body.
#[tokio::test]
async fn an_expectation_over_http2_stays_here() -> Result<()> {
    let witness = Witness::start().await?;
    let edge = edge(witness.address, |_| ())?;
    let mut client = edge.http2().await?;
    let request = |path: &str| Request::post(path).header("expect", "100-continue");
    let whole = Full::new(Bytes::from_static(b"hello")).boxed();
    let answer = within(client.send(request("/public/x").body(whole)?)).await??;
    assert_eq!(answer.status(), 200);
    let seen = witness.take();
    assert_eq!((seen[0].body.as_slice(), seen[0].values("expect").len()), (&b"hello"[..], 0));
    let (sender, body) = Channel::open();
    let answer = within(client.send(request("/api/x").body(body)?)).await?.context("no answer")?;
    assert_eq!(answer.status(), 401);
    drop(sender);
    assert!(witness.take().is_empty());
    Ok(())
}
