//! Requests through the whole path, with curl and h2load.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use enforcer_tests::{
    clients::{self, Load},
    netns::{source_v4, source_v6},
    process,
    scene::Scene,
    site::route,
    upstream::PIECE,
};
use serde_json::Value;

#[test]
fn a_request_arrives_as_it_was_sent_over_both_versions_and_families() -> Result<()> {
    let scene = Scene::new()?;
    let _daemon = scene.daemon(&scene.plan())?;
    let token = scene.site.token("read")?;
    let body = scene.site.dir.join("body");
    std::fs::write(&body, vec![b'b'; 1 << 20])?;
    let body = format!("@{}", body.display());
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for source in [IpAddr::from(source_v4(1)), source_v6(1).into()] {
            let get = scene.get(source, "/api/v1/a%20b?c=d&e").token(&token);
            let answer = get.more(&[option, "-H", "x-custom: kept", "--data-binary", &body]).send()?;
            assert_eq!((answer.status, answer.version.as_str()), (200, version), "{answer:?}");
            assert!(answer.header("strict-transport-security").is_some(), "{answer:?}");
            let echo: Value = serde_json::from_str(&answer.body)?;
            assert_eq!((&echo["method"], &echo["path"]), (&"POST".into(), &"/api/v1/a%20b".into()));
            assert_eq!((&echo["query"], &echo["headers"]["x-custom"]), (&"c=d&e".into(), &"kept".into()));
            assert_eq!(echo["body_bytes"], 1 << 20);
        }
    }
    Ok(())
}

#[test]
fn a_streamed_body_arrives_whole() -> Result<()> {
    let scene = Scene::new()?;
    let _daemon = scene.daemon(&scene.plan())?;
    let answer = scene.get(source_v4(1), "/api/v1/stream/50").token(&scene.site.token("read")?).send()?;
    assert_eq!((answer.status, answer.body.len()), (200, 50 * PIECE));
    Ok(())
}

#[test]
fn refusals_are_problem_documents_and_never_reach_the_upstream() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let site = &scene.site;
    let cases = [
        ("/api/v1/x", None, 401, "token_missing"),
        ("/api/v1/x", Some(site.expired_token()?), 401, "token_expired"),
        ("/api/v1/x", Some(site.forged_token()?), 401, "token_bad_signature"),
        ("/api/v1/x", Some(site.token("other")?), 403, "scope_missing"),
        ("/elsewhere", Some(site.token("read")?), 404, "route_not_found"),
    ];
    for (path, token, status, code) in cases {
        let get = scene.get(source_v4(1), path);
        let answer = match &token {
            Some(token) => get.token(token),
            None => get,
        }
        .send()?;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
        let kind = answer.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{answer:?}");
        assert_eq!(daemon.scrape()?.denials(code), 1, "{code}");
    }
    assert_eq!(scene.upstream.requests(), 0);
    Ok(())
}

#[test]
fn an_upstream_that_is_away_is_a_502_and_no_offence() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.upstream = "127.0.0.1:1".parse()?;
    let daemon = scene.daemon(&plan)?;
    for _ in 0..3 {
        let answer = scene.get(source_v4(1), "/api/v1/x").token(&scene.site.token("read")?).send()?;
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unreachable"));
    }
    assert_eq!(daemon.ask(&["why", &source_v4(1).to_string()])?["score"], Value::Null);
    Ok(())
}

#[test]
fn thousands_of_requests_without_a_failure() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let token = scene.site.token("read")?;
    for options in [&["-n", "2000", "-c", "10", "-m", "10"][..], &["-n", "2000", "-c", "10", "--h1"][..]] {
        let mut h2load = clients::h2load(&scene.lab.client, options, &token, "/api/v1/x");
        let load = clients::read_load(&process::run(&mut h2load, Duration::from_secs(60))?)?;
        assert_eq!(
            load,
            Load { succeeded: 2000, failed: 0, status_2xx: 2000, status_other: 0 },
            "{options:?}"
        );
    }
    assert_eq!(scene.upstream.requests(), 4000);
    assert_eq!(daemon.scrape()?.sum("enforcer_requests_total", &[("status", "2xx")]), 4000);
    Ok(())
}

#[test]
fn a_route_s_limit_counts_each_source_for_itself() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.routes = route("/api/v1/", "scopes = [\"read\"]\nlimit = { rate = \"1/h\", burst = 2 }\n");
    let _daemon = scene.daemon(&plan)?;
    let token = scene.site.token("read")?;
    for source in [1, 2] {
        let status =
            || Ok::<_, anyhow::Error>(scene.get(source_v4(source), "/api/v1/x").token(&token).send()?);
        for _ in 0..3 {
            assert_eq!(status()?.status, 200);
        }
        let answer = status()?;
        assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
        let wait: u64 = answer.header("retry-after").unwrap_or_default().parse()?;
        assert!((3500..=3600).contains(&wait), "{wait}");
    }
    Ok(())
}
