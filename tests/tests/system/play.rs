//! Google Play through the daemon itself: its file, its tasks and its memory, with a Google that is played on the server's loopback.

use std::{
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use enforcer::{
    checks::{
        devices::{client_data, key_data, key_hash},
        facts::Target,
    },
    clock,
    enrolment::DeviceId,
};
use enforcer_tests::{
    attestation::google::{
        Bound, CERTIFICATE, PACKAGE, random,
        server::{LiveGoogle, Part},
        verdict,
    },
    clients::HOST,
    edge::{self, Outgoing},
    manner::Manner,
    netns::{Netns, SERVER_V4},
    poll,
    scene::Scene,
    tokens::{SigningKey, ath, encode, public_jwk, thumbprint},
};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};

/// Requests that come while Google hangs.
const MANY: usize = 300;
/// Bytes of the body of each.
const BODY: usize = 64 << 10;
/// Of them Google hears so many.
const CALLS: usize = 4;

/// A connection of HTTP/2.
type Client = SendRequest<Outgoing>;

/// Plays Google in a namespace, until the sender is gone.
fn google(server: &Netns) -> Result<(Arc<LiveGoogle>, tokio::sync::oneshot::Sender<()>)> {
    let (tell, told) = mpsc::channel();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    server.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tell.send(Arc::new(LiveGoogle::start().await?))?;
            // Whether it is told so or dropped, it ends.
            drop(ended.await);
            Ok(())
        })
    });
    Ok((told.recv_timeout(Duration::from_secs(60)).context("Google does not start")?, end))
}

/// An app on Android, with nothing but a key of its own.
struct App {
    key: SigningKey,
    google: Arc<LiveGoogle>,
    session: String,
}

impl App {
    fn id(&self) -> DeviceId {
        DeviceId::of_key(&self.key.public_bytes())
    }

    /// A token that Google says to be bound to this.
    fn token(&self, hash: &str) -> Result<String> {
        let token = encode(&random::<16>()?);
        self.google.say(&token, verdict(Bound::RequestHash(hash), clock::unix_now() * 1_000));
        Ok(token)
    }

    async fn challenge(&self, client: &mut Client, purpose: &str) -> Result<String> {
        let body = json!({ "purpose": purpose }).to_string();
        let (status, answer) =
            send(client, Request::post("/.well-known/enforcer/challenge"), body.into()).await?;
        ensure!(status == 200, "{answer}");
        Ok(answer["challenge"].as_str().context("no challenge")?.to_owned())
    }

    async fn enrol(&mut self, client: &mut Client) -> Result<()> {
        let challenge = self.challenge(client, "enrol").await?;
        let public: String = self.key.public_pem()?.lines().filter(|line| !line.starts_with('-')).collect();
        let signature = self.key.sign_otherwise(key_data(&challenge, self.id()).as_bytes())?;
        let body = json!({
            "provider": "play", "challenge": challenge, "key": public, "signature": STANDARD.encode(signature),
            "token": self.token(&key_hash(&challenge, self.id()))?, "token_type": "standard",
        });
        let (status, answer) =
            send(client, Request::post("/.well-known/enforcer/enrol"), body.to_string().into()).await?;
        ensure!(status == 201, "{answer}");
        let (path, challenge) = ("/.well-known/enforcer/session", self.challenge(client, "session").await?);
        let body = json!({ "cnf": { "jkt": thumbprint(&self.key)? } }).to_string();
        let target = Target { path, query: None };
        let data = client_data(&challenge, &Method::POST, target, body.as_bytes());
        let request = Request::post(path)
            .header("enforcer-device", self.id().to_string())
            .header("enforcer-challenge", challenge)
            .header("enforcer-assertion", STANDARD.encode(self.key.sign_otherwise(data.as_bytes())?));
        let (status, answer) = send(client, request, body.into()).await?;
        ensure!(status == 200, "{answer}");
        self.session = answer["session"].as_str().context("no session")?.to_owned();
        Ok(())
    }

    /// A request with a token of its own.
    async fn post(&self, client: &mut Client, path: &str, body: Bytes) -> Result<(u16, Value)> {
        let nonce = encode(&random::<16>()?);
        let data =
            client_data(&key_hash(&nonce, self.id()), &Method::POST, Target { path, query: None }, &body);
        let token = self.token(&encode(digest(&SHA256, data.as_bytes()).as_ref()))?;
        let header = json!({ "typ": "dpop+jwt", "alg": self.key.alg(), "jwk": public_jwk(&self.key) });
        let mut claims = json!({
            "jti": nonce, "htm": "POST", "htu": format!("https://{HOST}{path}"), "iat": clock::unix_now(),
            "ath": ath(&self.session),
        });
        loop {
            let proof = self.key.mint_raw(&header.to_string(), &claims.to_string())?;
            let request = Request::post(path)
                .header("enforcer-session", &self.session)
                .header("enforcer-proof", proof)
                .header("enforcer-nonce", &nonce)
                .header("enforcer-integrity-token", &token);
            let (status, answer) = send(client, request, body.clone()).await?;
            match answer["dpop-nonce"].as_str() {
                // Once more with it, as any client of DPoP does.
                Some(wanted) if answer["code"] == "dpop_nonce" => {
                    claims["nonce"] = wanted.into();
                    claims["jti"] = encode(&random::<16>()?).into();
                }
                _ => return Ok((status, answer)),
            }
        }
    }
}

/// Status and document of an answer; the document has its `DPoP-Nonce`, too.
async fn send(client: &mut Client, request: http::request::Builder, body: Bytes) -> Result<(u16, Value)> {
    let body: Outgoing = Full::new(body).boxed();
    let mut request = request.body(body)?;
    *request.uri_mut() = format!("https://{HOST}{}", request.uri()).parse()?;
    client.ready().await?;
    let (head, body) = client.send_request(request).await?.into_parts();
    let mut document: Value = serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap_or_default();
    if let (Some(nonce), Value::Object(members)) = (head.headers.get("dpop-nonce"), &mut document) {
        members.insert("dpop-nonce".to_owned(), nonce.to_str()?.into());
    }
    Ok((head.status.as_u16(), document))
}

async fn connect(root: &[u8]) -> Result<Client> {
    let stream = TcpStream::connect(SocketAddr::from((SERVER_V4, 443))).await?;
    let root = CertificateDer::from_pem_slice(root)?;
    let stream = edge::shake(stream, root, HOST, &["h2"]).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

#[test]
fn a_daemon_whose_google_hangs_stays_small_and_does_as_its_file_declares() -> Result<()> {
    let scene = Scene::new()?;
    let (google, _end) = google(&scene.lab.server)?;
    std::fs::write(scene.site.dir.join("account.json"), google.account_file())?;
    let mut plan = scene.plan();
    let route = |path: &str, play: &str| {
        format!(
            "[[route]]\npath = \"{path}\"\nupstream = \"api\"\npublic = true\nattestation = {{ play = {{ {play} }} }}\n\n"
        )
    };
    plan.routes = route("/deny/", "") + &route("/flag/", "unavailable = \"allow-and-flag\"");
    plan.more = format!(
        "[http]\nmax_held_bytes = \"8MiB\"\n\n[attestation]\n\n\
         [attestation.play]\npackages = [\"{PACKAGE}\"]\ncertificates = [\"{certificate}\"]\n\n\
         [attestation.play.remote]\naccount = \"account.json\"\napi = \"https://{address}\"\nauthorities = \"{roots}\"\n\
         private_addresses = true\ntimeout = \"30s\"\nmax_calls = {CALLS}\n",
        certificate = CERTIFICATE.map(|byte| format!("{byte:02x}")).concat(),
        address = google.address,
        roots = google.authorities().display(),
    );
    let daemon = scene.daemon(&plan)?;
    let root = std::fs::read(scene.site.ca())?;
    let mut app = App { key: SigningKey::p256("own")?, google: Arc::clone(&google), session: String::new() };
    scene.lab.client.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut client = connect(&root).await?;
            app.enrol(&mut client).await?;
            let (status, echo) = app.post(&mut client, "/deny/x", Bytes::from_static(b"{}")).await?;
            ensure!(status == 200, "{echo}");
            let facts = echo["headers"]["enforcer-attested"].as_str().context("no facts")?;
            let facts = URL_SAFE_NO_PAD.decode(facts.split('.').nth(1).context("no JWT")?)?;
            let facts: Value = serde_json::from_slice(&facts)?;
            assert_eq!(facts["play"], json!({ "verdict": "fresh", "age": 0 }));
            let (before, heard) = (daemon.resident()?, google.asked(Part::Decode));
            google.behave(Part::Decode, Some(Manner::Silence));
            let mut under_way = JoinSet::new();
            let app = Arc::new(app);
            for number in 0..MANY {
                let (app, mut client) = (Arc::clone(&app), client.clone());
                let path = if number % 2 == 0 { "/deny/x" } else { "/flag/x" };
                under_way.spawn(async move {
                    let answer = app.post(&mut client, path, vec![b'x'; BODY].into()).await?;
                    anyhow::Ok((path, answer))
                });
            }
            for _ in 0..MANY - CALLS {
                let next = tokio::time::timeout(Duration::from_secs(20), under_way.join_next()).await;
                let (path, (status, answer)) =
                    next.context("more wait than may")?.context("nothing")???;
                match (path, status, answer["code"].as_str().unwrap_or_default()) {
                    ("/deny/x", 503, "attestation_unavailable")
                    | ("/flag/x", 200, _)
                    | (_, 503, "overloaded") => {}
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((google.asked(Part::Decode) - heard, under_way.len()), (CALLS as u64, CALLS));
            let grown = daemon.resident()?.saturating_sub(before) >> 20;
            // What may be held, what connections buffer, and what an allocator keeps.
            assert!(grown < 64, "{grown} MiB more");
            anyhow::Ok(())
        })
    })?;
    let calls = |result| anyhow::Ok(daemon.scrape()?.sum("enforcer_play_calls_total", &[("result", result)]));
    assert!(calls("busy")? > 0);
    poll::until("what is left of the day to be shown", Duration::from_secs(30), || {
        let left = daemon.scrape()?.sum("enforcer_play_calls_left", &[]);
        Ok((300..500).contains(&left).then_some(()))
    })?;
    let flagged = [("route", "/flag/"), ("result", "flagged")];
    assert!(daemon.scrape()?.sum("enforcer_play_requests_total", &flagged) > 0);
    Ok(())
}
