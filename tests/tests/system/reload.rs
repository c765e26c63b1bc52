//! A reload under load changes what it should and breaks nothing.

use std::{fs, thread, time::Duration};

use anyhow::{Result, anyhow};
use enforcer_tests::{
    clients::{self, Load},
    daemon::Daemon,
    eventually,
    netns::source_v4,
    process,
    scene::Scene,
    site::route,
};
use nix::sys::signal::Signal;

fn reloads(daemon: &Daemon<'_>, result: &str) -> Result<u64> {
    Ok(daemon.scrape()?.sum("enforcer_reloads_total", &[("result", result)]))
}

/// The certificate that the listener shows, PEM.
fn shown(scene: &Scene) -> Result<String> {
    let client = clients::openssl_start(&scene.lab.client, source_v4(1).into(), "-tls1_3")?;
    let said = client.finish(Duration::from_secs(10))?.stdout;
    let begin = said.find("-----BEGIN CERTIFICATE-----").ok_or_else(|| anyhow!("no certificate: {said}"))?;
    let end = said[begin..].find("-----END CERTIFICATE-----").ok_or_else(|| anyhow!("no end: {said}"))?;
    Ok(said[begin..begin + end].lines().collect())
}

fn written(scene: &Scene, name: &str) -> Result<String> {
    let pem = fs::read_to_string(scene.site.dir.join(name))?;
    let body = pem.split("-----END CERTIFICATE-----").next().unwrap_or_default();
    Ok(body.lines().collect())
}

#[test]
fn certificates_routes_and_limits_change_under_load() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let token = scene.site.token("read")?;
    scene.site.issue("next")?;
    let get = |path: &str| scene.get(source_v4(2), path).token(&token).send();
    assert_eq!(shown(&scene)?, written(&scene, "api.pem")?);
    assert_eq!(get("/api/v2/x")?.status, 404);

    let options = ["-n", "12000", "-c", "8", "-m", "4"];
    let mut h2load = clients::h2load(&scene.lab.client, &options, &token, "/api/v1/x");
    let load = thread::scope(|scope| -> Result<_> {
        let load = scope.spawn(|| process::run(&mut h2load, Duration::from_secs(90)));
        eventually!(20, "the load to begin", scene.upstream.requests() > 100)?;
        for round in 1..=6 {
            let mut plan = scene.plan();
            if round % 2 == 0 {
                plan.certificate = ("next.pem".to_owned(), "next.key".to_owned());
                plan.routes += &route("/api/v2/", "limit = { rate = \"1/h\", burst = 0 }\n");
            }
            scene.site.write(&plan)?;
            daemon.signal(Signal::SIGHUP)?;
            eventually!(
                20,
                format!("reload {round}\n{}", daemon.log()),
                reloads(&daemon, "applied")? == round
            )?;
        }
        load.join().map_err(|_| anyhow!("panicked"))?
    })?;
    let load = clients::read_load(&load)?;
    assert_eq!(load, Load { succeeded: 12_000, failed: 0, status_2xx: 12_000, status_other: 0 });

    assert_eq!(shown(&scene)?, written(&scene, "next.pem")?);
    assert_eq!(get("/api/v2/x")?.status, 200);
    assert_eq!(get("/api/v2/x")?.status, 429, "the new route's limit");
    assert_eq!(get("/api/v1/x")?.status, 200, "the old route has none");
    Ok(())
}

#[test]
fn settings_of_the_kernel_change_too() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let mut plan = scene.plan();
    plan.kernel += "minimum_tls = \"1.3\"\n";
    scene.site.write(&plan)?;
    daemon.say(&["reload"])?;
    assert_eq!(reloads(&daemon, "applied")?, 1);
    let _link = scene.lab.hear_answers()?;
    let shake = clients::openssl(&scene.lab.client, source_v4(1).into(), "-tls1_2", Duration::from_secs(15))?;
    assert!(matches!(shake, clients::Handshake::Refused(_)), "{shake:?}");
    assert!(daemon.scrape()?.packets("tls_version") > 0);
    Ok(())
}

#[test]
fn a_bad_file_changes_nothing_and_says_so() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let token = scene.site.token("read")?;
    let mut plan = scene.plan();
    plan.routes += &route("/api/v2/", "surprise = 1\n");
    scene.site.write(&plan)?;
    daemon.signal(Signal::SIGHUP)?;
    eventually!(20, "a refused reload", reloads(&daemon, "refused")? == 1)?;
    assert!(daemon.log().contains("surprise"), "{}", daemon.log());
    let error = daemon.say(&["reload"]).err().ok_or_else(|| anyhow!("a bad file was accepted"))?;
    assert!(format!("{error:#}").contains("surprise"), "{error:#}");
    assert_eq!(scene.get(source_v4(1), "/api/v1/x").token(&token).send()?.status, 200);

    scene.site.issue("other")?;
    let mut plan = scene.plan();
    plan.certificate.1 = "other.key".to_owned();
    scene.site.write(&plan)?;
    assert!(daemon.say(&["reload"]).is_err(), "a key of another certificate was accepted");
    assert_eq!(shown(&scene)?, written(&scene, "api.pem")?);
    assert_eq!(reloads(&daemon, "applied")?, 0);
    Ok(())
}
