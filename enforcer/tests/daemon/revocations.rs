//! What operators and an authorization server take back, asked of the real program, and after it was killed.

use std::io::{Read as _, Write as _};

use nix::sys::signal::Signal;

use super::{CONFIG, Site, eventually};

#[test]
fn revocations_are_made_found_kept_and_taken_back() {
    let site = Site::new();
    let secret = "a secret of this test alone";
    site.write("secret", secret);
    let revocation = "[revocation]\nclient_id = \"as\"\nsecret_file = \"secret\"\n";
    site.write("enforcer.toml", &format!("{CONFIG}\n{revocation}"));
    let daemon = site.start();
    let (code, said, _) = site.output("token revoke --sid session-1 --for 1h");
    assert!(code == 0 && said.starts_with("tokens of this sid are refused for "), "{said}");
    let (code, said, _) = site.output("token revoked --sid session-1");
    assert!(code == 0 && said.starts_with("revoked, "), "{said}");
    assert_eq!(site.output("token revoked --sid session-2").1, "not revoked\n");
    let (code, _, complaint) = site.output("token revoke");
    assert!(code == 2 && complaint.contains("--subject"), "{code} {complaint}");
    let (code, _, complaint) = site.output("token revoke --sid a --jti b");
    assert!(code == 2 && complaint.contains("cannot be used with"), "{complaint}");
    // RFC 7009, over the metrics listener.
    let metrics = site.json("status")["metrics"].as_str().unwrap().to_owned();
    let post = |credentials: &str| {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD.encode(credentials);
        let body = "token=opaque-1";
        let mut stream = std::net::TcpStream::connect(&metrics).unwrap();
        let head = format!(
            "POST /revoke HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {basic}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(post("as:another secret, also long"), "401");
    assert_eq!(site.output("token revoked --token opaque-1").1, "not revoked\n");
    assert_eq!(post(&format!("as:{secret}")), "200");
    assert!(site.output("token revoked --token opaque-1").1.starts_with("revoked, "));
    eventually("the changes to be written", || {
        site.output("metrics").1.contains("enforcer_revocation_store_pending 0")
    });
    assert!(site.output("metrics").1.contains("enforcer_revocations{origin=\"change\"} 2"));
    // Killed, not stopped.
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    let daemon = site.start();
    assert!(site.output("token revoked --sid session-1").1.starts_with("revoked, "));
    assert!(site.output("status").1.contains("2 of 1,000,000, 0 by file"));
    assert_eq!(site.output("token restore --sid session-1").0, 0);
    assert_eq!(site.output("token revoked --sid session-1").1, "not revoked\n");
    assert_eq!(site.output("token restore --sid session-1").0, 1);
    drop(daemon);
}

#[test]
fn what_a_file_revokes_is_in_force_while_another_file_is_bad() {
    let site = Site::new();
    site.write("enforcer.toml", &format!("{CONFIG}\n[revocation]\nfile = \"revoked.jsonl\"\n"));
    site.write("revoked.jsonl", "");
    let _daemon = site.start();
    let is_revoked = |jti: &str| site.output(&format!("token revoked --jti {jti}")).1.starts_with("revoked");
    let error = || site.json("status")["files"]["error"].as_str().unwrap_or_default().to_owned();
    // Both at once, and one after the other.
    site.write("revoked.jsonl", "{\"jti\": \"one\"}\n");
    site.write("cert.pem", "no certificate");
    eventually("one is revoked", || is_revoked("one"));
    eventually("the certificate is refused", || error().contains("cert.pem"));
    site.write("revoked.jsonl", "{\"jti\": \"one\"}\n{\"jti\": \"two\"}\n");
    eventually("two is revoked", || is_revoked("two"));
    assert!(error().contains("cert.pem holds no certificate"), "it is bad still: {}", error());
    // A bad list revokes what it revoked, and both are told of.
    site.write("revoked.jsonl", "{\"jti\": 3}\n");
    eventually("the list is refused", || error().contains("revoked.jsonl"));
    assert!(error().contains("cert.pem") && error().matches("revoked.jsonl").count() == 1, "{}", error());
    assert!(is_revoked("one") && is_revoked("two"));
}
