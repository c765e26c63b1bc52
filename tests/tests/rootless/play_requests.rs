//! Requests that bring a token of Google Play each, over real TLS to a real edge: what they are bound to, and what Google says of them.
//! Only hardware and Google are played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::Result;
use enforcer::{clock, config};
use enforcer_tests::{
    attestation::google::server::{LiveGoogle, Part},
    edge::Site,
    issuer::Manner,
};
use serde_json::{Value, json};

use super::{
    device_app::{Held, told},
    play_scene::{Brought, Scene, ask, bring, code, play_of, send},
    till::unique,
};

#[tokio::test]
async fn a_token_is_of_one_request_and_good_once() -> Result<()> {
    let google = LiveGoogle::start().await?;
    let scene = Scene::new(&google, |_| ()).await?;
    for mut client in scene.edge.clients().await? {
        let app = scene.device(&mut client).await?;
        let other = scene.device(&mut client).await?;
        let (body, path) = (&b"{\"a\": 1}"[..], "/deny/x?draft=1");
        let good = |app: &Held| bring(&google, app, ("POST", path), body, &|_| ());
        let brought = good(&app);
        let answer = send(&mut client, &app, ("POST", path), body, &brought).await?;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.body["body"].as_str().map(str::len).unwrap_or(body.len()), body.len());
        let facts = told(&mut client, &answer).await?;
        assert_eq!(facts["play"], json!({ "verdict": "fresh", "age": 0 }));
        assert_eq!(facts["level"], "strong");
        // Once more; with another nonce; for another method, path, query, body; from another device.
        let asked = google.asked(Part::Decode);
        let answer = send(&mut client, &app, ("POST", path), body, &brought).await?;
        assert_eq!(code(&answer), (401, "integrity_token_replayed"));
        assert_eq!(answer.headers["www-authenticate"], "Attestation realm=\"enforcer\"");
        assert_eq!(google.asked(Part::Decode), asked, "a replay costs no call");
        let again = Brought { nonce: Some(format!("another-nonce-{}", unique())), ..brought };
        assert_eq!(
            code(&send(&mut client, &app, ("POST", path), body, &again).await?),
            (403, "attestation_nonce")
        );
        for (method, to, with) in [
            ("PUT", path, body),
            ("POST", "/deny/y?draft=1", body),
            ("POST", "/deny/x", body),
            ("POST", path, &b"{\"a\":1}"[..]),
            ("POST", path, b""),
        ] {
            let answer = send(&mut client, &app, (method, to), with, &good(&app)).await?;
            assert_eq!(code(&answer), (403, "attestation_nonce"), "{method} {to}");
        }
        let answer = send(&mut client, &other, ("POST", path), body, &good(&app)).await?;
        assert_eq!(code(&answer), (403, "attestation_nonce"), "of another device");
        // Without a part of it, nobody is asked.
        let asked = google.asked(Part::Decode);
        for brought in [
            Brought { token: None, nonce: None },
            Brought { token: None, ..good(&app) },
            Brought { nonce: None, ..good(&app) },
        ] {
            let answer = send(&mut client, &app, ("POST", path), body, &brought).await?;
            assert_eq!(code(&answer), (401, "integrity_token_missing"));
        }
        let short = Brought { nonce: Some("short".to_owned()), ..good(&app) };
        let answer = send(&mut client, &app, ("POST", path), body, &short).await?;
        assert_eq!(code(&answer), (400, "attestation_request"));
        assert_eq!(google.asked(Part::Decode), asked);
    }
    assert_eq!(scene.counted("/deny/x", "fresh"), 2);
    assert_eq!(scene.counted("/deny/x", "refused"), 2 * 7);
    assert_eq!(scene.origin.requests(), 2);
    Ok(())
}

/// What is changed of a verdict: its name, how, and what becomes of it.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Value), (u16, &'a str));

#[tokio::test]
async fn what_google_says_of_a_request_is_judged_and_remembered() -> Result<()> {
    let google = LiveGoogle::start().await?;
    let scene = Scene::new(&google, |site| {
        let play = site.config.attestation.as_mut().unwrap().play.as_mut().unwrap();
        play.risk.max_activity = Some(2);
        play.risk.play_protect = vec!["HIGH_RISK".to_owned()];
        play.risk.app_access = vec!["UNKNOWN_CONTROLLING".to_owned()];
        play.apps.min_version = 40;
        let mut strict = site.config.routes.last().unwrap().clone();
        (strict.name, strict.path) = ("/strict/".to_owned(), "/strict/".to_owned());
        strict.attestation.as_mut().unwrap().level = config::Level::Strong;
        site.config.routes.push(strict);
    })
    .await?;
    let mut client = scene.edge.http2().await?;
    let app = scene.device(&mut client).await?;
    let labels = |verdict: &mut Value, labels: &[&str]| {
        verdict["deviceIntegrity"]["deviceRecognitionVerdict"] = json!(labels);
    };
    let basic = |verdict: &mut Value| labels(verdict, &["MEETS_BASIC_INTEGRITY"]);
    let device = |verdict: &mut Value| labels(verdict, &["MEETS_DEVICE_INTEGRITY"]);
    let changes: [Change<'_>; 9] = [
        ("basic", &basic, (403, "device_integrity_failed")),
        ("old", &|said| said["appIntegrity"]["versionCode"] = "39".into(), (403, "app_outdated")),
        ("licence", &|said| said["accountDetails"] = json!({}), (403, "app_unlicensed")),
        (
            "testing",
            &|said| said["testingDetails"] = json!({ "isTestingResponse": true }),
            (403, "attestation_environment"),
        ),
        (
            "activity",
            &|said| said["deviceIntegrity"]["recentDeviceActivity"]["deviceActivityLevel"] = "LEVEL_3".into(),
            (403, "device_risk"),
        ),
        (
            "protect",
            &|said| said["environmentDetails"]["playProtectVerdict"] = "HIGH_RISK".into(),
            (403, "device_risk"),
        ),
        (
            "access",
            &|said| {
                said["environmentDetails"]["appAccessRiskVerdict"]["appsDetected"] =
                    json!(["UNKNOWN_CONTROLLING"])
            },
            (403, "device_risk"),
        ),
        (
            "stale",
            &|said| {
                said["requestDetails"]["timestampMillis"] =
                    ((clock::unix_now() - 125) * 1_000).to_string().into()
            },
            (403, "attestation_outdated"),
        ),
        ("nonce", &|said| said["requestDetails"]["nonce"] = "x".into(), (403, "attestation_nonce")),
    ];
    for (name, change, expected) in changes {
        let brought = bring(&google, &app, ("GET", "/deny/x"), b"", change);
        assert_eq!(
            code(&send(&mut client, &app, ("GET", "/deny/x"), b"", &brought).await?),
            expected,
            "{name}"
        );
    }
    // A weaker word lowers the device for this request and the next ones, and a better one raises it again.
    let to = ("GET", "/strict/x");
    let weak = bring(&google, &app, to, b"", &device);
    assert_eq!(code(&send(&mut client, &app, to, b"", &weak).await?), (403, "attestation_level"));
    let weak = bring(&google, &app, ("GET", "/deny/x"), b"", &device);
    let answer = send(&mut client, &app, ("GET", "/deny/x"), b"", &weak).await?;
    assert_eq!(told(&mut client, &answer).await?["level"], "device");
    let answer = ask(&mut client, &google, &app, "/deny/x").await?;
    assert_eq!(told(&mut client, &answer).await?["level"], "strong");
    assert_eq!(ask(&mut client, &google, &app, "/strict/x").await?.status, 200);
    // A bad word takes away what was said before: nothing is left to live on when Google is down.
    let bad = bring(&google, &app, ("GET", "/cached/x"), b"", &basic);
    assert_eq!(send(&mut client, &app, ("GET", "/cached/x"), b"", &bad).await?.status, 403);
    google.behave(Part::Decode, Some(Manner::HangUp));
    assert_eq!(code(&ask(&mut client, &google, &app, "/cached/x").await?), (503, "attestation_unavailable"));
    Ok(())
}

#[tokio::test]
async fn a_verdict_counts_for_further_requests_where_the_route_says_so() -> Result<()> {
    let google = LiveGoogle::start().await?;
    let reuse = |site: &mut Site| play_of(site, "/deny/x").reuse = Duration::from_secs(600);
    let scene = Scene::new(&google, reuse).await?;
    let mut client = scene.edge.http2().await?;
    let app = scene.device(&mut client).await?;
    let none = Brought { token: None, nonce: None };
    let to = ("GET", "/deny/x");
    assert_eq!(code(&send(&mut client, &app, to, b"", &none).await?), (401, "integrity_token_missing"));
    assert_eq!(ask(&mut client, &google, &app, "/deny/x").await?.status, 200);
    for _ in 0..5 {
        let answer = send(&mut client, &app, to, b"", &none).await?;
        let facts = told(&mut client, &answer).await?;
        assert_eq!(
            (&facts["play"]["verdict"], facts["play"]["age"].as_u64().is_some()),
            (&json!("recent"), true)
        );
    }
    // Others know nothing of that.
    let answer = send(&mut client, &app, ("GET", "/flag/x"), b"", &none).await?;
    assert_eq!(code(&answer), (401, "integrity_token_missing"));
    assert_eq!((google.asked(Part::Decode), scene.counted("/deny/x", "recent")), (1, 5));
    Ok(())
}

#[tokio::test]
async fn without_a_store_nothing_counts_that_may_have_been_used_before_the_start() -> Result<()> {
    let google = LiveGoogle::start().await?;
    let scene = Scene::new(&google, |site| site.config.replay.store = None).await?;
    let mut client = scene.edge.http2().await?;
    let app = scene.device(&mut client).await?;
    let answer = ask(&mut client, &google, &app, "/deny/x").await?;
    assert_eq!(code(&answer), (403, "attestation_outdated"));
    assert!(answer.body["server_time"].is_u64(), "{}", answer.body);
    Ok(())
}
