//! Receipts of Apple App Attest: genuine ones are accepted, and swapped or forged ones are refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use anyhow::Result;
use enforcer::{
    attestation::{
        Refused,
        app_attest::{
            AppId, Environment, Point,
            chain::Roots,
            receipt::{self, Kind, Receipt},
        },
    },
    denial::Denial,
};
use enforcer_tests::attestation::{
    apple::{self, Apple, Phone, ReceiptDraft, sha256},
    der::{self, Hash},
};

use super::app_attest_genuine::{bytes, genuine, seconds};

const NOW: u64 = 1_800_000_000;
const APP: &str = "A1B2C3D4E5.com.example.app";

fn judge(roots: &Roots, phone: &Phone, object: &[u8], now: u64) -> Result<Receipt, Refused> {
    let apps: [AppId; 1] = [APP.parse().unwrap()];
    let hash = sha256(b"a challenge");
    let expected = receipt::Expected {
        apps: &apps,
        environment: Environment::Production,
        public_key: &phone.point(),
        client_data_hash: Some(&hash),
        roots,
    };
    receipt::verify(object, &expected, now, &mut |_, _| ())
}

#[test]
fn a_receipt_is_apples_and_of_its_attestation() -> Result<()> {
    let apple = Apple::new(NOW)?;
    let phone = Phone::new(APP, Environment::Production)?;
    let other = Phone::new(APP, Environment::Production)?;
    let (_, roots) = apple.roots()?;
    let draft = ReceiptDraft::new(&phone, &apple, &sha256(b"a challenge"));
    let set = |number: u32, value: &[u8]| {
        let mut draft = draft.clone();
        draft.set(number, value);
        draft.sign(&apple)
    };
    let without = |number: u32| {
        let mut draft = draft.clone();
        draft.fields.retain(|(known, _)| *known != number);
        draft.sign(&apple)
    };
    let good = draft.sign(&apple)?;
    let mut twice = draft.clone();
    twice.fields.push((2, APP.as_bytes().to_vec()));
    let unmarked =
        apple::signer(&apple.integration, "Application Attestation Fraud Receipt Signing", &[], NOW)?;
    let mark = der::extension(apple::MARK, false, &[5, 0]);
    let direct =
        apple::signer(&apple.receipt_root, "Application Attestation Fraud Receipt Signing", &[mark], NOW)?;
    let stranger = Apple::new(NOW)?;
    let below = [&apple.integration, &apple.receipt_root];
    let own: Vec<u8> =
        [&apple.signing, &apple.integration].iter().flat_map(|one| one.certificate.clone()).collect();
    let signature = apple.signing.key.sign(Hash::Sha256, &draft.content())?;
    let over_sha384 = draft.assemble(&own, &apple.integration.name, &signature);
    let swap = |from: &[u8], to: &[u8]| {
        let at = over_sha384.windows(from.len()).rposition(|window| window == from).unwrap();
        [&over_sha384[..at], to, &over_sha384[at + from.len()..]].concat()
    };
    let mut changed = good.clone();
    let at = good.windows(APP.len()).position(|window| window == APP.as_bytes()).unwrap();
    changed[at] ^= 1;
    for (name, object, is_good) in [
        ("as it should be", good.clone(), true),
        ("in parts of 40 bytes", ReceiptDraft { part: 40, ..draft.clone() }.sign(&apple)?, true),
        ("without the root's certificate", over_sha384.clone(), true),
        ("given in exchange", draft.clone().exchanged("3", &apple).sign(&apple)?, true),
        ("content changed", changed, false),
        ("swapped with another attestation's of this key", set(4, &sha256(b"another challenge"))?, false),
        (
            "swapped with another key's",
            ReceiptDraft::new(&other, &apple, &sha256(b"a challenge")).sign(&apple)?,
            false,
        ),
        (
            "another key's, given in exchange",
            ReceiptDraft::new(&other, &apple, b"").exchanged("1", &apple).sign(&apple)?,
            false,
        ),
        ("of another app", set(2, b"A1B2C3D4E5.com.example.other")?, false),
        ("of the sandbox", set(7, b"sandbox")?, false),
        ("of an unknown kind", set(6, b"OTHER")?, false),
        ("made in the future", set(12, der::date(NOW + 301).as_bytes())?, false),
        ("made in 5 minutes by this clock", set(12, der::date(NOW + 300).as_bytes())?, true),
        ("ended", set(21, der::date(NOW).as_bytes())?, false),
        ("a date that is none", set(12, b"yesterday")?, false),
        ("a risk metric that is none", set(17, b"+3")?, false),
        ("no kind", without(6)?, false),
        ("no certificate in it", without(3)?, false),
        ("no end", without(21)?, false),
        ("a field twice", twice.sign(&apple)?, false),
        ("signer without the mark", draft.sign_by(&unmarked, &below)?, false),
        ("signer directly under the root", draft.sign_by(&direct, &[&apple.receipt_root])?, false),
        ("signed by the authority", draft.sign_by(&apple.integration, &[&apple.receipt_root])?, false),
        ("of another root of the same name", draft.sign(&stranger)?, false),
        (
            "signer's certificate missing",
            draft.assemble(&apple.integration.certificate, &apple.integration.name, &signature),
            false,
        ),
        ("another digest than SHA-256", swap(&[0x65, 3, 4, 2, 1], &[0x65, 3, 4, 2, 2]), false),
        ("another algorithm than ECDSA", swap(&[0xce, 0x3d, 4, 3, 2], &[0xce, 0x3d, 4, 3, 3]), false),
        ("an attestation object", phone.attest(&apple, b"")?, false),
        ("half of it", good[..good.len() / 2].to_vec(), false),
        ("bytes behind it", [&good[..], &[0]].concat(), false),
        ("too long", vec![0x30; 20_000], false),
        ("a depth bomb", [0x30, 0x80].repeat(5_000), false),
        ("nothing", Vec::new(), false),
    ] {
        let outcome = judge(&roots, &phone, &object, NOW);
        let denial = outcome.as_ref().err().map(|refused| refused.denial);
        assert_eq!(denial, (!is_good).then_some(Denial::AttestationReceipt), "{name}: {outcome:?}");
    }
    assert!(judge(&roots, &phone, &good, NOW + 86_400 * 31).is_err(), "the signer's certificate has ended");
    let exchanged = judge(&roots, &phone, &draft.exchanged("12", &apple).sign(&apple)?, NOW)?;
    let expected = Receipt {
        kind: Kind::Exchange,
        created: NOW,
        not_before: Some(NOW + 86_400),
        expires: NOW + 86_400 * 90,
        risk: Some(12),
    };
    assert_eq!(exchanged, expected);
    Ok(())
}

#[test]
fn all_genuine_receipts_are_accepted_with_their_risk() -> Result<()> {
    let Some(vectors) = genuine() else { return Ok(()) };
    let (mut attest, mut exchanged) = (0, 0);
    let of_receipts = vectors.iter().filter_map(|vector| vector.as_array()).flatten();
    for vector in of_receipts.filter(|vector| vector["receipt_b64"].is_string()) {
        let app: AppId = vector["app_id"].as_str().unwrap().parse().unwrap();
        let object = bytes(&vector["receipt_b64"]);
        // The key is that of an attestation with the same app.
        let keys = vectors.iter().filter(|one| one["app_id"] == vector["app_id"]);
        let keys = keys.filter_map(|one| point(one["public_key_uncompressed_point_hex"].as_str()?));
        let now = seconds(&vector["creation"])?;
        let found: Vec<Receipt> = keys
            .filter_map(|public_key| {
                let expected = receipt::Expected {
                    apps: std::slice::from_ref(&app),
                    environment: Environment::Development,
                    public_key: &public_key,
                    client_data_hash: None,
                    roots: Roots::receipts(),
                };
                receipt::verify(&object, &expected, now, &mut |_, _| ()).ok()
            })
            .collect();
        let [receipt] = &found[..] else { panic!("{}: of {} keys", vector["source"], found.len()) };
        assert_eq!(receipt.risk, vector["risk_metric"].as_str().map(|risk| risk.parse().unwrap()));
        assert_eq!((receipt.created, receipt.kind == Kind::Attest), (now, vector["type"] == "ATTEST"));
        if receipt.kind == Kind::Attest { attest += 1 } else { exchanged += 1 }
    }
    eprintln!("{attest} genuine receipts of attestations and {exchanged} of exchanges accepted");
    assert_eq!((attest, exchanged), (7, 13), "another edition of the vectors: count again");
    Ok(())
}

fn point(hex: &str) -> Option<Point> {
    let digits = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
    digits.collect::<Option<Vec<u8>>>()?.try_into().ok()
}
