//! Stands in for Apple's server of receipts: gives newer ones, or behaves as badly as a test wants.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use enforcer::{clock, config};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::Value;
use tempfile::TempDir;

use super::Apple;
use crate::manner::{Door, Manner, Visit};

/// The team whose key is known here, and the key's id.
const TEAM: &str = "ABCDE12345";
const KEY_ID: &str = "F6G7H8I9J0";

/// A running stand-in; it ends with its runtime.
pub struct LiveApple {
    /// Where it listens.
    pub address: SocketAddr,
    authorities: PathBuf,
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
        let door = Door::open("The root of Apple's servers").await?;
        let (address, authorities) = (door.address, door.authorities.clone());
        let pair = KeyPair::generate()?;
        let shared = Arc::new(Shared {
            manner: Mutex::default(),
            newer: Mutex::default(),
            asked: Mutex::default(),
            complaints: Mutex::default(),
            key: pair.der_bytes().to_vec(),
        });
        let known = Arc::clone(&shared);
        let dir = door.serve(move |visit| {
            let known = Arc::clone(&known);
            async move { serve(visit, &known).await }
        });
        std::fs::write(dir.path().join("receipts.pem"), apple.receipt_root_pem())?;
        std::fs::write(dir.path().join("key.p8"), pair.serialize_pem())?;
        Ok(Self { address, authorities, shared, dir })
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
            authorities: Some(self.authorities.clone()),
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

async fn serve(visit: Visit, shared: &Shared) -> Result<()> {
    let request = visit.read().await?;
    lock(&shared.asked).push(STANDARD.decode(&request.body)?);
    let manner = lock(&shared.manner).clone();
    let manner =
        manner.unwrap_or_else(|| match is_good(&request.head, request.field("authorization: "), shared) {
            Ok(()) => {
                let newer = STANDARD.encode(&*lock(&shared.newer));
                Manner::Answer(200, String::new(), newer.into_bytes())
            }
            Err(error) => {
                lock(&shared.complaints).push(format!("{error:#}"));
                Manner::Answer(401, String::new(), Vec::new())
            }
        });
    request.serve(manner).await
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
