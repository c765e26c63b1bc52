//! What devices are given and refused, step by step: challenges, enrolment, sessions, and what routes ask of them. No network; a
//! phone that is played, under a root that the test makes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, sync::Barrier, time::Duration};

use anyhow::Result;
use enforcer::{
    attestation::app_attest,
    checks::{
        Grant, Now, Refusal, admit,
        devices::{self, Answer, Endpoint, Failed, client_data},
        facts::{Client, ClientAddr, Identity, RequestFacts, Target},
        token::KnownTokens,
    },
    clock::KernelTime,
    config::{AppAttest, Environment, Level, LimitKey, Platform, RateLimit, UnknownDevices},
    control::{devices as operators, wire},
    denial::Denial,
    enrolment::{DeviceId, session::LENGTH},
    metrics::Metrics,
    policy::Policy,
    revoked::{FOREVER, Kind, Terms, WHENEVER},
    store::Gauges,
};
use enforcer_tests::{
    attestation::apple::{Apple, Phone, sha256},
    edge::{self, NAME, Site},
    tokens::{SigningKey, encode},
};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

use super::{
    admit::NOW,
    till::{ath, bare, thumbprint, unique},
};

/// The app of the phones here.
pub(super) const APP: &str = "ABCDE12345.com.example.app";
/// The path of a route that asks for a device.
const PATH: &str = "/device/x";

/// A policy that takes devices of a maker that the test plays, and a phone of it.
pub(super) struct Shop {
    pub(super) site: Site,
    pub(super) policy: Policy,
    pub(super) apple: Apple,
    pub(super) phone: Phone,
    pub(super) key: SigningKey,
    client: Client,
}

impl Shop {
    fn new() -> Result<Self> {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Site)) -> Result<Self> {
        let mut site = Site::new("127.0.0.1:9".parse()?)?;
        let apple = furnish(&mut site, NOW)?;
        change(&mut site);
        let policy = Policy::load_at(&site.config, NOW - 86_400)?;
        let phone = Phone::new(APP, app_attest::Environment::Production)?;
        let client = Client::at(ClientAddr::new("192.0.2.7".parse()?));
        Ok(Self { site, policy, apple, phone, key: SigningKey::p256("app")?, client })
    }

    fn facts<'a>(&'a self, method: &'a Method, path: &'a str, headers: &'a HeaderMap) -> RequestFacts<'a> {
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

    fn post(&self, path: &str, headers: &HeaderMap, body: &Value, now: u64) -> Result<Answer, Failed> {
        let facts = self.facts(&Method::POST, path, headers);
        let now = Now { monotonic: KernelTime(now * 1_000_000_000), unix: now };
        let endpoint = devices::endpoint(&self.policy, &facts, now).unwrap();
        let endpoint = endpoint.map_err(|refusal| Failed::from(refusal.denial))?;
        devices::answer(&self.policy, endpoint, &facts, body.to_string().as_bytes(), now)
    }

    fn challenge(&self, purpose: &str, device: Option<DeviceId>, now: u64) -> String {
        let mut body = json!({ "purpose": purpose });
        if let Some(device) = device {
            body["device"] = device.to_string().into();
        }
        let answer = self.post("/.well-known/enforcer/challenge", &HeaderMap::new(), &body, now).unwrap();
        read(&answer)["challenge"].as_str().unwrap().to_owned()
    }

    fn enrolment(&self, phone: &Phone, challenge: &str) -> Value {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let object = phone.attest(&self.apple, &sha256(challenge.as_bytes())).unwrap();
        json!({
            "provider": "app-attest", "challenge": challenge, "key_id": STANDARD.encode(phone.key_id()),
            "attestation": STANDARD.encode(object),
        })
    }

    fn send_enrolment(&self, body: &Value, now: u64) -> Result<Answer, Failed> {
        self.post("/.well-known/enforcer/enrol", &HeaderMap::new(), body, now)
    }

    fn enrol(&self, now: u64) -> Result<Answer, Failed> {
        self.send_enrolment(&self.enrolment(&self.phone, &self.challenge("enrol", None, now)), now)
    }

    fn id(&self) -> DeviceId {
        DeviceId::of_key(&self.phone.point())
    }

    fn confirmation(&self) -> Value {
        json!({ "cnf": { "jkt": thumbprint(&self.key) } })
    }

    /// The fields of a request for a session, with an assertion of this counter.
    fn assertion(&self, challenge: &str, counter: u32, body: &Value) -> HeaderMap {
        let target = Target { path: "/.well-known/enforcer/session", query: None };
        let data = client_data(challenge, &Method::POST, target, body.to_string().as_bytes());
        let assertion = self.phone.assertion(counter, 0x40, &sha256(data.as_bytes())).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("enforcer-device", self.id().to_string().parse().unwrap());
        headers.insert("enforcer-challenge", challenge.parse().unwrap());
        headers.insert("enforcer-assertion", encode(&assertion).parse().unwrap());
        headers
    }

    fn send_session(&self, headers: &HeaderMap, body: &Value, now: u64) -> Result<Answer, Failed> {
        self.post("/.well-known/enforcer/session", headers, body, now)
    }

    /// A session from an assertion of this counter.
    fn session(&self, counter: u32, now: u64) -> Result<String, Failed> {
        let body = self.confirmation();
        let challenge = self.challenge("session", Some(self.id()), now);
        let answer = self.send_session(&self.assertion(&challenge, counter, &body), &body, now)?;
        Ok(read(&answer)["session"].as_str().unwrap().to_owned())
    }

    fn proof(&self, session: &str, now: u64) -> String {
        let header = json!({"typ": "dpop+jwt", "alg": self.key.alg(), "jwk": bare(&self.key)});
        let url = format!("https://{NAME}{PATH}");
        let claims = json!({"jti": unique(), "htm": "GET", "htu": url, "iat": now, "ath": ath(session)});
        self.key.mint_raw(&header.to_string(), &claims.to_string()).unwrap()
    }

    fn admit(&self, path: &str, headers: &HeaderMap, now: u64) -> Result<Grant, Refusal> {
        let facts = self.facts(&Method::GET, path, headers);
        let now = Now { monotonic: KernelTime(now * 1_000_000_000), unix: now };
        admit(&self.policy, &facts, now, &mut KnownTokens::new(0))
    }

    /// What a request with a session and a good proof of having its key gets.
    fn ask(&self, session: &str, now: u64) -> Option<Denial> {
        self.admit(PATH, &fields(session, &self.proof(session, now)), now).err().map(|one| one.denial)
    }

    fn operate(&self, command: wire::DeviceCommand) -> Result<wire::Answer, wire::Failure> {
        operators::carry_out(&self.policy, command, NOW)
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

fn read(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

fn denial<T>(outcome: Result<T, Failed>) -> Option<Denial> {
    outcome.err().map(|failed| failed.denial)
}

#[test]
fn a_device_enrols_begins_a_session_and_its_requests_pass() -> Result<()> {
    let shop = Shop::new()?;
    let answer = shop.enrol(NOW).unwrap();
    assert_eq!((answer.status, answer.event, answer.is_public), (201, "enrolled", false));
    assert_eq!(
        read(&answer),
        json!({ "device": shop.id().to_string(), "platform": "ios", "level": "strong" })
    );
    let session = shop.session(1, NOW).unwrap();
    assert_eq!(session.len(), LENGTH);
    for after in [0, 1, 899] {
        assert_eq!(shop.ask(&session, NOW + after), None, "{after}");
    }
    let grant = shop.admit(PATH, &fields(&session, &shop.proof(&session, NOW)), NOW).unwrap();
    assert_eq!(grant.device(), Some(shop.id().to_string().as_str()));
    assert!(grant.device_facts().is_some());
    assert_eq!(shop.ask(&session, NOW + 900), Some(Denial::AttestationStale), "its time is over");
    // A route that asks for nothing tells nothing.
    let grant = shop.admit("/public/x", &HeaderMap::new(), NOW).unwrap();
    assert!(grant.device().is_none() && grant.device_facts().is_none());
    Ok(())
}

#[test]
fn a_challenge_is_used_up_whatever_comes_of_it() -> Result<()> {
    let shop = Shop::new()?;
    let challenge = shop.challenge("enrol", None, NOW);
    let good = shop.enrolment(&shop.phone, &challenge);
    let mut other = good.clone();
    other["attestation"] = shop.enrolment(&shop.phone, "another")["attestation"].clone();
    assert_eq!(denial(shop.send_enrolment(&other, NOW)), Some(Denial::AttestationNonce));
    assert_eq!(denial(shop.send_enrolment(&good, NOW)), Some(Denial::AttestationNonceReused));
    assert_eq!(shop.policy.attestation().unwrap().enrolment.devices.look().devices, 0);
    // What cannot be read at all has used nothing up.
    let challenge = shop.challenge("enrol", None, NOW);
    let good = shop.enrolment(&shop.phone, &challenge);
    for name in ["provider", "key_id", "attestation"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        assert_eq!(denial(shop.send_enrolment(&body, NOW)), Some(Denial::AttestationRequest), "{name}");
    }
    assert_eq!(denial(shop.send_enrolment(&good, NOW + 119)), None);
    let late = shop.enrolment(&shop.phone, &shop.challenge("enrol", None, NOW + 119));
    assert_eq!(denial(shop.send_enrolment(&late, NOW + 239)), Some(Denial::AttestationNonceStale));
    // Another purpose, another device.
    let session = shop.challenge("session", None, NOW + 239);
    let body = shop.enrolment(&shop.phone, &session);
    assert_eq!(denial(shop.send_enrolment(&body, NOW + 239)), Some(Denial::AttestationNonceUnknown));
    let others = shop.challenge("session", Some(DeviceId::of_key(b"other")), NOW + 239);
    let body = shop.confirmation();
    let headers = shop.assertion(&others, 1, &body);
    assert_eq!(denial(shop.send_session(&headers, &body, NOW + 239)), Some(Denial::AttestationNonceUnknown));
    Ok(())
}

#[test]
fn what_is_not_genuine_does_not_enrol() -> Result<()> {
    let shop = Shop::new()?;
    let send = |phone: &Phone, apple: &Apple| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let challenge = shop.challenge("enrol", None, NOW);
        let object = phone.attest(apple, &sha256(challenge.as_bytes())).unwrap();
        let mut body = shop.enrolment(phone, &challenge);
        body["attestation"] = STANDARD.encode(object).into();
        denial(shop.send_enrolment(&body, NOW))
    };
    let production = app_attest::Environment::Production;
    let development = Phone::new(APP, app_attest::Environment::Development)?;
    let stranger = Phone::new("ABCDE12345.com.example.other", production)?;
    assert_eq!(send(&development, &shop.apple), Some(Denial::AttestationEnvironment));
    assert_eq!(send(&stranger, &shop.apple), Some(Denial::AppNotRecognised));
    assert_eq!(send(&shop.phone, &Apple::new(NOW)?), Some(Denial::AttestationChain));
    assert_eq!(send(&shop.phone, &shop.apple), None);
    // A provider that is not configured is none.
    let without = Shop::with(|site| site.config.attestation.as_mut().unwrap().app_attest = None)?;
    assert_eq!(denial(without.enrol(NOW)), Some(Denial::AttestationRequest));
    Ok(())
}

#[test]
fn a_counter_is_shown_once_and_gaps_are_normal() -> Result<()> {
    let shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    for (counter, expected) in [
        (0, Some(Denial::AssertionCounterReplayed)),
        (1, None),
        (1, Some(Denial::AssertionCounterReplayed)),
        (40, None),
        (39, Some(Denial::AssertionCounterReplayed)),
        (41, None),
    ] {
        assert_eq!(denial(shop.session(counter, NOW)), expected, "{counter}");
    }
    // The same assertion once more: its challenge has gone before its counter is looked at.
    let (body, challenge) = (shop.confirmation(), shop.challenge("session", None, NOW));
    let headers = shop.assertion(&challenge, 42, &body);
    assert_eq!(denial(shop.send_session(&headers, &body, NOW)), None);
    assert_eq!(denial(shop.send_session(&headers, &body, NOW)), Some(Denial::AttestationNonceReused));
    // What was signed is this body and no other one: nobody else's key gets in.
    let challenge = shop.challenge("session", None, NOW);
    let headers = shop.assertion(&challenge, 43, &body);
    let stolen = json!({ "cnf": { "jkt": thumbprint(&SigningKey::p256("thief")?) } });
    assert_eq!(denial(shop.send_session(&headers, &stolen, NOW)), Some(Denial::AssertionBadSignature));
    Ok(())
}

#[test]
fn of_two_racing_assertions_with_one_counter_one_is_admitted() -> Result<()> {
    let shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    let body = shop.confirmation();
    for round in 1..20 {
        let headers: Vec<_> = (0..4)
            .map(|_| shop.assertion(&shop.challenge("session", Some(shop.id()), NOW), round, &body))
            .collect();
        let barrier = Barrier::new(headers.len());
        let race = |headers: &HeaderMap| {
            barrier.wait();
            denial(shop.send_session(headers, &body, NOW))
        };
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = headers.iter().map(|one| scope.spawn(|| race(one))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let won = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        let lost = outcomes.iter().filter(|one| **one == Some(Denial::AssertionCounterReplayed)).count();
        assert_eq!((won, lost), (1, 3), "round {round}: {outcomes:?}");
    }
    Ok(())
}

#[test]
fn a_restart_between_challenge_and_use_costs_a_challenge_and_revives_nothing() -> Result<()> {
    let mut shop = Shop::with(|site| {
        let store = site.dir.path().join("devices.redb");
        site.config.attestation.as_mut().unwrap().store = Some(store);
    })?;
    let metrics = Metrics::new()?;
    let gauges = || Gauges {
        pending: metrics.device_store_pending.clone(),
        errors: metrics.device_store_errors.clone(),
    };
    let path = shop.site.dir.path().join("devices.redb");
    shop.policy.attestation().unwrap().enrolment.devices.keep(&path, gauges())?;
    shop.enrol(NOW).unwrap();
    let body = shop.confirmation();
    let session = shop.session(7, NOW).unwrap();
    let used = shop.assertion(&shop.challenge("session", None, NOW), 8, &body);
    assert_eq!(denial(shop.send_session(&used, &body, NOW)), None);
    let unused = shop.assertion(&shop.challenge("session", None, NOW), 9, &body);
    // As a crash that lost the last counter: the store is read as it was before.
    let config = shop.site.config.clone();
    drop(std::mem::replace(&mut shop.policy, Policy::load_at(&config, NOW - 86_400)?));
    let devices = &shop.policy.attestation().unwrap().enrolment.devices;
    devices.keep(&path, gauges())?;
    assert_eq!(devices.find(shop.id()).unwrap().counter, 8, "an orderly end loses nothing");
    let earlier = enforcer::enrolment::Device { counter: 1, ..devices.find(shop.id()).unwrap() };
    assert!(devices.forget(shop.id()));
    devices.enrol(shop.id(), earlier).unwrap();
    for (name, headers) in [("used", used), ("unused", unused)] {
        let outcome = denial(shop.send_session(&headers, &body, NOW));
        assert_eq!(outcome, Some(Denial::AttestationNonceUnknown), "{name}");
    }
    assert_eq!(shop.ask(&session, NOW), Some(Denial::AttestationSession), "of the process before");
    let session = shop.session(10, NOW).unwrap();
    assert_eq!(shop.ask(&session, NOW), None);
    Ok(())
}

#[test]
fn a_device_that_is_blocked_is_refused_with_every_session_it_has() -> Result<()> {
    let shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let device = shop.id().to_string();
    let block = wire::DeviceCommand::Block { device: device.clone(), reason: "stolen".to_owned() };
    assert_eq!(shop.ask(&session, NOW), None);
    shop.operate(block).unwrap();
    assert_eq!(shop.ask(&session, NOW), Some(Denial::DeviceBlocked), "the next request");
    assert_eq!(denial(shop.session(2, NOW)), Some(Denial::DeviceBlocked));
    assert_eq!(denial(shop.enrol(NOW)), Some(Denial::DeviceBlocked), "enrolling anew helps nobody");
    let wire::Answer::Devices(page) =
        shop.operate(wire::DeviceCommand::List { after: None, most: None, blocked: true }).unwrap()
    else {
        panic!("no page")
    };
    assert_eq!((page.devices, page.blocked, page.rows.len()), (1, 1, 1));
    assert_eq!((page.rows[0].device.as_str(), page.rows[0].reason.as_str()), (device.as_str(), "stolen"));
    shop.operate(wire::DeviceCommand::Unblock { device: device.clone() }).unwrap();
    assert_eq!(shop.ask(&session, NOW), None);
    let wire::Answer::Device(row) =
        shop.operate(wire::DeviceCommand::Show { device: device.clone() }).unwrap()
    else {
        panic!("no device")
    };
    assert_eq!((row.app.as_str(), row.counter, row.blocked_since), (APP, 1, None));
    shop.operate(wire::DeviceCommand::Forget { device: device.clone() }).unwrap();
    assert_eq!(shop.ask(&session, NOW), Some(Denial::DeviceUnknown));
    assert_eq!(denial(shop.session(2, NOW)), Some(Denial::DeviceUnknown), "never taken up by itself");
    for command in [
        wire::DeviceCommand::Unblock { device: device.clone() },
        wire::DeviceCommand::Forget { device },
        wire::DeviceCommand::Show { device: "x".to_owned() },
    ] {
        assert!(shop.operate(command).is_err());
    }
    // It enrols again with the same key.
    assert_eq!(shop.enrol(NOW).unwrap().event, "enrolled");
    assert_eq!(shop.enrol(NOW).unwrap().event, "enrolled_again");
    assert_eq!(shop.ask(&shop.session(2, NOW).unwrap(), NOW), None);
    Ok(())
}

#[test]
fn what_has_no_room_is_refused() -> Result<()> {
    let mut shop = Shop::with(|site| {
        let attestation = site.config.attestation.as_mut().unwrap();
        (attestation.max_devices, attestation.max_challenges) = (1, 1_024);
    })?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    shop.phone = Phone::new(APP, app_attest::Environment::Production)?;
    assert_eq!(denial(shop.enrol(NOW)), Some(Denial::DeviceRegistryFull));
    assert_eq!(shop.ask(&session, NOW), None, "who is known goes on");
    // A flood of challenges costs no memory; one of used ones ends with a refusal.
    let challenges = &shop.policy.attestation().unwrap().enrolment.challenges;
    let before = challenges.spent();
    let given: Vec<String> = (0..3_000).map(|_| shop.challenge("enrol", None, NOW)).collect();
    assert_eq!(challenges.spent(), before);
    let bad = |challenge: &str| {
        json!({
            "provider": "app-attest", "challenge": challenge, "key_id": "AA==", "attestation": "AA==",
        })
    };
    let outcomes: Vec<_> = given.iter().map(|one| denial(shop.send_enrolment(&bad(one), NOW))).collect();
    assert!(outcomes.contains(&Some(Denial::ReplayFull)), "fails closed");
    assert!(outcomes.contains(&Some(Denial::AttestationMalformed)) && challenges.spent() <= 1_024);
    Ok(())
}

#[test]
fn a_session_is_worth_nothing_without_what_it_is_bound_to() -> Result<()> {
    let mut shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let code = |headers: &HeaderMap| shop.admit(PATH, headers, NOW).err().map(|one| one.denial);
    let proof = shop.proof(&session, NOW);
    assert_eq!(code(&HeaderMap::new()), Some(Denial::AttestationMissing));
    assert_eq!(code(&fields("nonsense", &proof)), Some(Denial::AttestationSession));
    let mut alone = fields(&session, &proof);
    alone.remove("enforcer-proof");
    assert_eq!(code(&alone), Some(Denial::DpopMissing));
    // A proof for something else does not count, wherever it stands.
    alone.insert("dpop", HeaderValue::from_str(&proof)?);
    assert_eq!(code(&alone), Some(Denial::DpopMissing));
    let mut twice = fields(&session, &proof);
    twice.append("enforcer-session", HeaderValue::from_str(&session)?);
    assert_eq!(code(&twice), Some(Denial::AttestationRequest));
    assert_eq!(code(&fields(&session, &shop.proof("another", NOW))), Some(Denial::DpopWrongToken));
    assert_eq!(code(&fields(&session, &proof)), None);
    assert_eq!(code(&fields(&session, &proof)), Some(Denial::DpopReplayed));
    let refusal = shop.admit(PATH, &HeaderMap::new(), NOW).unwrap_err();
    assert_eq!(refusal.challenge.unwrap(), "Attestation realm=\"enforcer\"");
    let other = SigningKey::p256("other")?;
    let own = std::mem::replace(&mut shop.key, other);
    assert_eq!(shop.ask(&session, NOW), Some(Denial::DpopWrongKey));
    shop.key = own;
    // To a client certificate: only of this connection, and only over such.
    let identity = |byte: u8| Identity {
        thumbprint: encode(&[byte; 32]).into(),
        subject: "CN=phone".into(),
        names: Box::default(),
    };
    let body = json!({ "cnf": { "x5t#S256": encode(&[1; 32]) } });
    let begin = |shop: &Shop, counter| {
        let headers = shop.assertion(&shop.challenge("session", None, NOW), counter, &body);
        shop.send_session(&headers, &body, NOW)
    };
    assert_eq!(denial(begin(&shop, 2)), Some(Denial::CertificateMissing));
    shop.client.identity = Some(Box::new(identity(2)));
    assert_eq!(denial(begin(&shop, 2)), Some(Denial::CertificateMismatch));
    shop.client.identity = Some(Box::new(identity(1)));
    let session = read(&begin(&shop, 2).unwrap())["session"].as_str().unwrap().to_owned();
    let mut headers = HeaderMap::new();
    headers.insert("enforcer-session", session.parse()?);
    assert!(shop.admit(PATH, &headers, NOW).is_ok(), "no proof is needed");
    shop.client.identity = Some(Box::new(identity(2)));
    assert_eq!(shop.admit(PATH, &headers, NOW).unwrap_err().denial, Denial::CertificateMismatch);
    shop.client.identity = None;
    assert_eq!(shop.admit(PATH, &headers, NOW).unwrap_err().denial, Denial::CertificateMissing);
    for body in [
        json!({}),
        json!({"cnf": {}}),
        json!({"cnf": {"jkt": "x"}}),
        json!({"cnf": {"kid": encode(&[1; 32])}}),
    ] {
        let headers = shop.assertion(&shop.challenge("session", None, NOW), 3, &body);
        assert_eq!(
            denial(shop.send_session(&headers, &body, NOW)),
            Some(Denial::AttestationRequest),
            "{body}"
        );
    }
    Ok(())
}

#[test]
fn a_route_says_which_devices_it_takes_and_how_fresh() -> Result<()> {
    let shop = Shop::with(|site| {
        let route = |path: &str, change: &dyn Fn(&mut enforcer::config::AttestationDemand)| {
            let mut demand = edge::demand();
            change(&mut demand);
            enforcer::config::Route { attestation: Some(demand), ..edge::route(path, None, &[]) }
        };
        site.config.routes.push(route("/fresh/", &|demand| demand.max_age = Duration::from_secs(60)));
        site.config.routes.push(route("/strong/", &|demand| demand.level = Level::Strong));
        site.config.routes.push(route("/android/", &|demand| demand.platforms = vec![Platform::Android]));
        let mut limited = route("/limited/", &|demand| demand.platforms = vec![Platform::Ios]);
        let rate = RateLimit { events: 1, period: Duration::from_secs(60), burst: 1 };
        limited.limits = vec![enforcer::config::Limit {
            name: "device".to_owned(),
            key: LimitKey::Device,
            rate,
            delay: None,
            dry_run: false,
        }];
        site.config.routes.push(limited);
    })?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let ask = |path: &str, now: u64| {
        let header = json!({"typ": "dpop+jwt", "alg": shop.key.alg(), "jwk": bare(&shop.key)});
        let url = format!("https://{NAME}{path}");
        let claims = json!({"jti": unique(), "htm": "GET", "htu": url, "iat": now, "ath": ath(&session)});
        let proof = shop.key.mint_raw(&header.to_string(), &claims.to_string()).unwrap();
        shop.admit(path, &fields(&session, &proof), now).err().map(|refusal| refusal.denial)
    };
    assert_eq!(ask("/fresh/x", NOW + 60), None);
    assert_eq!(ask("/fresh/x", NOW + 61), Some(Denial::AttestationStale));
    assert_eq!(ask("/strong/x", NOW), None);
    assert_eq!(ask("/android/x", NOW), Some(Denial::AttestationPlatform));
    let outcomes = [(); 3].map(|()| ask("/limited/x", NOW));
    assert_eq!(outcomes, [None, None, Some(Denial::RateLimited)], "counted by the device");
    // Whoever revokes a device means its sessions, too.
    let revoked = shop.policy.revoked();
    let mark = revoked.marker().mark(Kind::Device, shop.id().to_string().as_bytes());
    revoked.revoke(mark, Terms { until: FOREVER, before: WHENEVER }, NOW).unwrap();
    assert_eq!(ask("/strong/x", NOW), Some(Denial::DeviceBlocked));
    revoked.restore(mark, NOW);
    assert_eq!(ask("/strong/x", NOW), None);
    Ok(())
}

#[test]
fn a_fleet_shares_sessions_by_their_secrets() -> Result<()> {
    let shared = |how: UnknownDevices| {
        move |site: &mut Site| {
            let path = site.dir.path().join("sessions.key");
            fs::write(&path, format!("{}\n", "QUFB".repeat(16))).unwrap();
            let attestation = site.config.attestation.as_mut().unwrap();
            (attestation.session_keys, attestation.unknown_devices) = (Some(path), how);
        }
    };
    let one = Shop::with(shared(UnknownDevices::Refuse))?;
    one.enrol(NOW).unwrap();
    let session = one.session(1, NOW).unwrap();
    let at = |other: &mut Shop| {
        other.key = SigningKey::p256("spare").unwrap();
        let headers = fields(&session, &one.proof(&session, NOW));
        other.admit(PATH, &headers, NOW).map(|grant| grant.device_facts().is_some()).map_err(|one| one.denial)
    };
    assert_eq!(at(&mut Shop::with(shared(UnknownDevices::Refuse))?), Err(Denial::DeviceUnknown));
    assert_eq!(at(&mut Shop::with(shared(UnknownDevices::BySession))?), Ok(true));
    assert_eq!(at(&mut Shop::new()?), Err(Denial::AttestationSession), "other secrets");
    Ok(())
}

#[test]
fn endpoints_have_their_methods_and_limits_and_are_not_for_everybody() -> Result<()> {
    let rate = RateLimit { events: 60, period: Duration::from_secs(60), burst: 4 };
    let shop = Shop::with(|site| site.config.attestation.as_mut().unwrap().limit = rate)?;
    let ask = |method: &Method, path: &str, change: &dyn Fn(&mut RequestFacts<'_>)| {
        let headers = HeaderMap::new();
        let mut facts = shop.facts(method, path, &headers);
        change(&mut facts);
        let now = Now { monotonic: KernelTime(NOW * 1_000_000_000), unix: NOW };
        let endpoint = devices::endpoint(&shop.policy, &facts, now);
        endpoint.map(|outcome| outcome.map_err(|refusal| (refusal.denial, refusal.retry_after)))
    };
    let path = "/.well-known/enforcer/challenge";
    let plain = |_: &mut RequestFacts<'_>| ();
    assert_eq!(ask(&Method::GET, path, &plain), Some(Err((Denial::MethodNotAllowed, None))));
    assert_eq!(ask(&Method::POST, path, &|facts| facts.is_banned = true), Some(Err((Denial::Banned, None))));
    assert_eq!(ask(&Method::POST, path, &|facts| facts.is_early = true), Some(Err((Denial::TooEarly, None))));
    assert_eq!(ask(&Method::POST, "/.well-known/enforcer/other", &plain), None);
    let keys = "/.well-known/enforcer/keys";
    assert_eq!(ask(&Method::POST, keys, &plain), Some(Err((Denial::MethodNotAllowed, None))));
    for _ in 0..5 {
        assert_eq!(ask(&Method::POST, path, &plain), Some(Ok(Endpoint::Challenge)));
    }
    assert_eq!(ask(&Method::POST, path, &plain), Some(Err((Denial::RateLimited, Some(1)))));
    let enrol = "/.well-known/enforcer/enrol";
    assert_eq!(ask(&Method::POST, enrol, &plain), Some(Err((Denial::RateLimited, Some(1)))), "one budget");
    assert_eq!(ask(&Method::GET, keys, &plain), Some(Ok(Endpoint::Keys)), "servers need them");
    let none = Policy::load(&Site::new("127.0.0.1:9".parse()?)?.config)?;
    let headers = HeaderMap::new();
    let now = Now { monotonic: KernelTime(0), unix: NOW };
    assert!(devices::endpoint(&none, &shop.facts(&Method::POST, path, &headers), now).is_none());
    for bad in [
        "",
        "[]",
        "{}",
        "{\"purpose\":1}",
        "{\"purpose\":\"x\"}",
        "{\"purpose\":\"enrol\",\"purpose\":\"enrol\"}",
    ] {
        let facts = shop.facts(&Method::POST, path, &headers);
        let answer = devices::answer(&shop.policy, Endpoint::Challenge, &facts, bad.as_bytes(), now);
        assert_eq!(denial(answer), Some(Denial::AttestationRequest), "{bad}");
    }
    Ok(())
}

#[test]
fn a_reload_keeps_devices_challenges_and_sessions_and_what_it_takes_away_counts_no_longer() -> Result<()> {
    let mut shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let challenge = shop.challenge("session", None, NOW);
    let mut config = shop.site.config.clone();
    config.attestation.as_mut().unwrap().session_lifetime = Duration::from_secs(60);
    shop.policy = shop.policy.reload(&config)?;
    assert_eq!(shop.ask(&session, NOW), None);
    let body = shop.confirmation();
    let headers = shop.assertion(&challenge, 2, &body);
    assert_eq!(denial(shop.send_session(&headers, &body, NOW)), None);
    let app_attest = config.attestation.as_mut().unwrap().app_attest.as_mut().unwrap();
    app_attest.environment = Environment::Development;
    shop.policy = shop.policy.reload(&config)?;
    assert_eq!(denial(shop.session(3, NOW)), Some(Denial::DeviceUnknown), "of an environment that is gone");
    Ok(())
}
