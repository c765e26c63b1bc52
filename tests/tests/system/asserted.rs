//! Assertions of requests and the real daemon: what was used is not taken again, however the daemon ends.

use anyhow::{Context as _, Result};
use enforcer::clock;
use enforcer_tests::{eventually, place::Place};
use nix::sys::signal::Signal;
use serde_json::json;

/// Nobody listens there: what was let through is answered with 502.
const CONFIG: &str = r#"
[kernel]
mode = "off"
pin_directory = "/nowhere"

[bans]
store = "bans.redb"
threshold = 1000000

[[listener]]
address = "127.0.0.1:0"
certificates = [{ chain = "api.pem", key = "api.key" }]

[metrics]
address = "127.0.0.1:0"

[control]
socket = "control.sock"

[upstream.api]
servers = ["http://127.0.0.1:9"]

[attestation]
session_keys = "sessions.key"

[attestation.app_attest]
apps = ["ABCDE12345.com.example.app"]
root = "apple.pem"

[[route]]
path = "/timed/"
upstream = "api"
public = true
attestation = { assertion = "time" }

[[route]]
path = "/orders/"
upstream = "api"
public = true
attestation = { assertion = "challenge", group = "orders" }
"#;

#[tokio::test]
async fn an_assertion_is_good_once_when_the_daemon_is_killed_too() -> Result<()> {
    let mut place = Place::new(CONFIG)?;
    let mut daemon = place.start()?;
    let mut client = place.client().await?;
    place.enrol(&mut client).await?;
    let mut used = Vec::new();
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        let challenge =
            place.challenge(&mut client, &json!({"purpose": "request", "group": "orders"})).await?;
        let over = place.signed("/orders/new", "enforcer-challenge", &challenge)?;
        assert_eq!(
            place.code(&mut client, "/orders/new", &over).await?,
            "upstream_unreachable",
            "let through"
        );
        // Too soon after a start a time is not taken, whatever it says; a challenge of its group always is.
        let now = clock::unix_now().to_string();
        let timed = place.signed("/timed/x", "enforcer-time", &now)?;
        let code = place.code(&mut client, "/timed/x", &timed).await?;
        assert_eq!(code, "assertion_stale", "within seconds of the start");
        let challenge =
            place.challenge(&mut client, &json!({"purpose": "request", "group": "/timed/"})).await?;
        let own = place.signed("/timed/x", "enforcer-challenge", &challenge)?;
        assert_eq!(place.code(&mut client, "/timed/x", &own).await?, "upstream_unreachable");
        used.extend([("/orders/new", over), ("/timed/x", own)]);
        // No last word: what was used a moment ago may not be written down.
        daemon.end(signal)?;
        daemon = place.start()?;
        client = place.client().await?;
        for (path, headers) in &used {
            let code = place.code(&mut client, path, headers).await?;
            assert_eq!(code, "attestation_nonce_unknown", "{signal} {path}");
        }
        let code = place.code(&mut client, "/timed/x", &timed).await?;
        assert_eq!(code, "assertion_stale", "{signal}");
    }
    Ok(())
}

#[tokio::test]
async fn counters_are_written_down_soon_and_a_time_is_taken_of_this_process_alone() -> Result<()> {
    let mut place = Place::new(CONFIG)?;
    let daemon = place.start()?;
    let mut client = place.client().await?;
    place.enrol(&mut client).await?;
    // Until the clock is past what the process before may have taken.
    let mut used = None;
    for _ in 0..2_000 {
        let headers = place.signed("/timed/x", "enforcer-time", &clock::unix_now().to_string())?;
        if place.code(&mut client, "/timed/x", &headers).await? == "upstream_unreachable" {
            used = Some(headers);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let used = used.context("no time was ever taken")?;
    assert_eq!(place.code(&mut client, "/timed/x", &used).await?, "assertion_counter_replayed");
    let last = u64::from(place.phone.counter);
    assert_eq!(place.counter()?, last);
    let metrics = place.ask(&["status"])?["metrics"].as_str().context("no metrics")?.to_owned();
    eventually!(30, "the counter is in the file", scraped(&metrics, "enforcer_device_store_pending")? < 1.0)?;
    daemon.end(Signal::SIGKILL)?;
    let _daemon = place.start()?;
    let mut client = place.client().await?;
    assert_eq!(place.counter()?, last, "a crash has lost nothing that was written");
    assert_eq!(place.code(&mut client, "/timed/x", &used).await?, "assertion_stale");
    Ok(())
}

/// A number of the metrics at an address.
fn scraped(address: &str, name: &str) -> Result<f64> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
}
