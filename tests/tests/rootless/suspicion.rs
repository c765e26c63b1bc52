//! Somebody in the middle: what speaks for it, what a route makes of it, and what servers, logs and metrics are told. Over real TLS, so the
//! fingerprints are those of a real client.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use enforcer::{
    clock,
    config::{
        self, App, Destination, Ja4Pattern, PinEntry, PinSet, PinnedKey, Pins, Platform, RateLimit, Reports,
        ServerName, Suspicion, SuspicionDemand,
    },
    control::{pins::seen, wire},
    metrics::{self, http::text},
    pins::Pin,
};
use enforcer_tests::{
    edge::{Client, Edge, NAME, Outgoing, Site},
    origin::Origin,
    pki::KeyKind,
    witness::Witness,
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::{Value, json};

use super::{
    bodies::eventually,
    device_app::{self, told},
    shop::furnish,
};

const REPORTS: &str = "/.well-known/enforcer/pin-reports";
/// A fingerprint that nobody here has.
const OTHER: &str = "t13d1516h2_8daaf6152771_02713d6af862";

fn app(platform: Option<Platform>, ja4: &[&str]) -> App {
    App { platform, ja4: ja4.iter().map(|text| text.parse::<Ja4Pattern>().unwrap()).collect() }
}

fn suspicion(apps: &[(&str, App)]) -> Suspicion {
    let reports = Reports {
        path: REPORTS.to_owned(),
        remember: Duration::from_secs(3_600),
        limit: RateLimit { events: 10, period: Duration::from_secs(3_600), burst: 10 },
        max_entries: 64,
    };
    let apps = apps.iter().map(|(name, app)| ((*name).to_owned(), app.clone())).collect::<BTreeMap<_, _>>();
    Suspicion { weights: [40, 10, 30, 30], apps, reports: Some(reports) }
}

fn demand(apps: &[&str], refuse_above: Option<u8>) -> Option<SuspicionDemand> {
    let apps = apps.iter().map(|name| (*name).to_owned()).collect();
    Some(SuspicionDemand { apps, refuse_above, dry_run: false })
}

fn begin(site: Site) -> Result<Edge> {
    let edge = site.start()?;
    metrics::suspicion::register(&edge.metrics.registry, Arc::clone(&edge.policy))?;
    Ok(edge)
}

/// Takes over a configuration that is changed.
fn change(edge: &Edge, config: &config::Config) -> Result<()> {
    edge.policy.store(edge.policy.load().reload(config)?.into());
    Ok(())
}

async fn ask(client: &mut Client, fields: &[(&str, &str)]) -> Result<(StatusCode, String)> {
    let mut request = Request::get("/public/x");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = client.send(request.body(Empty::new().boxed())?).await?;
    let status = answer.status();
    Ok((status, String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()).into_owned()))
}

async fn report(client: &mut Client, body: impl Into<Bytes>) -> Result<(StatusCode, HeaderMap, String)> {
    let body: Outgoing = Full::new(body.into()).boxed();
    let answer = client.send(Request::post(REPORTS).body(body)?).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok((head.status, head.headers, String::from_utf8_lossy(&body).into_owned()))
}

/// What the server behind was told of the last request.
fn scores(witness: &Witness) -> Vec<String> {
    witness.take().iter().map(|seen| seen.values("enforcer-suspicion").join("|")).collect()
}

/// From the first request to the app's own declaration: as operators find out.
#[tokio::test]
async fn a_fingerprint_that_is_not_the_apps_is_refused_where_the_route_says_so() -> Result<()> {
    let witness = Witness::start().await?;
    let mut site = Site::new(witness.address)?;
    site.config.suspicion = Some(suspicion(&[("mobile", app(None, &[OTHER]))]));
    site.config.routes[0].suspicion = demand(&["mobile"], Some(39));
    let mut config = site.config.clone();
    let edge = begin(site)?;
    let mut open = edge.clients().await?;
    for client in &mut open {
        let (status, body) = ask(client, &[("enforcer-suspicion", "0")]).await?;
        let answer: Value = serde_json::from_str(&body)?;
        assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("proxy_suspected")));
        assert!(
            answer["detail"].as_str().unwrap_or_default().contains("proxy")
                || body.contains("proxy that reads it")
        );
    }
    assert!(witness.take().is_empty(), "nothing of it gets behind");
    // Who they are is seen.
    let wire::Answer::Seen(rows) = seen(&edge.policy.load(), clock::unix_now()).unwrap() else { panic!() };
    assert_eq!((rows.declared[0].ja4.as_str(), rows.declared[0].requests), (OTHER, 0));
    let strangers: Vec<&str> = rows.others.iter().map(|row| row.ja4.as_str()).collect();
    assert_eq!(strangers.len(), 2, "one for each protocol: {strangers:?}");
    // Declared, they are welcome; the counts go on.
    let patterns: Vec<String> = strangers.iter().map(|ja4| format!("{}_*_*", &ja4[..10])).collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    config.suspicion = Some(suspicion(&[("mobile", app(None, &patterns))]));
    change(&edge, &config)?;
    for client in &mut open {
        assert_eq!(ask(client, &[("enforcer-suspicion", "99")]).await?.0, StatusCode::OK);
    }
    assert_eq!(scores(&witness), ["0;signals=\"\"", "0;signals=\"\""]);
    let wire::Answer::Seen(rows) = seen(&edge.policy.load(), clock::unix_now()).unwrap() else { panic!() };
    assert!(rows.declared.iter().all(|row| row.requests == 1), "{rows:?}");
    assert_eq!(rows.others.len(), 2);
    let metrics = text(&edge.metrics.registry)?;
    for line in [
        r#"enforcer_suspicion_requests_total{result="refused",route="/public/"} 2"#,
        r#"enforcer_suspicion_requests_total{result="clean",route="/public/"} 2"#,
        r#"enforcer_suspicion_signals_total{signal="fingerprint"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert_eq!(edge.metrics.denials.with_label_values(&["proxy_suspected"]).get(), 2);
    Ok(())
}

#[tokio::test]
async fn without_a_bound_and_in_a_dry_run_everybody_passes_and_all_are_told() -> Result<()> {
    let witness = Witness::start().await?;
    let mut site = Site::new(witness.address)?;
    site.config.suspicion = Some(suspicion(&[("mobile", app(None, &[OTHER]))]));
    site.config.routes[0].suspicion = demand(&["mobile"], None);
    site.config.access_log.destination = Destination::File(site.dir.path().join("access.log"));
    let mut config = site.config.clone();
    let edge = begin(site)?;
    let mut client = edge.http2().await?;
    assert_eq!(ask(&mut client, &[("via", "1.1 box")]).await?.0, StatusCode::OK);
    config.routes[0].suspicion =
        Some(SuspicionDemand { dry_run: true, ..demand(&["mobile"], Some(20)).unwrap() });
    change(&edge, &config)?;
    assert_eq!(ask(&mut client, &[]).await?.0, StatusCode::OK);
    // Nobody is asked where nobody looks.
    config.routes[0].suspicion = None;
    change(&edge, &config)?;
    assert_eq!(ask(&mut client, &[("via", "1.1 box"), ("enforcer-suspicion", "0")]).await?.0, StatusCode::OK);
    assert_eq!(
        scores(&witness),
        ["70;signals=\"fingerprint hops\"", "40;signals=\"fingerprint\"", ""],
        "and nobody else can say it"
    );
    let metrics = text(&edge.metrics.registry)?;
    for line in [
        r#"enforcer_suspicion_requests_total{result="suspected",route="/public/"} 1"#,
        r#"enforcer_suspicion_requests_total{result="would_refuse",route="/public/"} 1"#,
        r#"enforcer_suspicion_signals_total{signal="hops"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let path = edge.site.dir.path().join("access.log");
    eventually(|| fs::read_to_string(&path).unwrap_or_default().lines().count() >= 3).await?;
    let lines: Vec<Value> =
        fs::read_to_string(&path)?.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["suspicion"], &lines[0]["suspicion_signals"]),
        (&json!(70), &json!(["fingerprint", "hops"]))
    );
    assert!(lines[0]["ja4"].is_string());
    assert!(lines[2].get("suspicion").is_none() && lines[2].get("suspicion_signals").is_none());
    Ok(())
}

#[tokio::test]
async fn hops_count_that_are_no_proxies_of_the_operator() -> Result<()> {
    let witness = Witness::start().await?;
    for trusted in [false, true] {
        let mut site = Site::new(witness.address)?;
        site.config.suspicion = Some(suspicion(&[]));
        site.config.routes[0].suspicion = demand(&[], None);
        if trusted {
            site.config.http.trusted_proxies =
                vec!["127.0.0.0/8".parse().unwrap(), "198.18.0.0/24".parse().unwrap()];
        }
        let edge = begin(site)?;
        let mut client = edge.http1().await?;
        for (fields, direct, behind) in [
            (&[][..], 0, 0),
            (&[("x-forwarded-for", "203.0.113.9")], 30, 0),
            (&[("x-forwarded-for", "203.0.113.9"), ("via", "1.1 own")], 30, 0),
            (&[("x-forwarded-for", "203.0.113.9, 198.18.0.1"), ("via", "1.1 own, 1.1 own")], 30, 0),
            (&[("x-forwarded-for", "192.0.2.66, 203.0.113.9")], 30, 30),
            (&[("x-forwarded-for", "203.0.113.9"), ("via", "1.1 box, 1.1 own")], 30, 30),
            (&[("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=192.0.2.66, for=203.0.113.9")], 30, 30),
            (&[("forwarded", "for=203.0.113.9")], 30, 0),
        ] {
            assert_eq!(ask(&mut client, fields).await?.0, StatusCode::OK);
            let expected = if trusted { behind } else { direct };
            let signals = if expected == 0 { "" } else { "hops" };
            assert_eq!(
                scores(&witness),
                [format!("{expected};signals=\"{signals}\"")],
                "{trusted} {fields:?}"
            );
        }
    }
    Ok(())
}

/// A site whose own key is pinned, and its certificate in PEM form.
fn pinned(site: &mut Site) -> Result<String> {
    let chain = fs::read_to_string(site.dir.path().join("api.pem"))?;
    let entry = |pin| PinEntry { key: PinnedKey::Pin(pin), published: 0 };
    let set = PinSet {
        hosts: vec![ServerName { name: NAME.to_owned(), below: false }],
        pins: vec![entry(Pin::of_pem(chain.as_bytes()).unwrap()), entry(Pin::of_public_key(b"elsewhere"))],
        min_overlap: Duration::ZERO,
        backup: None,
        force: Vec::new(),
    };
    let switches = site.dir.path().join("pin-switches");
    site.config.pins = Pins { sets: [("api".to_owned(), set)].into(), document: None, switches };
    Ok(chain)
}

#[tokio::test]
async fn a_report_speaks_against_its_source_unless_the_key_is_ours() -> Result<()> {
    let witness = Witness::start().await?;
    let mut site = Site::new(witness.address)?;
    let own = pinned(&mut site)?;
    let foreign = site.authority.issue(&[NAME], KeyKind::P256)?.chain_pem;
    site.config.suspicion = Some(suspicion(&[]));
    site.config.routes[0].suspicion = demand(&[], Some(29));
    let config = site.config.clone();
    let edge = begin(site)?;
    let mut client = edge.http2().await?;
    let library = |chain: &str| {
        json!({
            "app-bundle-id": "com.example.app", "app-version": "1.2", "app-platform": "IOS", "hostname": NAME, "port": 443,
            "noted-hostname": NAME, "include-subdomains": false, "enforce-pinning": true, "validation-result": 1,
            "date-time": "2026-08-23T22:15:58Z", "known-pins": ["pin-sha256=\"abc\""],
            "validated-certificate-chain": [chain],
        })
        .to_string()
    };
    // An app that does not know our key is our own trouble, and a report about others nobody's.
    assert_eq!(report(&mut client, library(&own)).await?.0, StatusCode::NO_CONTENT);
    assert_eq!(report(&mut client, json!({ "host": "www.example.net" }).to_string()).await?.0, 204);
    assert_eq!(ask(&mut client, &[]).await?.0, StatusCode::OK);
    let (status, headers, body) = report(&mut client, library(&foreign)).await?;
    assert_eq!(
        (status, headers["cache-control"].to_str()?, body.as_str()),
        (StatusCode::NO_CONTENT, "no-store", "")
    );
    assert_eq!(ask(&mut client, &[]).await?.0, StatusCode::FORBIDDEN);
    // It outlives a reload.
    change(&edge, &config)?;
    assert_eq!(ask(&mut client, &[]).await?.0, StatusCode::FORBIDDEN);
    let seen = Pin::of_public_key(b"somebody").to_string();
    let own_form =
        json!({ "host": NAME.to_uppercase(), "seen": [seen], "app": "1.2", "platform": "android" });
    assert_eq!(report(&mut client, own_form.to_string()).await?.0, 204);
    let metrics = text(&edge.metrics.registry)?;
    for line in [
        r#"enforcer_pin_reports_total{key="ours",set="api"} 1"#,
        r#"enforcer_pin_reports_total{key="other",set="api"} 2"#,
        r#"enforcer_pin_reports_dropped_total{why="foreign"} 1"#,
        "enforcer_pin_report_sources 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    Ok(())
}

#[tokio::test]
async fn reports_are_small_strict_and_few() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.suspicion = Some(suspicion(&[]));
    let edge = begin(site)?;
    for (number, mut client) in edge.clients().await?.into_iter().enumerate() {
        let empty: Outgoing = Empty::new().boxed();
        let answer = client.send(Request::get(REPORTS).body(empty)?).await?;
        assert_eq!(
            (answer.status(), answer.headers()["allow"].to_str()?),
            (StatusCode::METHOD_NOT_ALLOWED, "POST")
        );
        for body in ["", "[]", "{", "{}", r#"{"host":"a","host":"b"}"#, r#"{"host":"a","x":1}"#] {
            if number > 0 {
                continue;
            }
            let (status, _, body) = report(&mut client, body).await?;
            assert!(status == 400 && body.contains("pin_report_malformed"), "{status} {body}");
        }
        if number == 0 {
            let (status, _, body) = report(&mut client, "x".repeat((32 << 10) + 1)).await?;
            assert!(status == 413 && body.contains("body_too_large"), "{status} {body}");
            let good = json!({ "host": NAME }).to_string();
            // A burst of 10 beside the first, of which seven are gone.
            for left in (0..4).rev() {
                assert_eq!(report(&mut client, good.clone()).await?.0, 204, "{left}");
            }
        }
        let (status, headers, body) = report(&mut client, "{}").await?;
        assert!(status == 429 && body.contains("rate_limited"), "{status} {body}");
        assert!(headers["retry-after"].to_str()?.parse::<u64>()? > 0);
    }
    assert_eq!(origin.requests(), 0, "nothing of it goes behind");
    // Without the section there is no such place.
    let edge = Site::new(origin.address)?.start()?;
    let (status, _, body) = report(&mut edge.http2().await?, "{}").await?;
    assert!(status == 404 && body.contains("route_not_found"), "{status} {body}");
    Ok(())
}

/// What an attested device is tells which app it runs, and the facts that servers get are signed.
#[tokio::test]
async fn an_attested_device_is_held_against_its_own_app_and_servers_are_told() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let apple = furnish(&mut site, clock::unix_now())?;
    let route = site.config.routes.iter().position(|route| route.attestation.is_some()).unwrap();
    // Neither app has the fingerprint of what comes here.
    let both = |ios: &str| {
        suspicion(&[
            ("android", app(Some(Platform::Android), &["*_*_000000000000"])),
            ("ios", app(Some(Platform::Ios), &[ios])),
        ])
    };
    site.config.suspicion = Some(both(OTHER));
    site.config.routes[route].suspicion = demand(&["android"], Some(0));
    let mut config = site.config.clone();
    let edge = begin(site)?;
    let mut client = edge.http2().await?;
    let mut phone = device_app::App::new()?;
    assert_eq!(phone.enrol(&mut client, &apple).await?.status, 201);
    assert_eq!(phone.begin(&mut client).await?.status, 200);
    let answer = phone.held.get(&mut client, "/device/x").await?;
    assert_eq!(answer.status, 200, "of a phone of Apple's nothing is declared: {}", answer.body);
    let facts = told(&mut client, &answer).await?;
    assert_eq!(facts["suspicion"], json!({ "score": 0, "signals": [] }));
    config.routes[route].suspicion = demand(&["android", "ios"], Some(0));
    change(&edge, &config)?;
    let answer = phone.held.get(&mut client, "/device/x").await?;
    assert_eq!((answer.status, &answer.body["code"]), (403, &json!("proxy_suspected")));
    config.routes[route].suspicion = demand(&["android", "ios"], None);
    change(&edge, &config)?;
    let answer = phone.held.get(&mut client, "/device/x").await?;
    let facts = told(&mut client, &answer).await?;
    assert_eq!(facts["suspicion"], json!({ "score": 40, "signals": ["fingerprint"] }));
    config.routes[route].suspicion = None;
    change(&edge, &config)?;
    let answer = phone.held.get(&mut client, "/device/x").await?;
    assert!(told(&mut client, &answer).await?.get("suspicion").is_none());
    Ok(())
}
