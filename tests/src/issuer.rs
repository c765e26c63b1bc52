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

use anyhow::Result;
use enforcer::config::{Introspection, KeySource, RemoteKeys};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use crate::manner::Manner;
use crate::{
    manner::{Door, Visit},
    tokens::{self, SigningKey},
};

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
        let door = Door::open("Issuer's root").await?;
        let (address, authorities) = (door.address, door.authorities.clone());
        let manner = Arc::new(Mutex::new(Manner::HangUp));
        let asked = Arc::new(AtomicU64::new(0));
        let unchanged = Arc::new(AtomicU64::new(0));
        let opaque = Arc::new(Opaque::default());
        let known = Arc::clone(&opaque);
        let (how, count) = (Arc::clone(&manner), (Arc::clone(&asked), Arc::clone(&unchanged)));
        let dir = door.serve(move |visit| {
            let (how, known, count) = (Arc::clone(&how), Arc::clone(&known), count.clone());
            async move { serve(visit, address, (&how, &known), &count).await }
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
    visit: Visit,
    address: SocketAddr,
    (manner, opaque): (&Mutex<Manner>, &Opaque),
    (asked, unchanged): &(Arc<AtomicU64>, Arc<AtomicU64>),
) -> Result<()> {
    let request = visit.read().await?;
    let document = |document: &Value| Manner::Answer(200, String::new(), document.to_string().into_bytes());
    if request.head.starts_with("GET /.well-known/openid-configuration ") {
        let issuer = format!("https://{address}");
        return request
            .serve(document(&json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})))
            .await;
    }
    let manner = lock(manner).clone();
    if request.head.starts_with("POST /introspect ") {
        opaque.asked.fetch_add(1, SeqCst);
        *lock(&opaque.authorization) = request.field("authorization: ").to_owned();
        let mut form = form_urlencoded::parse(&request.body);
        let token = form.find(|(name, _)| name == "token").map(|(_, token)| token.into_owned());
        if let Manner::Answer(200, fields, _) = &manner
            && fields.starts_with("Cache-Control")
        {
            let said = lock(&opaque.said).get(&token.unwrap_or_default()).cloned();
            return request.serve(document(&said.unwrap_or_else(|| json!({"active": false})))).await;
        }
    } else {
        asked.fetch_add(1, SeqCst);
    }
    if let Manner::Tagged(tag, _) = &manner {
        unchanged.fetch_add(request.knows(tag).into(), SeqCst);
    }
    request.serve(manner).await
}
