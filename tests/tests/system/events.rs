//! From a refused client to the reason: samples of what was refused, as lines, as JSON, and as a capture that is judged
//! again; and what is only rehearsed.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use enforcer_tests::{
    clients::{self, HOST, Handshake},
    daemon::Daemon,
    netns::{WIRE, source_v4, source_v6},
    pcapng, poll, process,
    scene::Scene,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client whose hello was dropped goes on waiting for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// Runs `enforcer events` with these words, and lets clients of TLS 1.0 come until it has seen enough.
fn watch(scene: &Scene, daemon: &Daemon<'_>, source: IpAddr, words: &[&str]) -> Result<process::Finished> {
    let mut watching = process::start(&mut daemon.command(words))?;
    poll::until("a sample of a refused hello", PATIENCE, || {
        let client = clients::openssl_start(&scene.lab.client, source, "-tls1")?;
        client.finish(SILENCE)?;
        Ok(watching.has_ended()?.then_some(()))
    })?;
    watching.finish(PATIENCE)
}

#[test]
fn a_refused_hello_is_shown_with_the_name_and_the_version_that_it_asks_for() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    for source in [IpAddr::from(source_v4(1)), source_v6(1).into()] {
        let from = source.to_string();
        let words = ["--json", "events", "--count", "1", "--reason", "tls_version", "--source", &from];
        let seen = watch(&scene, &daemon, source, &words)?.success("events")?;
        let row: Value = serde_json::from_str(&seen).with_context(|| seen.clone())?;
        assert_eq!(row["reason"], "tls_version", "{seen}");
        assert_eq!((&row["source"], &row["port"]), (&Value::from(from), &Value::from(443)), "{seen}");
        assert_eq!(row["interface"], WIRE, "{seen}");
        assert_eq!(row["hello"]["server_name"], HOST, "{seen}");
        assert_eq!(row["hello"]["versions"], serde_json::json!(["TLS 1.0"]), "{seen}");
        assert_eq!(row["captured"], row["length"], "a hello is sampled as a whole: {seen}");
    }
    // What is left of the connections before is refused as well.
    let words = ["events", "-n", "1", "--reason", "tls_version"];
    let shown = watch(&scene, &daemon, source_v4(1).into(), &words)?.success("events")?;
    let lines: Vec<&str> = shown.lines().collect();
    let [heading, line] = lines[..] else { panic!("{shown}") };
    assert_eq!(heading.find("VERDICT"), line.find("drop"), "{shown}");
    assert!(line.contains(&format!("hello TLS 1.0 for {HOST}")), "{shown}");
    assert!(daemon.scrape()?.sum("enforcer_kernel_events_total", &[("result", "sampled")]) >= 3);
    Ok(())
}

#[test]
fn a_capture_of_what_was_refused_is_judged_again_for_the_same_reason() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let path = scene.site.dir.join("refused.pcapng");
    let file = path.display().to_string();
    let words = ["events", "--count", "2", "--reason", "tls_version", "--pcap", &file];
    watch(&scene, &daemon, source_v4(1).into(), &words)?.success("events --pcap")?;

    let contents = pcapng::read(&fs::read(&path)?)?;
    assert_eq!(contents.interfaces, [(WIRE.to_owned(), 9)]);
    let comments: Vec<&str> = contents.packets.iter().map(|packet| packet.comment.as_str()).collect();
    assert_eq!(comments, ["enforcer: drop tls_version"; 2]);

    let config = scene.site.config().display().to_string();
    let mut command = daemon.command(&["--json", "explain", "--pcap", &file, "--config", &config]);
    let said = process::run(&mut command, PATIENCE)?.success("explain")?;
    let rows: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let [first, second, summary] = &rows[..] else { panic!("{said}") };
    for row in [first, second] {
        assert_eq!((&row["verdict"], &row["reason"]), (&"drop".into(), &"tls_version".into()), "{said}");
        assert_eq!(row["rule"], "kernel.minimum_tls is \"1.2\"", "{said}");
        assert_eq!(row["hello"]["server_name"], HOST, "{said}");
    }
    assert_eq!(summary["summary"][0]["packets"], 2, "{said}");
    Ok(())
}

/// A ban that is rehearsed stops nobody and is counted; what is not rehearsed holds all the same.
#[test]
fn what_is_rehearsed_passes_and_is_counted() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.kernel += "dry_run = [\"bans\"]\n";
    let daemon = scene.daemon(&plan)?;
    let source = IpAddr::from(source_v4(1));
    daemon.ask(&["ban", "add", &source.to_string()])?;

    let shake = clients::openssl(&scene.lab.client, source, "-tls1_3", PATIENCE)?;
    assert_eq!(shake, Handshake::Done("TLSv1.3".to_owned()));
    let scrape = daemon.scrape()?;
    let labels = [("reason", "banned"), ("interface", WIRE)];
    let spared = scrape.sum("enforcer_kernel_would_drop_packets_total", &labels);
    assert!(spared > 0, "{}", scrape.text);
    assert!(scrape.sum("enforcer_kernel_would_drop_bytes_total", &labels) > spared * 40);
    assert_eq!(scrape.packets("banned"), 0);

    let client = clients::openssl_start(&scene.lab.client, source, "-tls1")?;
    poll::until("a hello of TLS 1.0 that is dropped", PATIENCE, || {
        Ok((daemon.scrape()?.packets("tls_version") > 0).then_some(()))
    })?;
    assert_ne!(clients::read_handshake(&client.finish(SILENCE)?), Handshake::Done("TLSv1".to_owned()));

    let said = daemon.say(&["status"])?;
    assert!(said.contains("bans (kernel.dry_run: counted, NOT DROPPED)"), "{said}");
    assert!(said.contains("WOULD DROP"), "{said}");
    let why = daemon.ask(&["why", &source.to_string()])?;
    assert_eq!(why["explanation"]["verdict"], "pass", "{why}");
    assert_eq!(why["explanation"]["would_drop"], serde_json::json!(["banned"]), "{why}");

    // And in earnest, without a restart.
    scene.site.write(&scene.plan())?;
    daemon.ask(&["reload"])?;
    poll::until("the ban to hold", PATIENCE, || {
        clients::openssl_start(&scene.lab.client, source, "-tls1_3")?.finish(SILENCE)?;
        Ok((daemon.scrape()?.packets("banned") > 0).then_some(()))
    })
}
