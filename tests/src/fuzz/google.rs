//! What Google and Android say of devices, as inputs: raw tokens, tokens that are sealed with the right keys around any header and
//! verdict, and any description of a key. What is accepted is held against a reading of its own.

use std::{sync::LazyLock, time::Duration};

use anyhow::Result;
use enforcer::{
    attestation::{
        android_key::description::{Boot, Description, Security},
        play::{self, Expected, Keys, Risk, Rules, verdict::Label},
    },
    denial::Denial,
};
use serde_json::{Value, json};

use crate::attestation::google::{
    Bound, CERTIFICATE, Google, INNER, OUTER, PACKAGE, device::Key, encode, verdict,
};

/// When verdicts are judged, in milliseconds since 1970.
pub const NOW: u64 = 1_800_000_000_000;
const NONCE: &str = "bm9uY2UtMDAwMDAwMDAwMDAx";

struct Desk {
    google: Google,
    keys: Keys,
    rules: Rules,
}

/// With keys of this process: none is kept.
static DESK: LazyLock<Option<Desk>> = LazyLock::new(|| desk().ok());

fn desk() -> Result<Desk> {
    let google = Google::new()?;
    let keys = Keys::from_toml(&google.keys_toml()).map_err(anyhow::Error::msg)?;
    let rules = Rules {
        packages: vec![PACKAGE.to_owned()],
        certificates: vec![CERTIFICATE],
        min_version: 1,
        labels: vec![Label::Device],
        licensed: true,
        max_age: Duration::from_secs(900),
        skew: Duration::from_secs(300),
        testing: false,
        risk: Risk::default(),
    };
    Ok(Desk { google, keys, rules })
}

/// What becomes of a token or a verdict: `None` where there is nothing to judge.
#[allow(clippy::panic, reason = "a fuzz target reports by it")]
pub fn play(input: &[u8]) -> Option<Result<(), Denial>> {
    let desk = DESK.as_ref()?;
    let (kind, rest) = input.split_first()?;
    let token = match kind % 3 {
        0 => String::from_utf8(rest.to_vec()).ok()?,
        1 => desk.google.seal(OUTER, desk.google.sign(INNER, rest).ok()?.as_bytes()).ok()?,
        _ => {
            let (length, rest) = rest.split_first()?;
            let (header, plain) = rest.split_at(rest.len().min(usize::from(*length)));
            desk.google.seal(std::str::from_utf8(header).ok()?, plain).ok()?
        }
    };
    let outcome = play::verify(&token, &desk.keys, &desk.rules, &Expected::Nonce(NONCE), NOW, &mut |_, _| ());
    if outcome.is_ok() {
        assert!(kind % 3 == 1 && is_good(rest), "accepted: {}", String::from_utf8_lossy(input));
    }
    Some(outcome.map(drop).map_err(|refused| refused.denial))
}

/// A simpler reading than the one that is tested: what an accepted verdict has to say at least.
fn is_good(text: &[u8]) -> bool {
    let Ok(verdict) = serde_json::from_slice::<Value>(text) else { return false };
    let at = verdict["requestDetails"]["timestampMillis"].as_str().and_then(|at| at.parse::<u64>().ok());
    let list =
        |pointer: &str| verdict.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let certificates = list("/appIntegrity/certificateSha256Digest");
    let ours = encode(&CERTIFICATE);
    verdict["requestDetails"]["requestPackageName"] == PACKAGE
        && verdict["requestDetails"]["nonce"]
            .as_str()
            .is_some_and(|nonce| nonce.trim_end_matches('=') == NONCE)
        && at.is_some_and(|at| at.abs_diff(NOW) <= 900_000)
        && verdict["appIntegrity"]["appRecognitionVerdict"] == "PLAY_RECOGNIZED"
        && verdict["appIntegrity"]["packageName"] == PACKAGE
        && !certificates.is_empty()
        && certificates.iter().all(|one| one.as_str().is_some_and(|one| one.trim_end_matches('=') == ours))
        && list("/deviceIntegrity/deviceRecognitionVerdict").iter().any(|one| one == "MEETS_DEVICE_INTEGRITY")
        && verdict["accountDetails"]["appLicensingVerdict"] == "LICENSED"
        && verdict.pointer("/testingDetails").is_none_or(|one| one["isTestingResponse"] == false)
}

/// Seeds for [`play`]: good ones, and what attackers have sent.
pub fn play_seeds() -> Vec<Vec<u8>> {
    let good = verdict(Bound::Nonce(NONCE), NOW);
    let mut texts = vec![
        good.to_string(),
        "{}".to_owned(),
        "[]".to_owned(),
        String::new(),
        good.to_string().replacen('{', r#"{"testingDetails":{},"testingDetails":{},"#, 1),
        format!("{}{good}{}", r#"{"a":"#.repeat(200), "}".repeat(200)),
    ];
    for (pointer, value) in [
        ("/requestDetails/requestPackageName", json!("com.example.other")),
        ("/requestDetails/timestampMillis", json!(NOW)),
        ("/requestDetails/timestampMillis", json!("1")),
        ("/requestDetails/nonce", json!("x")),
        ("/appIntegrity/appRecognitionVerdict", json!("UNEVALUATED")),
        ("/appIntegrity/certificateSha256Digest", json!([])),
        ("/appIntegrity/versionCode", json!("0")),
        ("/deviceIntegrity/deviceRecognitionVerdict", json!(["MEETS_NEW"])),
        ("/accountDetails/appLicensingVerdict", json!("UNLICENSED")),
    ] {
        let mut changed = good.clone();
        if let Some(place) = changed.pointer_mut(pointer) {
            *place = value;
        }
        texts.push(changed.to_string());
    }
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| [&[1], text.as_bytes()].concat()).collect();
    for header in
        [OUTER, r#"{"alg":"dir","enc":"A256GCM"}"#, r#"{"alg":"A256KW","enc":"A256GCM","zip":"DEF"}"#]
    {
        seeds.push([&[2, header.len() as u8], header.as_bytes(), b"a.b.c"].concat());
    }
    for token in ["", "a.b.c", "a.b.c.d.e", "....", "eyJhbGciOiJBMjU2S1ciLCJlbmMiOiJBMjU2R0NNIn0.AA.AA.AA.AA"]
    {
        seeds.push([&[0], token.as_bytes()].concat());
    }
    seeds
}

/// What becomes of a description of a key, and what it says.
#[allow(clippy::panic, reason = "a fuzz target reports by it")]
pub fn key_description(input: &[u8]) -> Result<(Security, Option<Boot>), Denial> {
    let found = Description::read(input).map_err(|refused| refused.denial)?;
    // DER has one spelling for each value: what is read begins with its whole length, and none of it may be left out.
    assert!(input.first() == Some(&0x30) && Description::read(&input[..input.len() - 1]).is_err());
    assert!(Description::read(&[input, &[0]].concat()).is_err());
    let challenge = found.challenge.as_slice();
    assert!(challenge.is_empty() || input.windows(challenge.len()).any(|part| part == challenge));
    Ok((found.attestation_security, found.hardware.root_of_trust.map(|root| root.boot)))
}

/// Seeds for [`key_description`].
pub fn key_description_seeds() -> Vec<Vec<u8>> {
    let key = |change: fn(&mut Key)| {
        let mut key = Key::new(b"challenge");
        change(&mut key);
        key.describe()
    };
    let good = key(|_| ());
    let mut indefinite = good.clone();
    indefinite[1] = 0x80;
    vec![
        good.clone(),
        key(|key| key.security = 2),
        key(|key| key.security = 0),
        key(|key| key.security = 3),
        key(|key| key.root_of_trust = Some((1, 0))),
        key(|key| key.root_of_trust = Some((0, 2))),
        key(|key| key.root_of_trust = None),
        key(|key| key.more = vec![(600, vec![5, 0]), (1_999, vec![4, 0])]),
        key(|key| key.more = vec![(702, vec![2, 1, 0])]),
        key(|key| key.packages.clear()),
        key(|key| key.purposes = (0..100).collect()),
        indefinite,
        // The universal tag 48 in place of 16: found by the fuzzer.
        [&[0x3f, 0x30], &good[1..]].concat(),
        good[..good.len() / 2].to_vec(),
        Vec::new(),
    ]
}
