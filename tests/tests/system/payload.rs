//! Encrypted bodies through the real daemon: published keys, files that change under it, reloads.

use std::fs;

use anyhow::{Context as _, Result};
use enforcer::sealed::{
    jwe::Alg,
    keys::{Curve, Public},
};
use enforcer_tests::{
    clients::Answer,
    daemon::Daemon,
    eventually,
    netns::source_v4,
    payload::{App, Form, Order, write_key},
    scene::Scene,
    site::Plan,
};
use http::{HeaderMap, HeaderName, HeaderValue};

const PATH: &str = "/sealed/x";

fn plan(scene: &Scene, keys: &str) -> Plan {
    let mut plan = scene.plan();
    plan.routes += "[[route]]\npath = \"/sealed/\"\nupstream = \"api\"\npublic = true\npayload = \"app\"\n";
    plan.more += &format!("[payload.app]\nformats = [\"jwe\", \"layout\"]\nkeys = [{keys}]\n");
    plan
}

/// What a request to `server` comes to: its status, and what was in the answer.
fn ask(scene: &Scene, server: &Public, form: Form) -> Result<(u16, String)> {
    let sent = App::new(server).seal(&Order::post(form, PATH, b"{\"amount\":100}"))?;
    let file = scene.site.dir.join("body");
    fs::write(&file, &sent.body)?;
    let mut words = vec!["-X".to_owned(), "POST".to_owned(), "--data-binary".to_owned()];
    words.push(format!("@{}", file.display()));
    for (name, value) in &sent.headers {
        words.extend(["-H".to_owned(), format!("{name}: {value}")]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let answer: Answer = scene.get(source_v4(1), PATH).more(&words).send()?;
    if answer.status != 200 {
        return Ok((answer.status, answer.code()));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers.iter().filter_map(|line| line.split_once(':')) {
        headers.insert(name.parse::<HeaderName>()?, HeaderValue::from_str(value.trim())?);
    }
    let answered = sent.read(answer.status, &headers, answer.body.as_bytes())?;
    Ok((answered.status, String::from_utf8(answered.body)?))
}

/// Ids of the keys that are published.
fn published(scene: &Scene) -> Result<Vec<String>> {
    let answer = scene.get(source_v4(1), "/.well-known/enforcer/payload-keys").send()?;
    let set: serde_json::Value = serde_json::from_str(&answer.body).context(answer.body)?;
    let keys = set["keys"].as_array().context("no keys")?;
    Ok(keys.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect())
}

fn count(daemon: &Daemon<'_>, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
    Ok(daemon.scrape()?.sum(name, labels))
}

#[test]
fn keys_change_under_a_running_daemon() -> Result<()> {
    let scene = Scene::new()?;
    let file = |name: &str| scene.site.dir.join(name);
    let first = write_key(&file("payload.pem"), Curve::P256)?;
    let entry = |name: &str, more: &str| format!("{{ file = \"{}\"{more} }}, ", file(name).display());
    let daemon = scene.daemon(&plan(&scene, &entry("payload.pem", "")))?;
    assert_eq!(published(&scene)?, [first.thumbprint()]);
    let good = |server: &Public| -> Result<()> {
        for form in [Form::Jwe(Alg::Direct), Form::Jwe(Alg::Wrapped), Form::Layout] {
            let (status, said) = ask(&scene, server, form)?;
            assert!(status == 200 && said.contains(PATH), "{form:?}: {status} {said}\n{}", daemon.log());
        }
        Ok(())
    };
    let refused = (400, "payload_refused".to_owned());
    good(&first)?;
    // The file is replaced, and taken over by itself; then it is bad, and what was read before stays.
    let second = write_key(&file("payload.pem"), Curve::P256)?;
    eventually!(20, "the new key", published(&scene)? == [second.thumbprint()])?;
    good(&second)?;
    assert_eq!(ask(&scene, &first, Form::Layout)?, refused);
    assert_eq!(count(&daemon, "enforcer_payloads_refused_total", &[("cause", "unknown_key")])?, 1);
    fs::write(file("payload.pem"), "no key")?;
    eventually!(20, "the bad file to be noticed", count(&daemon, "enforcer_files_refused", &[])? == 1)?;
    good(&second)?;
    assert_eq!(published(&scene)?, [second.thumbprint()]);
    // A rotation by configuration: what was there gets an end.
    let old = write_key(&file("payload.pem"), Curve::P256)?;
    let next = write_key(&file("next.pem"), Curve::P256)?;
    let keys = |until: &str| entry("next.pem", "") + &entry("payload.pem", &format!(", until = \"{until}\""));
    scene.site.write(&plan(&scene, &keys("2100-01-01")))?;
    daemon.say(&["reload"])?;
    assert_eq!(published(&scene)?, [next.thumbprint(), old.thumbprint()]);
    good(&next)?;
    good(&old)?;
    scene.site.write(&plan(&scene, &keys("2026-01-01")))?;
    daemon.say(&["reload"])?;
    assert_eq!(published(&scene)?, [next.thumbprint()]);
    good(&next)?;
    assert_eq!(ask(&scene, &old, Form::Jwe(Alg::Direct))?, refused);
    // Two of a curve without an end are refused, and say why.
    scene.site.write(&plan(&scene, &(entry("next.pem", "") + &entry("payload.pem", ""))))?;
    let error = daemon.say(&["reload"]).err().context("it was accepted")?;
    assert!(format!("{error:#}").contains("give it `until`"), "{error:#}");
    good(&next)?;
    assert!(daemon.log().contains("payload refused"), "{}", daemon.log());
    Ok(())
}
