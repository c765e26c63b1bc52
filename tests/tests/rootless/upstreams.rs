//! Servers behind: every protocol that they may speak, how they are known, how requests are spread over them, and what becomes
//! of requests when they fail.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use enforcer::{
    clock,
    config::{Certificate, Ejection, HealthCheck, Upstream, UpstreamProtocol},
    policy::health::State,
};
use enforcer_tests::{
    edge::{Client, Edge, Outgoing, Site},
    origin::Origin,
    pki::{Authority, KeyKind},
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::bodies::{Channel, eventually, within};

fn nothing() -> Outgoing {
    Empty::new().boxed()
}

fn api(site: &mut Site) -> &mut Upstream {
    site.config.upstreams.get_mut("api").unwrap()
}

/// Status and document of a GET.
async fn get(client: &mut Client, path: &str) -> Result<(StatusCode, Value)> {
    let response = within(client.send(Request::get(path).body(nothing())?)).await??;
    let status = response.status();
    let body = within(response.into_body().collect()).await??.to_bytes();
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

fn health(edge: &Edge) -> Vec<State> {
    let policy = edge.policy.load();
    let upstream = policy.upstreams().next().unwrap();
    let look = |server| upstream.health.look(server, clock::kernel_now()).unwrap().state;
    (0..upstream.config.servers.len()).map(look).collect()
}

/// A server's side of TLS with a certificate for `name`; clients need one of `clients`, if given.
fn serving(
    authority: &Authority,
    name: &str,
    alpn: &[&str],
    clients: Option<&Authority>,
) -> Result<ServerConfig> {
    let issued = authority.issue(&[name], KeyKind::P256)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.certificate())?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<_, _>>()?;
    let mut config =
        builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

/// A site in front of `https://`, whose servers' certificates come from `behind`.
fn encrypted(origin: SocketAddr, behind: &Authority, name: &str) -> Result<Site> {
    let mut site = Site::new(origin)?;
    let roots = site.dir.path().join("behind.pem");
    std::fs::write(&roots, behind.pem())?;
    let upstream = api(&mut site);
    upstream.servers = vec![format!("https://{origin}").parse()?];
    upstream.tls.authorities = Some(roots);
    upstream.tls.server_name = Some(name.to_owned());
    Ok(site)
}

#[tokio::test]
async fn http2_without_tls_carries_everything_on_one_connection() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.workers = 1;
    api(&mut site).servers = vec![format!("h2c://{}", origin.address).parse()?];
    let edge = site.start()?;
    for mut client in edge.clients().await? {
        let (status, seen) = get(&mut client, "/public/things?x=1").await?;
        assert_eq!((status, &seen["version"]), (StatusCode::OK, &"HTTP/2.0".into()));
        assert_eq!(seen["target"], "http://api.example.com/public/things?x=1", "the client's host");
        let named = |name: &str| seen["headers"].as_array().unwrap().iter().any(|one| one[0] == name);
        assert!(!named("host") && named("x-forwarded-for"), "{seen}");
        // Streams both ways at once.
        let (sender, body) = Channel::open();
        let response = client.send(Request::post("/public/echo").body(body)?).await?;
        let mut echo = response.into_body();
        for round in 0..3 {
            let piece = Bytes::from(format!("piece {round}"));
            sender.send(piece.clone()).await?;
            assert_eq!(within(echo.frame()).await?.unwrap()?.into_data().unwrap(), piece);
        }
        drop(sender);
        assert!(within(echo.collect()).await??.to_bytes().is_empty());
    }
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(edge.http2().await?);
    }
    let asked = clients.iter_mut().map(|client| get(client, "/public/slow"));
    for answer in futures(asked).await {
        assert_eq!(answer?.0, StatusCode::OK);
    }
    assert_eq!(origin.connections(), 1);
    Ok(())
}

/// The outcomes of futures that run at once.
pub(super) async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = all.map(|one| (Some(Box::pin(one)), None)).collect();
    std::future::poll_fn(|context| {
        let mut done = true;
        for (future, outcome) in &mut running {
            if let Some(one) = future {
                match one.as_mut().poll(context) {
                    std::task::Poll::Ready(output) => (*future, *outcome) = (None, Some(output)),
                    std::task::Poll::Pending => done = false,
                }
            }
        }
        if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, outcome)| outcome).collect()
}

#[tokio::test]
async fn within_tls_the_two_sides_agree_upon_the_protocol() -> Result<()> {
    use UpstreamProtocol::{Http1, Http2};
    let behind = Authority::new("Behind")?;
    for (served, offered, version) in [
        (&["h2", "http/1.1"][..], vec![Http2, Http1], "HTTP/2.0"),
        (&["h2", "http/1.1"][..], vec![Http1], "HTTP/1.1"),
        (&["http/1.1"][..], vec![Http2, Http1], "HTTP/1.1"),
        (&[][..], vec![Http2, Http1], "HTTP/1.1"),
    ] {
        let origin = Origin::encrypted(serving(&behind, "api.internal", served, None)?).await?;
        let mut site = encrypted(origin.address, &behind, "api.internal")?;
        api(&mut site).tls.alpn = offered;
        let edge = site.start()?;
        for mut client in edge.clients().await? {
            for _ in 0..2 {
                let (status, seen) = get(&mut client, "/public/x").await?;
                assert_eq!((status, &seen["version"]), (StatusCode::OK, &version.into()), "{served:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_be_known_is_not_spoken_to() -> Result<()> {
    let (behind, stranger) = (Authority::new("Behind")?, Authority::new("Stranger")?);
    let origin = Origin::encrypted(serving(&behind, "api.internal", &["h2"], None)?).await?;
    for (authority, name, expected) in [
        (Some(&behind), "api.internal", 200),
        (Some(&behind), "other.internal", 502),
        (Some(&stranger), "api.internal", 502),
        // The roots of this system do not know it either.
        (None, "api.internal", 502),
    ] {
        let mut site = encrypted(origin.address, authority.unwrap_or(&behind), name)?;
        if authority.is_none() {
            api(&mut site).tls.authorities = None;
        }
        let edge = site.start()?;
        let (status, document) = get(&mut edge.http2().await?, "/public/x").await?;
        assert_eq!(status.as_u16(), expected, "{name}: {document}");
        assert!(expected == 200 || document["code"] == "upstream_unreachable", "{document}");
    }
    assert_eq!(origin.requests(), 1, "only the one that is known was asked");
    Ok(())
}

#[tokio::test]
async fn a_server_that_asks_is_shown_the_own_certificate_and_the_next_one_after_a_change() -> Result<()> {
    let (behind, devices) = (Authority::new("Behind")?, Authority::new("Gateways")?);
    let origin = Origin::encrypted(serving(&behind, "api.internal", &["http/1.1"], Some(&devices))?).await?;
    let mut site = encrypted(origin.address, &behind, "api.internal")?;
    let folder = site.dir.path().to_owned();
    let show = |authority: &Authority, folder: &Path| authority.issue_client("gateway")?.write(folder, "own");
    let (chain, key) = show(&behind, &folder)?;
    api(&mut site).tls.certificate = Some(Certificate { chain, key, ocsp: None });
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    assert_eq!(get(&mut client, "/public/x").await?.0, StatusCode::BAD_GATEWAY, "of the wrong authority");
    show(&devices, &folder)?;
    let old = edge.policy.load_full();
    edge.policy.store(old.reload(&edge.site.config)?.into());
    assert_eq!(get(&mut client, "/public/x").await?.0, StatusCode::OK);
    // The same files: the connections stay.
    let connections = origin.connections();
    let old = edge.policy.load_full();
    edge.policy.store(old.reload(&edge.site.config)?.into());
    assert_eq!(get(&mut client, "/public/x").await?.0, StatusCode::OK);
    assert_eq!(origin.connections(), connections);
    std::fs::write(folder.join("own.pem"), "nothing")?;
    let error = format!("{:#}", old.reload(&edge.site.config).unwrap_err());
    assert!(error.contains("upstream.api.tls") && error.contains("own.pem"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_server_gets_no_more_than_it_is_given() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.workers = 1;
    let upstream = api(&mut site);
    (upstream.max_connections, upstream.max_pending) = (2, 1);
    upstream.connect_timeout = Duration::from_secs(20);
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    let mut held = Vec::new();
    for _ in 0..2 {
        let (sender, body) = Channel::open();
        held.push((sender, client.send(Request::post("/public/echo").body(body)?).await?));
    }
    let mut waiting = edge.http2().await?;
    let waits = tokio::spawn(async move { get(&mut waiting, "/public/x").await });
    let policy = edge.policy.load_full();
    let look = || policy.upstreams().next().unwrap().health.look(0, clock::kernel_now()).unwrap();
    eventually(|| look().in_flight == 3).await?;
    let (status, document) = get(&mut client, "/public/x").await?;
    assert_eq!((status.as_u16(), &document["code"]), (503, &"upstream_busy".into()));
    assert_eq!((origin.connections(), look().connections), (2, 2));
    drop(held.pop());
    assert_eq!(within(waits).await???.0, StatusCode::OK, "its turn came");
    drop((held, client));
    eventually(|| look().in_flight == 0).await?;
    assert!(origin.connections() <= 3);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_rests_is_given_up_when_its_server_ends_it() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut site = Site::new(listener.local_addr()?)?;
    site.config.http.workers = 1;
    let edge = site.start()?;
    let policy = edge.policy.load_full();
    let connections = || {
        let upstream = policy.upstreams().next().unwrap();
        upstream.health.look(0, clock::kernel_now()).unwrap().connections
    };
    let mut client = edge.http1().await?;
    for _ in 0..2 {
        let serve = async {
            let (mut stream, _) = listener.accept().await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await?;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await?;
            Result::<_>::Ok(stream)
        };
        let (served, got) = tokio::join!(serve, get(&mut client, "/public/x"));
        assert_eq!(got?.0, StatusCode::OK);
        assert_eq!(connections(), 1);
        drop(served?);
        eventually(|| connections() == 0).await?;
    }
    assert_eq!(health(&edge), [State::Up]);
    Ok(())
}

#[tokio::test]
async fn requests_are_spread_and_a_server_that_fails_rests() -> Result<()> {
    let (one, other) = (Origin::start().await?, Origin::start().await?);
    let mut site = Site::new(one.address)?;
    let upstream = api(&mut site);
    upstream.servers.push(format!("h2c://{}", other.address).parse()?);
    upstream.ejection = Ejection { failures: 3, rest: Duration::from_secs(3600) };
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    for _ in 0..60 {
        assert_eq!(get(&mut client, "/public/x").await?.0, StatusCode::OK);
    }
    assert!(one.requests() >= 10 && other.requests() >= 10, "{} and {}", one.requests(), other.requests());
    assert_eq!(health(&edge), [State::Up, State::Up]);
    // Statuses of the application are no failures of the server.
    for _ in 0..20 {
        assert_eq!(get(&mut client, "/public/status/500").await?.0, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(health(&edge), [State::Up, State::Up]);
    while health(&edge) == [State::Up, State::Up] {
        assert_eq!(get(&mut client, "/public/status/503").await?.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    let before = (one.requests(), other.requests());
    for _ in 0..20 {
        assert_eq!(get(&mut client, "/public/x").await?.0, StatusCode::OK);
    }
    let after = (one.requests() - before.0, other.requests() - before.1);
    assert!(after == (20, 0) || after == (0, 20), "{after:?}");
    Ok(())
}

#[tokio::test]
async fn a_request_has_its_time_and_no_more() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    api(&mut site).total_timeout = Some(Duration::from_millis(300));
    let edge = site.start()?;
    for mut client in edge.clients().await? {
        let (status, document) = get(&mut client, "/public/stall").await?;
        assert_eq!((status.as_u16(), &document["code"]), (504, &"deadline_exceeded".into()));
    }
    // Also once the answer has begun.
    let mut client = edge.http2().await?;
    let (sender, body) = Channel::open();
    let response = client.send(Request::post("/public/echo").body(body)?).await?;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(within(response.into_body().collect()).await?.is_err());
    drop(sender);
    assert_eq!(health(&edge), [State::Up], "that is no failure of the server");
    Ok(())
}

#[tokio::test]
async fn an_answers_time_ends_whether_it_is_read_fast_or_not_at_all() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (let_go, mut gone) = tokio::sync::mpsc::unbounded_channel();
    // It always has more.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let let_go = let_go.clone();
            tokio::spawn(async move {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
                let _ = let_go.send(());
            });
        }
    });
    let mut site = Site::new(address)?;
    api(&mut site).total_timeout = Some(Duration::from_millis(300));
    site.config.http.write_timeout = Duration::from_secs(3600);
    let edge = site.start()?;
    for mut client in edge.clients().await? {
        let request = Request::get("/public/x");
        let mut unread = client.send(request.body(nothing())?).await?;
        assert_eq!(unread.status(), StatusCode::OK);
        within(gone.recv()).await?.unwrap();
        // What was on its way arrives, and no end.
        let ends = async { while let Some(Ok(_)) = unread.body_mut().frame().await {} };
        within(ends).await?;
    }
    for mut client in edge.clients().await? {
        let mut read = client.send(Request::get("/public/x").body(nothing())?).await?;
        let outcome = async {
            loop {
                match read.body_mut().frame().await {
                    Some(Ok(_)) => {}
                    other => return other.is_some_and(|piece| piece.is_err()),
                }
            }
        };
        assert!(within(outcome).await?, "an answer that was broken off does not look whole");
        within(gone.recv()).await?.unwrap();
    }
    assert_eq!(health(&edge), [State::Up], "that is no failure of the server");
    Ok(())
}

#[tokio::test]
async fn silence_ends_an_answer_only_if_nobody_speaks() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    api(&mut site).stream_timeout = Duration::from_millis(400);
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    let (sender, body) = Channel::open();
    // The answer begins at once and ends when the request does, and nothing comes in between.
    let response = client.send(Request::post("/public/swallow").body(body)?).await?;
    assert_eq!(response.status(), StatusCode::OK);
    for _ in 0..10 {
        sender.send(Bytes::from_static(b"more")).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(sender);
    assert_eq!(within(response.into_body().collect()).await??.to_bytes(), "40");
    Ok(())
}

#[tokio::test]
async fn checks_take_a_server_out_and_bring_it_back() -> Result<()> {
    let (one, other) = (Origin::start().await?, Origin::start().await?);
    let mut site = Site::new(one.address)?;
    let upstream = api(&mut site);
    upstream.servers.push(format!("h2c://{}", other.address).parse()?);
    let interval = Duration::from_millis(100);
    upstream.health =
        Some(HealthCheck { interval, healthy: 2, unhealthy: 2, ..HealthCheck::of("/healthz".to_owned()) });
    one.set_well(false);
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    for (sick, well) in [(&one, &other), (&other, &one)] {
        sick.set_well(false);
        well.set_well(true);
        let expected =
            if std::ptr::eq(sick, &one) { [State::Down, State::Up] } else { [State::Up, State::Down] };
        eventually(|| health(&edge) == expected).await?;
        let before = sick.requests();
        for _ in 0..20 {
            assert_eq!(get(&mut client, "/public/x").await?.0, StatusCode::OK);
        }
        assert_eq!(sick.requests(), before);
    }
    let text = enforcer::metrics::http::text(&edge.metrics.registry)?;
    let shown = |metric: &str, server: &str, value: u32| {
        format!("{metric}{{server=\"{server}\",upstream=\"api\"}} {value}")
    };
    for line in [
        shown("enforcer_upstream_up", &format!("http://{}", one.address), 1),
        shown("enforcer_upstream_up", &format!("h2c://{}", other.address), 0),
        shown("enforcer_upstream_requests", &format!("h2c://{}", other.address), 0),
    ] {
        assert!(text.contains(&line), "{text}");
    }
    // Better asked than none.
    one.set_well(false);
    eventually(|| health(&edge) == [State::Down, State::Down]).await?;
    assert_eq!(get(&mut client, "/public/x").await?.0, StatusCode::OK);
    Ok(())
}
