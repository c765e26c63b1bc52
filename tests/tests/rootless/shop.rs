//! A policy that takes devices of a maker that the test plays, and a phone of it; for the tests of devices.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::fs;

use anyhow::Result;
use enforcer::{
    attestation::app_attest,
    checks::{
        Grant, Now, Refusal, admit,
        devices::{self, Answer, Failed, client_data},
        facts::{Client, ClientAddr, RequestFacts, Target},
        token::KnownTokens,
    },
    clock::KernelTime,
    config::AppAttest,
    control::{devices as operators, wire},
    denial::Denial,
    enrolment::DeviceId,
    policy::Policy,
};
use enforcer_tests::{
    attestation::apple::{Apple, Phone, sha256},
    edge::{self, NAME, Site},
    tokens::{SigningKey, encode},
};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{
    admit::NOW,
    till::{ath, bare, thumbprint, unique},
};

/// The app of the phones here.
pub(super) const APP: &str = "ABCDE12345.com.example.app";
/// The path of a route that asks for a device.
pub(super) const PATH: &str = "/device/x";

/// A policy that takes devices of a maker that the test plays, and a phone of it.
pub(super) struct Shop {
    pub(super) site: Site,
    pub(super) policy: Policy,
    pub(super) apple: Apple,
    pub(super) phone: Phone,
    pub(super) key: SigningKey,
    pub(super) client: Client,
}

impl Shop {
    pub(super) fn new() -> Result<Self> {
        Self::with(|_| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut Site)) -> Result<Self> {
        let mut site = Site::new("127.0.0.1:9".parse()?)?;
        let apple = furnish(&mut site, NOW)?;
        change(&mut site);
        let policy = Policy::load_at(&site.config, NOW - 86_400)?;
        let phone = Phone::new(APP, app_attest::Environment::Production)?;
        let client = Client::at(ClientAddr::new("192.0.2.7".parse()?));
        Ok(Self { site, policy, apple, phone, key: SigningKey::p256("app")?, client })
    }

    pub(super) fn facts<'a>(
        &'a self,
        method: &'a Method,
        path: &'a str,
        headers: &'a HeaderMap,
    ) -> RequestFacts<'a> {
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

    pub(super) fn post(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: &Value,
        now: u64,
    ) -> Result<Answer, Failed> {
        let facts = self.facts(&Method::POST, path, headers);
        let now = Now { monotonic: KernelTime(now * 1_000_000_000), unix: now };
        let endpoint = devices::endpoint(&self.policy, &facts, now).unwrap();
        let endpoint = endpoint.map_err(|refusal| Failed::from(refusal.denial))?;
        devices::answer(&self.policy, endpoint, &facts, body.to_string().as_bytes(), now)
    }

    pub(super) fn challenge(&self, purpose: &str, device: Option<DeviceId>, now: u64) -> String {
        let mut body = json!({ "purpose": purpose });
        if let Some(device) = device {
            body["device"] = device.to_string().into();
        }
        let answer = self.post("/.well-known/enforcer/challenge", &HeaderMap::new(), &body, now).unwrap();
        read(&answer)["challenge"].as_str().unwrap().to_owned()
    }

    pub(super) fn enrolment(&self, phone: &Phone, challenge: &str) -> Value {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let object = phone.attest(&self.apple, &sha256(challenge.as_bytes())).unwrap();
        json!({
            "provider": "app-attest", "challenge": challenge, "key_id": STANDARD.encode(phone.key_id()),
            "attestation": STANDARD.encode(object),
        })
    }

    pub(super) fn send_enrolment(&self, body: &Value, now: u64) -> Result<Answer, Failed> {
        self.post("/.well-known/enforcer/enrol", &HeaderMap::new(), body, now)
    }

    pub(super) fn enrol(&self, now: u64) -> Result<Answer, Failed> {
        self.send_enrolment(&self.enrolment(&self.phone, &self.challenge("enrol", None, now)), now)
    }

    pub(super) fn id(&self) -> DeviceId {
        DeviceId::of_key(&self.phone.point())
    }

    pub(super) fn confirmation(&self) -> Value {
        json!({ "cnf": { "jkt": thumbprint(&self.key) } })
    }

    /// The fields of a request for a session, with an assertion of this counter.
    pub(super) fn assertion(&self, challenge: &str, counter: u32, body: &Value) -> HeaderMap {
        let target = Target { path: "/.well-known/enforcer/session", query: None };
        let data = client_data(challenge, &Method::POST, target, body.to_string().as_bytes());
        let assertion = self.phone.assertion(counter, 0x40, &sha256(data.as_bytes())).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("enforcer-device", self.id().to_string().parse().unwrap());
        headers.insert("enforcer-challenge", challenge.parse().unwrap());
        headers.insert("enforcer-assertion", encode(&assertion).parse().unwrap());
        headers
    }

    pub(super) fn send_session(&self, headers: &HeaderMap, body: &Value, now: u64) -> Result<Answer, Failed> {
        self.post("/.well-known/enforcer/session", headers, body, now)
    }

    /// A session from an assertion of this counter.
    pub(super) fn session(&self, counter: u32, now: u64) -> Result<String, Failed> {
        let body = self.confirmation();
        let challenge = self.challenge("session", Some(self.id()), now);
        let answer = self.send_session(&self.assertion(&challenge, counter, &body), &body, now)?;
        Ok(read(&answer)["session"].as_str().unwrap().to_owned())
    }

    pub(super) fn proof(&self, session: &str, now: u64) -> String {
        self.proof_of(PATH, session, now)
    }

    pub(super) fn proof_of(&self, path: &str, session: &str, now: u64) -> String {
        let header = json!({"typ": "dpop+jwt", "alg": self.key.alg(), "jwk": bare(&self.key)});
        let url = format!("https://{NAME}{path}");
        let claims = json!({"jti": unique(), "htm": "GET", "htu": url, "iat": now, "ath": ath(session)});
        self.key.mint_raw(&header.to_string(), &claims.to_string()).unwrap()
    }

    pub(super) fn admit(&self, path: &str, headers: &HeaderMap, now: u64) -> Result<Grant, Refusal> {
        let facts = self.facts(&Method::GET, path, headers);
        let now = Now { monotonic: KernelTime(now * 1_000_000_000), unix: now };
        admit(&self.policy, &facts, now, &mut KnownTokens::new(0))
    }

    /// What a request with a session and a good proof of having its key gets.
    pub(super) fn ask(&self, session: &str, now: u64) -> Option<Denial> {
        self.admit(PATH, &fields(session, &self.proof(session, now)), now).err().map(|one| one.denial)
    }

    pub(super) fn operate(&self, command: wire::DeviceCommand) -> Result<wire::Answer, wire::Failure> {
        operators::carry_out(&self.policy, command, NOW).map(|(answer, _)| answer)
    }
}

/// Has a site take devices of a maker of its own, and gives it a route that asks for them.
pub(super) fn furnish(site: &mut Site, now: u64) -> Result<Apple> {
    let apple = Apple::new(now)?;
    let root = site.dir.path().join("apple.pem");
    fs::write(&root, apple.root_pem())?;
    let mut attestation = edge::attestation();
    attestation.app_attest = Some(AppAttest { root: Some(root), ..edge::app_attest(APP) });
    site.config.attestation = Some(attestation);
    let demand = edge::demand();
    site.config
        .routes
        .push(enforcer::config::Route { attestation: Some(demand), ..edge::route("/device/", None, &[]) });
    Ok(apple)
}

pub(super) fn fields(session: &str, proof: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("enforcer-session", session.parse().unwrap());
    headers.insert("enforcer-proof", proof.parse().unwrap());
    headers
}

pub(super) fn read(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

pub(super) fn denial<T>(outcome: Result<T, Failed>) -> Option<Denial> {
    outcome.err().map(|failed| failed.denial)
}
