//! Requests that bring a token of Google Play each, over real TLS to a real edge: what they are bound to, and what becomes of them when
//! Google is busy, down, slow, somebody else, or not to be asked any more today. Only hardware and Google are played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use enforcer::{
    checks::{
        devices::{client_data, key_hash},
        facts::Target,
    },
    clock,
    config::{self, PlayDemand, PlayRemote, PlayUnavailable},
    keys,
};
use enforcer_tests::{
    attestation::google::{
        Bound,
        server::{LiveGoogle, Part},
        site, verdict,
    },
    edge::{self, Client, Edge, Outgoing, Site},
    issuer::Manner,
    origin::Origin,
    tokens::encode,
};
use http::Method;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    android_app::{World, begin, enrol, id},
    device_app::{Answer, Held, read, told},
    shop::furnish,
    till::unique,
};

/// What routes declare for when Google cannot be asked.
const LADDER: [(&str, PlayUnavailable); 3] = [
    ("/deny/x", PlayUnavailable::Deny),
    ("/flag/x", PlayUnavailable::AllowAndFlag),
    ("/cached/x", PlayUnavailable::Cached(Duration::from_secs(3_600))),
];

struct Scene {
    edge: Edge,
    world: World,
    origin: Origin,
    _tending: JoinSet<()>,
}

/// What a request brings.
struct Brought {
    token: Option<String>,
    nonce: Option<String>,
}

impl Scene {
    async fn new(google: &LiveGoogle, change: impl FnOnce(&mut Site)) -> Result<Self> {
        let origin = Origin::start().await?;
        let mut site = Site::new(origin.address)?;
        furnish(&mut site, clock::unix_now())?;
        let remote = site::remote(google, site.dir.path())?;
        let world = World::furnish(&mut site, |by| by.play.as_mut().unwrap().remote = Some(remote))?;
        for (path, unavailable) in LADDER {
            let play = Some(site::play_demand(unavailable));
            let demand = config::AttestationDemand { play, ..edge::demand() };
            let prefix = path.trim_end_matches('x');
            let route = config::Route { attestation: Some(demand), ..edge::route(prefix, None, &[]) };
            site.config.routes.push(route);
        }
        site.config.replay.store = Some(site.dir.path().join("replay.redb"));
        change(&mut site);
        let edge = site.start()?;
        let mut tending = JoinSet::new();
        tending.spawn(keys::tend(Arc::clone(&edge.policy), edge.metrics.clone()));
        Ok(Self { edge, world, origin, _tending: tending })
    }

    /// A device with a session, of which Google has said nothing.
    async fn device(&self, client: &mut Client) -> Result<Held> {
        let (answer, mut held) = enrol(client, &self.world).await?;
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert_eq!(begin(client, &mut held).await?.status, 200);
        Ok(held)
    }

    fn counted(&self, path: &str, result: &str) -> u64 {
        let route = path.trim_end_matches('x');
        self.edge.metrics.play.requests.with_label_values(&[route, result]).get()
    }
}

/// A token for this request, of which Google says so with these labels.
fn bring(
    google: &LiveGoogle,
    app: &Held,
    (method, path): (&str, &str),
    body: &[u8],
    change: &dyn Fn(&mut Value),
) -> Brought {
    let (token, nonce) = (format!("token-{}", unique()), format!("nonce-of-a-request-{}", unique()));
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let challenge = key_hash(&nonce, id(&app.key));
    let data = client_data(&challenge, &method, Target { path, query }, body);
    let hash = encode(digest(&SHA256, data.as_bytes()).as_ref());
    let mut said = verdict(Bound::RequestHash(&hash), clock::unix_now() * 1_000);
    change(&mut said);
    google.say(&token, said);
    Brought { token: Some(token), nonce: Some(nonce) }
}

async fn send(
    client: &mut Client,
    app: &Held,
    to: (&str, &str),
    body: &[u8],
    brought: &Brought,
) -> Result<Answer> {
    let answer = send_once(client, app, to, body, brought).await?;
    // Proofs come before tokens, and so use none up.
    if app.learn(&answer)? { send_once(client, app, to, body, brought).await } else { Ok(answer) }
}

async fn send_once(
    client: &mut Client,
    app: &Held,
    (method, path): (&str, &str),
    body: &[u8],
    brought: &Brought,
) -> Result<Answer> {
    let without_query = path.split_once('?').map_or(path, |(path, _)| path);
    let mut request = app.head(method, without_query)?.uri(path);
    if let Some(token) = &brought.token {
        request = request.header("enforcer-integrity-token", token);
    }
    if let Some(nonce) = &brought.nonce {
        request = request.header("enforcer-nonce", nonce);
    }
    let body: Outgoing = Full::new(Bytes::copy_from_slice(body)).boxed();
    read(client.send(request.body(body)?).await?).await
}

/// A good request.
async fn ask(client: &mut Client, google: &LiveGoogle, app: &Held, path: &str) -> Result<Answer> {
    send(client, app, ("GET", path), b"", &bring(google, app, ("GET", path), b"", &|_| ())).await
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

/// Has a route's `play` changed.
fn play_of<'s>(site: &'s mut Site, path: &str) -> &'s mut PlayDemand {
    let prefix = path.trim_end_matches('x');
    let route = site.config.routes.iter_mut().find(|route| route.path == prefix).unwrap();
    route.attestation.as_mut().unwrap().play.as_mut().unwrap()
}

fn remote_of(site: &mut Site) -> &mut PlayRemote {
    site.config.attestation.as_mut().unwrap().play.as_mut().unwrap().remote.as_mut().unwrap()
}

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
    let changes: [(&str, &dyn Fn(&mut Value), (u16, &str)); 9] = [
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

fn answer(status: u16, fields: &str, body: &str) -> Option<Manner> {
    Some(Manner::Answer(status, fields.to_owned(), body.as_bytes().to_vec()))
}

/// Each way in which Google cannot be asked, and each thing that a route can declare for it.
#[tokio::test]
async fn where_google_cannot_be_asked_each_route_does_as_it_declares() -> Result<()> {
    let google = LiveGoogle::start().await?;
    let stranger = LiveGoogle::start().await?.authorities();
    let faults: [(&str, Option<(Part, Option<Manner>)>); 11] = [
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
        let answer = under_way.join_next().await.unwrap()??;
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
