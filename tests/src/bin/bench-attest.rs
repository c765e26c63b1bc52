//! What devices cost: an enrolment, a session, a request with a session, and one with an assertion beside it; through the checks alone in
//! one thread, and in the CPU time of the daemon. Beside it, in the same run, one bare verification of ES256 by the library that all of
//! them use: what each of them is made of, and cannot be cheaper than.

use std::{fs, io::Write as _, net::IpAddr, time::Duration};

use ::aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Parser;
use enforcer::{
    attestation::app_attest::Environment,
    checks::{
        Now, admit,
        devices::{self, Endpoint, assertion, client_data},
        facts::{Client, ClientAddr, Identity, RequestFacts, Target},
        token::KnownTokens,
    },
    clock,
    config::{self, AppAttest, Assertion, AttestationDemand, Route},
    policy::Policy,
};
use enforcer_tests::{
    attestation::{
        apple::{Apple, Phone, server::LiveApple, sha256},
        der::Hash,
    },
    contestants::{Contestant, cpu_micros},
    edge::{self, NAME, Site},
    place::{Place, respond},
    signing::nonce,
    tokens::{SigningKey, ath, encode, public_jwk, thumbprint},
};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

/// Measures what devices cost.
#[derive(Parser)]
struct Arguments {
    /// Requests per measurement.
    #[arg(long, default_value_t = 2_000)]
    requests: u32,
    /// Measurements per line; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Requests per measurement through the daemon; 0 leaves it out, which needs nginx.
    #[arg(long, default_value_t = 2_000)]
    daemon_requests: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

const APP: &str = enforcer_tests::place::APP;
const SESSION: &str = "/.well-known/enforcer/session";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.runs > 0 && arguments.requests > 0, "--runs and --requests must be at least 1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = Bench::new(&runtime, &arguments)?;
    let peer = bench.bare()?;
    let lines = bench.lines()?;
    let daemon = match arguments.daemon_requests {
        0 => Vec::new(),
        count => runtime.block_on(through_daemon(count, arguments.runs))?,
    };
    let text = if arguments.json {
        let line = |(name, ns): &(&str, f64)| json!({"what": name, "nanoseconds": ns, "per_second": 1e9 / ns, "ratio": ns / peer});
        let cpu =
            |(name, us): &(&str, f64)| json!({"what": name, "cpu_us": us, "ratio": us * 1_000.0 / peer});
        let document = json!({
            "es256_nanoseconds": peer,
            "checks": lines.iter().map(line).collect::<Vec<_>>(),
            "daemon": daemon.iter().map(cpu).collect::<Vec<_>>(),
        });
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        let mut text =
            format!("{:<44} {:>10} {:>12} {:>8}\n", "checks, one thread", "us", "per second", "ES256");
        for (name, ns) in [("one bare verification of ES256", peer)].iter().chain(&lines) {
            text += &format!("{name:<44} {:>10.1} {:>12.0} {:>8.2}\n", ns / 1_000.0, 1e9 / ns, ns / peer);
        }
        if !daemon.is_empty() {
            text += &format!(
                "{:<44} {:>10} {:>12} {:>8}\n",
                "daemon, one worker, HTTP/1.1", "us of CPU", "", "ES256"
            );
        }
        for (name, us) in &daemon {
            text += &format!("{name:<44} {us:>10.1} {:>12} {:>8.2}\n", "", us * 1_000.0 / peer);
        }
        text
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Policies with and without receipts, an enrolled phone, and its sessions.
struct Bench<'a> {
    policy: Policy,
    with_receipts: Policy,
    apple: Apple,
    key: SigningKey,
    client: Client,
    unix: u64,
    arguments: &'a Arguments,
    _site: Site,
    _live: LiveApple,
}

impl<'a> Bench<'a> {
    fn new(runtime: &tokio::runtime::Runtime, arguments: &'a Arguments) -> Result<Self> {
        let unix = clock::unix_now();
        let apple = Apple::new(unix)?;
        let live = runtime.block_on(LiveApple::start(&apple))?;
        let mut site = Site::new("127.0.0.1:9".parse()?)?;
        let root = site.dir.path().join("apple.pem");
        fs::write(&root, apple.root_pem())?;
        let app_attest = AppAttest { root: Some(root), ..edge::app_attest(APP) };
        let attestation = |receipts| {
            let app_attest = Some(AppAttest { receipts, ..app_attest.clone() });
            Some(config::Attestation { max_challenges: 1 << 22, app_attest, ..edge::attestation() })
        };
        let route = |path: &str, assertion: Option<Assertion>| {
            let demand = AttestationDemand { assertion, group: path.to_owned(), ..edge::demand() };
            Route { attestation: Some(demand), ..edge::route(path, None, &[]) }
        };
        site.config.replay.max_entries = 1 << 22;
        site.config.routes.extend([
            route("/device/", None),
            route("/timed/", Some(Assertion::Time)),
            route("/asked/", Some(Assertion::Challenge)),
        ]);
        site.config.attestation = attestation(None);
        // It began long ago, so that no proof needs a nonce.
        let policy = Policy::load_at(&site.config, unix - 86_400)?;
        site.config.attestation = attestation(Some(live.config()?));
        let with_receipts = Policy::load_at(&site.config, unix - 86_400)?;
        let (subject, names) = ("CN=phone".into(), Box::default());
        let identity = Identity { thumbprint: thumb(7).into(), subject, names };
        let client = Client {
            identity: Some(Box::new(identity)),
            ..Client::at(ClientAddr::new(IpAddr::from([192, 0, 2, 7])))
        };
        let key = SigningKey::p256("app")?;
        Ok(Self { policy, with_receipts, apple, key, client, unix, arguments, _site: site, _live: live })
    }

    fn facts<'r>(&'r self, method: &'r Method, path: &'r str, headers: &'r HeaderMap) -> RequestFacts<'r> {
        RequestFacts {
            client: &self.client,
            address: self.client.address,
            method,
            path: path.into(),
            named: Some(NAME),
            authority: Some(NAME),
            target: Target { path, query: None },
            headers,
            is_early: false,
            is_banned: false,
            upgrades: false,
        }
    }

    /// Nanoseconds of `run` for each of what `make` makes before: the median of the runs after one more.
    fn measure<T>(
        &self,
        mut make: impl FnMut() -> Result<T>,
        mut run: impl FnMut(&T) -> Result<()>,
    ) -> Result<f64> {
        let count = self.arguments.requests;
        let mut runs = Vec::new();
        for number in 0..=self.arguments.runs {
            let made = (0..count).map(|_| make()).collect::<Result<Vec<_>>>()?;
            let begin = clock::instant_now();
            for one in &made {
                run(one)?;
            }
            let spent = clock::instant_now().duration_since(begin);
            if number > 0 {
                runs.push(spent.as_nanos() as f64 / f64::from(count));
            }
        }
        runs.sort_by(f64::total_cmp);
        runs.get(runs.len() / 2).copied().context("no run")
    }

    /// One verification, with the point as it is kept of a device.
    fn bare(&self) -> Result<f64> {
        let phone = Phone::new(APP, Environment::Production)?;
        let point = phone.point();
        let made = || {
            let message = encode(&sha256(nonce().as_bytes()));
            Ok((phone.key.sign(Hash::Sha256, message.as_bytes())?, message))
        };
        self.measure(made, |(signature, message)| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point[..]);
            let good = key.verify(message.as_bytes(), signature).is_ok();
            ensure!(good, "the peer refused its signature");
            Ok(())
        })
    }

    fn lines(&self) -> Result<Vec<(&'static str, f64)>> {
        let mut phone = Phone::new(APP, Environment::Production)?;
        let (body, headers) = self.enrolment(&self.policy, &phone)?;
        self.answer(&self.policy, Endpoint::Enrol, &headers, &body)?;
        let by_key = json!({ "cnf": { "jkt": thumbprint(&self.key)? } });
        let by_certificate = json!({ "cnf": { "x5t#S256": thumb(7) } });
        let session = |phone: &mut Phone, body: &Value| -> Result<String> {
            let headers = self.session(phone, body)?;
            let answer = self.answer(&self.policy, Endpoint::Session, &headers, body)?;
            Ok(answer["session"].as_str().context("no session")?.to_owned())
        };
        let proven = session(&mut phone, &by_key)?;
        let bound = session(&mut phone, &by_certificate)?;
        let mut lines = vec![
            ("enrolment", self.enrol(&self.policy)?),
            ("enrolment, its receipt verified and kept", self.enrol(&self.with_receipts)?),
        ];
        let begin = self.measure(
            || self.session(&mut phone, &by_key),
            |headers| self.answer(&self.policy, Endpoint::Session, headers, &by_key).map(drop),
        )?;
        lines.push(("session", begin));
        lines.push((
            "request without a device",
            self.measure(|| Ok(HeaderMap::new()), |h| self.pass("/public/x", h))?,
        ));
        let mut plain = HeaderMap::new();
        plain.insert("enforcer-session", bound.parse()?);
        lines.push((
            "request, session by certificate",
            self.measure(|| Ok(plain.clone()), |h| self.pass("/device/x", h))?,
        ));
        let made = || self.proof(&proven, "/device/x");
        lines.push((
            "request, session by key, with proof",
            self.measure(made, |h| self.pass("/device/x", h))?,
        ));
        for (name, session, path) in [
            ("assertion over the time, by certificate", &bound, "/timed/x"),
            ("assertion over the time, with proof", &proven, "/timed/x"),
            ("assertion over a challenge, with proof", &proven, "/asked/x"),
        ] {
            let made = || {
                let mut headers = if session == &bound { plain.clone() } else { self.proof(session, path)? };
                let (field, over) = match path {
                    "/timed/x" => ("enforcer-time", clock::unix_now().to_string()),
                    _ => (
                        "enforcer-challenge",
                        self.challenge(&self.policy, &json!({"purpose": "request", "group": "/asked/"}))?,
                    ),
                };
                let data = client_data(&over, &Method::GET, Target { path, query: None }, b"");
                let made = phone.assert(&sha256(data.as_bytes()))?;
                headers.insert("enforcer-assertion", STANDARD.encode(made).parse()?);
                headers.insert(field, over.parse()?);
                Ok(headers)
            };
            lines.push((name, self.measure(made, |headers| self.assert(path, headers))?));
        }
        Ok(lines)
    }

    fn enrol(&self, policy: &Policy) -> Result<f64> {
        let made = || self.enrolment(policy, &Phone::new(APP, Environment::Production)?);
        self.measure(made, |(body, headers)| self.answer(policy, Endpoint::Enrol, headers, body).map(drop))
    }

    fn enrolment(&self, policy: &Policy, phone: &Phone) -> Result<(Value, HeaderMap)> {
        let challenge = self.challenge(policy, &json!({"purpose": "enrol"}))?;
        let object = phone.attest(&self.apple, &sha256(challenge.as_bytes()))?;
        let body = json!({
            "provider": "app-attest", "challenge": challenge, "key_id": STANDARD.encode(phone.key_id()),
            "attestation": STANDARD.encode(object),
        });
        Ok((body, HeaderMap::new()))
    }

    fn session(&self, phone: &mut Phone, body: &Value) -> Result<HeaderMap> {
        let challenge = self.challenge(&self.policy, &json!({"purpose": "session"}))?;
        let target = Target { path: SESSION, query: None };
        let data = client_data(&challenge, &Method::POST, target, body.to_string().as_bytes());
        let made = phone.assert(&sha256(data.as_bytes()))?;
        let mut headers = HeaderMap::new();
        headers.insert("enforcer-device", encode(&phone.key_id()).parse()?);
        headers.insert("enforcer-challenge", challenge.parse()?);
        headers.insert("enforcer-assertion", STANDARD.encode(made).parse()?);
        Ok(headers)
    }

    fn challenge(&self, policy: &Policy, asked: &Value) -> Result<String> {
        let answer = self.answer(policy, Endpoint::Challenge, &HeaderMap::new(), asked)?;
        Ok(answer["challenge"].as_str().context("no challenge")?.to_owned())
    }

    fn answer(
        &self,
        policy: &Policy,
        endpoint: Endpoint,
        headers: &HeaderMap,
        body: &Value,
    ) -> Result<Value> {
        let path = if endpoint == Endpoint::Session { SESSION } else { "/" };
        let facts = self.facts(&Method::POST, path, headers);
        let answer = devices::answer(policy, endpoint, &facts, body.to_string().as_bytes(), now());
        let answer = answer.map_err(|failed| anyhow::anyhow!("{endpoint:?}: {failed:?}"))?;
        Ok(serde_json::from_str(&answer.body)?)
    }

    fn proof(&self, session: &str, path: &str) -> Result<HeaderMap> {
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": public_jwk(&self.key)}).to_string();
        let claims = json!({
            "jti": nonce(), "htm": "GET", "htu": format!("https://{NAME}{path}"), "iat": clock::unix_now(),
            "ath": ath(session),
        });
        let mut headers = HeaderMap::new();
        headers.insert("enforcer-session", session.parse()?);
        headers.insert("enforcer-proof", self.key.mint_raw(&header, &claims.to_string())?.parse()?);
        Ok(headers)
    }

    fn pass(&self, path: &str, headers: &HeaderMap) -> Result<()> {
        let facts = self.facts(&Method::GET, path, headers);
        let outcome = admit(&self.policy, &facts, now(), &mut KnownTokens::new(0));
        ensure!(
            outcome.as_ref().is_ok_and(|grant| grant.upstream().is_some()),
            "refused: {:?}",
            outcome.err()
        );
        Ok(())
    }

    fn assert(&self, path: &str, headers: &HeaderMap) -> Result<()> {
        let facts = self.facts(&Method::GET, path, headers);
        let outcome = admit(&self.policy, &facts, now(), &mut KnownTokens::new(0));
        let mut grant = outcome.map_err(|refusal| anyhow::anyhow!("refused: {refusal:?}"))?;
        let judged = assertion::body(&mut grant, &facts, b"", self.unix);
        ensure!(judged.is_ok() && grant.upstream().is_some(), "refused: {judged:?}");
        Ok(())
    }
}

fn now() -> Now {
    Now { monotonic: clock::kernel_now(), unix: clock::unix_now() }
}

fn thumb(byte: u8) -> String {
    encode(&[byte; 32])
}

/// For one worker in front of nginx.
fn config(origin: std::net::SocketAddr) -> String {
    format!(
        r#"
[kernel]
mode = "off"
pin_directory = "/nowhere"
[bans]
store = "bans.redb"
threshold = 1000000
[http]
workers = 1
[[listener]]
address = "127.0.0.1:0"
certificates = [{{ chain = "api.pem", key = "api.key" }}]
[metrics]
address = "127.0.0.1:0"
[control]
socket = "control.sock"
[upstream.api]
servers = ["http://{origin}"]
[attestation]
session_keys = "sessions.key"
limit = {{ rate = "1000000/s", burst = 1000000 }}
[attestation.app_attest]
apps = ["{APP}"]
root = "apple.pem"
[[route]]
path = "/public/"
upstream = "api"
public = true
[[route]]
path = "/device/"
upstream = "api"
public = true
attestation = {{}}
[[route]]
path = "/timed/"
upstream = "api"
public = true
attestation = {{ assertion = "time" }}
[[route]]
path = "/asked/"
upstream = "api"
public = true
attestation = {{ assertion = "challenge" }}
"#
    )
}

/// CPU microseconds of the daemon per request with a body of two bytes, one after the other on one connection.
async fn through_daemon(count: u32, runs: usize) -> Result<Vec<(&'static str, f64)>> {
    let dir = tempfile::tempdir()?;
    let origin = Contestant::nginx_origin(dir.path())?;
    let mut place = Place::new(&config(origin.open))?;
    let daemon = place.start()?;
    let mut client = place.client().await?;
    place.enrol(&mut client).await?;
    // Neither a proof without a nonce nor a time is taken right after a start.
    let mut nonce = None;
    for _ in 0..600 {
        let signed = place.signed("/timed/x", "enforcer-time", &clock::unix_now().to_string())?;
        let headers = place.proven("/timed/x", &signed, nonce.as_deref())?;
        let (answer, given) = respond(&mut client, "/timed/x", headers, "{}").await?;
        nonce = given.or(nonce);
        if answer["code"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut lines = Vec::new();
    for (name, path) in [
        ("request without a device", "/public/x"),
        ("request, session by key, with proof", "/device/x"),
        ("assertion over the time, with proof", "/timed/x"),
        ("assertion over a challenge, with proof", "/asked/x"),
    ] {
        let mut readings = Vec::new();
        for run in 0..=runs {
            let mut made = Vec::new();
            for _ in 0..count {
                let signed = match path {
                    "/timed/x" => place.signed(path, "enforcer-time", &clock::unix_now().to_string())?,
                    "/asked/x" => {
                        let asked = json!({"purpose": "request", "group": "/asked/"});
                        let challenge = place.challenge(&mut client, &asked).await?;
                        place.signed(path, "enforcer-challenge", &challenge)?
                    }
                    _ => HeaderMap::new(),
                };
                made.push(match path {
                    "/public/x" => signed,
                    _ => place.proven(path, &signed, nonce.as_deref())?,
                });
            }
            let before = cpu_micros(daemon.id())?;
            for headers in made {
                let (answer, given) = respond(&mut client, path, headers, "{}").await?;
                nonce = given.or(nonce);
                ensure!(answer["code"].is_null(), "{path}: {answer}");
            }
            if run > 0 {
                readings.push((cpu_micros(daemon.id())? - before) / f64::from(count));
            }
        }
        readings.sort_by(f64::total_cmp);
        lines.push((name, readings.get(readings.len() / 2).copied().context("no run")?));
    }
    Ok(lines)
}
