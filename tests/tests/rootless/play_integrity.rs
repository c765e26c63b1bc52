//! Verdicts of Google Play Integrity, and what becomes of each thing that can be wrong with one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer::attestation::{
    Level, Refused,
    play::{
        self, Expected, Genuine, Keys, Risk, Rules, Verdict,
        verdict::{AppAccess, Label, PlayProtect},
    },
};
use enforcer_tests::attestation::google::{Bound, CERTIFICATE, Google, PACKAGE, STEPS, encode, verdict};
use serde_json::{Value, json};

/// When verdicts are judged, in milliseconds since 1970.
pub(super) const NOW: u64 = 1_764_547_200_000;
pub(super) const NONCE: &str = "c2VydmVyLWlzc3VlZC1ub25jZS0wMDAx";
const HASH: &str = "poClwrw7FVcNATfQLj_HjoTDOYiEbJxjLjhgkMRZHf4";

pub(super) fn rules() -> Rules {
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

pub(super) fn keys(google: &Google) -> Keys {
    Keys::from_toml(&google.keys_toml()).unwrap()
}

pub(super) fn good() -> Value {
    verdict(Bound::Nonce(NONCE), NOW)
}

fn judge(verdict: &Value, rules: &Rules) -> Result<Genuine, Refused> {
    let verdict = Verdict::read(verdict.to_string().as_bytes())?;
    play::judge(&verdict, rules, &Expected::Nonce(NONCE), NOW, &mut |_, _| ())
}

pub(super) fn code(outcome: Result<Genuine, Refused>) -> &'static str {
    outcome.map_or_else(|refused| refused.denial.code(), |_| "good")
}

#[test]
fn a_good_token_says_what_is_known_of_the_device() {
    let google = Google::new().unwrap();
    let mut steps = Vec::new();
    let token = google.classic(&good()).unwrap();
    let genuine =
        play::verify(&token, &keys(&google), &rules(), &Expected::Nonce(NONCE), NOW, &mut |step, _| {
            steps.push(step);
        });
    let genuine = genuine.unwrap();
    assert_eq!(
        (genuine.package.as_str(), genuine.version, genuine.level),
        (PACKAGE, 42, Some(Level::Strong))
    );
    assert_eq!(
        (genuine.licensing, genuine.activity, genuine.sdk),
        (Some("LICENSED"), Some("LEVEL_1"), Some(36))
    );
    assert_eq!(steps, STEPS);
    // The same for a standard request, whose verdict comes from Google.
    let standard = Verdict::read(verdict(Bound::RequestHash(HASH), NOW).to_string().as_bytes()).unwrap();
    let judge = |expected| play::judge(&standard, &rules(), &expected, NOW, &mut |_, _| ());
    assert!(judge(Expected::RequestHash(HASH)).is_ok());
    assert_eq!(code(judge(Expected::Nonce(HASH))), "attestation_nonce");
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
fn verdict_cases() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let other = encode(&[7; 32]);
    let ours = encode(&CERTIFICATE);
    let time = |ms: i64| json!((NOW.cast_signed() + ms).to_string());
    let device = "/deviceIntegrity/deviceRecognitionVerdict";
    let certificates = "/appIntegrity/certificateSha256Digest";
    let stamp = "/requestDetails/timestampMillis";
    vec![
        (
            "request of another app",
            "/requestDetails/requestPackageName",
            json!("com.example.other"),
            "app_not_recognised",
        ),
        (
            "request of an app in other letters",
            "/requestDetails/requestPackageName",
            json!("com.Example.app"),
            "app_not_recognised",
        ),
        ("request of no app", "/requestDetails/requestPackageName", Value::Null, "attestation_malformed"),
        ("another app", "/appIntegrity/packageName", json!("com.example.other"), "app_not_recognised"),
        ("no app", "/appIntegrity/packageName", Value::Null, "app_not_recognised"),
        (
            "another nonce",
            "/requestDetails/nonce",
            json!("YW5vdGhlci1ub25jZS0wMDAwMDAwMDA"),
            "attestation_nonce",
        ),
        ("nonce with padding", "/requestDetails/nonce", json!(format!("{NONCE}=")), "good"),
        ("an empty nonce", "/requestDetails/nonce", json!(""), "attestation_nonce"),
        ("no nonce", "/requestDetails/nonce", Value::Null, "attestation_nonce"),
        ("nonce a number", "/requestDetails/nonce", json!(1), "attestation_malformed"),
        ("a requestHash besides", "/requestDetails/requestHash", json!(HASH), "attestation_nonce"),
        ("15 minutes old", stamp, time(-900_000), "good"),
        ("15 minutes and 1 ms old", stamp, time(-900_001), "attestation_outdated"),
        ("5 minutes ahead", stamp, time(300_000), "good"),
        ("5 minutes and 1 ms ahead", stamp, time(300_001), "attestation_outdated"),
        ("seconds in place of milliseconds", stamp, json!((NOW / 1_000).to_string()), "attestation_outdated"),
        ("time a number", stamp, json!(NOW), "attestation_malformed"),
        ("time signed", stamp, json!(format!("+{NOW}")), "attestation_malformed"),
        ("time beyond 63 bits", stamp, json!("9223372036854775808"), "attestation_malformed"),
        ("time of 63 bits", stamp, json!("9223372036854775807"), "attestation_outdated"),
        ("no time", stamp, Value::Null, "attestation_malformed"),
        (
            "UNRECOGNIZED_VERSION",
            "/appIntegrity/appRecognitionVerdict",
            json!("UNRECOGNIZED_VERSION"),
            "app_not_recognised",
        ),
        (
            "app UNEVALUATED",
            "/appIntegrity/appRecognitionVerdict",
            json!("UNEVALUATED"),
            "app_not_recognised",
        ),
        (
            "app unknown word",
            "/appIntegrity/appRecognitionVerdict",
            json!("PLAY_RECOGNIZED_2"),
            "app_not_recognised",
        ),
        ("app no word", "/appIntegrity/appRecognitionVerdict", Value::Null, "app_not_recognised"),
        ("no appIntegrity", "/appIntegrity", Value::Null, "app_not_recognised"),
        ("appIntegrity a list", "/appIntegrity", json!([]), "attestation_malformed"),
        ("another certificate", certificates, json!([other]), "app_not_recognised"),
        ("another certificate besides", certificates, json!([ours, other]), "app_not_recognised"),
        ("no certificate", certificates, json!([]), "app_not_recognised"),
        ("certificates absent", certificates, Value::Null, "app_not_recognised"),
        ("certificate that is none", certificates, json!([ours, "x"]), "app_not_recognised"),
        ("certificate with padding", certificates, json!([format!("{ours}=")]), "good"),
        (
            "certificate in the standard alphabet",
            certificates,
            json!([STANDARD.encode([0xff; 32])]),
            "app_not_recognised",
        ),
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
        (
            "device of an unknown label",
            device,
            json!(["MEETS_DEVICE_INTEGRITY_2"]),
            "device_integrity_failed",
        ),
        (
            "device label last",
            device,
            json!(["MEETS_NEW", "MEETS_BASIC_INTEGRITY", "MEETS_DEVICE_INTEGRITY"]),
            "good",
        ),
        (
            "device strong without device",
            device,
            json!(["MEETS_STRONG_INTEGRITY"]),
            "device_integrity_failed",
        ),
        ("device a text", device, json!("MEETS_DEVICE_INTEGRITY"), "attestation_malformed"),
        ("unlicensed", "/accountDetails/appLicensingVerdict", json!("UNLICENSED"), "app_unlicensed"),
        (
            "licence UNEVALUATED",
            "/accountDetails/appLicensingVerdict",
            json!("UNEVALUATED"),
            "app_unlicensed",
        ),
        ("licence unknown word", "/accountDetails/appLicensingVerdict", json!("licensed"), "app_unlicensed"),
        ("no accountDetails", "/accountDetails", Value::Null, "app_unlicensed"),
        ("testing", "/testingDetails", json!({"isTestingResponse": true}), "attestation_environment"),
        (
            "testing of another type",
            "/testingDetails",
            json!({"isTestingResponse": "no"}),
            "attestation_environment",
        ),
        ("testing unsaid", "/testingDetails", json!({}), "attestation_environment"),
        ("testing false", "/testingDetails", json!({"isTestingResponse": false}), "good"),
        (
            "activity LEVEL_3",
            "/deviceIntegrity/recentDeviceActivity/deviceActivityLevel",
            json!("LEVEL_3"),
            "good",
        ),
        (
            "activity LEVEL_4",
            "/deviceIntegrity/recentDeviceActivity/deviceActivityLevel",
            json!("LEVEL_4"),
            "device_risk",
        ),
        (
            "activity unknown word",
            "/deviceIntegrity/recentDeviceActivity/deviceActivityLevel",
            json!("LEVEL_0"),
            "device_risk",
        ),
        (
            "activity UNEVALUATED",
            "/deviceIntegrity/recentDeviceActivity/deviceActivityLevel",
            json!("UNEVALUATED"),
            "device_risk",
        ),
        ("activity absent", "/deviceIntegrity/recentDeviceActivity", Value::Null, "device_risk"),
        (
            "Play Protect HIGH_RISK",
            "/environmentDetails/playProtectVerdict",
            json!("HIGH_RISK"),
            "device_risk",
        ),
        ("Play Protect unknown word", "/environmentDetails/playProtectVerdict", json!("FINE"), "device_risk"),
        ("Play Protect NO_DATA", "/environmentDetails/playProtectVerdict", json!("NO_DATA"), "good"),
        (
            "access UNKNOWN_CONTROLLING",
            "/environmentDetails/appAccessRiskVerdict/appsDetected",
            json!(["KNOWN_INSTALLED", "UNKNOWN_CONTROLLING"]),
            "device_risk",
        ),
        (
            "access unknown word",
            "/environmentDetails/appAccessRiskVerdict/appsDetected",
            json!(["UNKNOWN_WATCHING"]),
            "device_risk",
        ),
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
    let twice = good().to_string().replacen(
        '{',
        r#"{"testingDetails":{"isTestingResponse":true},"testingDetails":{"isTestingResponse":false},"#,
        1,
    );
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
fn checks_come_in_their_order() {
    // Everything is wrong; what is mended first is what was refused first.
    let mut verdict = good();
    let mends = [
        ("/requestDetails/requestPackageName", json!("x"), "app_not_recognised"),
        ("/requestDetails/nonce", json!("x"), "attestation_nonce"),
        ("/requestDetails/timestampMillis", json!("1"), "attestation_outdated"),
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
        let opened = [
            "testing",
            "testing of another type",
            "testing unsaid",
            "activity UNEVALUATED",
            "activity absent",
            "no environmentDetails",
        ];
        let expected = if opened.contains(&name) { "good" } else { expected };
        assert_eq!(code(judge(&verdict, &lax)), expected, "{name}");
    }
    let free =
        Rules { labels: Vec::new(), licensed: false, min_version: 0, risk: Risk::default(), ..rules() };
    let mut verdict = good();
    set(&mut verdict, "/deviceIntegrity", Value::Null);
    set(&mut verdict, "/accountDetails", Value::Null);
    let genuine = judge(&verdict, &free).unwrap();
    assert_eq!((genuine.level, genuine.licensing), (None, None));
    let strong = Rules { labels: vec![Label::Strong], ..free };
    assert_eq!(code(judge(&verdict, &strong)), "device_integrity_failed");
}
