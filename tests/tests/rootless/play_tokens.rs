//! Tokens of Google Play Integrity: sealed and signed as they should be, and everything that attackers change about that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, path::Path};

use anyhow::Result;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use enforcer::{
    attestation::play::{self, Expected, Keys, Rules, verdict::digest},
    denial::Denial,
};
use enforcer_tests::attestation::google::{self, Google, INNER, OUTER, device, encode, random};
use serde_json::Value;

use super::play_integrity::{NONCE, NOW, code, good, keys, rules};

#[test]
fn self_made_vectors_are_judged_as_they_are_labelled() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/vectors/playintegrity/self-made-tokens.json");
    let Ok(text) = fs::read(&file) else {
        eprintln!("SKIPPED: no {}", file.display());
        return;
    };
    let vectors: Value = serde_json::from_slice(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keys =
        Keys::new(&text(&vectors["decryption_key_b64"]), &text(&vectors["verification_key_spki_der_b64"]))
            .unwrap();
    let policy = &vectors["policy"];
    let certificate = digest(policy["certificate_sha256_b64u"][0].as_str().unwrap()).unwrap();
    let rules = Rules { certificates: vec![certificate], ..rules() };
    let now = vectors["evaluation_time_millis"].as_u64().unwrap();
    let (nonce, hash) = (text(&policy["nonce"]), text(&policy["request_hash"]));
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 59);
    let mut counts = [0; 3];
    for case in cases {
        let name = text(&case["name"]);
        let expected =
            if name.contains("requestHash") { Expected::RequestHash(&hash) } else { Expected::Nonce(&nonce) };
        let mut steps = Vec::new();
        let outcome = play::verify(&text(&case["token"]), &keys, &rules, &expected, now, &mut |step, _| {
            steps.push(step)
        });
        match (text(&case["expect"]).as_str(), outcome) {
            ("accept", Ok(_)) => counts[0] += 1,
            // What is refused for its content was opened first; a number in place of text is no verdict.
            ("reject-policy", Err(refused)) if steps.contains(&"signature") => {
                assert_eq!(
                    refused.denial == Denial::AttestationMalformed,
                    name == "timestamp-as-number",
                    "{refused}"
                );
                counts[1] += 1;
            }
            ("reject-crypto", Err(refused)) => {
                assert_eq!(refused.denial, Denial::AttestationMalformed, "{name}: {refused}");
                // Only what was signed can get as far as being read.
                assert_eq!(steps.contains(&"signature"), name == "not-json-payload", "{name}: {refused}");
                counts[2] += 1;
            }
            (label, outcome) => panic!("{name}: {label}, but {outcome:?}"),
        }
    }
    assert_eq!(counts, [3, 23, 33]);
}

/// Tokens that are refused before anything in them is believed.
fn crypto_cases(google: &Google) -> Result<Vec<(&'static str, String)>> {
    let payload = good().to_string();
    let payload = payload.as_bytes();
    let signed = google.sign(INNER, payload)?;
    let token = google.seal(OUTER, signed.as_bytes())?;
    let parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let with = |at: usize, part: String| {
        let mut parts = parts.clone();
        parts[at] = part;
        parts.join(".")
    };
    let flipped = |at: usize| -> Result<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(&parts[at])?;
        bytes[0] ^= 1;
        Ok(with(at, encode(&bytes)))
    };
    let outer = |header: &str| google.seal(header, signed.as_bytes());
    let inner =
        |header: &str| -> Result<String> { google.seal(OUTER, google.sign(header, payload)?.as_bytes()) };
    let unsigned = |header: &str, signature: &[u8]| {
        let message = format!("{}.{}", encode(header.as_bytes()), encode(payload));
        google.seal(OUTER, format!("{message}.{}", encode(signature)).as_bytes())
    };
    let mac = |key: &[u8]| {
        let message = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(payload));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        unsigned(r#"{"alg":"HS256"}"#, aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref())
    };
    let raw = google.signature(format!("{}.{}", encode(INNER.as_bytes()), encode(payload)).as_bytes())?;
    let integer = |bytes: &[u8]| device::der(&[2], &[&[0], bytes].concat());
    let der = [&[0x30, 70][..], &integer(&raw[..32]), &integer(&raw[32..])].concat();
    let tag = URL_SAFE_NO_PAD.decode(&parts[4])?;
    let stranger = Google::new()?;
    Ok(vec![
        ("encrypted with another key", google::seal(&random()?, OUTER, signed.as_bytes())?),
        ("signed with another key", google.seal(OUTER, stranger.sign(INNER, payload)?.as_bytes())?),
        ("inner alg none", unsigned(r#"{"alg":"none"}"#, b"x")?),
        ("inner alg none without a signature", unsigned(r#"{"alg":"none"}"#, b"")?),
        ("inner HS256 with the public key", mac(&google.verification_der())?),
        ("inner HS256 with the AES key", mac(google.decryption_bytes())?),
        ("outer A128KW", outer(r#"{"alg":"A128KW","enc":"A256GCM"}"#)?),
        ("outer dir", outer(r#"{"alg":"dir","enc":"A256GCM"}"#)?),
        ("outer A256GCMKW", outer(r#"{"alg":"A256GCMKW","enc":"A256GCM"}"#)?),
        ("outer RSA1_5", outer(r#"{"alg":"RSA1_5","enc":"A256GCM"}"#)?),
        ("outer PBES2", outer(r#"{"alg":"PBES2-HS512+A256KW","enc":"A256GCM","p2c":2147483647}"#)?),
        ("outer CBC", outer(r#"{"alg":"A256KW","enc":"A256CBC-HS512"}"#)?),
        ("outer zip", outer(r#"{"alg":"A256KW","enc":"A256GCM","zip":"DEF"}"#)?),
        ("outer crit", outer(r#"{"alg":"A256KW","enc":"A256GCM","crit":["x"],"x":1}"#)?),
        ("outer alg twice", outer(r#"{"alg":"A256KW","alg":"A256KW","enc":"A256GCM"}"#)?),
        ("outer alg in small letters", outer(r#"{"alg":"a256kw","enc":"A256GCM"}"#)?),
        (
            "outer header of 300 bytes",
            outer(&format!(r#"{{"alg":"A256KW","enc":"A256GCM"{}}}"#, " ".repeat(270)))?,
        ),
        ("outer header changed", with(0, encode(br#"{"enc":"A256GCM","alg":"A256KW"}"#))),
        ("inner crit", inner(r#"{"alg":"ES256","crit":["x"],"x":1}"#)?),
        ("inner b64 false", inner(r#"{"alg":"ES256","b64":false,"crit":["b64"]}"#)?),
        ("inner jwk", inner(r#"{"alg":"ES256","jwk":{}}"#)?),
        ("inner ES384", inner(r#"{"alg":"ES384"}"#)?),
        ("inner signature in DER", unsigned(INNER, &der)?),
        ("inner signature of zeros", unsigned(INNER, &[0; 64])?),
        ("inner signature of 63 bytes", unsigned(INNER, &raw[..63])?),
        ("encrypted key changed", flipped(1)?),
        ("IV changed", flipped(2)?),
        ("ciphertext changed", flipped(3)?),
        ("tag changed", flipped(4)?),
        ("tag of 96 bits", with(4, encode(&tag[..12]))),
        ("IV of 16 bytes", with(2, encode(&[0; 16]))),
        ("encrypted key of 32 bytes", with(1, encode(&[0; 32]))),
        ("padding", with(4, format!("{}==", parts[4]))),
        ("other last bits", with(4, format!("{}B", &parts[4][..parts[4].len() - 1]))),
        ("standard alphabet", with(2, "++++++++++++++++".to_owned())),
        ("a space inside", with(3, format!("{} ", parts[3]))),
        ("four parts", parts[..4].join(".")),
        ("six parts", format!("{token}.x")),
        ("an empty part", with(2, String::new())),
        ("thousands of dots", ".".repeat(10_000)),
        ("a megabyte", "A".repeat(1 << 20)),
        ("a newline behind", format!("{token}\n")),
        ("nothing", String::new()),
        ("a JWS without a JWE", signed.clone()),
        ("JSON without a JWS", google.seal(OUTER, payload)?),
        ("a JWE in a JWE", google.seal(OUTER, token.as_bytes())?),
        ("no UTF-8 inside", google.seal(OUTER, &[0xff; 64])?),
        ("no JSON inside", google.seal(OUTER, google.sign(INNER, b"verdict")?.as_bytes())?),
    ])
}

#[test]
fn what_is_not_sealed_and_signed_for_us_is_one_refusal() -> Result<()> {
    let google = Google::new()?;
    let keys = keys(&google);
    for (name, token) in crypto_cases(&google)? {
        let outcome = play::verify(&token, &keys, &rules(), &Expected::Nonce(NONCE), NOW, &mut |_, _| ());
        let refused = outcome.expect_err(name);
        // One code, whatever is wrong: who sends it learns nothing of where it failed.
        assert_eq!(refused.denial, Denial::AttestationMalformed, "{name}: {refused}");
    }
    Ok(())
}

#[test]
fn another_signature_of_the_same_verdict_is_as_good() -> Result<()> {
    // (r, n - s) verifies as well: what is used once is the nonce, never the token's bytes.
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let google = Google::new()?;
    let signed = google.sign(INNER, good().to_string().as_bytes())?;
    let (message, signature) = signed.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature)?;
    let mut borrow = 0;
    for at in (0..32).rev() {
        let digit = i16::from(ORDER[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        signature[32 + at] = digit.rem_euclid(256) as u8;
    }
    let token = google.seal(OUTER, format!("{message}.{}", encode(&signature)).as_bytes())?;
    assert!(
        play::verify(&token, &keys(&google), &rules(), &Expected::Nonce(NONCE), NOW, &mut |_, _| ()).is_ok()
    );
    Ok(())
}

#[test]
fn a_token_of_one_app_is_none_of_another() -> Result<()> {
    // Each app has its own keys; and where an operator uses one set for two, its name counts.
    let (one, two) = (Google::new()?, Google::new()?);
    let token = one.classic(&good())?;
    let other = Rules { packages: vec!["com.example.two".to_owned()], ..rules() };
    let verify =
        |keys: &Keys| play::verify(&token, keys, &other, &Expected::Nonce(NONCE), NOW, &mut |_, _| ());
    assert_eq!(code(verify(&keys(&two))), "attestation_malformed");
    assert_eq!(code(verify(&keys(&one))), "app_not_recognised");
    Ok(())
}

#[test]
fn keys_that_are_none_are_refused_and_never_shown() {
    let google = Google::new().unwrap();
    let (good, other) = (google.decryption_key(), google.verification_key());
    assert!(Keys::new(&format!(" {good}\n"), &other).is_ok());
    let off_curve = STANDARD.encode([&google.verification_der()[..27], &[1; 64]].concat());
    for (decryption, verification) in [
        ("", other.as_str()),
        ("c2VjcmV0", &other),
        (&good, ""),
        (&good, &good),
        (&good, &off_curve),
        (&good, &other[..80]),
    ] {
        let problem = Keys::new(decryption, verification).unwrap_err();
        assert!(!problem.contains("c2VjcmV0") && !problem.contains(&good[..8]), "{problem}");
    }
    for text in ["", "decryption_key = 1", &format!("decryption_key = \"{good}\nx"), "{}"] {
        assert!(!Keys::from_toml(text).unwrap_err().contains(&good[..8]));
    }
}
