//! A route that asks for both: an assertion by the device's own key, and a token of Google Play. Only hardware and Google are played.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use enforcer::{
    checks::{devices::client_data, facts::Target},
    config::{self, Assertion, PlayUnavailable},
};
use enforcer_tests::{
    attestation::google::{
        server::{LiveGoogle, Part},
        site,
    },
    edge::{self, Client, Outgoing},
};
use http::{HeaderMap, Method};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use super::{
    bodies::eventually,
    device_app::{Answer, Held, post, read, told},
    play_scene::{Brought, Scene, bring, code},
};

const PATH: &str = "/both/x";
const BODY: &[u8] = b"{\"amount\": 1}";

/// Sends the body with an assertion over another one or over itself, if with any.
async fn send(client: &mut Client, app: &Held, signed: Option<&[u8]>, brought: &Brought) -> Result<Answer> {
    send_all(client, app, signed, brought, BODY).await
}

async fn send_all(
    client: &mut Client,
    app: &Held,
    signed: Option<&[u8]>,
    brought: &Brought,
    whole: &[u8],
) -> Result<Answer> {
    let body = json!({ "purpose": "request", "group": "both" });
    let given = post(client, "/.well-known/enforcer/challenge", HeaderMap::new(), &body).await?;
    let challenge = given.body["challenge"].as_str().unwrap().to_owned();
    loop {
        let mut request = app.head("POST", PATH)?;
        if let Some(signed) = signed {
            let data = client_data(&challenge, &Method::POST, Target { path: PATH, query: None }, signed);
            let assertion = STANDARD.encode(app.key.sign_otherwise(data.as_bytes())?);
            request =
                request.header("enforcer-challenge", &challenge).header("enforcer-assertion", assertion);
        }
        if let Some(token) = &brought.token {
            request = request.header("enforcer-integrity-token", token);
        }
        if let Some(nonce) = &brought.nonce {
            request = request.header("enforcer-nonce", nonce);
        }
        let body: Outgoing = Full::new(Bytes::copy_from_slice(whole)).boxed();
        let answer = read(client.send(request.body(body)?).await?).await?;
        // Proofs come before both, and so use none up.
        if !app.learn(&answer)? {
            return Ok(answer);
        }
    }
}

#[tokio::test]
async fn google_is_asked_about_nothing_that_the_device_has_not_signed() -> Result<()> {
    let google = LiveGoogle::start().await?;
    let scene = Scene::new(&google, |site| {
        let play = Some(site::play_demand(PlayUnavailable::Deny));
        let assertion = Some(Assertion::Challenge);
        let demand =
            config::AttestationDemand { play, assertion, group: "both".to_owned(), ..edge::demand() };
        let route = config::Route { attestation: Some(demand), ..edge::route("/both/", None, &[]) };
        site.config.routes.push(route);
    })
    .await?;
    let attested = |event: &str| scene.edge.metrics.attestations.with_label_values(&[event]).get();
    let refused = |step| {
        let refused = &scene.edge.metrics.attestations_refused;
        refused.with_label_values(&["android-key", step]).get()
    };
    for mut client in scene.edge.clients().await? {
        let app = scene.device(&mut client).await?;
        let good = || bring(&google, &app, ("POST", PATH), BODY, &|_| ());
        let asked = google.asked(Part::Decode);
        let kept = good();
        let answer = send(&mut client, &app, None, &kept).await?;
        assert_eq!(code(&answer), (401, "assertion_missing"));
        let answer = send(&mut client, &app, Some(b"{\"amount\": 9}"), &good()).await?;
        assert_eq!(code(&answer), (401, "assertion_bad_signature"));
        let answer = send(&mut client, &app, Some(BODY), &Brought { token: None, nonce: None }).await?;
        assert_eq!(code(&answer), (401, "integrity_token_missing"));
        assert_eq!(google.asked(Part::Decode), asked, "until now nobody was asked");
        // What came without an assertion has used no nonce up.
        let answer = send(&mut client, &app, Some(BODY), &kept).await?;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(told(&mut client, &answer).await?["play"], json!({ "verdict": "fresh", "age": 0 }));
        assert_eq!(google.asked(Part::Decode), asked + 1);
        let answer = send(&mut client, &app, Some(BODY), &kept).await?;
        assert_eq!(code(&answer), (401, "integrity_token_replayed"));
    }
    assert_eq!((attested("assertion"), refused("signature")), (2, 2));
    assert_eq!(scene.origin.requests(), 2);
    Ok(())
}

/// Both hold one body, which is not held twice for that.
#[tokio::test]
async fn a_body_takes_its_room_once_whoever_judges_it() -> Result<()> {
    let google = LiveGoogle::start().await?;
    let scene = Scene::new(&google, |site| {
        site.config.http.max_held_bytes = 1 << 20;
        let play = Some(site::play_demand(PlayUnavailable::Deny));
        let assertion = Some(Assertion::Challenge);
        let demand =
            config::AttestationDemand { play, assertion, group: "both".to_owned(), ..edge::demand() };
        let route = config::Route { attestation: Some(demand), ..edge::route("/both/", None, &[]) };
        site.config.routes.push(route);
    })
    .await?;
    let body = vec![b'x'; 600 << 10];
    for mut client in scene.edge.clients().await? {
        let app = scene.device(&mut client).await?;
        for _ in 0..3 {
            let brought = bring(&google, &app, ("POST", PATH), &body, &|_| ());
            let answer = send_all(&mut client, &app, Some(&body), &brought, &body).await?;
            assert_eq!(answer.status, 200, "{}", answer.body);
            eventually(|| scene.edge.metrics.held_bytes.get() == 0).await?;
        }
        let body = vec![b'x'; (1 << 20) + 1];
        let brought = bring(&google, &app, ("POST", PATH), &body, &|_| ());
        let answer = send_all(&mut client, &app, Some(&body), &brought, &body).await?;
        assert_eq!(code(&answer), (413, "body_too_large"));
        eventually(|| scene.edge.metrics.held_bytes.get() == 0).await?;
    }
    Ok(())
}
