//! Android Key Attestation: what the hardware says of a key, and what becomes of each thing that can be wrong with that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::attestation::{
    Level, Refused,
    android_key::{
        self, Genuine, Rules,
        description::{Boot, Description, Security},
        roots::Roots,
    },
};
use enforcer_tests::attestation::google::{
    CERTIFICATE, PACKAGE,
    device::{Device, Key, Making, der, field, number},
};

/// 2025-12-01T00:00:00Z.
pub(super) const NOW: u64 = 1_764_547_200;
pub(super) const CHALLENGE: &[u8] = b"an issued challenge of 32 bytes.";

pub(super) fn rules() -> Rules {
    Rules {
        packages: vec![PACKAGE.to_owned()],
        certificates: vec![CERTIFICATE],
        min_version: 40,
        security: Security::TrustedEnvironment,
        boot: Boot::Verified,
        boot_keys: Vec::new(),
        locked: true,
        min_patch: 202_501,
        signs: true,
        expired_factory: false,
    }
}

/// What is asked of devices of makers' own laboratories: nothing.
pub(super) fn anything() -> Rules {
    Rules {
        security: Security::Software,
        boot: Boot::Failed,
        locked: false,
        min_patch: 0,
        min_version: 0,
        signs: false,
        ..rules()
    }
}

pub(super) fn verify(device: &Device, chain: &[Vec<u8>], rules: &Rules) -> Result<Genuine, Refused> {
    let roots = Roots::from_pem(device.root.pem.as_bytes()).unwrap();
    android_key::verify(chain, &roots, None, rules, CHALLENGE, NOW, &mut |_, _| ())
}

pub(super) fn code(outcome: Result<Genuine, Refused>) -> &'static str {
    outcome.map_or_else(|refused| refused.denial.code(), |_| "good")
}

#[test]
fn a_good_chain_says_what_is_known_of_the_device() -> Result<()> {
    let device = Device::new(true)?;
    let mut steps = Vec::new();
    let roots = Roots::from_pem(device.root.pem.as_bytes()).unwrap();
    let chain = device.attest(&Key::new(CHALLENGE))?;
    let genuine =
        android_key::verify(&chain, &roots, None, &rules(), CHALLENGE, NOW, &mut |step, _| steps.push(step));
    let genuine = genuine.unwrap();
    let state = &genuine.state;
    assert_eq!((genuine.level, state.version, state.os_patch), (Level::Strong, 42, Some(202_511)));
    assert_eq!((state.vendor_patch, state.boot_patch), (Some(202_511), Some(202_511)));
    assert_eq!(*state.boot_key, *"00".repeat(32));
    let above = [&device.own, &device.middle, &device.root].map(|one| one.serial.trim_start_matches('0'));
    let serials: Vec<&str> = state.serials.iter().skip(1).map(|one| &**one).collect();
    assert_eq!(serials, above, "as lists have them");
    assert_eq!(state.provisioning.name(), "certificates from Google's servers");
    assert!(genuine.key.starts_with(&[0x30, 0x59]));
    let order =
        ["form", "chain", "revocation", "description", "challenge", "device", "patches", "key", "app"];
    assert_eq!(steps, order);
    // Apps may leave out the root, which is known here, and nothing else.
    assert_eq!(code(verify(&device, &chain[..3], &rules())), "good");
    assert_eq!(code(verify(&device, &chain[..2], &rules())), "attestation_chain");
    Ok(())
}

type Change = fn(&mut Key);

/// Descriptions with one thing changed.
fn key_cases() -> Vec<(&'static str, Change, &'static str)> {
    vec![
        ("StrongBox", |key| key.security = 2, "good"),
        ("software", |key| key.security = 0, "device_integrity_failed"),
        ("a security level of 3", |key| key.security = 3, "attestation_malformed"),
        ("another challenge", |key| key.challenge = b"another challenge".to_vec(), "attestation_nonce"),
        ("a longer challenge", |key| key.challenge.push(0), "attestation_nonce"),
        ("no challenge", |key| key.challenge.clear(), "attestation_nonce"),
        ("self signed", |key| key.root_of_trust = Some((0xff, 1)), "device_integrity_failed"),
        ("unverified", |key| key.root_of_trust = Some((0xff, 2)), "device_integrity_failed"),
        ("failed", |key| key.root_of_trust = Some((0xff, 3)), "device_integrity_failed"),
        ("a boot state of 4", |key| key.root_of_trust = Some((0xff, 4)), "attestation_malformed"),
        ("unlocked", |key| key.root_of_trust = Some((0, 0)), "device_integrity_failed"),
        ("locked as 1", |key| key.root_of_trust = Some((1, 0)), "attestation_malformed"),
        ("no root of trust", |key| key.root_of_trust = None, "device_integrity_failed"),
        ("system of January 2025", |key| key.os_patch = Some(202_501), "good"),
        ("system of December 2024", |key| key.os_patch = Some(202_412), "device_outdated"),
        ("no patch level of the system", |key| key.os_patch = None, "device_outdated"),
        ("vendor of December 2024", |key| key.vendor_patch = Some(20_241_231), "device_outdated"),
        ("no patch level of the vendor", |key| key.vendor_patch = None, "device_outdated"),
        ("no patch level of the boot loader", |key| key.more.clear(), "device_outdated"),
        (
            "Keymaster 3, which knows the system's alone",
            |key| {
                key.version = 2;
                key.vendor_patch = None;
                key.more.clear();
            },
            "good",
        ),
        (
            "Keymaster 3, system of December 2024",
            |key| {
                key.version = 2;
                key.vendor_patch = None;
                key.more.clear();
                key.os_patch = Some(202_412);
            },
            "device_outdated",
        ),
        (
            "Keymaster 3, no patch level at all",
            |key| {
                key.version = 2;
                key.vendor_patch = None;
                key.more.clear();
                key.os_patch = None;
            },
            "device_outdated",
        ),
        (
            "Keymaster 3, which says what it need not",
            |key| {
                key.version = 2;
                key.vendor_patch = Some(20_241_231);
            },
            "device_outdated",
        ),
        (
            "Keymaster 4, which has to know all",
            |key| {
                key.version = 3;
                key.vendor_patch = None;
            },
            "device_outdated",
        ),
        ("boot loader of 2024", |key| key.more = vec![(719, number(2, 202_412))], "device_outdated"),
        ("imported", |key| key.origin = Some(2), "attestation_key"),
        ("no origin", |key| key.origin = None, "attestation_key"),
        ("for agreement alone", |key| key.purposes = vec![6], "attestation_key"),
        ("for verification and signatures", |key| key.purposes = vec![3, 2], "good"),
        ("for every app", |key| key.more.push((600, vec![5, 0])), "attestation_key"),
        ("another app", |key| key.packages[0].0 = "com.example.other".to_owned(), "app_not_recognised"),
        (
            "another app besides",
            |key| key.packages.push(("com.example.other".to_owned(), 99)),
            "app_not_recognised",
        ),
        ("no app", |key| key.packages.clear(), "app_not_recognised"),
        ("another certificate", |key| key.certificates = vec![vec![7; 32]], "app_not_recognised"),
        ("another certificate besides", |key| key.certificates.push(vec![7; 32]), "app_not_recognised"),
        ("half a certificate", |key| key.certificates[0].truncate(16), "app_not_recognised"),
        ("no certificate", |key| key.certificates.clear(), "app_not_recognised"),
        ("version 39", |key| key.packages[0].1 = 39, "app_outdated"),
        ("a field that is new", |key| key.more.push((1_999, vec![4, 1, 0])), "good"),
        ("a field twice", |key| key.more.push((702, number(2, 0))), "attestation_malformed"),
        (
            "a field with something behind",
            |key| key.more.push((1_999, vec![5, 0, 5, 0])),
            "attestation_malformed",
        ),
        ("a field with nothing in it", |key| key.more.push((1_999, Vec::new())), "attestation_malformed"),
        ("a negative number", |key| key.more.push((701, vec![2, 1, 0x80])), "attestation_malformed"),
    ]
}

#[test]
fn each_part_of_a_description_is_judged() -> Result<()> {
    let device = Device::new(true)?;
    for (name, change, expected) in key_cases() {
        let mut key = Key::new(CHALLENGE);
        change(&mut key);
        let outcome = verify(&device, &device.attest(&key)?, &rules());
        assert_eq!(
            outcome.clone().map_or_else(|refused| refused.denial.code(), |_| "good"),
            expected,
            "{name}: {outcome:?}"
        );
    }
    // An owner's own system, behind a locked boot loader, is one where that is allowed.
    let own = Key { root_of_trust: Some((0xff, 1)), ..Key::new(CHALLENGE) };
    let chain = device.attest(&own)?;
    let by = |boot_keys| verify(&device, &chain, &Rules { boot: Boot::SelfSigned, boot_keys, ..rules() });
    assert_eq!(by(Vec::new()).unwrap().level, Level::Device);
    assert_eq!(by(vec![[7; 32], [0; 32]]).unwrap().level, Level::Device);
    let refused = by(vec![[7; 32]]).unwrap_err();
    assert_eq!((refused.denial.code(), refused.step), ("device_integrity_failed", "device"));
    assert!(refused.why.contains(&"00".repeat(32)), "{}", refused.why);
    let open = Key { root_of_trust: Some((0, 2)), ..Key::new(CHALLENGE) };
    let genuine =
        verify(&device, &device.attest(&open)?, &Rules { boot: Boot::Unverified, locked: false, ..rules() });
    assert_eq!(genuine.unwrap().level, Level::Basic);
    Ok(())
}

/// Descriptions that are none: their bytes, changed.
fn der_cases() -> Vec<(&'static str, Vec<u8>)> {
    let good = Key::new(CHALLENGE).describe();
    // Behind the tag and its length, which has as many bytes as it says.
    let content = &good[2 + usize::from(good[1] & 0x7f)..];
    let length = (content.len() as u32).to_be_bytes();
    let behind = |more: &[u8]| der(&[0x30], &[content, more].concat());
    let swapped = {
        let mut fields = [field(702, &number(2, 0)), field(2, &number(2, 3))];
        fields.reverse();
        let descending = [fields[1].clone(), fields[0].clone()].concat();
        let head = [
            number(2, 300),
            number(10, 1),
            number(2, 300),
            number(10, 1),
            der(&[4], CHALLENGE),
            der(&[4], b""),
        ];
        der(&[0x30], &[head.concat(), der(&[0x30], &[]), der(&[0x30], &descending)].concat())
    };
    vec![
        ("nothing", Vec::new()),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("something behind it", [&good[..], &[5, 0]].concat()),
        ("something behind its parts", behind(&[5, 0])),
        ("an indefinite length", [&[0x30, 0x80], content, &[0, 0]].concat()),
        ("a length of four bytes", [&[0x30, 0x84], &length[..], content].concat()),
        ("2 GiB", [&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff], content].concat()),
        ("a SET", [&[0x31], &good[1..]].concat()),
        ("fields out of order", swapped),
        ("an OCTET STRING around it", der(&[4], &good)),
    ]
}

#[test]
fn descriptions_are_strict_der() -> Result<()> {
    assert!(Description::read(&Key::new(CHALLENGE).describe()).is_ok());
    let device = Device::new(true)?;
    for (name, description) in der_cases() {
        let leaf = device.own.sign(&Making::leaf(description))?;
        let outcome = verify(&device, &device.above(leaf.der), &anything());
        assert_eq!(code(outcome), "attestation_malformed", "{name}");
    }
    // Every prefix, and every byte changed, is refused or read: nothing crashes.
    let good = Key::new(CHALLENGE).describe();
    for end in 0..good.len() {
        assert!(Description::read(&good[..end]).is_err(), "{end} bytes");
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            drop(Description::read(&changed));
        }
    }
    Ok(())
}
