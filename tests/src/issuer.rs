//! An issuer that publishes its keys: a small https server that counts what it is asked and does what a test wants.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use enforcer::config::{Introspection, KeySource, RemoteKeys};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    pki::{Authority, KeyKind},
    tokens::{self, SigningKey},
};

/// What a request gets.
#[derive(Clone, Debug)]
pub enum Manner {
    /// This status, these fields (each with its line end) and this body.
    Answer(u16, String, Vec<u8>),
    /// This set by this `ETag` (with its quotes), good for a minute; 304 for who knows it.
    Tagged(String, Vec<u8>),
    /// The end of the connection, without a word.
    HangUp,
    /// Nothing, for ever.
    Silence,
    /// A body that never ends, one byte at a time.
    Drip,
    /// A body that never ends, as fast as it is taken.
    Flood,
}

/// A running issuer; it ends with its runtime.
pub struct LiveIssuer {
    /// Where it listens.
    pub address: SocketAddr,
    authorities: PathBuf,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicU64>,
    unchanged: Arc<AtomicU64>,
    opaque: Arc<Opaque>,
    _dir: TempDir,
}

/// What it says of tokens that say nothing themselves.
#[derive(Debug, Default)]
struct Opaque {
    said: Mutex<HashMap<String, Value>>,
    asked: AtomicU64,
    authorization: Mutex<String>,
}

impl LiveIssuer {
    /// One that publishes these keys.
    pub async fn start(keys: &[&SigningKey]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new("Issuer's root")?;
        let authorities = dir.path().join("issuer-roots.pem");
        std::fs::write(&authorities, authority.pem())?;
        let leaf = authority.issue(&["127.0.0.1"], KeyKind::P256)?;
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).context("reading a key")?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.certificate], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let manner = Arc::new(Mutex::new(Manner::HangUp));
        let asked = Arc::new(AtomicU64::new(0));
        let unchanged = Arc::new(AtomicU64::new(0));
        let opaque = Arc::new(Opaque::default());
        let known = Arc::clone(&opaque);
        let (how, count) = (Arc::clone(&manner), (Arc::clone(&asked), Arc::clone(&unchanged)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, how, count) = (acceptor.clone(), Arc::clone(&how), count.clone());
                let known = Arc::clone(&known);
                // Whatever goes wrong here, the client says so.
                tokio::spawn(
                    async move { drop(serve(stream, acceptor, address, (&how, &known), &count).await) },
                );
            }
        });
        let issuer = Self { address, authorities, manner, asked, unchanged, opaque, _dir: dir };
        issuer.publish(keys);
        Ok(issuer)
    }

    /// From now on.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// Publishes these keys from now on, good for an hour.
    pub fn publish(&self, keys: &[&SigningKey]) {
        let fields = "Cache-Control: public, max-age=3600\r\n".to_owned();
        self.behave(Manner::Answer(200, fields, tokens::jwks(keys).into_bytes()));
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> u64 {
        self.asked.load(SeqCst)
    }

    /// How often it has said that they are the same.
    pub fn unchanged(&self) -> u64 {
        self.unchanged.load(SeqCst)
    }

    /// What it says of a token from now on; of all others that they are not active. It says so while it publishes keys.
    pub fn say(&self, token: &str, answer: Value) {
        lock(&self.opaque.said).insert(token.to_owned(), answer);
    }

    /// How often it was asked about tokens.
    pub fn introspected(&self) -> u64 {
        self.opaque.asked.load(SeqCst)
    }

    /// What the last one who did so was authorized by.
    pub fn authorization(&self) -> String {
        lock(&self.opaque.authorization).clone()
    }

    /// How it is asked about tokens, for a configuration; `secret` is a file.
    pub fn introspection(&self, secret: PathBuf) -> Result<Introspection> {
        Ok(Introspection {
            address: format!("{}/introspect", self.name()).parse()?,
            client_id: "edge 1".to_owned(),
            secret,
            authorities: Some(self.authorities.clone()),
            private_addresses: true,
            timeout: Duration::from_secs(1),
            positive: Duration::from_secs(60),
            negative: Duration::from_secs(60),
            max_entries: 1_000,
            max_calls: 64,
            without_audience: false,
        })
    }

    /// Where its keys are, for a configuration. With discovery it is the issuer of [`LiveIssuer::name`].
    pub fn source(&self, discovery: bool) -> Result<KeySource> {
        let path = if discovery { "/.well-known/openid-configuration" } else { "/keys" };
        Ok(KeySource::Remote(RemoteKeys {
            address: format!("{}{path}", self.name()).parse()?,
            discovery: discovery.then(|| self.name()),
            authorities: Some(self.authorities.clone()),
            private_addresses: true,
            refresh: Duration::from_secs(900),
            interval: Duration::from_secs(3600),
            max_stale: Duration::from_secs(24 * 3600),
        }))
    }

    /// `iss`, where it is found by discovery.
    pub fn name(&self) -> String {
        format!("https://{}", self.address)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    address: SocketAddr,
    (manner, opaque): (&Mutex<Manner>, &Opaque),
    (asked, unchanged): &(Arc<AtomicU64>, Arc<AtomicU64>),
) -> Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let respond = |status: u16, fields: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    if head.starts_with(b"GET /.well-known/openid-configuration ") {
        let issuer = format!("https://{address}");
        let document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}).to_string();
        stream.write_all(&respond(200, "", document.as_bytes())).await?;
        return Ok(stream.shutdown().await?);
    }
    let manner = lock(manner).clone();
    if head.starts_with(b"POST /introspect ") {
        opaque.asked.fetch_add(1, SeqCst);
        let text = String::from_utf8_lossy(&head).into_owned();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        *lock(&opaque.authorization) = field("authorization: ").to_owned();
        let mut form = vec![0; field("content-length: ").parse()?];
        stream.read_exact(&mut form).await?;
        let token = form_urlencoded::parse(&form).find(|(name, _)| name == "token").map(|(_, token)| token);
        if let Manner::Answer(200, fields, _) = &manner
            && fields.starts_with("Cache-Control")
        {
            let said = lock(&opaque.said).get(token.unwrap_or_default().as_ref()).cloned();
            let answer = said.unwrap_or_else(|| json!({"active": false})).to_string();
            stream.write_all(&respond(200, "", answer.as_bytes())).await?;
            return Ok(stream.shutdown().await?);
        }
    } else {
        asked.fetch_add(1, SeqCst);
    }
    let endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    match manner {
        Manner::Answer(status, fields, body) => {
            stream.write_all(&respond(status, &fields, &body)).await?;
            stream.shutdown().await?;
        }
        Manner::Tagged(tag, body) => {
            let fields = format!("ETag: {tag}\r\nCache-Control: max-age=60\r\n");
            let known = String::from_utf8_lossy(&head).contains(&format!("if-none-match: {tag}\r\n"));
            unchanged.fetch_add(known.into(), SeqCst);
            let answer = if known { respond(304, &fields, b"") } else { respond(200, &fields, &body) };
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
        }
        Manner::HangUp => {}
        Manner::Silence => std::future::pending().await,
        Manner::Drip => {
            stream.write_all(endless).await?;
            loop {
                stream.write_all(b"1\r\n \r\n").await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Manner::Flood => {
            stream.write_all(endless).await?;
            let piece = [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat();
            loop {
                stream.write_all(&piece).await?;
            }
        }
    }
    Ok(())
}
