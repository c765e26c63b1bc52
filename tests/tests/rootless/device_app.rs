//! An app on a phone, from its enrolment to its last request, over real TLS to a real edge with a server behind; only Apple is played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::sync::Mutex;

use anyhow::Result;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use enforcer::{
    attestation::app_attest,
    checks::{devices::client_data, facts::Target},
    clock,
    control::{devices as operators, wire},
};
use enforcer_tests::{
    attestation::apple::{Apple, Phone, sha256},
    edge::{Client, Edge, NAME, Outgoing, Site},
    origin::Origin,
    tokens::{SigningKey, encode},
};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::{Value, json};

use super::{
    shop::{APP, furnish},
    till::{ath, bare, thumbprint, unique},
};

const SESSION: &str = "/.well-known/enforcer/session";

/// What an answer is: status, fields, document.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

/// A session, and the key that it is bound to.
pub(super) struct Held {
    pub(super) key: SigningKey,
    pub(super) session: String,
    /// `DPoP-Nonce` of the last answer that had one.
    nonce: Mutex<Option<String>>,
}

/// An app that knows nothing but what app developers are told.
pub(super) struct App {
    pub(super) phone: Phone,
    pub(super) held: Held,
}

impl App {
    pub(super) fn new() -> Result<Self> {
        let phone = Phone::new(APP, app_attest::Environment::Production)?;
        Ok(Self { phone, held: Held::new(SigningKey::p256("app")?) })
    }

    pub(super) fn device(&self) -> String {
        encode(&self.phone.key_id())
    }

    pub(super) async fn enrol(&self, client: &mut Client, apple: &Apple) -> Result<Answer> {
        let challenge = challenge(client, "enrol").await?;
        let object = self.phone.attest(apple, &sha256(challenge.as_bytes()))?;
        let body = json!({
            "provider": "app-attest", "challenge": challenge, "key_id": STANDARD.encode(self.phone.key_id()),
            "attestation": STANDARD.encode(object),
        });
        post(client, "/.well-known/enforcer/enrol", HeaderMap::new(), &body).await
    }

    pub(super) async fn begin(&mut self, client: &mut Client) -> Result<Answer> {
        let challenge = challenge(client, "session").await?;
        self.begin_with(client, &challenge).await
    }

    async fn begin_with(&mut self, client: &mut Client, challenge: &str) -> Result<Answer> {
        let body = json!({ "cnf": { "jkt": thumbprint(&self.held.key) } });
        let target = Target { path: SESSION, query: None };
        let data = client_data(challenge, &Method::POST, target, body.to_string().as_bytes());
        let assertion = self.phone.assert(&sha256(data.as_bytes()))?;
        let mut headers = HeaderMap::new();
        headers.insert("enforcer-device", self.device().parse()?);
        headers.insert("enforcer-challenge", challenge.parse()?);
        headers.insert("enforcer-assertion", STANDARD.encode(assertion).parse()?);
        let answer = post(client, SESSION, headers, &body).await?;
        if let Some(session) = answer.body["session"].as_str() {
            self.held.session = session.to_owned();
        }
        Ok(answer)
    }
}

impl Held {
    pub(super) const fn new(key: SigningKey) -> Self {
        Self { key, session: String::new(), nonce: Mutex::new(None) }
    }

    /// An ordinary request; asked for a nonce, it comes once more, as any client of DPoP does.
    pub(super) async fn get(&mut self, client: &mut Client, path: &str) -> Result<Answer> {
        let answer = self.get_once(client, path).await?;
        if answer.body["code"] == "dpop_nonce" { self.get_once(client, path).await } else { Ok(answer) }
    }

    /// The head of a request with the session, and a proof of having its key.
    pub(super) fn head(&self, method: &str, path: &str) -> Result<http::request::Builder> {
        let header = json!({"typ": "dpop+jwt", "alg": self.key.alg(), "jwk": bare(&self.key)});
        let mut claims = json!({
            "jti": unique(), "htm": method, "htu": format!("https://{NAME}{path}"), "iat": clock::unix_now(),
            "ath": ath(&self.session),
        });
        if let Some(nonce) = &*self.nonce.lock().unwrap() {
            claims["nonce"] = nonce.as_str().into();
        }
        Ok(Request::builder()
            .method(method)
            .uri(path)
            .header("enforcer-session", &self.session)
            .header("enforcer-proof", self.key.mint_raw(&header.to_string(), &claims.to_string())?)
            .header("enforcer-attested", "forged")
            .header("enforcer_attested", "forged"))
    }

    async fn get_once(&mut self, client: &mut Client, path: &str) -> Result<Answer> {
        let request = self.head("GET", path)?;
        let empty: Outgoing = Empty::new().boxed();
        let answer = read(client.send(request.body(empty)?).await?).await?;
        self.learn(&answer)?;
        Ok(answer)
    }

    /// Uses the nonce of an answer from now on; whether the request has to come once more with it.
    pub(super) fn learn(&self, answer: &Answer) -> Result<bool> {
        if let Some(nonce) = answer.headers.get("dpop-nonce") {
            *self.nonce.lock().unwrap() = Some(nonce.to_str()?.to_owned());
        }
        Ok(answer.body["code"] == "dpop_nonce")
    }
}

pub(super) async fn challenge(client: &mut Client, purpose: &str) -> Result<String> {
    let body = json!({ "purpose": purpose });
    let answer = post(client, "/.well-known/enforcer/challenge", HeaderMap::new(), &body).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.body["expires_in"], 120);
    Ok(answer.body["challenge"].as_str().unwrap().to_owned())
}

pub(super) async fn read(response: http::Response<hyper::body::Incoming>) -> Result<Answer> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

pub(super) async fn post(
    client: &mut Client,
    path: &str,
    headers: HeaderMap,
    body: &Value,
) -> Result<Answer> {
    let body: Outgoing = Full::new(Bytes::from(body.to_string())).boxed();
    let mut request = Request::post(path).body(body)?;
    request.headers_mut().extend(headers);
    read(client.send(request).await?).await
}

pub(super) fn operate(edge: &Edge, command: wire::DeviceCommand) -> wire::Answer {
    operators::carry_out(&edge.policy.load(), command, clock::unix_now()).unwrap().0
}

/// What the server behind was told, verified by the key that is published.
pub(super) async fn told(client: &mut Client, answer: &Answer) -> Result<Value> {
    let headers = answer.body["headers"].as_array().unwrap();
    let of = |name: &str| -> Vec<&str> {
        let named = headers.iter().filter(|one| one[0].as_str().unwrap().replace('_', "-") == name);
        named.map(|one| one[1].as_str().unwrap()).collect()
    };
    for name in [
        "enforcer-session",
        "enforcer-proof",
        "enforcer-device",
        "enforcer-assertion",
        "enforcer-integrity-token",
        "enforcer-nonce",
    ] {
        assert!(of(name).is_empty(), "{name} is nobody else's");
    }
    let [facts] = of("enforcer-attested")[..] else { panic!("{headers:?}") };
    let empty: Outgoing = Empty::new().boxed();
    let published = client.send(Request::get("/.well-known/enforcer/keys").body(empty)?).await?;
    let published = read(published).await?;
    assert_eq!(published.headers["cache-control"], "public, max-age=300");
    let jwk = &published.body["keys"][0];
    let (signed, signature) = facts.rsplit_once('.').unwrap();
    let number = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], number("x"), number("y")].concat();
    let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, point);
    key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature)?).unwrap();
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1)?)?)
}

#[tokio::test]
async fn an_app_enrols_works_for_a_while_and_comes_back_after_everything() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let apple = furnish(&mut site, clock::unix_now())?;
    let edge = site.start()?;
    let mut app = App::new()?;
    let mut client = edge.http2().await?;

    // Nobody gets in before.
    let empty: Outgoing = Empty::new().boxed();
    let answer = read(client.send(Request::get("/device/x").body(empty)?).await?).await?;
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("attestation_missing")));
    assert_eq!(answer.headers["www-authenticate"], "Attestation realm=\"enforcer\"");
    assert_eq!(origin.requests(), 0);
    let answer = app.begin(&mut client).await?;
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("device_unknown")));

    // Enrol, session, a thousand requests.
    let answer = app.enrol(&mut client, &apple).await?;
    assert_eq!((answer.status, &answer.body["device"]), (201, &json!(app.device())), "{}", answer.body);
    let answer = app.begin(&mut client).await?;
    assert_eq!((answer.status, &answer.body["level"]), (200, &json!("strong")), "{}", answer.body);
    for number in 0..1_000 {
        let answer = app.held.get(&mut client, "/device/x").await?;
        assert_eq!(answer.status, 200, "{number}: {}", answer.body);
        if number % 500 == 0 {
            let facts = told(&mut client, &answer).await?;
            assert_eq!((&facts["sub"], &facts["platform"]), (&json!(app.device()), &json!("ios")));
            assert_eq!((&facts["app"], &facts["iss"]), (&json!(APP), &json!("enforcer")));
            assert_eq!(facts["aud"], "api", "the name of the upstream");
            assert!(facts["exp"].as_u64() > facts["iat"].as_u64() && facts["age"].as_u64().unwrap() < 600);
        }
    }
    assert_eq!(origin.requests(), 1_000, "the endpoints are answered here");

    // The system has used some counters up; then an answer was lost, and the app asks again.
    app.phone.counter += 10;
    assert_eq!(app.begin(&mut client).await?.status, 200);
    app.phone.counter -= 1;
    let answer = app.begin(&mut client).await?;
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("assertion_counter_replayed")));
    assert_eq!(app.begin(&mut client).await?.status, 200, "the next one is good");

    // The app is installed anew: another key, another device.
    let old = app.device();
    app = App::new()?;
    assert_eq!(app.enrol(&mut client, &apple).await?.status, 201);
    assert_eq!(app.begin(&mut client).await?.status, 200);
    assert_eq!(app.held.get(&mut client, "/device/x").await?.status, 200);
    assert_ne!(app.device(), old);
    assert_eq!(edge.metrics.attestations.with_label_values(&["enrolled"]).get(), 2);

    // It is blocked, and let in again.
    operate(&edge, wire::DeviceCommand::Block { device: app.device(), reason: String::new() });
    let answer = app.held.get(&mut client, "/device/x").await?;
    assert_eq!((answer.status, &answer.body["code"]), (403, &json!("device_blocked")));
    assert_eq!(app.begin(&mut client).await?.body["code"], "device_blocked");
    assert_eq!(app.enrol(&mut client, &apple).await?.body["code"], "device_blocked");
    operate(&edge, wire::DeviceCommand::Unblock { device: app.device() });
    assert_eq!(app.held.get(&mut client, "/device/x").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_device_is_known_after_a_restart_and_its_challenge_is_not() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let apple = furnish(&mut site, clock::unix_now())?;
    let store = site.dir.path().join("devices.redb");
    site.config.attestation.as_mut().unwrap().store = Some(store);
    let edge = site.start()?;
    let mut app = App::new()?;
    let mut client = edge.http1().await?;
    assert_eq!(app.enrol(&mut client, &apple).await?.status, 201);
    assert_eq!(app.begin(&mut client).await?.status, 200);
    let challenge = challenge(&mut client, "session").await?;
    drop(client);
    let edge = edge.stop().await.start()?;
    let mut client = edge.http1().await?;
    let answer = app.held.get(&mut client, "/device/x").await?;
    assert_eq!(answer.body["code"], "attestation_session", "the session went with the daemon");
    let answer = app.begin_with(&mut client, &challenge).await?;
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("attestation_nonce_unknown")));
    assert_eq!(app.begin(&mut client).await?.status, 200, "no enrolment is needed");
    assert_eq!(app.held.get(&mut client, "/device/x").await?.status, 200);
    let wire::Answer::Device(row) = operate(&edge, wire::DeviceCommand::Show { device: app.device() }) else {
        panic!("no device")
    };
    assert_eq!(row.counter, app.phone.counter);
    Ok(())
}
