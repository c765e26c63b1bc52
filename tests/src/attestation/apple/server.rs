//! Stands in for Apple's server of receipts: gives newer ones, or behaves as badly as a test wants.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use anyhow::{Context as _, Result, ensure};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use enforcer::{clock, config};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::Apple;
use crate::{
    attestation::google::server::carry_out,
    issuer::Manner,
    pki::{Authority, KeyKind},
};

/// The team whose key is known here, and the key's id.
const TEAM: &str = "ABCDE12345";
const KEY_ID: &str = "F6G7H8I9J0";

/// A running stand-in; it ends with its runtime.
pub struct LiveApple {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    dir: TempDir,
}

struct Shared {
    manner: Mutex<Option<Manner>>,
    /// What it gives for any receipt.
    newer: Mutex<Vec<u8>>,
    /// Receipts that it was asked about.
    asked: Mutex<Vec<Vec<u8>>>,
    /// Why it refused a request.
    complaints: Mutex<Vec<String>>,
    /// The public key for DeviceCheck, a point.
    key: Vec<u8>,
}

impl LiveApple {
    /// One that answers as Apple does, and takes receipts that `apple` signs.
    pub async fn start(apple: &Apple) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new("The root of Apple's servers")?;
        std::fs::write(dir.path().join("roots.pem"), authority.pem())?;
        std::fs::write(dir.path().join("receipts.pem"), apple.receipt_root_pem())?;
        let pair = KeyPair::generate()?;
        std::fs::write(dir.path().join("key.p8"), pair.serialize_pem())?;
        let leaf = authority.issue(&["127.0.0.1"], KeyKind::P256)?;
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).context("reading a key")?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.certificate], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            manner: Mutex::default(),
            newer: Mutex::default(),
            asked: Mutex::default(),
            complaints: Mutex::default(),
            key: pair.der_bytes().to_vec(),
        });
        let known = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, known) = (acceptor.clone(), Arc::clone(&known));
                // Whatever goes wrong here, the client says so.
                tokio::spawn(async move { drop(serve(stream, acceptor, &known).await) });
            }
        });
        Ok(Self { address, shared, dir })
    }

    /// How it answers from now on; `None`: as Apple does.
    pub fn behave(&self, manner: Option<Manner>) {
        *lock(&self.shared.manner) = manner;
    }

    /// What it gives for any receipt from now on.
    pub fn give(&self, newer: Vec<u8>) {
        *lock(&self.shared.newer) = newer;
    }

    /// The receipts that it was asked about.
    pub fn asked(&self) -> Vec<Vec<u8>> {
        lock(&self.shared.asked).clone()
    }

    /// What was wrong with requests.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.shared.complaints).clone()
    }

    /// How it is asked.
    pub fn config(&self) -> Result<config::Receipts> {
        let file = |name: &str| -> PathBuf { self.dir.path().join(name) };
        Ok(config::Receipts {
            key: file("key.p8"),
            key_id: KEY_ID.to_owned(),
            team: TEAM.to_owned(),
            api: Some(format!("https://{}", self.address).parse()?),
            authorities: Some(file("roots.pem")),
            private_addresses: true,
            timeout: Duration::from_secs(20),
            every: Duration::from_secs(86_400),
            calls_per_day: 10_000,
            max_receipts: 1_000,
            root: Some(file("receipts.pem")),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: &Shared) -> Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let mut body = vec![0; field("content-length: ").parse()?];
    stream.read_exact(&mut body).await?;
    lock(&shared.asked).push(STANDARD.decode(&body)?);
    let manner = lock(&shared.manner).clone();
    let manner = manner.unwrap_or_else(|| match is_good(&head, field("authorization: "), shared) {
        Ok(()) => {
            let newer = STANDARD.encode(&*lock(&shared.newer));
            Manner::Answer(200, String::new(), newer.into_bytes())
        }
        Err(error) => {
            lock(&shared.complaints).push(format!("{error:#}"));
            Manner::Answer(401, String::new(), Vec::new())
        }
    });
    carry_out(&mut stream, manner).await
}

/// As Apple's page "Assessing fraud risk" asks for it: a JWT by ES256, of the team, made now.
fn is_good(head: &str, authorization: &str, shared: &Shared) -> Result<()> {
    ensure!(head.starts_with("POST /v1/attestationData HTTP/1.1\r\n"), "it is for another address");
    let (message, signature) = authorization.rsplit_once('.').context("no JWT")?;
    let (header, claims) = message.split_once('.').context("no JWT")?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &shared.key);
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    ensure!(key.verify(message.as_bytes(), &signature).is_ok(), "its signature is wrong");
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    ensure!(header["alg"] == "ES256" && header["kid"] == KEY_ID, "its header is {header}");
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    let age = claims["iat"].as_u64().map(|made| clock::unix_now().abs_diff(made));
    ensure!(claims["iss"] == TEAM && age.is_some_and(|age| age < 60), "its claims are {claims}");
    Ok(())
}
