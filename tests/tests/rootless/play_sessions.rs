//! Tokens of Google Play that Google alone can read, at the endpoints: apps enrol and begin sessions with them over real TLS at a real
//! edge, also while Google is down. Only hardware and Google are played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use enforcer::{checks::devices::key_hash, clock, config, keys};
use enforcer_tests::{
    attestation::google::{
        Bound,
        server::{LiveGoogle, Part},
        site, verdict,
    },
    edge::{Client, Edge, Site},
    issuer::Manner,
    origin::Origin,
    tokens::SigningKey,
};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    android_app::{ENROL, SESSION, World, id, signed},
    device_app::{Answer, challenge, post},
    shop::furnish,
    till::{thumbprint, unique},
};

struct Scene {
    edge: Edge,
    google: LiveGoogle,
    world: World,
    _tending: JoinSet<()>,
    _origin: Origin,
}

impl Scene {
    async fn new(change: impl FnOnce(&mut config::Play)) -> Result<Self> {
        let origin = Origin::start().await?;
        let google = LiveGoogle::start().await?;
        let mut site = Site::new(origin.address)?;
        furnish(&mut site, clock::unix_now())?;
        let remote = site::remote(&google, site.dir.path())?;
        let world = World::furnish(&mut site, |by| {
            let play = by.play.as_mut().unwrap();
            play.remote = Some(remote);
            change(play);
        })?;
        let edge = site.start()?;
        let mut tending = JoinSet::new();
        tending.spawn(keys::tend(Arc::clone(&edge.policy), edge.metrics.clone()));
        Ok(Self { edge, google, world, _tending: tending, _origin: origin })
    }

    /// A token of which Google says that it is of this key and challenge.
    fn token(&self, key: &SigningKey, challenge: &str, labels: &[&str]) -> String {
        let token = format!("standard-{}", unique());
        let mut said = verdict(Bound::RequestHash(&key_hash(challenge, id(key))), clock::unix_now() * 1_000);
        said["deviceIntegrity"]["deviceRecognitionVerdict"] =
            labels.iter().map(|label| format!("MEETS_{label}_INTEGRITY")).collect();
        self.google.say(&token, said);
        token
    }

    /// An enrolment with a token for this challenge, or for another one.
    async fn enrol(&self, client: &mut Client, key: &SigningKey, other: Option<&str>) -> Result<Answer> {
        self.enrol_as(client, key, other, &["DEVICE"]).await
    }

    async fn enrol_as(
        &self,
        client: &mut Client,
        key: &SigningKey,
        other: Option<&str>,
        labels: &[&str],
    ) -> Result<Answer> {
        let challenge = challenge(client, "enrol").await?;
        let token = self.token(key, other.unwrap_or(&challenge), labels);
        let mut body = self.world.own(key, &challenge, &token)?;
        body["token_type"] = "standard".into();
        post(client, ENROL, HeaderMap::new(), &body).await
    }

    async fn begin(&self, client: &mut Client, key: &SigningKey, labels: Option<&[&str]>) -> Result<Answer> {
        let challenge = challenge(client, "session").await?;
        let mut body = json!({ "cnf": { "jkt": thumbprint(key) } });
        if let Some(labels) = labels {
            body["token"] = self.token(key, &challenge, labels).into();
            body["token_type"] = "standard".into();
        }
        let (headers, body) = signed(key, &challenge, body);
        post(client, SESSION, headers, &body).await
    }
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn devices_enrol_and_begin_sessions_by_tokens_that_google_alone_can_read() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let mut client = scene.edge.http2().await?;
    let key = SigningKey::p256("own")?;
    // Made for another challenge: the answer of Google is held against what was issued here.
    let answer = scene.enrol(&mut client, &key, Some("another")).await?;
    assert_eq!(code(&answer), (403, "attestation_nonce"));
    let answer = scene.enrol(&mut client, &key, None).await?;
    let name = id(&key).to_string();
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.body, json!({ "device": name, "platform": "android", "level": "device" }));
    let answer = scene.begin(&mut client, &key, None).await?;
    assert_eq!((answer.status, &answer.body["level"]), (200, &json!("device")));
    let answer = scene.begin(&mut client, &key, Some(&["DEVICE", "STRONG"])).await?;
    assert_eq!((answer.status, &answer.body["level"]), (200, &json!("strong")), "{}", answer.body);
    // What is refused for what Google says of the device takes away what he said before.
    let answer = scene.begin(&mut client, &key, Some(&["BASIC"])).await?;
    assert_eq!(code(&answer), (403, "device_integrity_failed"));
    assert_eq!(code(&scene.begin(&mut client, &key, None).await?), (403, "attestation_outdated"));
    assert_eq!(scene.begin(&mut client, &key, Some(&["DEVICE"])).await?.status, 200);
    let answer = scene.enrol_as(&mut client, &key, None, &["BASIC"]).await?;
    assert_eq!(code(&answer), (403, "device_integrity_failed"));
    assert_eq!(code(&scene.begin(&mut client, &key, None).await?), (403, "attestation_outdated"));
    // A token that Google does not know, one of no kind, and one for another app.
    let with = async |client: &mut Client, more: Value| -> Result<Answer> {
        let challenge = challenge(client, "session").await?;
        let mut body = json!({ "cnf": { "jkt": thumbprint(&key) } });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (headers, body) = signed(&key, &challenge, body);
        post(client, SESSION, headers, &body).await
    };
    let foreign = json!({ "token": "invented", "token_type": "standard" });
    assert_eq!(code(&with(&mut client, foreign).await?), (400, "attestation_malformed"));
    for odd in [
        json!({ "token": "x", "token_type": "other" }),
        json!({ "token": "x", "token_type": 1 }),
        json!({ "token": "x", "token_type": "standard", "package": "com.example.other" }),
    ] {
        assert_eq!(code(&with(&mut client, odd).await?), (400, "attestation_request"));
    }
    assert_eq!(scene.google.complaints(), Vec::<String>::new());
    Ok(())
}

/// Where the operator takes less than Google calls a device, no token of one makes a device, and what was said of it before is gone.
#[tokio::test]
async fn a_bad_word_at_an_enrolment_takes_away_a_good_one() -> Result<()> {
    let scene = Scene::new(|play| play.labels = vec!["MEETS_BASIC_INTEGRITY".to_owned()]).await?;
    let mut client = scene.edge.http2().await?;
    let key = SigningKey::p256("own")?;
    for is_standard in [true, false] {
        assert_eq!(scene.enrol_as(&mut client, &key, None, &["BASIC", "DEVICE"]).await?.status, 201);
        assert_eq!(scene.begin(&mut client, &key, None).await?.status, 200);
        let answer = if is_standard {
            scene.enrol_as(&mut client, &key, None, &["BASIC"]).await?
        } else {
            let challenge = challenge(&mut client, "enrol").await?;
            let token = scene.world.token(&key, &challenge, clock::unix_now(), &["BASIC"])?;
            post(&mut client, ENROL, HeaderMap::new(), &scene.world.own(&key, &challenge, &token)?).await?
        };
        assert_eq!(code(&answer), (403, "device_integrity_failed"), "{is_standard}");
        assert_eq!(code(&scene.begin(&mut client, &key, None).await?), (403, "attestation_outdated"));
    }
    Ok(())
}

#[tokio::test]
async fn classic_tokens_go_to_google_where_there_are_no_keys() -> Result<()> {
    let scene = Scene::new(|play| play.keys = None).await?;
    let mut client = scene.edge.http1().await?;
    let key = SigningKey::p256("own")?;
    let challenge = challenge(&mut client, "enrol").await?;
    let said = verdict(Bound::Nonce(&key_hash(&challenge, id(&key))), clock::unix_now() * 1_000);
    scene.google.say("classic.token", said);
    let body = scene.world.own(&key, &challenge, "classic.token")?;
    let answer = post(&mut client, ENROL, HeaderMap::new(), &body).await?;
    assert_eq!((answer.status, &answer.body["level"]), (201, &json!("strong")), "{}", answer.body);
    Ok(())
}

#[tokio::test]
async fn a_key_of_the_hardware_and_a_standard_token_beside_it() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let mut client = scene.edge.http2().await?;
    for (labels, expected) in [(&["DEVICE", "STRONG"][..], "strong"), (&["DEVICE"], "device")] {
        let challenge = challenge(&mut client, "enrol").await?;
        let described = enforcer_tests::attestation::google::device::Key::new(challenge.as_bytes());
        let (key, mut body) = scene.world.attest(&challenge, &described)?;
        body["token"] = scene.token(&key, &challenge, labels).into();
        body["token_type"] = "standard".into();
        let answer = post(&mut client, ENROL, HeaderMap::new(), &body).await?;
        assert_eq!((answer.status, &answer.body["level"]), (201, &json!(expected)), "{}", answer.body);
        let answer = scene.begin(&mut client, &key, Some(&["DEVICE", "STRONG"])).await?;
        assert_eq!(
            (answer.status, &answer.body["level"]),
            (200, &json!("strong")),
            "a better word raises it"
        );
    }
    Ok(())
}

#[tokio::test]
async fn while_google_is_down_nobody_enrols_and_sessions_begin_as_declared() -> Result<()> {
    let cached = config::PlayUnavailable::Cached(Duration::from_secs(3_600));
    for (declared, expected) in [(config::PlayUnavailable::Deny, 503), (cached, 200)] {
        let scene = Scene::new(|play| play.remote.as_mut().unwrap().unavailable = declared).await?;
        let mut client = scene.edge.http2().await?;
        let (known, new) = (SigningKey::p256("known")?, SigningKey::p256("new")?);
        assert_eq!(scene.enrol(&mut client, &known, None).await?.status, 201);
        scene
            .google
            .behave(Part::Decode, Some(Manner::Answer(429, "Retry-After: 9\r\n".to_owned(), Vec::new())));
        let answer = scene.enrol(&mut client, &new, None).await?;
        assert_eq!(code(&answer), (503, "attestation_unavailable"));
        assert_eq!(answer.headers["retry-after"], "9");
        let answer = scene.begin(&mut client, &known, Some(&["DEVICE"])).await?;
        assert_eq!(answer.status, expected, "{declared:?}: {}", answer.body);
        assert_eq!(answer.headers.contains_key("retry-after"), expected == 503);
        let sessions = &scene.edge.metrics.attestations;
        assert_eq!(sessions.with_label_values(&["session_cached"]).get(), u64::from(expected == 200));
        // Without a token it is as ever: what he said counts for a day.
        assert_eq!(scene.begin(&mut client, &known, None).await?.status, 200);
        // Whoever was refused can begin with a new challenge once Google is back.
        scene.google.behave(Part::Decode, None);
    }
    Ok(())
}
