//! `enforcer attestation verify`: the steps that it shows are those of the verification, and so is where they end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::fs;

use anyhow::Result;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use clap::Parser as _;
use enforcer::{
    attestation::app_attest::Environment,
    cli::{
        args::{Args, AttestationVerb, AttestationVerify, Verb},
        attestation::{self, Report},
        exit,
        local::Program,
    },
    daemon,
    policy::{jwks, tls},
};
use enforcer_tests::attestation::{
    apple::{Apple, Phone, ReceiptDraft, sha256},
    der,
};

const NOW: u64 = 1_800_000_000;
const APP: &str = "A1B2C3D4E5.com.example.app";

fn parse(words: &[&str]) -> Result<AttestationVerify, clap::Error> {
    let line = ["enforcer", "attestation", "verify"].into_iter().chain(words.iter().copied());
    let Verb::Attestation(AttestationVerb::Verify(verb)) = Args::try_parse_from(line)?.verb else {
        panic!("something else")
    };
    Ok(verb)
}

/// A folder with the roots in it, an Apple, a phone.
struct Desk {
    folder: tempfile::TempDir,
    apple: Apple,
    phone: Phone,
}

impl Desk {
    fn new() -> Result<Self> {
        let (folder, apple) = (tempfile::tempdir()?, Apple::new(NOW)?);
        fs::write(folder.path().join("root.pem"), apple.root_pem())?;
        fs::write(folder.path().join("receipts.pem"), apple.receipt_root_pem())?;
        Ok(Self { folder, phone: Phone::new(APP, Environment::Production)?, apple })
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// What becomes of an object, with these words behind it.
    fn judge(&self, kind: &str, object: &[u8], words: &[&str]) -> Result<Report> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (root, receipts, at) = (path("root.pem"), path("receipts.pem"), NOW.to_string());
        let known = match kind {
            "app-attest" => vec!["--root", &root, "--receipt-root", &receipts, "--at", &at],
            "receipt" => vec!["--receipt-root", &receipts, "--at", &at],
            _ => Vec::new(),
        };
        let words = [&[kind, "-", "--app-id", APP], words, &known[..]].concat();
        daemon::attestation(&parse(&words)?, object)
    }
}

fn names(report: &Report) -> Vec<&str> {
    report.steps.iter().map(|step| step.name).collect()
}

fn code(report: &Report) -> Option<&str> {
    report.refused.as_ref().map(|refused| refused.code)
}

#[test]
fn each_step_is_shown_up_to_where_it_ends() -> Result<()> {
    let desk = Desk::new()?;
    let object = desk.phone.attest(&desk.apple, &sha256(b"a challenge"))?;
    let good = desk.judge("app-attest", &object, &["--challenge", "a challenge"])?;
    assert_eq!(code(&good), None, "{good:?}");
    assert_eq!(names(&good)[..3], ["form", "chain", "nonce"]);
    let key = good.steps.iter().find(|step| step.name == "public key").unwrap().found.clone();
    assert_eq!(key, STANDARD.encode(desk.phone.point()));

    // However challenge and object are written.
    let hash = sha256(b"a challenge");
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    for words in [
        ["--challenge-base64", &STANDARD.encode("a challenge")],
        ["--client-data-hash", &STANDARD.encode(hash)],
        ["--client-data-hash", &URL_SAFE_NO_PAD.encode(hash)],
        ["--client-data-hash", &hex],
    ] {
        assert_eq!(code(&desk.judge("app-attest", &object, &words)?), None, "{words:?}");
    }
    let text = format!("{}\n", STANDARD.encode(&object));
    assert_eq!(code(&desk.judge("app-attest", text.as_bytes(), &["--challenge", "a challenge"])?), None);

    for (name, words, expected, steps) in [
        ("another challenge", &["--challenge", "another"][..], "attestation_nonce", 2),
        ("another key id", &["--challenge", "a challenge", "--key-id", "AAAA"], "attestation_key", 3),
        (
            "development",
            &["--challenge", "a challenge", "--environment", "development"],
            "attestation_environment",
            6,
        ),
        ("a category", &["--challenge", "a challenge", "--require-category"], "app_distribution", 7),
    ] {
        let report = desk.judge("app-attest", &object, words)?;
        assert_eq!((code(&report), report.steps.len()), (Some(expected), steps), "{name}: {report:?}");
    }
    let apples = daemon::attestation(
        &parse(&["app-attest", "-", "--app-id", APP, "--challenge", "a challenge", "--at", "1800000000"])?,
        &object,
    )?;
    assert_eq!(code(&apples), Some("attestation_chain"), "Apple's own roots are the default");
    Ok(())
}

#[test]
fn an_assertion_is_judged_by_the_key_that_was_shown() -> Result<()> {
    let mut desk = Desk::new()?;
    let object = desk.phone.assert(&sha256(b"client data"))?;
    let point = STANDARD.encode(desk.phone.point());
    let pem = desk.file("key.pem", der::pem("PUBLIC KEY", &desk.phone.key.info()).as_bytes());
    let raw = desk.file("key", &desk.phone.point());
    for key in [&point, &pem, &raw] {
        let report = desk.judge("assertion", &object, &["--client-data", "client data", "--key", key])?;
        assert_eq!((code(&report), report.steps.len()), (None, 5), "{key}");
    }
    let words = ["--client-data", "client data", "--key", &point, "--counter", "1"];
    assert_eq!(code(&desk.judge("assertion", &object, &words)?), Some("assertion_counter_replayed"));
    let words = ["--client-data", "other data", "--key", &point];
    assert_eq!(code(&desk.judge("assertion", &object, &words)?), Some("assertion_bad_signature"));
    assert!(desk.judge("assertion", &object, &["--client-data", "client data", "--key", "AAAA"]).is_err());
    Ok(())
}

#[test]
fn a_receipt_is_judged_alone() -> Result<()> {
    let desk = Desk::new()?;
    let receipt =
        ReceiptDraft::new(&desk.phone, &desk.apple, b"").exchanged("2", &desk.apple).sign(&desk.apple)?;
    let point = STANDARD.encode(desk.phone.point());
    let report = desk.judge("receipt", &receipt, &["--key", &point])?;
    assert_eq!((code(&report), names(&report)), (None, vec!["receipt", "exchange"]));
    assert!(report.steps[0].found.contains("risk metric 2"), "{report:?}");
    let other = STANDARD.encode(Phone::new(APP, Environment::Production)?.point());
    assert_eq!(code(&desk.judge("receipt", &receipt, &["--key", &other])?), Some("attestation_receipt"));
    Ok(())
}

#[test]
fn the_exit_code_says_what_became_of_it() -> Result<()> {
    let desk = Desk::new()?;
    let program = Program {
        run: daemon::run,
        verify: daemon::verify,
        key_set: jwks::problems,
        tls_file: tls::problem,
        token: daemon::token,
        pins: daemon::pins,
        attestation: daemon::attestation,
    };
    let object = desk.file("object", &desk.phone.attest(&desk.apple, &sha256(b"a challenge"))?);
    let root = desk.folder.path().join("root.pem").display().to_string();
    let words = |object: &str, challenge: &str, root: &str| {
        let words = [
            "app-attest",
            object,
            "--app-id",
            APP,
            "--challenge",
            challenge,
            "--without-receipt",
            "--at",
            "1800000000",
            "--root",
            root,
        ];
        parse(&words).unwrap()
    };
    for (verb, expected) in [
        (words(&object, "a challenge", &root), exit::OK),
        (words(&object, "another", &root), exit::FAILED),
        (words("no/such/file", "a challenge", &root), exit::FAILED),
        (words(&object, "a challenge", "no/such/root"), exit::USAGE),
    ] {
        assert_eq!(attestation::verify(&program, &verb, true), expected, "{verb:?}");
    }
    Ok(())
}

#[test]
fn nonsense_is_a_usage_error() {
    for words in [
        &["app-attest", "-"][..],
        &["app-attest", "-", "--app-id", APP],
        &["app-attest", "-", "--challenge", "x"],
        &["app-attest", "-", "--app-id", "com.example.app", "--challenge", "x"],
        &["app-attest", "-", "--app-id", APP, "--challenge", "x", "--client-data-hash", "x"],
        &["app-attest", "-", "--app-id", APP, "--challenge", "x", "--environment", "sandbox"],
        &["app-attest", "-", "--app-id", APP, "--challenge", "x", "--category", "shop"],
        &["assertion", "-", "--app-id", APP, "--client-data", "x"],
        &["assertion", "-", "--app-id", APP, "--key", "x"],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
}
