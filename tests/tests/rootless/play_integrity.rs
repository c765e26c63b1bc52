//! Google Play Integrity: tokens and verdicts as they should be, and everything that attackers change about them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use enforcer::{
    attestation::{
        Level, Refused,
        play::{
            self, Expected, Genuine, Keys, Risk, Rules, Verdict,
            verdict::{AppAccess, Label, PlayProtect, digest},
        },
    },
    denial::Denial,
};
use enforcer_tests::attestation::google::{
    self, Bound, CERTIFICATE, Google, INNER, OUTER, PACKAGE, encode, random, verdict,
};
use serde_json::{Value, json};

/// When verdicts are judged, in milliseconds since 1970.
const NOW: u64 = 1_764_547_200_000;
const NONCE: &str = "c2VydmVyLWlzc3VlZC1ub25jZS0wMDAx";
const HASH: &str = "poClwrw7FVcNATfQLj_HjoTDOYiEbJxjLjhgkMRZHf4";

fn rules() -> Rules {
    Rules {
        packages: vec![PACKAGE.to_owned()],
        certificates: vec![CERTIFICATE],
        min_version: 40,
        labels: vec![Label::Device],
        licensed: true,
        max_age: Duration::from_secs(900),
        skew: Duration::from_secs(300),
        testing: false,
        risk: Risk {
            max_activity: Some(3),
            play_protect: vec![PlayProtect::HighRisk],
            access: vec![AppAccess::UnknownControlling],
            unevaluated: false,
        },
    }
}

fn keys(google: &Google) -> Keys {
    Keys::from_toml(&google.keys_toml()).unwrap()
}

fn good() -> Value {
    verdict(Bound::Nonce(NONCE), NOW)
}

fn judge(verdict: &Value, rules: &Rules) -> Result<Genuine, Refused> {
    let verdict = Verdict::read(verdict.to_string().as_bytes())?;
    play::judge(&verdict, rules, &Expected::Nonce(NONCE), NOW, &mut |_, _| ())
}

fn code(outcome: Result<Genuine, Refused>) -> &'static str {
    outcome.map_or_else(|refused| refused.denial.code(), |_| "good")
}

#[test]
fn self_made_vectors_are_judged_as_they_are_labelled() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/playintegrity/self-made-tokens.json");
    let Ok(text) = fs::read(&file) else {
        eprintln!("SKIPPED: no {}", file.display());
        return;
    };
    let vectors: Value = serde_json::from_slice(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keys =
        Keys::new(&text(&vectors["decryption_key_b64"]), &text(&vectors["verification_key_spki_der_b64"])).unwrap();
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
        let expected = if name.contains("requestHash") { Expected::RequestHash(&hash) } else { Expected::Nonce(&nonce) };
        let mut steps = Vec::new();
        let outcome = play::verify(&text(&case["token"]), &keys, &rules, &expected, now, &mut |step, _| steps.push(step));
        match (text(&case["expect"]).as_str(), outcome) {
            ("accept", Ok(_)) => counts[0] += 1,
            // What is refused for its content was opened first; a number in place of text is no verdict.
            ("reject-policy", Err(refused)) if steps.contains(&"signature") => {
                assert_eq!(refused.denial == Denial::AttestationMalformed, name == "timestamp-as-number", "{refused}");
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

#[test]
fn a_good_token_says_what_is_known_of_the_device() {
    let google = Google::new().unwrap();
    let mut steps = Vec::new();
    let token = google.classic(&good()).unwrap();
    let genuine = play::verify(&token, &keys(&google), &rules(), &Expected::Nonce(NONCE), NOW, &mut |step, _| {
        steps.push(step);
    });
    let genuine = genuine.unwrap();
    assert_eq!((genuine.package.as_str(), genuine.version, genuine.level), (PACKAGE, 42, Some(Level::Strong)));
    assert_eq!((genuine.licensing, genuine.activity, genuine.sdk), (Some("LICENSED"), Some("LEVEL_1"), Some(36)));
    let order =
        ["form", "decryption", "signature", "request", "binding", "time", "app", "device", "licence", "testing", "risk"];
    assert_eq!(steps, order);
    // The same for a standard request, whose verdict comes from Google.
    let standard = Verdict::read(verdict(Bound::RequestHash(HASH), NOW).to_string().as_bytes()).unwrap();
    let judge = |expected| play::judge(&standard, &rules(), &expected, NOW, &mut |_, _| ());
    assert!(judge(Expected::RequestHash(HASH)).is_ok());
    assert_eq!(code(judge(Expected::Nonce(HASH))), "attestation_nonce");
}

/// Tokens that are refused before anything in them is believed.
#[allow(clippy::too_many_lines, reason = "a table")]
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
    let inner = |header: &str| -> Result<String> { google.seal(OUTER, google.sign(header, payload)?.as_bytes()) };
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
    let integer = |bytes: &[u8]| enforcer_tests::attestation::google::device::der(&[2], &[&[0], bytes].concat());
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
        ("outer header of 300 bytes", outer(&format!(r#"{{"alg":"A256KW","enc":"A256GCM"{}}}"#, " ".repeat(270)))?),
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
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
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
    assert!(play::verify(&token, &keys(&google), &rules(), &Expected::Nonce(NONCE), NOW, &mut |_, _| ()).is_ok());
    Ok(())
}

/// Sets what a path of names leads to; `Null` takes it away.
fn set(verdict: &mut Value, path: &str, value: Value) {
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = verdict.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(name);
    } else {
        parent.insert(name.to_owned(), value);
    }
}

/// Verdicts with one thing changed: its name, where, to what, and what becomes of it.
#[allow(clippy::too_many_lines, reason = "a table")]
fn verdict_cases() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let other = encode(&[7; 32]);
    let ours = encode(&CERTIFICATE);
    let time = |ms: i64| json!((NOW.cast_signed() + ms).to_string());
    let device = "/deviceIntegrity/deviceRecognitionVerdict";
    let certificates = "/appIntegrity/certificateSha256Digest";
    let stamp = "/requestDetails/timestampMillis";
    vec![
        ("request of another app", "/requestDetails/requestPackageName", json!("com.example.other"), "app_not_recognised"),
        ("request of an app in other letters", "/requestDetails/requestPackageName", json!("com.Example.app"), "app_not_recognised"),
        ("request of no app", "/requestDetails/requestPackageName", Value::Null, "attestation_malformed"),
        ("another app", "/appIntegrity/packageName", json!("com.example.other"), "app_not_recognised"),
        ("no app", "/appIntegrity/packageName", Value::Null, "app_not_recognised"),
        ("another nonce", "/requestDetails/nonce", json!("YW5vdGhlci1ub25jZS0wMDAwMDAwMDA"), "attestation_nonce"),
        ("nonce with padding", "/requestDetails/nonce", json!(format!("{NONCE}=")), "good"),
        ("an empty nonce", "/requestDetails/nonce", json!(""), "attestation_nonce"),
        ("no nonce", "/requestDetails/nonce", Value::Null, "attestation_nonce"),
        ("nonce a number", "/requestDetails/nonce", json!(1), "attestation_malformed"),
        ("a requestHash besides", "/requestDetails/requestHash", json!(HASH), "attestation_nonce"),
        ("15 minutes old", stamp, time(-900_000), "good"),
        ("15 minutes and 1 ms old", stamp, time(-900_001), "attestation_stale"),
        ("5 minutes ahead", stamp, time(300_000), "good"),
        ("5 minutes and 1 ms ahead", stamp, time(300_001), "attestation_stale"),
        ("seconds in place of milliseconds", stamp, json!((NOW / 1_000).to_string()), "attestation_stale"),
        ("time a number", stamp, json!(NOW), "attestation_malformed"),
        ("time signed", stamp, json!(format!("+{NOW}")), "attestation_malformed"),
        ("time beyond 63 bits", stamp, json!("9223372036854775808"), "attestation_malformed"),
        ("time of 63 bits", stamp, json!("9223372036854775807"), "attestation_stale"),
        ("no time", stamp, Value::Null, "attestation_malformed"),
        ("UNRECOGNIZED_VERSION", "/appIntegrity/appRecognitionVerdict", json!("UNRECOGNIZED_VERSION"), "app_not_recognised"),
        ("app UNEVALUATED", "/appIntegrity/appRecognitionVerdict", json!("UNEVALUATED"), "app_not_recognised"),
        ("app unknown word", "/appIntegrity/appRecognitionVerdict", json!("PLAY_RECOGNIZED_2"), "app_not_recognised"),
        ("app no word", "/appIntegrity/appRecognitionVerdict", Value::Null, "app_not_recognised"),
        ("no appIntegrity", "/appIntegrity", Value::Null, "app_not_recognised"),
        ("appIntegrity a list", "/appIntegrity", json!([]), "attestation_malformed"),
        ("another certificate", certificates, json!([other]), "app_not_recognised"),
        ("another certificate besides", certificates, json!([ours, other]), "app_not_recognised"),
        ("no certificate", certificates, json!([]), "app_not_recognised"),
        ("certificates absent", certificates, Value::Null, "app_not_recognised"),
        ("certificate that is none", certificates, json!([ours, "x"]), "app_not_recognised"),
        ("certificate with padding", certificates, json!([format!("{ours}=")]), "good"),
        ("certificate in the standard alphabet", certificates, json!([STANDARD.encode([0xff; 32])]), "app_not_recognised"),
        ("certificates a text", certificates, json!(ours), "attestation_malformed"),
        ("version 40", "/appIntegrity/versionCode", json!("40"), "good"),
        ("version 39", "/appIntegrity/versionCode", json!("39"), "app_outdated"),
        ("version 5, later by the alphabet", "/appIntegrity/versionCode", json!("5"), "app_outdated"),
        ("version a number", "/appIntegrity/versionCode", json!(42), "attestation_malformed"),
        ("no version", "/appIntegrity/versionCode", Value::Null, "app_not_recognised"),
        ("device empty", device, json!([]), "device_integrity_failed"),
        ("device absent", device, Value::Null, "device_integrity_failed"),
        ("no deviceIntegrity", "/deviceIntegrity", Value::Null, "device_integrity_failed"),
        ("device basic only", device, json!(["MEETS_BASIC_INTEGRITY"]), "device_integrity_failed"),
        ("device virtual only", device, json!(["MEETS_VIRTUAL_INTEGRITY"]), "device_integrity_failed"),
        ("device of an unknown label", device, json!(["MEETS_DEVICE_INTEGRITY_2"]), "device_integrity_failed"),
        ("device label last", device, json!(["MEETS_NEW", "MEETS_BASIC_INTEGRITY", "MEETS_DEVICE_INTEGRITY"]), "good"),
        ("device strong without device", device, json!(["MEETS_STRONG_INTEGRITY"]), "device_integrity_failed"),
        ("device a text", device, json!("MEETS_DEVICE_INTEGRITY"), "attestation_malformed"),
        ("unlicensed", "/accountDetails/appLicensingVerdict", json!("UNLICENSED"), "app_unlicensed"),
        ("licence UNEVALUATED", "/accountDetails/appLicensingVerdict", json!("UNEVALUATED"), "app_unlicensed"),
        ("licence unknown word", "/accountDetails/appLicensingVerdict", json!("licensed"), "app_unlicensed"),
        ("no accountDetails", "/accountDetails", Value::Null, "app_unlicensed"),
        ("testing", "/testingDetails", json!({"isTestingResponse": true}), "attestation_environment"),
        ("testing of another type", "/testingDetails", json!({"isTestingResponse": "no"}), "attestation_environment"),
        ("testing unsaid", "/testingDetails", json!({}), "attestation_environment"),
        ("testing false", "/testingDetails", json!({"isTestingResponse": false}), "good"),
        ("activity LEVEL_3", "/deviceIntegrity/recentDeviceActivity/deviceActivityLevel", json!("LEVEL_3"), "good"),
        ("activity LEVEL_4", "/deviceIntegrity/recentDeviceActivity/deviceActivityLevel", json!("LEVEL_4"), "device_risk"),
        ("activity unknown word", "/deviceIntegrity/recentDeviceActivity/deviceActivityLevel", json!("LEVEL_0"), "device_risk"),
        ("activity UNEVALUATED", "/deviceIntegrity/recentDeviceActivity/deviceActivityLevel", json!("UNEVALUATED"), "device_risk"),
        ("activity absent", "/deviceIntegrity/recentDeviceActivity", Value::Null, "device_risk"),
        ("Play Protect HIGH_RISK", "/environmentDetails/playProtectVerdict", json!("HIGH_RISK"), "device_risk"),
        ("Play Protect unknown word", "/environmentDetails/playProtectVerdict", json!("FINE"), "device_risk"),
        ("Play Protect NO_DATA", "/environmentDetails/playProtectVerdict", json!("NO_DATA"), "good"),
        ("access UNKNOWN_CONTROLLING", "/environmentDetails/appAccessRiskVerdict/appsDetected", json!(["KNOWN_INSTALLED", "UNKNOWN_CONTROLLING"]), "device_risk"),
        ("access unknown word", "/environmentDetails/appAccessRiskVerdict/appsDetected", json!(["UNKNOWN_WATCHING"]), "device_risk"),
        ("no environmentDetails", "/environmentDetails", Value::Null, "device_risk"),
        ("something new", "/newDetails", json!({"a": [1, {"b": null}]}), "good"),
        ("an attribute of another type", "/deviceIntegrity/deviceAttributes/sdkVersion", json!("36"), "good"),
    ]
}

#[test]
fn each_part_of_a_verdict_is_judged() {
    for (name, path, value, expected) in verdict_cases() {
        let mut verdict = good();
        set(&mut verdict, path, value);
        assert_eq!(code(judge(&verdict, &rules())), expected, "{name}");
    }
    assert_eq!(code(judge(&good(), &rules())), "good");
    // What says it twice could be read as either.
    let twice = good().to_string().replacen('{', r#"{"testingDetails":{"isTestingResponse":true},"testingDetails":{"isTestingResponse":false},"#, 1);
    assert!(Verdict::read(twice.as_bytes()).is_err());
    assert!(Verdict::read(&vec![b' '; 20_000]).is_err());
}

#[test]
fn the_legacy_verdict_is_ignored() {
    let mut verdict = good();
    set(&mut verdict, "/deviceIntegrity/deviceRecognitionVerdict", Value::Null);
    set(&mut verdict, "/deviceIntegrity/legacyDeviceRecognitionVerdict", json!(["MEETS_DEVICE_INTEGRITY"]));
    assert_eq!(code(judge(&verdict, &rules())), "device_integrity_failed");
}

#[test]
fn a_token_of_one_app_is_none_of_another() -> Result<()> {
    // Each app has its own keys; and where an operator uses one set for two, its name counts.
    let (one, two) = (Google::new()?, Google::new()?);
    let token = one.classic(&good())?;
    let other = Rules { packages: vec!["com.example.two".to_owned()], ..rules() };
    let verify = |keys: &Keys| play::verify(&token, keys, &other, &Expected::Nonce(NONCE), NOW, &mut |_, _| ());
    assert_eq!(code(verify(&keys(&two))), "attestation_malformed");
    assert_eq!(code(verify(&keys(&one))), "app_not_recognised");
    Ok(())
}

#[test]
fn checks_come_in_their_order() {
    // Everything is wrong; what is mended first is what was refused first.
    let mut verdict = good();
    let mends = [
        ("/requestDetails/requestPackageName", json!("x"), "app_not_recognised"),
        ("/requestDetails/nonce", json!("x"), "attestation_nonce"),
        ("/requestDetails/timestampMillis", json!("1"), "attestation_stale"),
        ("/appIntegrity/appRecognitionVerdict", json!("UNEVALUATED"), "app_not_recognised"),
        ("/appIntegrity/versionCode", json!("1"), "app_outdated"),
        ("/deviceIntegrity/deviceRecognitionVerdict", json!([]), "device_integrity_failed"),
        ("/accountDetails/appLicensingVerdict", json!("UNLICENSED"), "app_unlicensed"),
        ("/testingDetails", json!({"isTestingResponse": true}), "attestation_environment"),
        ("/environmentDetails/playProtectVerdict", json!("HIGH_RISK"), "device_risk"),
    ];
    for (path, value, _) in &mends {
        set(&mut verdict, path, value.clone());
    }
    for (path, _, expected) in &mends {
        assert_eq!(code(judge(&verdict, &rules())), *expected, "{path}");
        let mended = good().pointer(path).cloned().unwrap_or(Value::Null);
        set(&mut verdict, path, mended);
    }
    assert_eq!(code(judge(&verdict, &rules())), "good");
}

#[test]
fn rules_open_by_name_and_no_further() {
    let lax = Rules { testing: true, risk: Risk { unevaluated: true, ..rules().risk }, ..rules() };
    for (name, path, value, expected) in verdict_cases() {
        let mut verdict = good();
        set(&mut verdict, path, value);
        let opened = ["testing", "testing of another type", "testing unsaid", "activity UNEVALUATED", "activity absent", "no environmentDetails"];
        let expected = if opened.contains(&name) { "good" } else { expected };
        assert_eq!(code(judge(&verdict, &lax)), expected, "{name}");
    }
    let free = Rules { labels: Vec::new(), licensed: false, min_version: 0, risk: Risk::default(), ..rules() };
    let mut verdict = good();
    set(&mut verdict, "/deviceIntegrity", Value::Null);
    set(&mut verdict, "/accountDetails", Value::Null);
    let genuine = judge(&verdict, &free).unwrap();
    assert_eq!((genuine.level, genuine.licensing), (None, None));
    let strong = Rules { labels: vec![Label::Strong], ..free };
    assert_eq!(code(judge(&verdict, &strong)), "device_integrity_failed");
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
