//! What scanners for TLS find: sslscan and testssl.sh against the real daemon with XDP in front. The list of what may be negotiated
//! is asserted whole; of findings with a severity only those about the test's own certificate are expected. `cargo xtask setup` installs both.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result};
use enforcer_tests::{clients::HOST, netns::SERVER_V4, process, scene::Scene, site::Plan};
use serde_json::Value;

/// testssl.sh takes a minute or two.
const PATIENCE: Duration = Duration::from_secs(900);

/// Scans end in failed handshakes by the dozen, which are offences.
fn plan(scene: &Scene) -> Plan {
    let mut plan = scene.plan();
    plan.more += "[bans]\ndry_run = true\n";
    plan
}

/// The values of an attribute in the elements of a name, where another attribute has a value.
fn values(document: &str, element: &str, wanted: (&str, &str), name: &str) -> BTreeSet<String> {
    let attribute = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let elements = document.lines().map(str::trim).filter(|line| line.starts_with(&format!("<{element} ")));
    elements
        .filter(|line| wanted.0.is_empty() || attribute(line, wanted.0).as_deref() == Some(wanted.1))
        .filter_map(|line| attribute(line, name))
        .collect()
}

#[test]
fn sslscan_finds_what_is_configured_and_nothing_else() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let daemon = scene.daemon(&plan(&scene))?;
    let report = scene.site.dir.join("sslscan.xml");
    let mut command = scene.lab.client.command("sslscan");
    command.arg("--no-colour").arg(format!("--xml={}", report.display()));
    command.args([&format!("--sni-name={HOST}"), &format!("{SERVER_V4}:443")]);
    process::run(&mut command, PATIENCE)?.success("sslscan")?;
    let document = fs::read_to_string(report)?;
    let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(
        values(&document, "protocol", ("enabled", "1"), "version"),
        set(&["1.2", "1.3"]),
        "{document}"
    );
    assert_eq!(values(&document, "protocol", ("enabled", "0"), "version"), set(&["2", "3", "1.0", "1.1"]));
    let suites = set(&[
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ]);
    assert_eq!(values(&document, "cipher", ("", ""), "cipher"), suites);
    assert_eq!(values(&document, "group", ("", ""), "name"), set(&["secp256r1 (NIST P-256)", "x25519"]));
    assert_eq!(values(&document, "heartbleed", ("", ""), "vulnerable"), set(&["0"]));
    assert_eq!(values(&document, "renegotiation", ("", ""), "supported"), set(&["0"]));
    assert!(daemon.scrape()?.packets("tls_version") > 0, "old versions end in the kernel");
    Ok(())
}

#[test]
fn testssl_has_no_finding_but_about_the_test_certificate() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let _daemon = scene.daemon(&plan(&scene))?;
    let report = scene.site.dir.join("testssl.json");
    let mut command = scene.lab.client.command("testssl");
    command.args(["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--add-ca"]);
    command.arg(scene.site.ca()).arg("--jsonfile").arg(&report);
    command.args(["--ip", &SERVER_V4.to_string(), &format!("{HOST}:443")]);
    // Its exit code counts findings.
    let done = process::run(&mut command, PATIENCE)?;
    let text = fs::read_to_string(report).with_context(|| format!("no report: {done:?}"))?;
    let findings: Vec<Value> = serde_json::from_str(&text).context("its report")?;
    let field = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let mut of_weight: BTreeSet<String> = findings
        .iter()
        .filter(|finding| !matches!(field(finding, "severity").as_str(), "OK" | "INFO"))
        .map(|finding| format!("{} {}", field(finding, "id"), field(finding, "severity")))
        .collect();
    // The scanner's own way to resume hangs up before a ticket of TLS 1.3 can arrive, and then at times says that it could not connect.
    of_weight.remove("sessionresumption_ticket WARN");
    // The certificate of the test counts serial numbers up, lives for centuries, and names nobody who could revoke it.
    let of_certificate = ["cert_serialNumberLen LOW", "cert_validityPeriod HIGH", "cert_revocation HIGH"];
    let expected: BTreeSet<String> = of_certificate.map(str::to_owned).into();
    assert_eq!(of_weight, expected, "{}", done.stdout);
    // And it has looked.
    for (id, expected) in [
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered with final"),
        ("heartbleed", "not vulnerable"),
        ("ROBOT", "not vulnerable"),
        ("secure_client_renego", "not vulnerable"),
        ("CRIME_TLS", "not vulnerable"),
        ("HSTS_time", "365 days"),
    ] {
        let found = findings.iter().find(|finding| field(finding, "id") == id);
        let found = found.with_context(|| format!("nothing about {id}\n{}", done.stdout))?;
        let said = field(found, "finding");
        assert!(said.contains(expected), "{id}: {said}");
    }
    Ok(())
}
