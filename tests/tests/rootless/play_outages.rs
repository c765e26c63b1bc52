//! Requests that bring a token of Google Play each while Google is busy, down, slow, somebody else, or not to be asked any more today: each
//! route does as it declares, and few wait for him.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use enforcer::config::PlayUnavailable;
use enforcer_tests::{
    attestation::google::server::{LiveGoogle, Part},
    edge::Client,
    issuer::Manner,
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    device_app::told,
    play_scene::{LADDER, Scene, ask, bring, code, remote_of, send},
};

/// Which part of Google behaves how.
type Fault = Option<(Part, Option<Manner>)>;

fn answer(status: u16, fields: &str, body: &str) -> Option<Manner> {
    Some(Manner::Answer(status, fields.to_owned(), body.as_bytes().to_vec()))
}

/// Each way in which Google cannot be asked, and each thing that a route can declare for it.
#[tokio::test]
async fn where_google_cannot_be_asked_each_route_does_as_it_declares() -> Result<()> {
    let google = LiveGoogle::start().await?;
    let stranger = LiveGoogle::start().await?.authorities();
    let faults: [(&str, Fault); 11] = [
        ("quota", Some((Part::Decode, answer(429, "Retry-After: 7\r\n", "{}")))),
        ("server", Some((Part::Decode, answer(500, "", "{}")))),
        ("slow", Some((Part::Decode, Some(Manner::Silence)))),
        ("slow", Some((Part::Decode, Some(Manner::Drip)))),
        ("garbage", Some((Part::Decode, answer(200, "", "<html>")))),
        ("garbage", Some((Part::Decode, answer(200, "", "{\"tokenPayloadExternal\":{}}")))),
        ("account", Some((Part::Decode, answer(403, "", "{}")))),
        ("unreachable", Some((Part::Decode, Some(Manner::HangUp)))),
        ("server", Some((Part::Account, answer(503, "", "")))),
        ("unreachable", None),
        ("budget", None),
    ];
    for (cause, fault) in faults {
        let slow = cause == "slow";
        // One edge has said nothing of its devices yet; the other one knows one of them from before.
        let mut keep = None;
        for knows in [false, true] {
            let scene = Scene::new(&google, |site| {
                let remote = remote_of(site);
                if slow {
                    remote.timeout = Duration::from_millis(300);
                }
                if cause == "budget" {
                    (remote.calls_per_day, remote.burst, remote.reserve) = (100, 1, 0);
                }
                if cause == "unreachable" && fault.is_none() {
                    // Somebody else's certificate.
                    if !knows {
                        remote.authorities = Some(stranger.clone());
                    }
                }
            })
            .await?;
            if knows && cause == "unreachable" && fault.is_none() {
                // A certificate that changes under way is not made here; what is remembered is shown by all others.
                continue;
            }
            let mut client = scene.edge.http2().await?;
            let app = scene.device(&mut client).await?;
            if knows || cause == "budget" {
                let first = if knows { &app } else { keep.insert(scene.device(&mut client).await?) };
                // Patience belongs to the fault alone: a busy machine may take its time for a good answer.
                let good = loop {
                    let good = ask(&mut client, &google, first, "/deny/x").await?;
                    if good.status == 200 || !slow {
                        break good;
                    }
                };
                assert_eq!(good.status, 200, "{cause}: {}", good.body);
            }
            if let Some((part, manner)) = &fault {
                google.behave(*part, manner.clone());
            }
            for (path, declared) in LADDER {
                // The account's token is there already where somebody has asked.
                if matches!(fault, Some((Part::Account, _))) && knows {
                    continue;
                }
                let counted = |result| scene.counted(path, result);
                let before = (counted("denied"), counted("flagged"), counted("cached"));
                let answer = ask(&mut client, &google, &app, path).await?;
                let place = format!("{cause} {path} {knows}: {}", answer.body);
                match declared {
                    PlayUnavailable::Deny => {
                        assert_eq!(code(&answer), (503, "attestation_unavailable"), "{place}");
                        assert!(answer.headers.contains_key("retry-after"), "{place}");
                        assert_eq!(counted("denied") - before.0, 1, "{place}");
                    }
                    PlayUnavailable::AllowAndFlag => {
                        assert_eq!(answer.status, 200, "{place}");
                        let facts = told(&mut client, &answer).await?;
                        assert_eq!(facts["play"], json!({ "verdict": "unavailable" }), "{place}");
                        assert_eq!(counted("flagged") - before.1, 1, "{place}");
                    }
                    PlayUnavailable::Cached(_) if knows => {
                        assert_eq!(answer.status, 200, "{place}");
                        let facts = told(&mut client, &answer).await?;
                        assert_eq!(facts["play"]["verdict"], "cached", "{place}");
                        assert!(facts["play"]["age"].as_u64().is_some(), "{place}");
                        assert_eq!(counted("cached") - before.2, 1, "{place}");
                    }
                    PlayUnavailable::Cached(_) => {
                        assert_eq!(code(&answer), (503, "attestation_unavailable"), "{place}");
                        assert_eq!(counted("denied") - before.0, 1, "{place}");
                    }
                }
            }
            if let Some((part, _)) = &fault {
                google.behave(*part, None);
            }
            let calls = &scene.edge.metrics.play.calls;
            let counted =
                calls.with_label_values(&[cause]).get() + calls.with_label_values(&["resting"]).get();
            let is_skipped = knows && matches!(fault, Some((Part::Account, _)));
            assert!(counted >= 3 || is_skipped, "{cause}: {counted}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn while_google_hangs_few_wait_and_all_others_are_told_at_once() -> Result<()> {
    let google = LiveGoogle::start().await?;
    let scene = Scene::new(&google, |site| {
        let remote = remote_of(site);
        (remote.max_calls, remote.timeout) = (4, Duration::from_secs(600));
    })
    .await?;
    let mut client = scene.edge.http2().await?;
    let app = scene.device(&mut client).await?;
    assert_eq!(ask(&mut client, &google, &app, "/deny/x").await?.status, 200);
    google.behave(Part::Decode, Some(Manner::Silence));
    let before = google.asked(Part::Decode);
    let Client::Http2(sender) = &client else { panic!("HTTP/2") };
    let mut under_way = JoinSet::new();
    let app = Arc::new(app);
    for number in 0..200 {
        let mut client = Client::Http2(sender.clone());
        let to = ("GET", if number % 2 == 0 { "/deny/x" } else { "/flag/x" });
        let brought = bring(&google, &app, to, b"", &|_| ());
        let app = Arc::clone(&app);
        under_way.spawn(async move { send(&mut client, &app, to, b"", &brought).await });
    }
    let (mut denied, mut flagged) = (0, 0);
    // Those four are heard after ten minutes.
    for _ in 0..196 {
        let answer = tokio::time::timeout(Duration::from_secs(60), under_way.join_next()).await;
        let answer = answer.expect("more wait than may").unwrap()??;
        match code(&answer) {
            (503, "attestation_unavailable") => denied += 1,
            (200, _) => flagged += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(denied >= 96 && flagged >= 96, "{denied} {flagged}");
    assert_eq!((google.asked(Part::Decode) - before, under_way.len()), (4, 4));
    let calls = &scene.edge.metrics.play.calls;
    assert_eq!(calls.with_label_values(&["busy"]).get(), 196);
    // Whoever gives up while Google is silent does not make him look bad.
    under_way.abort_all();
    google.behave(Part::Decode, None);
    assert_eq!(calls.with_label_values(&["slow"]).get(), 0);
    Ok(())
}
