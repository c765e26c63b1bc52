//! `enforcer attestation verify play` and `android-key`: the steps that they show are those of requests, and so is where they end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, path::Path};

use anyhow::Result;
use clap::Parser as _;
use enforcer::{
    cli::{
        args::{Args, AttestationVerb, Verb},
        attestation::Report,
    },
    daemon,
};
use enforcer_tests::attestation::google::{
    Bound, CERTIFICATE, Google, PACKAGE, STEPS,
    device::{Device, Key},
    encode, verdict,
};
use serde_json::json;

/// In seconds since 1970.
const NOW: u64 = 1_764_547_200;
const NONCE: &str = "c2VydmVyLWlzc3VlZC1ub25jZS0wMDAx";

fn run(kind: &str, options: &[&str], object: &[u8]) -> Result<Report> {
    let (at, certificate) = (format!("--at={NOW}"), encode(&CERTIFICATE));
    let line = [
        "enforcer",
        "attestation",
        "verify",
        kind,
        "-",
        "--package",
        PACKAGE,
        "--certificate",
        &certificate,
        &at,
    ];
    let line = line.into_iter().chain(options.iter().copied());
    let Verb::Attestation(AttestationVerb::Verify(verb)) = Args::try_parse_from(line)?.verb else {
        panic!("something else")
    };
    daemon::attestation(&verb, object)
}

fn code(report: &Report) -> &'static str {
    report.refused.as_ref().map_or("good", |refused| refused.code)
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn tokens_and_verdicts_of_play_are_shown_step_by_step() -> Result<()> {
    let (folder, google) = (tempfile::tempdir()?, Google::new()?);
    let keys = written(folder.path(), "keys.toml", &google.keys_toml());
    let good = verdict(Bound::Nonce(NONCE), NOW * 1_000);
    let token = google.classic(&good)?;
    let with_keys = ["--nonce", NONCE, "--keys", &keys];
    let report = run("play", &with_keys, token.as_bytes())?;
    assert_eq!(code(&report), "good");
    let names: Vec<&str> = report.steps.iter().map(|step| step.name).collect();
    let order = [&STEPS[..], &["facts"]].concat();
    assert_eq!(names, order);
    assert!(report.steps.last().unwrap().found.contains(r#""level":"strong""#));
    for (options, expected) in [
        (vec!["--label=strong"], "good"),
        (vec!["--label=virtual"], "device_integrity_failed"),
        (vec!["--label=none"], "good"),
        (vec!["--min-version=43"], "app_outdated"),
        (vec!["--at=1764548101"], "attestation_outdated"),
        (vec!["--at=1764548101", "--max-age=20m"], "good"),
        (
            vec![
                "--max-activity=1",
                "--refuse-play-protect=HIGH_RISK",
                "--refuse-access=UNKNOWN_CONTROLLING",
            ],
            "good",
        ),
        (vec!["--refuse-access=KNOWN_INSTALLED"], "device_risk"),
    ] {
        let mut line: Vec<&str> = with_keys.to_vec();
        line.extend(&options);
        // The last of two times counts nowhere: the one above is left out.
        let report = if options[0].starts_with("--at") {
            later("play", &line, token.as_bytes())
        } else {
            run("play", &line, token.as_bytes())
        };
        assert_eq!(code(&report?), expected, "{options:?}");
    }
    assert_eq!(
        code(&run("play", &["--nonce", "x", "--keys", &keys], token.as_bytes())?),
        "attestation_nonce"
    );
    let stranger = Google::new()?.classic(&good)?;
    assert_eq!(code(&run("play", &with_keys, stranger.as_bytes())?), "attestation_malformed");
    assert!(run("play", &["--nonce", NONCE], token.as_bytes()).is_err(), "no keys");
    // What Google answers, with and without what is around it.
    for text in [good.to_string(), json!({"tokenPayloadExternal": good}).to_string()] {
        let report = run("play", &["--nonce", NONCE], text.as_bytes())?;
        assert_eq!((code(&report), report.steps[0].name), ("good", "verdict"));
    }
    assert_eq!(
        code(&run("play", &["--request-hash", NONCE], good.to_string().as_bytes())?),
        "attestation_nonce"
    );
    assert!(run("play", &[], token.as_bytes()).is_err(), "bound to nothing");
    Ok(())
}

/// As [`run`], with a time among the options.
fn later(kind: &str, options: &[&str], object: &[u8]) -> Result<Report> {
    let certificate = encode(&CERTIFICATE);
    let line =
        ["enforcer", "attestation", "verify", kind, "-", "--package", PACKAGE, "--certificate", &certificate];
    let line = line.into_iter().chain(options.iter().copied());
    let Verb::Attestation(AttestationVerb::Verify(verb)) = Args::try_parse_from(line)?.verb else {
        panic!("something else")
    };
    daemon::attestation(&verb, object)
}

#[test]
fn chains_of_android_are_shown_step_by_step() -> Result<()> {
    let (folder, device) = (tempfile::tempdir()?, Device::new(true)?);
    let root = written(folder.path(), "root.pem", &device.root.pem);
    let chain = device.attest(&Key::new(b"challenge"))?;
    let lines: String = chain.iter().map(|certificate| encode(certificate) + "\n").collect();
    let own = ["--challenge=challenge", "--root", &root];
    let report = run("android-key", &own, lines.as_bytes())?;
    assert_eq!(code(&report), "good", "{report:?}");
    let names: Vec<&str> = report.steps.iter().map(|step| step.name).collect();
    let order = [
        "form",
        "chain",
        "revocation",
        "description",
        "challenge",
        "device",
        "patches",
        "key",
        "app",
        "facts",
        "public key",
    ];
    assert_eq!(names, order);
    let list =
        json!({"entries": {device.own.serial.clone(): {"status": "REVOKED", "reason": "KEY_COMPROMISE"}}});
    let list = written(folder.path(), "status.json", &list.to_string());
    for (options, expected) in [
        (vec!["--security=strong_box"], "device_integrity_failed"),
        (vec!["--min-patch=202512"], "device_outdated"),
        (vec!["--revocations", &list], "attestation_revoked"),
    ] {
        let line: Vec<&str> = own.iter().chain(&options).copied().collect();
        assert_eq!(code(&run("android-key", &line, lines.as_bytes())?), expected, "{options:?}");
    }
    // Not Google's; not for this challenge; neither PEM nor base64; a list that is none.
    assert_eq!(code(&run("android-key", &["--challenge=challenge"], lines.as_bytes())?), "attestation_chain");
    assert_eq!(
        code(&run("android-key", &["--challenge-base64=eA", "--root", &root], lines.as_bytes())?),
        "attestation_nonce"
    );
    assert!(run("android-key", &own, b"\xff\xfe").is_err());
    assert!(run("android-key", &[&own[..], &["--revocations", &root]].concat(), lines.as_bytes()).is_err());
    Ok(())
}
