//! A real daemon without its kernel part, and an app on a phone that talks to it; only Apple is played. For tests and measurements of what
//! hangs on the process: its end, its start, and its CPU time.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command},
    time::Duration,
};

use ::aws_lc_rs::rand::fill;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use enforcer::{
    attestation::app_attest::Environment,
    checks::{devices::client_data, facts::Target},
    clock,
};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    attestation::apple::{Apple, Phone, sha256},
    cleanup::Owned,
    daemon::binary,
    edge::{Client, NAME, Outgoing, connect},
    pki::{Authority, KeyKind},
    poll,
    tokens::{SigningKey, ath, encode, public_jwk, thumbprint},
};

/// The app of the phone, which is to stand in the configuration.
pub const APP: &str = "ABCDE12345.com.example.app";
const BASE: &str = "/.well-known/enforcer";

/// What a daemon needs, and an app that has a phone.
pub struct Place {
    dir: TempDir,
    authority: Authority,
    apple: Apple,
    /// The phone.
    pub phone: Phone,
    key: SigningKey,
    session: String,
}

impl Place {
    /// With this configuration, which finds `api.pem`, `api.key`, `sessions.key` and `apple.pem` beside it.
    pub fn new(config: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new("Test authority")?;
        authority.issue(&[NAME], KeyKind::P256)?.write(dir.path(), "api")?;
        let apple = Apple::new(clock::unix_now())?;
        fs::write(dir.path().join("apple.pem"), apple.root_pem())?;
        let mut secret = [0; 48];
        fill(&mut secret).map_err(|_| anyhow!("no randomness"))?;
        let keys = dir.path().join("sessions.key");
        fs::write(&keys, STANDARD.encode(secret))?;
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o600))?;
        fs::write(dir.path().join("enforcer.toml"), config)?;
        let phone = Phone::new(APP, Environment::Production)?;
        Ok(Self { dir, authority, apple, phone, key: SigningKey::p256("app")?, session: String::new() })
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command
            .args(words)
            .current_dir(self.dir.path())
            .env("ENFORCER_SOCKET", self.dir.path().join("control.sock"));
        Ok(command)
    }

    /// What a command answers with `--json`.
    pub fn ask(&self, words: &[&str]) -> Result<Value> {
        let output = self.command(&["--json"])?.args(words).output()?;
        if !output.status.success() {
            bail!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Starts the daemon, and waits until it is ready.
    pub fn start(&self) -> Result<Daemon> {
        let mut command = self.command(&["run", "-c", "enforcer.toml"])?;
        let log = fs::File::create(self.dir.path().join("log"))?;
        command.stdout(log.try_clone()?).stderr(log).env_remove("NOTIFY_SOCKET");
        let (owned, child) = Owned::process(&mut command)?;
        let mut daemon = Daemon { child, owned };
        poll::until("the daemon to be ready", Duration::from_secs(60), || {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("it ended with {status}: {}", fs::read_to_string(self.dir.path().join("log"))?);
            }
            Ok(self.ask(&["status"]).ok())
        })?;
        Ok(daemon)
    }

    /// A connection that speaks HTTP/1.1.
    pub async fn client(&self) -> Result<Client> {
        let status = self.ask(&["status"])?;
        let address = status["listeners"][0].as_str().context("no listener")?;
        let stream = connect(address.parse()?, self.authority.certificate(), NAME, &["http/1.1"]).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client::Http1(sender))
    }

    /// The counter of the phone's key, as the daemon knows it.
    pub fn counter(&self) -> Result<u64> {
        let device = encode(&self.phone.key_id());
        self.ask(&["device", "show", &device])?["counter"].as_u64().context("no counter")
    }

    /// A challenge.
    pub async fn challenge(&self, client: &mut Client, asked: &Value) -> Result<String> {
        let answer = send(client, &format!("{BASE}/challenge"), HeaderMap::new(), asked).await?;
        Ok(answer["challenge"].as_str().with_context(|| format!("{answer}"))?.to_owned())
    }

    /// An assertion of the next number over this.
    fn assertion(&mut self, over: &str, method: &Method, path: &str, body: &[u8]) -> Result<String> {
        let data = client_data(over, method, Target { path, query: None }, body);
        Ok(STANDARD.encode(self.phone.assert(&sha256(data.as_bytes()))?))
    }

    /// Enrols the phone and begins a session.
    pub async fn enrol(&mut self, client: &mut Client) -> Result<()> {
        let challenge = self.challenge(client, &json!({"purpose": "enrol"})).await?;
        let object = self.phone.attest(&self.apple, &sha256(challenge.as_bytes()))?;
        let body = json!({
            "provider": "app-attest", "challenge": challenge, "key_id": STANDARD.encode(self.phone.key_id()),
            "attestation": STANDARD.encode(object),
        });
        let answer = send(client, &format!("{BASE}/enrol"), HeaderMap::new(), &body).await?;
        ensure!(answer["level"] == "strong", "{answer}");
        let challenge = self.challenge(client, &json!({"purpose": "session"})).await?;
        let body = json!({ "cnf": { "jkt": thumbprint(&self.key)? } });
        let path = format!("{BASE}/session");
        let assertion = self.assertion(&challenge, &Method::POST, &path, body.to_string().as_bytes())?;
        let mut headers = HeaderMap::new();
        headers.insert("enforcer-device", encode(&self.phone.key_id()).parse()?);
        headers.insert("enforcer-challenge", challenge.parse()?);
        headers.insert("enforcer-assertion", assertion.parse()?);
        let answer = send(client, &path, headers, &body).await?;
        answer["session"].as_str().with_context(|| format!("{answer}"))?.clone_into(&mut self.session);
        Ok(())
    }

    /// The fields of a POST of `{}` that is signed over a challenge or the time, which stands in this field.
    pub fn signed(&mut self, path: &str, field: &'static str, over: &str) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert("enforcer-assertion", self.assertion(over, &Method::POST, path, b"{}")?.parse()?);
        headers.insert(field, over.parse()?);
        Ok(headers)
    }

    /// The same with the session, and a new proof of having its key.
    pub fn proven(&self, path: &str, signed: &HeaderMap, nonce: Option<&str>) -> Result<HeaderMap> {
        let header = json!({"typ": "dpop+jwt", "alg": self.key.alg(), "jwk": public_jwk(&self.key)});
        let mut unique = [0; 12];
        fill(&mut unique).map_err(|_| anyhow!("no randomness"))?;
        let mut claims = json!({
            "jti": encode(&unique), "htm": "POST", "htu": format!("https://{NAME}{path}"),
            "iat": clock::unix_now(), "ath": ath(&self.session),
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        let proof = self.key.mint_raw(&header.to_string(), &claims.to_string())?;
        let mut headers = signed.clone();
        headers.insert("enforcer-session", self.session.parse()?);
        headers.insert("enforcer-proof", proof.parse()?);
        Ok(headers)
    }

    /// The code of the answer to such a request.
    pub async fn code(&self, client: &mut Client, path: &str, signed: &HeaderMap) -> Result<String> {
        let (answer, nonce) = respond(client, path, self.proven(path, signed, None)?, "{}").await?;
        let answer = match nonce {
            // Right after a start a proof needs a nonce, for nobody knows which were used before.
            Some(nonce) if answer["code"] == "dpop_nonce" => {
                respond(client, path, self.proven(path, signed, Some(&nonce))?, "{}").await?.0
            }
            _ => answer,
        };
        Ok(answer["code"].as_str().with_context(|| format!("{answer}"))?.to_owned())
    }
}

/// What is answered to a POST, and the nonce that the next proof is to have.
pub async fn respond(
    client: &mut Client,
    path: &str,
    headers: HeaderMap,
    body: &str,
) -> Result<(Value, Option<String>)> {
    let body: Outgoing = Full::new(Bytes::from(body.to_owned())).boxed();
    let mut request = Request::post(path).body(body)?;
    request.headers_mut().extend(headers);
    let (head, body) = client.send(request).await?.into_parts();
    let nonce = head.headers.get("dpop-nonce").and_then(|nonce| nonce.to_str().ok().map(str::to_owned));
    let body = body.collect().await?.to_bytes();
    Ok((serde_json::from_slice(&body).unwrap_or_default(), nonce))
}

async fn send(client: &mut Client, path: &str, headers: HeaderMap, body: &Value) -> Result<Value> {
    Ok(respond(client, path, headers, &body.to_string()).await?.0)
}

/// A running daemon; dropping it kills it.
pub struct Daemon {
    child: Child,
    owned: Owned,
}

impl Daemon {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it.
    pub fn end(mut self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        self.child.wait()?;
        self.owned.forget();
        Ok(())
    }
}
