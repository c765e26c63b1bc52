//! Requests that are signed by `openssl`: a signature is good once, also when the daemon is killed and when it starts anew.

use std::process::Command;

use nix::sys::signal::Signal;

use super::{CONFIG, Site};

/// Nobody listens there: what was let through is answered with 502.
const MORE: &str = r#"
[upstream.api]
servers = ["http://127.0.0.1:9"]

[signature.app]
scheme = "hmac-sha256"
keys = { app-1 = "app-1.key" }

[[route]]
path = "/orders/"
upstream = "api"
public = true
signature = "app"
"#;

fn shell(site: &Site, script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).current_dir(site.path("")).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A signed order as words for curl.
fn sign(site: &Site, nonce: &str) -> String {
    shell(
        site,
        &format!(
            "printf '{{\"n\":1}}' > body; at=$(date +%s); digest=$(openssl dgst -sha256 -r body | cut -c1-64); \
             key=$(openssl base64 -d -A -in app-1.key | od -An -v -tx1 | tr -d ' \\n'); \
             mac=$(printf 'POST\\n/orders/new\\na=1\\n%s\\n{nonce}\\n%s' $at $digest | \
             openssl dgst -sha256 -mac HMAC -macopt hexkey:$key -r | cut -c1-64); \
             echo \"-H X-Signature-Key:app-1 -H X-Signature-Timestamp:$at -H X-Signature-Nonce:{nonce} \
             -H X-Signature-Digest:$digest -H X-Signature:$mac\""
        ),
    )
}

/// The code of the answer.
fn send(site: &Site, words: &str) -> String {
    let status = site.json("status");
    let address = status["listeners"][0].as_str().unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    let answer = shell(
        site,
        &format!(
            "curl -q -s -k --max-time 20 --noproxy '*' --resolve localhost:{port}:127.0.0.1 --data-binary @body {words} \
             'https://localhost:{port}/orders/new?a=1'"
        ),
    );
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    answer["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_signature_is_good_once_when_the_daemon_is_killed_too() {
    let site = Site::new();
    shell(&site, "openssl rand -base64 48 > app-1.key; chmod 600 app-1.key");
    site.write("enforcer.toml", &format!("{CONFIG}{MORE}"));
    let mut daemon = site.start();
    let mut used = Vec::new();
    for killed in [true, false, true] {
        let words = sign(&site, &format!("nonce-nonce-nonce-{}", used.len()));
        assert_eq!(send(&site, &words), "upstream_unreachable", "let through");
        used.push(words);
        if killed {
            // Without a last word.
            drop(daemon);
        } else {
            daemon.signal(Signal::SIGTERM);
            assert_eq!(daemon.exit(), 0);
        }
        daemon = site.start();
        for words in &used {
            assert_eq!(send(&site, words), "signature_replayed", "killed: {killed}");
        }
    }
    assert!(site.path("replay.redb").is_file(), "beside the store of bans");
    assert!(site.get("/metrics").contains("enforcer_replay_store_errors_total 0"));
}
