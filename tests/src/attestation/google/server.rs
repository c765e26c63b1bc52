//! Stands in for Google's servers: gives an account tokens, and says what integrity tokens mean, or behaves as badly as a test wants.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use ::aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use enforcer::{
    attestation::play::{account::Account, budget::Quota},
    keys::play::Config,
};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PACKAGE, encode, random};
use crate::manner::{Door, Manner, Visit};

const EMAIL: &str = "enforcer@project.iam.gserviceaccount.com";

/// A running stand-in; it ends with its runtime.
pub struct LiveGoogle {
    /// Where it listens.
    pub address: SocketAddr,
    authorities: PathBuf,
    shared: Arc<Shared>,
    account: String,
    _dir: TempDir,
}

struct Shared {
    /// How it answers, if not as Google does: for tokens of accounts, and for integrity tokens.
    manners: Mutex<[Option<Manner>; 2]>,
    /// What it says of integrity tokens.
    said: Mutex<HashMap<String, Value>>,
    /// Tokens of the account that are good.
    granted: Mutex<Vec<String>>,
    asked: [AtomicU64; 2],
    /// Why it refused an assertion.
    complaints: Mutex<Vec<String>>,
    key: Vec<u8>,
    base: Mutex<String>,
    lifetime: AtomicU64,
}

/// What a stand-in is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A token for the account.
    Account,
    /// The meaning of an integrity token.
    Decode,
}

impl LiveGoogle {
    /// One that answers as Google does.
    pub async fn start() -> Result<Self> {
        let door = Door::open("Google's root").await?;
        let (address, authorities) = (door.address, door.authorities.clone());
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let account = json!({
            "type": "service_account",
            "project_id": "project",
            "client_email": EMAIL,
            "private_key_id": "key-1",
            "private_key": pair.serialize_pem(),
            "token_uri": format!("https://{address}/token"),
        });
        let shared = Arc::new(Shared {
            manners: Mutex::default(),
            said: Mutex::default(),
            granted: Mutex::default(),
            asked: Default::default(),
            complaints: Mutex::default(),
            key: pair.public_key_raw().to_vec(),
            base: Mutex::new(format!("https://{address}")),
            lifetime: AtomicU64::new(3_600),
        });
        let known = Arc::clone(&shared);
        let dir = door.serve(move |visit| {
            let known = Arc::clone(&known);
            async move { serve(visit, &known).await }
        });
        Ok(Self { address, authorities, shared, account: account.to_string(), _dir: dir })
    }

    /// How it answers from now on; `None`: as Google does.
    pub fn behave(&self, part: Part, manner: Option<Manner>) {
        lock(&self.shared.manners)[part as usize] = manner;
    }

    /// What it says of an integrity token from now on; of all others that they are foreign.
    pub fn say(&self, token: &str, verdict: Value) {
        lock(&self.shared.said).insert(token.to_owned(), verdict);
    }

    /// How often it was asked.
    pub fn asked(&self, part: Part) -> u64 {
        self.shared.asked[part as usize].load(SeqCst)
    }

    /// Takes every token of the account back.
    pub fn withdraw(&self) {
        lock(&self.shared.granted).clear();
    }

    /// For how many seconds tokens of the account are good from now on.
    pub fn lasting(&self, seconds: u64) {
        self.shared.lifetime.store(seconds, SeqCst);
    }

    /// What was wrong with assertions.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.shared.complaints).clone()
    }

    /// The key file of the account.
    pub fn account_file(&self) -> &str {
        &self.account
    }

    /// The account.
    pub fn account(&self) -> Result<Account> {
        Account::read(self.account.as_bytes()).map_err(anyhow::Error::msg)
    }

    /// Its roots, in PEM.
    pub fn authorities(&self) -> PathBuf {
        self.authorities.clone()
    }

    /// How it is asked.
    pub fn config(&self) -> Result<Config> {
        Ok(Config {
            api: format!("https://{}", self.address).parse()?,
            token_url: None,
            authorities: Some(self.authorities()),
            private_addresses: true,
            timeout: Duration::from_secs(5),
            max_calls: 16,
            quota: Quota { per_day: 100_000, burst: 1_000, reserve: 100 },
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(visit: Visit, shared: &Shared) -> Result<()> {
    let request = visit.read().await?;
    let part = if request.head.starts_with("POST /token ") { Part::Account } else { Part::Decode };
    shared.asked[part as usize].fetch_add(1, SeqCst);
    let manner = lock(&shared.manners)[part as usize].clone();
    let authorization = request.field("authorization: ");
    let genuine = || genuine(part, &request.head, authorization, &request.body, shared);
    let manner = manner.map_or_else(genuine, Ok)?;
    request.serve(manner).await
}

fn answer(status: u16, body: &Value) -> Manner {
    Manner::Answer(status, "Content-Type: application/json\r\n".to_owned(), body.to_string().into_bytes())
}

fn genuine(part: Part, head: &str, authorization: &str, body: &[u8], shared: &Shared) -> Result<Manner> {
    if part == Part::Account {
        if let Err(error) = asserted(body, shared) {
            lock(&shared.complaints).push(format!("{error:#}"));
            return Ok(answer(400, &json!({"error": "invalid_grant"})));
        }
        let token = encode(&random::<16>()?);
        lock(&shared.granted).push(token.clone());
        let lifetime = shared.lifetime.load(SeqCst);
        return Ok(answer(
            200,
            &json!({"access_token": token, "expires_in": lifetime, "token_type": "Bearer"}),
        ));
    }
    let error = |code: u16, status: &str| answer(code, &json!({"error": {"code": code, "status": status}}));
    if !lock(&shared.granted).iter().any(|token| authorization == format!("Bearer {token}")) {
        return Ok(error(401, "UNAUTHENTICATED"));
    }
    if !head.starts_with(&format!("POST /v1/{PACKAGE}:decodeIntegrityToken ")) {
        return Ok(error(403, "PERMISSION_DENIED"));
    }
    let body: Value = serde_json::from_slice(body)?;
    let said = body["integrityToken"].as_str().and_then(|token| lock(&shared.said).get(token).cloned());
    Ok(match said {
        Some(verdict) => answer(200, &json!({"tokenPayloadExternal": verdict})),
        None => error(400, "INVALID_ARGUMENT"),
    })
}

/// RFC 7523, as Google has it.
fn asserted(body: &[u8], shared: &Shared) -> Result<()> {
    let form: HashMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    let grant = form.get("grant_type").context("no grant type")?;
    ensure!(grant == "urn:ietf:params:oauth:grant-type:jwt-bearer", "grant type {grant}");
    let assertion = form.get("assertion").context("no assertion")?;
    let (message, signature) = assertion.rsplit_once('.').context("no JWS")?;
    let (header, claims) = message.split_once('.').context("no JWS")?;
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &shared.key);
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    ensure!(key.verify(message.as_bytes(), &signature).is_ok(), "its signature is wrong");
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    ensure!(header["alg"] == "RS256" && header["kid"] == "key-1", "its header is {header}");
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    let base = lock(&shared.base).clone();
    ensure!(claims["iss"] == EMAIL && claims["aud"] == format!("{base}/token"), "its claims are {claims}");
    ensure!(claims["scope"] == "https://www.googleapis.com/auth/playintegrity", "its scope is {claims}");
    let seconds = claims["exp"].as_u64().zip(claims["iat"].as_u64()).map(|(exp, iat)| exp - iat);
    ensure!(seconds.is_some_and(|seconds| (1..=3_600).contains(&seconds)), "its times are {claims}");
    Ok(())
}
