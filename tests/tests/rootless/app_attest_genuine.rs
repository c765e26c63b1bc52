//! Objects that Apple signed for real devices are accepted, and only as they are.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and one that is left out says so"
)]

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer::{
    attestation::app_attest::{AppId, Distribution, Environment, assertion, attestation, chain::Roots},
    denial::Denial,
};
use enforcer_tests::attestation::{apple::sha256, der};
use serde_json::Value;

use super::app_attest::code;

/// Years after all of them.
const NOW: u64 = 1_800_000_000;

/// Genuine objects, where they are: signed by Apple's own keys.
pub(super) fn genuine() -> Option<Vec<Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/appattest");
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("SKIPPED: 0 genuine objects judged, no {}", folder.display());
        return None;
    };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let read = |path: std::path::PathBuf| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    let found: Vec<Value> =
        files.filter(|path| path.extension().is_some_and(|end| end == "json")).filter_map(read).collect();
    Some(found)
}

pub(super) fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()
}

/// Seconds since 1970 of a date like those in the vectors.
pub(super) fn seconds(date: &Value) -> Result<u64> {
    date.as_str().and_then(der::seconds).context("no date")
}

#[test]
fn all_genuine_objects_and_assertions_are_accepted() -> Result<()> {
    let Some(vectors) = genuine() else { return Ok(()) };
    let (mut objects, mut receipts, mut assertions) = (0, 0, 0);
    for vector in vectors.iter().filter(|vector| vector["attestation_b64"].is_string()) {
        let name = vector["name"].as_str().unwrap();
        let (object, hash) = (bytes(&vector["attestation_b64"]), bytes(&vector["client_data_hash_b64"]));
        let (app, key_id) =
            (vector["app_id"].as_str().unwrap().parse::<AppId>().unwrap(), bytes(&vector["key_id_b64"]));
        let environment = vector["environment"].as_str().unwrap().parse().unwrap();
        let now = seconds(&vector["verify_at"])?;
        let expected = attestation::Expected {
            apps: std::slice::from_ref(&app),
            environment,
            client_data_hash: &hash,
            key_id: Some(&key_id),
            distribution: &Distribution::default(),
            roots: Roots::app_attest(),
            receipts: Some(Roots::receipts()),
        };
        let judge = |expected: &attestation::Expected<'_>, object: &[u8], now| {
            attestation::verify(object, expected, now, &mut |_, _| ())
        };
        // Of one, the certificate that signed the receipt was changed where the object was published.
        let is_whole = vector["verified"]["receipt_root_sha256"].is_string();
        if !is_whole {
            assert_eq!(code(&judge(&expected, &object, now)), Some(Denial::AttestationReceipt), "{name}");
        }
        let expected = attestation::Expected { receipts: expected.receipts.filter(|_| is_whole), ..expected };
        let attested = judge(&expected, &object, now).with_context(|| name.to_owned())?;
        receipts += usize::from(attested.received.is_some());
        assert_eq!(attested.received.as_ref().and_then(|receipt| receipt.risk), None, "{name}");
        objects += 1;
        // And only as they are.
        let other = match environment {
            Environment::Production => Environment::Development,
            Environment::Development => Environment::Production,
        };
        let elsewhere = attestation::Expected { environment: other, ..expected };
        assert_eq!(code(&judge(&elsewhere, &object, now)), Some(Denial::AttestationEnvironment), "{name}");
        let hashed = sha256(&hash);
        let another = attestation::Expected { client_data_hash: &hashed, ..expected };
        assert_eq!(code(&judge(&another, &object, now)), Some(Denial::AttestationNonce), "{name}");
        assert_eq!(code(&judge(&expected, &object, NOW)), Some(Denial::AttestationExpired), "{name}");
        for at in (0..object.len()).step_by(97) {
            let mut changed = object.clone();
            changed[at] ^= 1;
            let Ok(outcome) = judge(&expected, &changed, now) else { continue };
            // A receipt has bytes that nobody signs, like the root's certificate, which is not the one that counts.
            let is_there = outcome.receipt != attested.receipt && outcome.received == attested.received;
            assert!(is_there, "{name}: accepted with a changed byte {at}");
        }
        for assertion in vector["assertions"].as_array().unwrap() {
            let hash = bytes(&assertion["client_data_hash_b64"]);
            let counter = assertion["counter"].as_u64().unwrap() as u32;
            let expected = assertion::Expected {
                app: &app,
                environment,
                public_key: &attested.public_key,
                counter: counter - 1,
                client_data_hash: &hash,
                distribution: &Distribution::default(),
            };
            let object = bytes(&assertion["assertion_b64"]);
            let judge =
                |expected: &assertion::Expected<'_>| assertion::verify(&object, expected, &mut |_, _| ());
            assert_eq!(judge(&expected).with_context(|| name.to_owned())?.counter, counter);
            let again = assertion::Expected { counter, ..expected };
            assert_eq!(code(&judge(&again)), Some(Denial::AssertionCounterReplayed), "{name}");
            assertions += 1;
        }
    }
    eprintln!(
        "{objects} genuine attestations, {receipts} with receipt, and {assertions} assertions accepted"
    );
    assert_eq!((objects, receipts, assertions), (20, 19, 10), "another edition of the vectors: count again");
    Ok(())
}
