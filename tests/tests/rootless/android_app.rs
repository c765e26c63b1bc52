//! Apps on Android: one that enrols, works and comes back, over real TLS to a real edge; and what is refused of those that are not what they
//! say. Only hardware and Google are played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::fs;

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer::{
    checks::{
        devices::{client_data, key_data, key_hash},
        facts::Target,
    },
    clock, config,
    control::wire,
    denial::Denial,
    enrolment::DeviceId,
};
use enforcer_tests::{
    attestation::google::{
        Bound, CERTIFICATE, Google, PACKAGE,
        device::{Device, Key, Making},
        site, verdict,
    },
    edge::{Client, Site},
    origin::Origin,
    tokens::SigningKey,
};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{
    admit::NOW,
    device_app::{Answer, Held, challenge, operate, post, told},
    shop::{PATH, Shop, denial, fields, furnish, read},
    till::thumbprint,
};

pub(super) const ENROL: &str = "/.well-known/enforcer/enrol";
pub(super) const SESSION: &str = "/.well-known/enforcer/session";

/// Who vouches for devices: their maker and Google.
pub(super) struct World {
    pub(super) maker: Device,
    pub(super) google: Google,
}

impl World {
    /// Has a site take devices of Android; `change`: what else.
    pub(super) fn furnish(site: &mut Site, change: impl FnOnce(&mut config::Attestation)) -> Result<Self> {
        let world = Self { maker: Device::new(true)?, google: Google::new()? };
        let dir = site.dir.path();
        let (root, keys) = (dir.join("android.pem"), dir.join("play-keys.toml"));
        fs::write(&root, &world.maker.root.pem)?;
        fs::write(&keys, world.google.keys_toml())?;
        let apps = site::android_apps(PACKAGE, CERTIFICATE);
        let attestation = site.config.attestation.as_mut().unwrap();
        attestation.android_key = Some(site::android_key(apps.clone(), root));
        attestation.play = Some(site::play(apps, keys));
        change(attestation);
        Ok(world)
    }

    /// A key of the hardware, and its enrolment.
    pub(super) fn attest(&self, challenge: &str, key: &Key) -> Result<(SigningKey, Value)> {
        let leaf = self.maker.own.sign(&Making::leaf(key.describe()))?;
        let own = SigningKey::of_pkcs8("android", &leaf.pkcs8())?;
        let chain: Vec<String> = self.maker.above(leaf.der).iter().map(|one| STANDARD.encode(one)).collect();
        Ok((own, json!({ "provider": "android-key", "challenge": challenge, "chain": chain })))
    }

    /// What Google says of a device for this challenge, in a token.
    pub(super) fn token(
        &self,
        key: &SigningKey,
        challenge: &str,
        at: u64,
        labels: &[&str],
    ) -> Result<String> {
        let mut said = verdict(Bound::Nonce(&key_hash(challenge, id(key))), at * 1_000);
        said["deviceIntegrity"]["deviceRecognitionVerdict"] =
            labels.iter().map(|label| format!("MEETS_{label}_INTEGRITY")).collect();
        self.google.classic(&said)
    }

    /// The enrolment of a key that an app calls its own.
    pub(super) fn own(&self, key: &SigningKey, challenge: &str, token: &str) -> Result<Value> {
        let public: String = key.public_pem()?.lines().filter(|line| !line.starts_with('-')).collect();
        let signature = key.sign_otherwise(key_data(challenge, id(key)).as_bytes())?;
        Ok(json!({
            "provider": "play", "challenge": challenge, "key": public, "signature": STANDARD.encode(signature),
            "token": token,
        }))
    }
}

pub(super) fn id(key: &SigningKey) -> DeviceId {
    DeviceId::of_key(&key.public_bytes())
}

/// A request for a session that is bound to `to`.
pub(super) fn session(
    key: &SigningKey,
    challenge: &str,
    to: &SigningKey,
    token: Option<&str>,
) -> (HeaderMap, Value) {
    let mut body = json!({ "cnf": { "jkt": thumbprint(to) } });
    if let Some(token) = token {
        body["token"] = token.into();
    }
    signed(key, challenge, body)
}

/// A request for a session with this body.
pub(super) fn signed(key: &SigningKey, challenge: &str, body: Value) -> (HeaderMap, Value) {
    let target = Target { path: SESSION, query: None };
    let data = client_data(challenge, &Method::POST, target, body.to_string().as_bytes());
    let mut headers = HeaderMap::new();
    headers.insert("enforcer-device", id(key).to_string().parse().unwrap());
    headers.insert("enforcer-challenge", challenge.parse().unwrap());
    let assertion = STANDARD.encode(key.sign_otherwise(data.as_bytes()).unwrap());
    headers.insert("enforcer-assertion", assertion.parse().unwrap());
    (headers, body)
}

/// Makes a key, enrols it, and keeps it.
pub(super) async fn enrol(client: &mut Client, world: &World) -> Result<(Answer, Held)> {
    let challenge = challenge(client, "enrol").await?;
    let (key, body) = world.attest(&challenge, &Key::new(challenge.as_bytes()))?;
    let answer = post(client, ENROL, HeaderMap::new(), &body).await?;
    Ok((answer, Held::new(key)))
}

pub(super) async fn begin(client: &mut Client, app: &mut Held) -> Result<Answer> {
    let challenge = challenge(client, "session").await?;
    let (headers, body) = session(&app.key, &challenge, &app.key, None);
    let answer = post(client, SESSION, headers, &body).await?;
    if let Some(session) = answer.body["session"].as_str() {
        app.session = session.to_owned();
    }
    Ok(answer)
}

#[tokio::test]
async fn an_android_app_enrols_works_for_a_while_and_comes_back_after_everything() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    furnish(&mut site, clock::unix_now())?;
    let world = World::furnish(&mut site, |_| ())?;
    let edge = site.start()?;
    let mut client = edge.http2().await?;

    // Nobody gets in before.
    let mut app = Held::new(SigningKey::p256("nobody")?);
    assert_eq!(begin(&mut client, &mut app).await?.body["code"], "device_unknown");

    // Enrol, session, a thousand requests.
    let (answer, enrolled) = enrol(&mut client, &world).await?;
    app = enrolled;
    let name = id(&app.key).to_string();
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.body, json!({ "device": name, "platform": "android", "level": "strong" }));
    let answer = begin(&mut client, &mut app).await?;
    assert_eq!((answer.status, &answer.body["level"]), (200, &json!("strong")), "{}", answer.body);
    for number in 0..1_000 {
        let answer = app.get(&mut client, PATH).await?;
        assert_eq!(answer.status, 200, "{number}: {}", answer.body);
        if number % 500 == 0 {
            let facts = told(&mut client, &answer).await?;
            assert_eq!((&facts["sub"], &facts["platform"]), (&json!(name), &json!("android")));
            assert_eq!((&facts["app"], &facts["provider"]), (&json!(PACKAGE), &json!("android-key")));
            assert_eq!(facts["level"], "strong");
        }
    }
    assert_eq!(origin.requests(), 1_000, "the endpoints are answered here");

    // An answer was lost, and the app asks again with what it has.
    let once = challenge(&mut client, "session").await?;
    let (headers, body) = session(&app.key, &once, &app.key, None);
    assert_eq!(post(&mut client, SESSION, headers.clone(), &body).await?.status, 200);
    let answer = post(&mut client, SESSION, headers, &body).await?;
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("attestation_nonce_reused")));
    assert_eq!(begin(&mut client, &mut app).await?.status, 200, "the next one is good");

    // The app is installed anew: another key, another device. The old one is blocked, and then let in again.
    let (answer, mut other) = enrol(&mut client, &world).await?;
    assert_eq!(answer.status, 201);
    assert_ne!(answer.body["device"], json!(name));
    assert_eq!(begin(&mut client, &mut other).await?.status, 200);
    operate(&edge, wire::DeviceCommand::Block { device: name.clone(), reason: String::new() });
    let answer = app.get(&mut client, PATH).await?;
    assert_eq!((answer.status, &answer.body["code"]), (403, &json!("device_blocked")));
    assert_eq!(begin(&mut client, &mut app).await?.body["code"], "device_blocked");
    assert_eq!(other.get(&mut client, PATH).await?.status, 200);
    operate(&edge, wire::DeviceCommand::Unblock { device: name });
    assert_eq!(app.get(&mut client, PATH).await?.status, 200);
    assert_eq!(edge.metrics.attestations.with_label_values(&["enrolled"]).get(), 2);
    Ok(())
}

#[test]
fn keys_that_the_hardware_does_not_vouch_for_do_not_enrol() -> Result<()> {
    let mut world = None;
    let shop = Shop::with(|site| world = World::furnish(site, |_| ()).ok())?;
    let world = world.unwrap();
    let attempt = |change: &dyn Fn(&mut Key), more: &dyn Fn(&SigningKey, &str, &mut Value)| {
        let challenge = shop.challenge("enrol", None, NOW);
        let mut key = Key::new(challenge.as_bytes());
        change(&mut key);
        let (own, mut body) = world.attest(&challenge, &key).unwrap();
        more(&own, &challenge, &mut body);
        shop.send_enrolment(&body, NOW)
    };
    let same = |_: &SigningKey, _: &str, _: &mut Value| ();
    let code = |change: &dyn Fn(&mut Key)| denial(attempt(change, &same));
    assert_eq!(code(&|_| ()), None);
    assert_eq!(code(&|key| key.challenge = b"another".to_vec()), Some(Denial::AttestationNonce));
    assert_eq!(code(&|key| key.security = 0), Some(Denial::DeviceIntegrityFailed));
    assert_eq!(code(&|key| key.root_of_trust = Some((0xff, 1))), Some(Denial::DeviceIntegrityFailed));
    assert_eq!(code(&|key| key.root_of_trust = Some((0, 0))), Some(Denial::DeviceIntegrityFailed));
    assert_eq!(code(&|key| key.packages[0].0.push('x')), Some(Denial::AppNotRecognised));
    let with = |change: &dyn Fn(&SigningKey, &str, &mut Value)| attempt(&|_| (), change);
    for (name, value, expected) in [
        ("chain", json!([]), Denial::AttestationMalformed),
        ("chain", json!("x"), Denial::AttestationRequest),
        ("chain", json!(["no base64!"]), Denial::AttestationRequest),
        ("chain", json!(vec!["AA=="; 17]), Denial::AttestationMalformed),
        ("chain", json!(["AA=="]), Denial::AttestationMalformed),
        ("token", json!(1), Denial::AttestationRequest),
        ("token", json!("a.b.c.d.e"), Denial::AttestationMalformed),
        ("provider", json!("android"), Denial::AttestationRequest),
    ] {
        let found = denial(with(&|_, _, body| body[name] = value.clone()));
        assert_eq!(found, Some(expected), "{name}");
    }
    // A token beside is judged, and makes nothing better.
    let beside = |labels: &'static [&'static str]| {
        with(&|key, challenge, body| body["token"] = world.token(key, challenge, NOW, labels).unwrap().into())
    };
    assert_eq!(read(&beside(&["BASIC", "DEVICE", "STRONG"]).unwrap())["level"], "strong");
    assert_eq!(read(&beside(&["BASIC", "DEVICE"]).unwrap())["level"], "device");
    assert_eq!(denial(beside(&["BASIC"])), Some(Denial::DeviceIntegrityFailed));
    let of_another = |_: &SigningKey, challenge: &str, body: &mut Value| {
        let other = SigningKey::p256("other").unwrap();
        body["token"] = world.token(&other, challenge, NOW, &["DEVICE"]).unwrap().into();
    };
    assert_eq!(denial(with(&of_another)), Some(Denial::AttestationNonce), "of another key");
    Ok(())
}

#[test]
fn what_google_says_is_of_one_key_and_does_not_last() -> Result<()> {
    let mut world = None;
    let mut shop = Shop::with(|site| world = World::furnish(site, |_| ()).ok())?;
    let world = world.unwrap();
    let (key, other) = (SigningKey::p256("own")?, SigningKey::p256("other")?);
    let both = ["BASIC", "DEVICE"];
    let good = |challenge: &str, key: &SigningKey, at: u64| {
        world.own(key, challenge, &world.token(key, challenge, at, &both).unwrap()).unwrap()
    };
    // A token that was asked for with another key, one that was kept, somebody else's key, and nobody's word.
    let challenge = shop.challenge("enrol", None, NOW);
    let stolen = world.token(&other, &challenge, NOW, &both)?;
    let body = world.own(&key, &challenge, &stolen)?;
    assert_eq!(denial(shop.send_enrolment(&body, NOW)), Some(Denial::AttestationNonce));
    let body = good(&shop.challenge("enrol", None, NOW), &key, NOW - 121);
    assert_eq!(denial(shop.send_enrolment(&body, NOW)), Some(Denial::AttestationOutdated));
    let challenge = shop.challenge("enrol", None, NOW);
    let mut body = good(&challenge, &key, NOW);
    body["signature"] = good(&challenge, &other, NOW)["signature"].clone();
    assert_eq!(denial(shop.send_enrolment(&body, NOW)), Some(Denial::AssertionBadSignature));
    let mut body = good(&shop.challenge("enrol", None, NOW), &key, NOW);
    body["key"] = "AAAA".into();
    assert_eq!(denial(shop.send_enrolment(&body, NOW)), Some(Denial::AttestationKey));
    let mut body = good(&shop.challenge("enrol", None, NOW), &key, NOW);
    body.as_object_mut().unwrap().remove("token");
    assert_eq!(denial(shop.send_enrolment(&body, NOW)), Some(Denial::AttestationRequest));

    let answer = shop.send_enrolment(&good(&shop.challenge("enrol", None, NOW), &key, NOW), NOW).unwrap();
    assert_eq!(
        read(&answer),
        json!({ "device": id(&key).to_string(), "platform": "android", "level": "device" })
    );
    let begin = |shop: &Shop, to: &SigningKey, labels: Option<&[&str]>, now: u64| {
        let challenge = shop.challenge("session", Some(id(&key)), now);
        let token = labels.map(|labels| world.token(&key, &challenge, now, labels).unwrap());
        let (headers, body) = session(&key, &challenge, to, token.as_deref());
        shop.send_session(&headers, &body, now)
    };
    assert_eq!(denial(begin(&shop, &other, None, NOW)), Some(Denial::DpopWrongKey));
    let answer = begin(&shop, &key, None, NOW + 86_399).unwrap();
    assert_eq!(read(&answer)["level"], "device");
    // A day later Google has to say it again, and then it counts for another one.
    let later = NOW + 86_400;
    assert_eq!(denial(begin(&shop, &key, None, later)), Some(Denial::AttestationOutdated));
    assert_eq!(denial(begin(&shop, &key, Some(&["BASIC"]), later)), Some(Denial::DeviceIntegrityFailed));
    let answer = begin(&shop, &key, Some(&["DEVICE", "STRONG"]), later).unwrap();
    assert_eq!(read(&answer)["level"], "strong");
    let session = read(&begin(&shop, &key, None, later + 86_399).unwrap())["session"].clone();
    let session = session.as_str().unwrap().to_owned();
    // Its requests are signed with that very key.
    let now = later + 86_399;
    shop.key = SigningKey::p256("other")?;
    let headers = fields(&session, &shop.proof(&session, now));
    assert_eq!(shop.admit(PATH, &headers, now).err().map(|one| one.denial), Some(Denial::DpopWrongKey));
    let stranger = self::session(&other, &shop.challenge("session", None, now), &other, None);
    assert_eq!(denial(shop.send_session(&stranger.0, &stranger.1, now)), Some(Denial::DeviceUnknown));
    // What the configuration takes away counts no longer.
    let mut config = shop.site.config.clone();
    config.attestation.as_mut().unwrap().play = None;
    shop.policy = shop.policy.reload(&config)?;
    assert_eq!(denial(begin(&shop, &key, None, now)), Some(Denial::DeviceUnknown));
    Ok(())
}

/// A token that was kept back for a while is as old as it is, not as young as its coming.
#[test]
fn what_google_says_is_as_old_as_google_says() -> Result<()> {
    let mut world = None;
    let shop = Shop::with(|site| world = World::furnish(site, |_| ()).ok())?;
    let world = world.unwrap();
    let key = SigningKey::p256("own")?;
    let challenge = shop.challenge("enrol", None, NOW);
    let token = world.token(&key, &challenge, NOW - 100, &["DEVICE"])?;
    let body = world.own(&key, &challenge, &token)?;
    assert_eq!(denial(shop.send_enrolment(&body, NOW)), None);
    let begin = |token_at: Option<u64>, now: u64| {
        let challenge = shop.challenge("session", Some(id(&key)), now);
        let token = token_at.map(|at| world.token(&key, &challenge, at, &["DEVICE"]).unwrap());
        let (headers, body) = session(&key, &challenge, &key, token.as_deref());
        denial(shop.send_session(&headers, &body, now))
    };
    let day = 86_400;
    assert_eq!(begin(None, NOW - 100 + day - 1), None);
    assert_eq!(begin(None, NOW - 100 + day), Some(Denial::AttestationOutdated), "not from its enrolment on");
    let later = NOW + day;
    assert_eq!(begin(Some(later - 119), later), None);
    assert_eq!(begin(None, later - 119 + day - 1), None);
    assert_eq!(begin(None, later - 119 + day), Some(Denial::AttestationOutdated), "nor from its session on");
    // Google's clock may be a little ahead, which makes nothing younger than now.
    let later = NOW + 2 * day;
    assert_eq!(begin(Some(later + 30), later), None);
    assert_eq!(begin(None, later + day), Some(Denial::AttestationOutdated));
    Ok(())
}

#[test]
fn a_key_alone_does_not_do_where_google_has_to_vouch_too() -> Result<()> {
    let mut world = None;
    let require = |by: &mut config::Attestation| by.android_key.as_mut().unwrap().require_play = true;
    let shop = Shop::with(|site| world = World::furnish(site, require).ok())?;
    let world = world.unwrap();
    let challenge = shop.challenge("enrol", None, NOW);
    let (_, body) = world.attest(&challenge, &Key::new(challenge.as_bytes()))?;
    assert_eq!(denial(shop.send_enrolment(&body, NOW)), Some(Denial::AttestationRequest));
    let challenge = shop.challenge("enrol", None, NOW);
    let (key, mut body) = world.attest(&challenge, &Key::new(challenge.as_bytes()))?;
    body["token"] = world.token(&key, &challenge, NOW, &["DEVICE", "STRONG"])?.into();
    assert_eq!(denial(shop.send_enrolment(&body, NOW)), None);
    let begin = |now: u64| {
        let (headers, body) = session(&key, &shop.challenge("session", None, now), &key, None);
        denial(shop.send_session(&headers, &body, now))
    };
    assert_eq!(begin(NOW + 86_399), None);
    assert_eq!(begin(NOW + 86_400), Some(Denial::AttestationOutdated));
    Ok(())
}

#[test]
fn a_weaker_word_of_googles_counts_until_a_better_one_and_never_beats_the_hardware() -> Result<()> {
    let mut world = None;
    let lax = |by: &mut config::Attestation| {
        by.android_key.as_mut().unwrap().boot = config::BootState::SelfSigned;
    };
    let shop = Shop::with(|site| world = World::furnish(site, lax).ok())?;
    let world = world.unwrap();
    let enrol = |boot: Option<(u8, u64)>, now: u64| {
        let challenge = shop.challenge("enrol", None, now);
        let mut key = Key::new(challenge.as_bytes());
        key.root_of_trust = boot.or(key.root_of_trust);
        let (key, body) = world.attest(&challenge, &key).unwrap();
        let level = read(&shop.send_enrolment(&body, now).unwrap())["level"].clone();
        (key, level)
    };
    let begin = |key: &SigningKey, labels: Option<&[&str]>, now: u64| {
        let challenge = shop.challenge("session", Some(id(key)), now);
        let token = labels.map(|labels| world.token(key, &challenge, now, labels).unwrap());
        let (headers, body) = session(key, &challenge, key, token.as_deref());
        shop.send_session(&headers, &body, now).map(|answer| read(&answer)["level"].clone())
    };
    let (key, level) = enrol(None, NOW);
    assert_eq!(level, "strong");
    assert_eq!(begin(&key, None, NOW).unwrap(), "strong");
    assert_eq!(begin(&key, Some(&["DEVICE"]), NOW + 1).unwrap(), "device");
    assert_eq!(begin(&key, None, NOW + 2).unwrap(), "device", "what Google said counts");
    assert_eq!(denial(begin(&key, Some(&["BASIC"]), NOW + 3)), Some(Denial::DeviceIntegrityFailed));
    assert_eq!(begin(&key, None, NOW + 4).unwrap(), "device", "a refusal makes nothing better");
    assert_eq!(
        begin(&key, Some(&["DEVICE", "STRONG"]), NOW + 5).unwrap(),
        "strong",
        "and so does what he says later"
    );
    assert_eq!(begin(&key, None, NOW + 6).unwrap(), "strong");
    let (own, level) = enrol(Some((0xff, 1)), NOW + 7);
    assert_eq!(level, "device");
    assert_eq!(begin(&own, Some(&["DEVICE", "STRONG"]), NOW + 8).unwrap(), "device");
    Ok(())
}
