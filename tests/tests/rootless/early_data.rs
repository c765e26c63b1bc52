//! Early data (0-RTT): what may come in it, what the upstream learns of it, and that nothing of it is taken twice. The client keeps
//! the end of its handshake back until it has its answer, so that what it has then took two round trips, TCP's included.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use enforcer_tests::{
    edge::{Edge, NAME, Site, route},
    frames::{self, END_HEADERS, END_STREAM, frame, kind},
    origin::Origin,
    process,
    tls::{Setup, exchange},
    witness::Witness,
};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::bodies::{eventually, within};

const PATIENCE: Duration = Duration::from_secs(20);

/// An edge whose `/public/` may be asked early, and `/later/` not.
fn edge(upstream: SocketAddr, change: impl FnOnce(&mut Site)) -> Result<Edge> {
    let mut site = Site::new(upstream)?;
    site.config.listeners[0].early_data = true;
    site.config.routes[0].early_data = true;
    site.config.routes.push(route("/later/", None, &[]));
    change(&mut site);
    site.start()
}

/// A client that has been here before.
async fn known(edge: &Edge, alpn: &[&str]) -> Result<Arc<ClientConfig>> {
    let mut config = Arc::unwrap_or_clone(Setup { alpn: &["http/1.1"], ..Setup::default() }.client(edge)?);
    config.enable_early_data = true;
    if alpn != ["http/1.1"] {
        config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    }
    let config = Arc::new(config);
    if alpn == ["h2"] {
        let (address, config) = (edge.address, Arc::clone(&config));
        tokio::task::spawn_blocking(move || {
            // The session comes with the first bytes behind the handshake.
            let mut visit = Visit::begin(address, config, &[])?;
            visit.finish(&frames::preface())?;
            visit.read(|bytes| !bytes.is_empty()).map(drop)
        })
        .await??;
    } else {
        assert_eq!(exchange(edge, &config).await?, (HandshakeKind::Full, 200));
    }
    Ok(config)
}

/// A connection whose handshake ends when it is told to.
struct Visit {
    tls: ClientConnection,
    stream: TcpStream,
}

impl Visit {
    /// Sends the hello, and with it what may be sent early.
    fn begin(address: SocketAddr, config: Arc<ClientConfig>, early: &[u8]) -> Result<Self> {
        let mut tls = ClientConnection::new(config, ServerName::try_from(NAME)?)?;
        if !early.is_empty() {
            tls.early_data().context("the session takes no early data")?.write_all(early)?;
        }
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut visit = Self { tls, stream };
        visit.send()?;
        Ok(visit)
    }

    fn send(&mut self) -> Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Reads until there is enough; sends nothing.
    fn read(&mut self, enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        while !enough(&answer) {
            if self.tls.read_tls(&mut self.stream)? == 0 {
                bail!("the end, after {:?}", String::from_utf8_lossy(&answer));
            }
            self.tls.process_new_packets()?;
            match self.tls.reader().read_to_end(&mut answer) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
        }
        Ok(answer)
    }

    /// Ends the handshake, and asks for more.
    fn finish(&mut self, more: &[u8]) -> Result<()> {
        while self.tls.is_handshaking() {
            self.send()?;
            if self.tls.wants_read() && self.tls.is_handshaking() {
                self.tls.read_tls(&mut self.stream)?;
                self.tls.process_new_packets()?;
            }
        }
        self.tls.writer().write_all(more)?;
        self.send()
    }
}

/// Whether this is an answer of HTTP/1.1 to its end.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: {NAME}\r\n{more}\r\n")
}

/// What a request meets as early data, and what the same one meets on the same connection once its handshake is complete.
async fn both(edge: &Edge, config: &Arc<ClientConfig>, request: String) -> Result<[String; 2]> {
    let (address, config) = (edge.address, Arc::clone(config));
    let work = move || -> Result<[String; 2]> {
        let mut visit = Visit::begin(address, config, request.as_bytes())?;
        let early = visit.read(is_whole)?;
        assert!(visit.tls.is_early_data_accepted());
        visit.finish(request.as_bytes())?;
        let late = visit.read(is_whole)?;
        Ok([early, late].map(|answer| String::from_utf8_lossy(&answer).into_owned()))
    };
    tokio::task::spawn_blocking(work).await?
}

fn counted(edge: &Edge) -> [u64; 3] {
    ["passed", "refused", "refused_upstream"]
        .map(|result| edge.metrics.early_requests.with_label_values(&[result]).get())
}

#[tokio::test]
async fn an_early_request_has_its_answer_in_two_round_trips() -> Result<()> {
    let witness = Witness::start().await?;
    let edge = edge(witness.address, |_| ())?;
    let config = known(&edge, &["http/1.1"]).await?;
    witness.take();
    // What it says of itself can make it early, and never late; however it says so, the server hears it once.
    for saying in ["", "early-data: 1\r\n", "early-data: 0\r\nearly-data: x\r\n", "early_data: 1\r\n"] {
        let answers = both(&edge, &config, request("GET", "/public/x", saying)).await?;
        assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200")), "{answers:?}");
        let seen = witness.take();
        let [early, late] = [0, 1].map(|number| seen[number].values("early-data"));
        let says = saying.starts_with("early-data");
        assert_eq!((early, late), (vec!["1"], if says { vec!["1"] } else { vec![] }), "{saying}");
        assert!(seen.iter().all(|request| request.values("early_data").is_empty()));
    }
    assert_eq!(counted(&edge), [6, 0, 0]);
    Ok(())
}

#[tokio::test]
async fn an_early_request_of_http2_has_its_answer_in_two_round_trips() -> Result<()> {
    let witness = Witness::start().await?;
    let edge = edge(witness.address, |_| ())?;
    let config = known(&edge, &["h2"]).await?;
    let head = |path| frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &frames::request("GET", path));
    for (path, is_good) in [("/public/x", true), ("/later/x", false)] {
        let early = [frames::preface(), head(path)].concat();
        let (address, config) = (edge.address, Arc::clone(&config));
        let work = move || -> Result<Vec<u8>> {
            let mut visit = Visit::begin(address, config, &early)?;
            let answer = visit.read(|bytes| answered(bytes).is_some())?;
            visit.finish(&[])?;
            Ok(answered(&answer).unwrap())
        };
        let answer = tokio::task::spawn_blocking(work).await??;
        // 200 is an entry of the static table (RFC 7541 appendix A), 425 is not.
        assert_eq!(answer.first() == Some(&0x88), is_good, "{path}: {answer:?}");
    }
    assert_eq!(witness.take().last().unwrap().values("early-data"), ["1"]);
    assert_eq!(counted(&edge), [1, 1, 0]);
    Ok(())
}

/// The head of the answer on stream 1.
fn answered(mut bytes: &[u8]) -> Option<Vec<u8>> {
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (content, rest) = rest.split_at_checked(length)?;
        if head[3] == kind::HEADERS && head[8] == 1 {
            return Some(content.to_vec());
        }
        bytes = rest;
    }
    None
}

#[tokio::test]
async fn what_is_not_safe_or_not_allowed_early_has_to_come_again() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = edge(origin.address, |site| site.config.routes[0].upgrade = vec!["websocket".to_owned()])?;
    let config = known(&edge, &["http/1.1"]).await?;
    let before = origin.requests();
    let token = format!("authorization: Bearer {}\r\n", edge.site.token()?);
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    for (method, path, more) in [
        ("POST", "/public/x", "content-length: 0\r\n"),
        ("DELETE", "/public/x", ""),
        ("GET", "/later/x", ""),
        ("GET", "/api/x", token.as_str()),
        ("GET", "/public/x", upgrade),
    ] {
        let [early, late] = both(&edge, &config, request(method, path, more)).await?;
        assert!(early.starts_with("HTTP/1.1 425 "), "{method} {path}: {early}");
        assert!(early.contains("\"code\":\"too_early\""), "{early}");
        assert!(!early.to_ascii_lowercase().contains("connection: close"), "{early}");
        assert!(late.starts_with("HTTP/1.1 200"), "{method} {path}: {late}");
    }
    assert_eq!(origin.requests() - before, 5, "each once");
    assert_eq!(counted(&edge), [0, 5, 0]);
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_finds_it_too_early_says_so_to_the_client() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = edge(origin.address, |_| ())?;
    let config = known(&edge, &["http/1.1"]).await?;
    let before = origin.requests();
    let answers = both(&edge, &config, request("GET", "/public/status/425", "")).await?;
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 425 ")), "{answers:?}");
    assert!(!answers[0].contains("too_early"), "its own words");
    assert_eq!((origin.requests() - before, counted(&edge)), (2, [0, 0, 1]));
    Ok(())
}

/// The bytes of a client's first flight, sent again by somebody who has seen them.
#[tokio::test]
async fn a_replay_finds_its_session_used() -> Result<()> {
    let witness = Witness::start().await?;
    let edge = edge(witness.address, |site| {
        site.config.listeners[0].handshake_timeout = Duration::from_secs(2);
    })?;
    let config = known(&edge, &["http/1.1"]).await?;
    witness.take();
    let mut tls = ClientConnection::new(Arc::clone(&config), ServerName::try_from(NAME)?)?;
    tls.early_data().unwrap().write_all(request("GET", "/public/paid", "").as_bytes())?;
    let mut flight = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut flight)?;
    }
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut stream = tokio::net::TcpStream::connect(edge.address).await?;
        stream.write_all(&flight).await?;
        let mut answer = [0; 6];
        within(stream.read_exact(&mut answer)).await??;
        assert!(answer[0] == 22 && answer[5] == 2, "a ServerHello, whatever becomes of the rest: {answer:?}");
        open.push(stream);
        // Once it is known what became of the first one, it is sent again.
        eventually(|| {
            seen.extend(witness.take());
            !seen.is_empty()
        })
        .await?;
    }
    // Nobody ends their handshakes, and without that they carry nothing.
    eventually(|| edge.metrics.connections.with_label_values(&["tls_timeout"]).get() == 4).await?;
    seen.extend(witness.take());
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(counted(&edge), [1, 0, 0]);
    // And with a session of TLS 1.2, which is no ticket here either.
    let old = Setup { old: true, ..Setup::default() }.client(&edge)?;
    assert_eq!(exchange(&edge, &old).await?, (HandshakeKind::Full, 200));
    assert_eq!(exchange(&edge, &old).await?, (HandshakeKind::Resumed, 200));
    Ok(())
}

#[tokio::test]
async fn sessions_outlive_a_reload_and_early_data_is_off_by_default() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = edge(origin.address, |_| ())?;
    let config = known(&edge, &["http/1.1"]).await?;
    edge.policy.store(edge.policy.load().reload(&edge.site.config)?.into());
    let answers = both(&edge, &config, request("GET", "/public/x", "")).await?;
    assert!(answers[0].starts_with("HTTP/1.1 200"), "{answers:?}");
    let mut changed = edge.site.config.clone();
    changed.listeners[0].early_data = false;
    edge.policy.store(edge.policy.load().reload(&changed)?.into());
    // What a client still has of it is refused, and it goes on without.
    let (address, offered) = (edge.address, Arc::clone(&config));
    let work = move || -> Result<(bool, Vec<u8>)> {
        let mut visit = Visit::begin(address, offered, request("GET", "/public/x", "").as_bytes())?;
        visit.finish(request("GET", "/public/x", "").as_bytes())?;
        let answer = visit.read(is_whole)?;
        Ok((visit.tls.is_early_data_accepted(), answer))
    };
    let (accepted, answer) = tokio::task::spawn_blocking(work).await??;
    assert!(!accepted && answer.starts_with(b"HTTP/1.1 200"));
    let mut fresh = Arc::unwrap_or_clone(Setup::default().client(&edge)?);
    fresh.enable_early_data = true;
    let fresh = Arc::new(fresh);
    assert_eq!(exchange(&edge, &fresh).await?, (HandshakeKind::Full, 200));
    let mut tls = ClientConnection::new(fresh, ServerName::try_from(NAME)?)?;
    assert!(tls.early_data().is_none(), "such a session takes none");
    Ok(())
}

/// Somebody in front has taken it early (RFC 8470 section 5.2); who it is, nobody has to know.
#[tokio::test]
async fn whoever_is_in_front_says_that_it_was_early() -> Result<()> {
    let witness = Witness::start().await?;
    for trusted in [true, false] {
        let edge = edge(witness.address, |site| {
            site.config.listeners[0].early_data = false;
            if trusted {
                site.config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            }
        })?;
        let mut client = edge.http1().await?;
        for (path, status) in [("/public/x", 200), ("/later/x", 425)] {
            let request = http::Request::get(path).header("early-data", "1");
            let body = http_body_util::BodyExt::boxed(http_body_util::Empty::new());
            let answer = client.send(request.body(body)?).await?;
            assert_eq!(answer.status(), status, "{path} {trusted}");
            http_body_util::BodyExt::collect(answer.into_body()).await?;
        }
        let seen = witness.take();
        assert_eq!((seen.len(), seen[0].values("early-data")), (1, vec!["1"]));
    }
    Ok(())
}

#[tokio::test]
async fn openssl_sends_early_data() -> Result<()> {
    let witness = Witness::start().await?;
    let edge = edge(witness.address, |_| ())?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("ca.pem"), edge.site.authority.pem())?;
    std::fs::write(path("request"), request("GET", "/public/x", "connection: close\r\n"))?;
    let run = async |words: String| {
        let mut command = Command::new("sh");
        let (address, ca) = (edge.address, path("ca.pem"));
        command.arg("-c").arg(format!(
            "exec openssl s_client -connect {address} -servername {NAME} -ign_eof -CAfile {ca} -verify_return_error {words}"
        ));
        tokio::task::spawn_blocking(move || process::run(&mut command, PATIENCE)).await?
    };
    let first = run(format!("-sess_out {} < {}", path("session"), path("request"))).await?.stdout;
    assert!(first.contains("HTTP/1.1 200") && first.contains("Max Early Data: 16384"), "{first}");
    witness.take();
    let words = format!("-sess_in {} -early_data {}", path("session"), path("request"));
    let second = run(words.clone()).await?.stdout;
    assert!(second.contains("Early data was accepted") && second.contains("HTTP/1.1 200"), "{second}");
    assert_eq!(witness.take()[0].values("early-data"), ["1"]);
    // The same session once more: used up.
    let third = run(format!("{words} < {}", path("request"))).await?.stdout;
    assert!(third.contains("Early data was rejected"), "{third}");
    let late = witness.take();
    assert!(late.len() == 1 && late[0].values("early-data").is_empty(), "{late:?}");
    Ok(())
}
