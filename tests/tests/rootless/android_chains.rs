//! Chains of Android Key Attestation: genuine ones, and everything that attackers change about them, under a root of the test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer::{
    attestation::android_key::{self, Rules, revocation::Revocations, roots::Roots},
    denial::Denial,
};
use enforcer_tests::attestation::google::device::{Device, Key, Making, Signer};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use super::android_key::{CHALLENGE, NOW, anything, code, rules, verify};

/// What it is called, the chain, and what becomes of it.
type Case = (&'static str, Vec<Vec<u8>>, &'static str);

/// Chains that are none: what becomes of each.
fn chain_cases(device: &Device) -> Result<Vec<Case>> {
    let described = Key::new(CHALLENGE).describe();
    let leaf = || Making::leaf(described.clone());
    let good = device.attest(&Key::new(CHALLENGE))?;
    let below = |signer: &Signer, making: &Making| signer.sign(making);
    let stranger = Device::new(true)?;
    // An app that owns an attested key signs another one with it.
    let owned = below(&device.own, &leaf())?;
    let forged = below(&owned, &leaf())?;
    let plain = below(&owned, &Making { descriptions: Vec::new(), ..leaf() })?;
    let twice =
        below(&device.own, &Making { descriptions: vec![described.clone(), described.clone()], ..leaf() })?;
    let bare = below(&device.own, &Making { descriptions: Vec::new(), ..leaf() })?;
    let old = |making: Making| -> Result<Vec<Vec<u8>>> {
        let own = below(&device.middle, &making)?;
        let leaf = below(&own, &leaf())?;
        Ok(vec![leaf.der, own.der, device.middle.der.clone(), device.root.der.clone()])
    };
    let through = |middle: Making, own: Making| -> Result<Vec<Vec<u8>>> {
        let middle = below(&device.root, &middle)?;
        let own = below(&middle, &own)?;
        let leaf = below(&own, &leaf())?;
        Ok(vec![leaf.der, own.der, middle.der, device.root.der.clone()])
    };
    let long = {
        let mut signers = vec![device.root.sign(&Making::authority("0"))?];
        for _ in 0..6 {
            signers.push(signers.last().unwrap().sign(&Making::authority("n"))?);
        }
        let leaf = signers.last().unwrap().sign(&leaf())?;
        let above = signers.iter().rev().map(|signer| signer.der.clone());
        std::iter::once(leaf.der).chain(above).chain([device.root.der.clone()]).collect::<Vec<_>>()
    };
    let mut changed = good.clone();
    let last = changed[0].len() - 1;
    changed[0][last] ^= 1;
    let authority = |name| Making::authority(name);
    Ok(vec![
        ("another root of the same name", stranger.attest(&Key::new(CHALLENGE))?, "attestation_chain"),
        (
            "another root with ours behind",
            [stranger.attest(&Key::new(CHALLENGE))?, vec![device.root.der.clone()]].concat(),
            "attestation_chain",
        ),
        ("signature changed", changed, "attestation_chain"),
        (
            "two certificates swapped",
            vec![good[0].clone(), good[2].clone(), good[1].clone(), good[3].clone()],
            "attestation_chain",
        ),
        ("one left out", vec![good[0].clone(), good[2].clone(), good[3].clone()], "attestation_chain"),
        ("the leaf alone", vec![good[0].clone()], "attestation_malformed"),
        ("nine certificates", long, "attestation_malformed"),
        ("no certificate", Vec::new(), "attestation_malformed"),
        (
            "a byte behind a certificate",
            vec![[&good[0][..], &[0]].concat(), good[1].clone(), good[2].clone(), good[3].clone()],
            "attestation_malformed",
        ),
        (
            "a certificate of 9 KiB",
            vec![vec![0x30; 9 << 10], good[1].clone(), good[2].clone(), good[3].clone()],
            "attestation_malformed",
        ),
        ("no description", device.above(bare.der), "attestation_chain"),
        ("two descriptions", device.above(twice.der), "attestation_chain"),
        (
            "extended: a key signed by an attested key",
            [vec![forged.der], device.above(owned.der.clone())].concat(),
            "attestation_chain",
        ),
        (
            "extended: without a description of its own",
            [vec![plain.der], device.above(owned.der)].concat(),
            "attestation_chain",
        ),
        (
            "above the key no authority, as makers had it",
            old(Making { authority: Some(false), ..authority("TEE") })?,
            "good",
        ),
        (
            "above the key no word of authority",
            old(Making { authority: None, ..authority("TEE") })?,
            "attestation_chain",
        ),
        (
            "further above no authority",
            through(Making { authority: Some(false), ..authority("CA") }, authority("TEE"))?,
            "attestation_chain",
        ),
        (
            "more below than allowed",
            through(Making { path: Some(0), ..authority("CA") }, authority("TEE"))?,
            "attestation_chain",
        ),
        (
            "as many below as allowed",
            through(Making { path: Some(1), ..authority("CA") }, authority("TEE"))?,
            "good",
        ),
        (
            "run out, from Google's servers",
            old(Making { years: (2020, 2024), remote: true, ..authority("TEE") })?,
            "attestation_expired",
        ),
        (
            "run out, from the factory",
            old(Making { years: (2016, 2025), ..authority("TEE") })?,
            "attestation_expired",
        ),
        ("not valid yet", old(Making { years: (2030, 2040), ..authority("TEE") })?, "attestation_expired"),
    ])
}

#[test]
fn each_part_of_a_chain_is_judged() -> Result<()> {
    let device = Device::new(true)?;
    for (name, chain, expected) in chain_cases(&device)? {
        let outcome = verify(&device, &chain, &rules());
        assert_eq!(
            outcome.clone().map_or_else(|refused| refused.denial.code(), |_| "good"),
            expected,
            "{name}: {outcome:?}"
        );
    }
    // By name, what makers put into devices may have run out; what Google gives may not.
    let old = Rules { expired_factory: true, ..rules() };
    for (name, chain, expected) in chain_cases(&device)? {
        let expected = if name == "run out, from the factory" { "good" } else { expected };
        assert_eq!(code(verify(&device, &chain, &old)), expected, "{name}");
    }
    Ok(())
}

#[test]
fn a_key_that_has_run_out_is_refused_whoever_made_the_device() -> Result<()> {
    let device = Device::new(false)?;
    let leaf =
        device.own.sign(&Making { years: (1970, 2025), ..Making::leaf(Key::new(CHALLENGE).describe()) })?;
    let old = Rules { expired_factory: true, ..rules() };
    assert_eq!(code(verify(&device, &device.above(leaf.der), &old)), "attestation_expired");
    Ok(())
}

#[test]
fn revoked_certificates_are_refused_wherever_they_are() -> Result<()> {
    let device = Device::new(true)?;
    let chain = device.attest(&Key::new(CHALLENGE))?;
    let roots = Roots::from_pem(device.root.pem.as_bytes()).unwrap();
    let list = |serial: &str, status: Value| {
        let entries = json!({ "c35747a084470c3135aeefe2b8d40cd6": {"status": "REVOKED", "reason": "KEY_COMPROMISE"}, serial: status });
        Revocations::read(json!({ "entries": entries }).to_string().as_bytes()).unwrap()
    };
    let judge = |list: &Revocations| {
        android_key::verify(&chain, &roots, Some(list), &rules(), CHALLENGE, NOW, &mut |_, _| ())
    };
    assert_eq!(code(judge(&list("1", json!({"status": "REVOKED"})))), "good");
    for signer in [&device.own, &device.middle, &device.root] {
        for status in
            [json!({"status": "REVOKED"}), json!({"status": "SUSPENDED"}), json!({"status": "NEW"}), json!(1)]
        {
            assert_eq!(code(judge(&list(&signer.serial, status))), "attestation_revoked");
        }
        let padded = format!("00{}", signer.serial.to_ascii_uppercase());
        assert_eq!(code(judge(&list(&padded, json!({})))), "attestation_revoked");
    }
    Ok(())
}

#[test]
fn lists_that_are_none_are_refused() {
    let good = r#"{"entries":{"0a":{"status":"REVOKED","reason":"KEY_COMPROMISE"}}}"#;
    let list = Revocations::read(good.as_bytes()).unwrap();
    assert!(list.len() == 1 && !list.is_empty());
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"entries":{}}"#,
        r#"{"entries":[]}"#,
        r#"{"entries":{"x":{"status":"REVOKED"}}}"#,
        r#"{"entries":{"":{"status":"REVOKED"}}}"#,
        r#"{"entries":{"a":{"status":"REVOKED"},"a":{}}}"#,
    ] {
        assert!(Revocations::read(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn googles_roots_are_the_two() {
    assert_eq!(
        Roots::google().unwrap(),
        Roots::from_pem(
            &fs::read(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../enforcer/src/attestation/android_key/roots.pem")
            )
            .unwrap()
        )
        .unwrap()
    );
    for bad in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(Roots::from_pem(bad.as_bytes()).is_err());
    }
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "pem") {
            found.push(path);
        }
    }
}

/// JSON, without the comments, and the comma before them, that one of these files has.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    lines.collect::<String>().replace(",}", "}")
}

#[test]
fn genuine_chains_verify_and_the_others_fail_for_their_reason() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/android-key-attestation/testdata");
    if !folder.is_dir() {
        eprintln!("SKIPPED: no {}", folder.display());
        return;
    }
    let mut files = Vec::new();
    below(&folder, &mut files);
    assert_eq!(files.len(), 25);
    let roots = Roots::google().unwrap();
    let (mut chains, mut described, mut good, mut expired) = (0, 0, 0, 0);
    for file in files {
        let name = file.strip_prefix(&folder).unwrap().display().to_string();
        let chain: Vec<Vec<u8>> = CertificateDer::pem_file_iter(&file)
            .unwrap()
            .map(|certificate| certificate.unwrap().to_vec())
            .collect();
        let expected = fs::read_to_string(file.with_extension("json")).ok();
        let expected: Option<Value> = expected.map(|text| serde_json::from_str(&uncommented(&text)).unwrap());
        // When the key was made: the chain is one of those days. What has no such date is judged at some time.
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let software = |name: &str| {
            expected.as_ref().map(|expected| expected["softwareEnforced"][name].clone()).unwrap_or_default()
        };
        let at = text(&software("creationDateTime"))
            .map_or(1_700_000_000, |ms| ms.parse::<u64>().unwrap() / 1_000);
        let app = software("attestationApplicationId");
        let list = |name: &str| app[name].as_array().cloned().unwrap_or_default();
        let packages: Vec<String> =
            list("packages").iter().filter_map(|package| text(&package["name"])).collect();
        let digests = list("signatures")
            .iter()
            .filter_map(text)
            .map(|digest| STANDARD.decode(digest).unwrap())
            .collect::<Vec<_>>();
        let certificates = digests.into_iter().map(|digest| <[u8; 32]>::try_from(digest).unwrap()).collect();
        let challenge = expected.as_ref().and_then(|expected| text(&expected["attestationChallenge"]));
        let challenge =
            challenge.map_or_else(|| b"challenge".to_vec(), |text| STANDARD.decode(text).unwrap());
        let verify = |rules: &Rules| {
            let mut steps = Vec::new();
            let mut note = |step, _| steps.push(step);
            let outcome = android_key::verify(&chain, &roots, None, rules, &challenge, at, &mut note);
            (outcome, steps)
        };
        let rules = Rules { packages, certificates, ..anything() };
        let (mut outcome, mut steps) = verify(&rules);
        if let Err(refused) = &outcome
            && refused.denial == Denial::AttestationExpired
        {
            // A maker's certificates of 2016, shown in June 2026.
            assert!(name.starts_with("sony"), "{name}: {refused}");
            expired += 1;
            (outcome, steps) = verify(&Rules { expired_factory: true, ..rules });
        }
        chains += usize::from(steps.contains(&"chain"));
        described += usize::from(steps.contains(&"description"));
        let reason = match &name {
            name if name.starts_with("invalid/malformed_rot") => {
                Some(("attestation_malformed", "description"))
            }
            name if name.starts_with("invalid/tags_not") => Some(("attestation_chain", "signature is wrong")),
            name if name.starts_with("allow_while_on_body") => {
                Some(("attestation_malformed", "1 certificates"))
            }
            name if name.starts_with("marlin") || name.starts_with("p256_sha384") => {
                Some(("attestation_chain", ""))
            }
            // Keys that name the device's numbers are the system's own, which is signed with no app's certificate.
            name if name.contains("+IMEI") => Some(("app_not_recognised", "no certificate")),
            _ => None,
        };
        match (reason, outcome) {
            (None, Ok(genuine)) => {
                let hardware = &expected.as_ref().unwrap()["hardwareEnforced"];
                let root = &hardware["rootOfTrust"];
                assert_eq!(
                    genuine.state.boot.name().to_uppercase(),
                    root["verifiedBootState"].as_str().unwrap(),
                    "{name}"
                );
                assert_eq!(genuine.state.locked, root["deviceLocked"].as_bool().unwrap_or(false), "{name}");
                let patch = hardware["osPatchLevel"].as_str().map(|level| level.parse().unwrap());
                assert_eq!(genuine.state.os_patch, patch, "{name}");
                let security = expected.as_ref().unwrap()["attestationSecurityLevel"].as_str().unwrap();
                assert_eq!(
                    genuine.state.security.name(),
                    if security == "STRONG_BOX" { "strong_box" } else { "trusted_environment" }
                );
                good += 1;
            }
            (Some((code, why)), Err(refused)) => {
                assert!(
                    refused.denial.code() == code && refused.to_string().contains(why),
                    "{name}: {refused}"
                );
            }
            (reason, outcome) => panic!("{name}: {reason:?}, but {outcome:?}"),
        }
    }
    // Twenty chains lead to Google; one of them describes its key with a boolean that is none in DER, and two are of no app.
    assert_eq!((chains, described, good, expired), (20, 19, 17, 1));
}
