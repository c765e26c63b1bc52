//! Keys of Macs: their certificates have to say that the system is as Apple ships it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer::{
    attestation::app_attest::{
        AppId, Distribution, Environment, FULL_SECURITY,
        attestation::{self, Expected},
    },
    denial::Denial,
};
use enforcer_tests::attestation::{
    apple::{ACCESS, Apple, Phone, SYSTEM, extensions, sha256, system},
    cbor, der,
};

const NOW: u64 = 1_800_000_000;
const APP: &str = "A1B2C3D4E5.com.example.app";

/// As Apple's page for servers prints it.
const PRINTED: &str =
    "MEAMAjExMDowCQwCb2uhAwEB/zAJDAJvYaEDAQH/MAsMBG9kZWyhAwEB/zAVDARvc2duoAYMBHJzZWMwBaYDAgEB";

/// In a certificate: SEQUENCE { tagged OCTET STRING }, once or more.
fn access(blobs: &[&[u8]]) -> Vec<u8> {
    let tagged: Vec<u8> =
        blobs.iter().flat_map(|blob| der::element(0xa3, &[&der::element(4, &[blob])])).collect();
    der::extension(ACCESS, false, &der::element(0x30, &[&tagged]))
}

fn code(of: &str, access: Vec<Vec<u8>>, extensions: Vec<u8>) -> Result<Option<Denial>> {
    let apple = Apple::new(NOW)?;
    let phone = Phone::new(APP, Environment::Production)?;
    let hash = sha256(b"a challenge");
    let mut draft = phone.draft(&apple, &hash);
    draft.more = vec![der::constraints(false, None), der::extension(SYSTEM, false, &system(of))];
    draft.more.extend(access);
    draft.extensions = extensions;
    let (roots, receipts) = apple.roots()?;
    let apps: Vec<AppId> = vec![APP.parse().unwrap()];
    let expected = Expected {
        apps: &apps,
        environment: Environment::Production,
        client_data_hash: &hash,
        key_id: None,
        distribution: &Distribution::default(),
        roots: &roots,
        receipts: Some(&receipts),
    };
    let outcome = attestation::verify(&draft.object(&apple)?, &expected, NOW, &mut |_, _| ());
    Ok(outcome.err().map(|refused| refused.denial))
}

#[test]
fn a_mac_without_full_security_is_no_device() -> Result<()> {
    let full = STANDARD.decode(PRINTED)?;
    assert_eq!(full, FULL_SECURITY);
    // What iPhones have there, as genuine objects of 2026 show.
    let phone = b"\x30\x0c\x0c\x02110\x06\x0c\x04osgn";
    let mut reduced = full.clone();
    *reduced.last_mut().unwrap() = 2;
    let refused = Some(Denial::DeviceIntegrityFailed);
    let hashed = cbor::map(&[(cbor::text("apple_cd_hash_hash_01"), cbor::bytes(&[7; 32]))]);
    for (name, of, said, extensions, expected) in [
        ("a Mac with full security", "macosx", vec![access(&[&full])], Vec::new(), None),
        ("a Mac with reduced security", "macosx", vec![access(&[&reduced])], Vec::new(), refused),
        ("a Mac that does not say", "macosx", Vec::new(), Vec::new(), refused),
        ("a Mac with the access of a phone", "macosx", vec![access(&[phone])], Vec::new(), refused),
        ("a Mac that says it among others", "macosx", vec![access(&[&reduced, &full])], Vec::new(), refused),
        ("a Mac that says more", "macosx", vec![access(&[&[&full[..], b"x"].concat()])], Vec::new(), refused),
        (
            "a Mac that says it twice",
            "macosx",
            vec![access(&[&full]), access(&[&full])],
            Vec::new(),
            Some(Denial::AttestationMalformed),
        ),
        ("a Mac under another name", "macos", Vec::new(), Vec::new(), refused),
        ("a Mac that passes for a phone", "iphoneos", Vec::new(), hashed, refused),
        ("a phone that says nothing", "iphoneos", Vec::new(), extensions(4, "7"), None),
        ("a phone with its own access", "iphoneos", vec![access(&[phone])], Vec::new(), None),
    ] {
        assert_eq!(code(of, said, extensions)?, expected, "{name}");
    }
    Ok(())
}
