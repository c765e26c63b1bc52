//! What is told of encrypted bodies by the file that has every key, and which files are refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{fs, path::Path, time::Duration};

use enforcer::{
    config::{self, Payload, PayloadFormat, PayloadKey, Probes},
    policy::tls,
    sealed::keys::Curve,
};
use enforcer_tests::payload::write_key;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/valid")
}

#[test]
fn what_is_written_of_payloads_is_what_holds() {
    let read = |name: &str| fs::read_to_string(folder().join(name)).unwrap();
    let config = config::parse(&read("every_key.toml"), Path::new("every_key.toml")).unwrap();
    let old = "/run/credentials/enforcer.service/payload-1";
    let keys = vec![
        PayloadKey { file: "keys/payload-2.pem".into(), id: None, until: None },
        PayloadKey { file: old.into(), id: Some("old_1".to_owned()), until: Some(1_772_323_200) },
    ];
    let expected = Payload {
        formats: vec![PayloadFormat::Layout, PayloadFormat::Jwe],
        keys,
        keys_path: "/payload-keys".to_owned(),
        keys_max_age: Duration::from_secs(3_600),
        max_body_bytes: 3 << 10,
        max_answer_bytes: 2 << 20,
        window: Duration::from_secs(30),
        clock_skew: Duration::from_secs(5),
        content_type: "application/cbor".to_owned(),
        plain: true,
    };
    assert_eq!(config.payloads["mobile"], expected);
    assert_eq!(config.routes[0].payload.as_deref(), Some("mobile"));
    assert_eq!(config.routes[1].payload, None);
    for file in ["keys/payload-2.pem", old] {
        assert!(config.files().contains(&Path::new(file)), "{file}");
    }
}

/// The reference shows the keys of a section, which no small file has, as they are by default.
#[test]
fn what_is_not_written_is_as_documented() {
    let reference = fs::read_to_string(folder().join("../../../docs/configuration.md")).unwrap();
    let (_, section) = reference.split_once("# [payload.mobile]\n").unwrap();
    let section = section.split("```").next().unwrap();
    let shown: String = section
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.contains(" = ") && !line.starts_with(' ') && !line.starts_with("keys = "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(shown.lines().count(), 9, "{shown}");
    let base = fs::read_to_string(folder().join("smallest.toml")).unwrap();
    let of = |more: &str| {
        let text = format!("{base}\n[payload.mobile]\nkeys = [{{ file = \"a.pem\" }}]\n{more}");
        config::parse(&text, Path::new("x.toml")).unwrap().payloads["mobile"].clone()
    };
    assert_eq!(of(&shown), of(""));
}

#[test]
fn mistakes_are_told_where_they_stand() {
    let base = fs::read_to_string(folder().join("smallest.toml")).unwrap();
    let section = |rest: &str| format!("[payload.app]\n{rest}\n");
    let good = "keys = [{ file = \"a.pem\" }]";
    let with = |rest: &str| section(&format!("{good}\n{rest}"));
    let route = |rest: &str| {
        format!("{}[[route]]\npath = \"/x/\"\nupstream = \"api\"\npublic = true\n{rest}\n", with(""))
    };
    let document = "[pins.set.a]\n[pins.document]\nkey = \"d.key\"\nversion = 1\n";
    for (text, expected) in [
        (section(""), "payload.app.keys: missing; name a private key"),
        (section("keys = []"), "payload.app.keys: empty"),
        (section("keys = [{}]"), "payload.app.keys[0].file: missing; name the PEM file"),
        (
            section("keys = [{ file = \"a.pem\", until = \"2026-12-31\" }]"),
            "payload.app.keys[0].until: the first key is the one that apps are to use",
        ),
        (section("keys = [{ file = \"a.pem\", until = \"tomorrow\" }]"), "write a day like"),
        (
            section("keys = [{ file = \"a.pem\", id = \"a b\" }]"),
            "payload.app.keys[0].id: `a b` is no key id",
        ),
        (
            section(
                "keys = [{ file = \"a.pem\", id = \"a\" }, { file = \"b.pem\", id = \"a\", until = \"2026-12-31\" }]",
            ),
            "`a` stands here twice",
        ),
        (section(&format!("keys = [{}]", "{ file = \"a.pem\" }, ".repeat(17))), "17 keys are too many"),
        (with("formats = []"), "payload.app.formats: empty"),
        (with("formats = [\"jwe\", \"jwe\"]"), "`jwe` stands here twice"),
        (with("formats = [\"jwt\"]"), "payload.app.formats[0]"),
        (with("keys_path = \"keys\""), "payload.app.keys_path: `keys` is no path"),
        (with("keys_path = \"/a/../keys\""), "payload.app.keys_path: `/a/../keys` is no path"),
        (with("keys_path = \"/\""), "payload.app.keys_path: `/` is no path of one endpoint"),
        (with("keys_path = \"/keys/\""), "payload.app.keys_path: `/keys/` is no path of one endpoint"),
        (with(&format!("keys_path = \"/{}\"", "k".repeat(1_024))), "k` is no path of one endpoint"),
        (
            format!("[attestation]\nchallenge_path = \"/{}\"\n", "k".repeat(1_024)),
            "k` is no path of one endpoint",
        ),
        (
            format!("{}[attestation]\n", with("keys_path = \"/.well-known/enforcer/keys\"")),
            "payload.app.keys_path: `/.well-known/enforcer/keys` is `attestation.keys_path` already",
        ),
        (
            format!("{}[attestation]\nchallenge_path = \"/ask\"\n", with("keys_path = \"/ask\"")),
            "payload.app.keys_path: `/ask` is `attestation.challenge_path` already",
        ),
        (
            format!("{}[attestation]\nsession_path = \"/.well-known/enforcer/payload-keys\"\n", with("")),
            "payload.app.keys_path: `/.well-known/enforcer/payload-keys` is `attestation.session_path` already",
        ),
        (
            format!("{}[attestation]\nenrol_path = \"/.well-known/enforcer/pins\"\n{document}", with("")),
            "pins.document.path: `/.well-known/enforcer/pins` is `attestation.enrol_path` already",
        ),
        (
            format!("{}{document}", with("keys_path = \"/.well-known/enforcer/pins\"")),
            "payload.app.keys_path: `/.well-known/enforcer/pins` is `pins.document.path` already",
        ),
        (with("content_type = \"json\""), "payload.app.content_type: `json` is no media type"),
        (with("max_body_bytes = \"17MiB\""), "payload.app.max_body_bytes: 17825792 bytes is out of range"),
        (with("max_body_bytes = \"11MiB\""), "more than http.max_body_bytes"),
        (format!("{}[http]\nmax_held_bytes = \"1MiB\"\n", with("")), "more than http.max_held_bytes"),
        (with("window = \"0s\""), "payload.app.window"),
        (with("plain = \"yes\""), "payload.app.plain"),
        (with("key = \"a.pem\""), "payload.app.key"),
        (
            format!("{}[payload.b]\n{good}\n", with("")),
            "payload.b.keys_path: `/.well-known/enforcer/payload-keys` is `payload.app.keys_path` already",
        ),
        (route("payload = \"ap\""), "there is no [payload.ap]; did you mean `app`?"),
        (route("payload = \"app\"\nupgrade = [\"websocket\"]"), "upgrade: beside `payload`"),
        (route("payload = \"app\"\nearly_data = true"), "early_data: beside `payload`"),
        (route("payload = \"app\"\noauth = { endpoint = \"revocation\" }"), "oauth: beside `payload`"),
    ] {
        let text = format!("{base}\n{text}");
        let errors = config::parse(&text, Path::new("x.toml")).err().map(|errors| errors.to_string());
        let errors = errors.unwrap_or_else(|| "accepted".to_owned());
        assert!(errors.contains(expected), "{text}\n{errors}\nnot: {expected}");
        assert!(errors.matches("keys_path: ").count() <= 1, "told once: {errors}");
    }
    assert!(config::parse(&format!("{base}\n{}", route("payload = \"app\"")), Path::new("x.toml")).is_ok());
}

/// What is signed is what is sent, which is longer than what is in it.
#[test]
fn bounds_that_refuse_what_a_payload_allows_are_warned_of() {
    let base = fs::read_to_string(folder().join("smallest.toml")).unwrap();
    let rest = "[attestation]\n[attestation.play]\npackages = [\"a.b\"]\ncertificates = [\"CERT\"]\n\
        [attestation.play.remote]\naccount = \"a.json\"\n\
        [signature.partner]\nscheme = \"rfc9421\"\nkeys = { k = \"k\" }\nmax_body_bytes = \"SIGNED\"\n\
        [payload.app]\nkeys = [{ file = \"k.pem\" }]\nmax_body_bytes = \"96KiB\"\n";
    let warned = |route: &str, signed: &str| -> Vec<String> {
        let rest = rest.replace("CERT", &"3c".repeat(32)).replace("SIGNED", signed);
        let text = format!(
            "{base}\n[[route]]\npath = \"/sealed\"\nupstream = \"api\"\npublic = true\npayload = \"app\"\n{route}\n{rest}"
        );
        let found = config::inspect_text(&text, Path::new("x.toml"), None);
        assert_eq!(found.errors, [], "{text}");
        found
            .warnings
            .iter()
            .filter(|one| one.key.ends_with(".payload"))
            .map(|one| one.problem.clone())
            .collect()
    };
    let demand = |asserted: &str, shown: &str| {
        format!(
            "signature = \"partner\"\nattestation = {{ assertion = \"time\", max_body_bytes = \"{asserted}\", play = {{ max_body_bytes = \"{shown}\" }} }}"
        )
    };
    assert_eq!(warned(&demand("128KiB", "128KiB"), "128KiB"), [""; 0]);
    for (route, signed, key) in [
        (demand("127KiB", "128KiB"), "128KiB", "attestation.max_body_bytes is 130048"),
        (demand("128KiB", "127KiB"), "128KiB", "attestation.play.max_body_bytes is 130048"),
        (demand("128KiB", "128KiB"), "127KiB", "max_body_bytes of its signature is 130048"),
    ] {
        let found = warned(&route, signed);
        assert!(found.len() == 1 && found[0].contains(key), "{found:?}");
    }
    assert_eq!(warned("", "1KiB"), [""; 0], "of another route");
}

#[test]
fn check_looks_at_the_keys() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let base = fs::read_to_string(folder().join("smallest.toml")).unwrap();
    let file = dir.path().join("payload.pem");
    let text = format!("{base}\n[payload.app]\nkeys = [{{ file = \"{}\" }}]\n", file.display());
    let probes = Probes { key_set: |_, _| Vec::new(), tls_file: tls::problem, held: |_| Vec::new() };
    let look = || config::inspect_text(&text, &dir.path().join("x.toml"), Some(&probes));
    let said = |found: &[config::Error]| -> Vec<String> {
        let of = |error: &&config::Error| error.key == "payload.app.keys[0].file";
        found.iter().filter(of).map(|error| format!("{error}")).collect()
    };
    let missing = said(&look().errors);
    assert!(missing.len() == 1 && missing[0].contains("cannot read the key"), "{missing:?}");
    fs::write(&file, "no key").unwrap();
    let bad = said(&look().errors);
    assert!(bad.len() == 1 && bad[0].contains("openssl genpkey"), "{bad:?}");
    write_key(&file, Curve::P256).unwrap();
    for (mode, warned) in [(0o640, false), (0o644, true)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let found = look();
        assert_eq!(said(&found.errors), [""; 0]);
        let warnings = said(&found.warnings);
        assert_eq!(
            warnings.iter().any(|text| text.contains("can read encrypted bodies")),
            warned,
            "{warnings:?}"
        );
    }
}
