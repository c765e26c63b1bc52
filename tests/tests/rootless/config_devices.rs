//! What is written of devices, and what is refused there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{fs, path::Path, time::Duration};

use enforcer::{
    attestation::app_attest,
    config::{
        self, AndroidApps, AndroidKey, AppAttest, Assertion, Attestation, AttestationDemand,
        AttestationPaths, BootState, Environment, KeySecurity, Level, OverRisk, Platform, Play, PlayDemand,
        PlayRemote, PlayRisk, PlayUnavailable, RateLimit, Receipts, UnknownDevices, settle,
    },
};

/// A file that is good but for what is tried.
pub(super) const REST: &str = r#"
[kernel]
mode = "off"
[[listener]]
address = "127.0.0.1:8443"
certificates = [{ chain = "a.pem", key = "a.key" }]
[upstream.api]
servers = ["http://127.0.0.1:9"]
[[route]]
path = "/"
public = true
upstream = "api"
"#;

pub(super) fn errors(route: &str, sections: &str) -> Vec<String> {
    let text = format!("{REST}{route}\n{sections}");
    match config::parse(&text, Path::new("x.toml")) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(|one| format!("{}: {}", one.key, one.problem)).collect(),
    }
}

#[test]
fn what_is_written_of_devices_is_what_holds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/valid/every_key.toml");
    let config = config::parse(&fs::read_to_string(file).unwrap(), Path::new("every_key.toml")).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(
        config.attestation.unwrap(),
        Attestation {
            paths: AttestationPaths {
                challenge: "/device/challenge".into(),
                enrol: "/device/enrol".into(),
                session: "/device/session".into(),
                keys: "/device/keys".into(),
            },
            limit: RateLimit { events: 5, period: seconds(1), burst: 50 },
            challenge_lifetime: seconds(60),
            max_challenges: 5_000,
            assertion_window: seconds(30),
            session_lifetime: seconds(600),
            session_keys: Some("sessions.key".into()),
            facts_key: Some("facts.key".into()),
            facts_previous_keys: vec!["facts.old.key".into()],
            facts_issuer: "https://edge.example.com".into(),
            facts_audience: Some("https://api.example.com".into()),
            facts_lifetime: seconds(30),
            store: Some("state/devices.redb".into()),
            max_devices: 7_000,
            forget_after: seconds(90 * 86_400),
            unknown_devices: UnknownDevices::BySession,
            app_attest: Some(AppAttest {
                apps: vec!["ABCDE12345.com.example.app".into(), "ABCDE12345.com.example.other".into()],
                environment: Environment::Development,
                categories: vec!["app-store".into(), "2".into()],
                minimum_version: Some("4.2".into()),
                require_distribution: true,
                root: Some("root.pem".into()),
                receipts: Some(Receipts {
                    key: "devicecheck.p8".into(),
                    key_id: "F6G7H8I9J0".to_owned(),
                    team: "ABCDE12345".to_owned(),
                    api: Some("https://apple.example.com".parse().unwrap()),
                    authorities: Some("apple-roots.pem".into()),
                    private_addresses: true,
                    timeout: seconds(5),
                    every: seconds(43_200),
                    calls_per_day: 500,
                    max_receipts: 2_000,
                    root: Some("receipts.pem".into()),
                }),
            }),
            android_key: Some(AndroidKey {
                apps: AndroidApps {
                    packages: vec!["com.example.app".into(), "com.example.other".into()],
                    certificates: vec![[0x3c; 32], [0xa5; 32]],
                    min_version: 40,
                },
                security: KeySecurity::StrongBox,
                boot: BootState::SelfSigned,
                boot_keys: vec![[0x5a; 32]],
                min_patch: 202_511,
                expired_factory: true,
                require_play: true,
                revocations: Some("status.json".into()),
                root: Some("android.pem".into()),
            }),
            play: Some(Play {
                apps: AndroidApps {
                    packages: vec!["com.example.app".into()],
                    certificates: vec![[0x3c; 32]],
                    min_version: 41,
                },
                keys: Some("play-keys.toml".into()),
                licensed: false,
                max_age: seconds(60),
                verdict_lifetime: seconds(3_600),
                labels: vec!["MEETS_DEVICE_INTEGRITY".into(), "MEETS_STRONG_INTEGRITY".into()],
                testing: true,
                risk: PlayRisk {
                    max_activity: Some(3),
                    play_protect: vec!["HIGH_RISK".into()],
                    app_access: vec!["KNOWN_CONTROLLING".into(), "UNKNOWN_CONTROLLING".into()],
                    unevaluated: true,
                },
                remote: Some(PlayRemote {
                    account: "account.json".into(),
                    api: http::Uri::from_static("https://integrity.example.com/google"),
                    token_url: Some(http::Uri::from_static("https://integrity.example.com/token")),
                    authorities: Some("integrity-roots.pem".into()),
                    private_addresses: true,
                    timeout: Duration::from_millis(500),
                    max_calls: 8,
                    calls_per_day: 5_000,
                    burst: 50,
                    reserve: 100,
                    unavailable: PlayUnavailable::Cached(seconds(48 * 3_600)),
                }),
            }),
        }
    );
    let demand = AttestationDemand {
        max_age: seconds(300),
        level: Level::Strong,
        platforms: vec![Platform::Ios, Platform::Android],
        assertion: Some(Assertion::Time),
        group: "pay".to_owned(),
        max_body_bytes: 4_096,
        max_risk: Some(4),
        over_risk: OverRisk::Flag,
        play: Some(PlayDemand {
            unavailable: PlayUnavailable::AllowAndFlag,
            reuse: seconds(300),
            max_body_bytes: 64 << 10,
        }),
    };
    assert_eq!(config.routes[0].attestation, Some(demand));
    assert_eq!(config.routes[1].attestation, None);
}

#[test]
fn what_is_not_written_is_as_documented() {
    let parse = |text: &str| config::parse(&format!("{REST}{text}"), Path::new("x.toml")).unwrap();
    assert_eq!(parse("").attestation, None);
    let config = parse("attestation = {}\n[attestation]\n");
    let by = config.attestation.clone().unwrap();
    assert_eq!(by.paths.challenge, "/.well-known/enforcer/challenge");
    assert_eq!(by.store.clone().unwrap(), Path::new("/var/lib/enforcer/devices.redb"));
    assert_eq!((by.challenge_lifetime.as_secs(), by.session_lifetime.as_secs()), (120, 900));
    assert_eq!((by.max_challenges, by.max_devices), (262_144, 1_000_000));
    assert_eq!((by.unknown_devices, by.app_attest.is_none()), (UnknownDevices::Refuse, true));
    assert_eq!((by.android_key, by.play), (None, None));
    let apps = format!("packages = [\"com.example.app\"]\ncertificates = [\"{}\"]\n", "3c".repeat(32));
    let sections = format!("[attestation.android_key]\n{apps}[attestation.play]\nkeys = \"k\"\n{apps}");
    let by = parse(&sections).attestation.unwrap();
    let (key, play) = (by.android_key.unwrap(), by.play.unwrap());
    assert_eq!((key.security, key.boot), (KeySecurity::TrustedEnvironment, BootState::Verified));
    assert_eq!((key.min_patch, key.expired_factory, key.require_play), (0, false, false));
    assert_eq!((key.apps.min_version, key.root, key.revocations), (0, None, None));
    assert_eq!((play.licensed, play.max_age.as_secs(), play.verdict_lifetime.as_secs()), (true, 120, 86_400));
    let demand = config.routes[0].attestation.clone().unwrap();
    assert_eq!((demand.max_age.as_secs(), demand.level), (900, Level::Device));
    assert!(demand.platforms.is_empty());
    assert_eq!((demand.assertion, demand.max_risk, demand.over_risk), (None, None, OverRisk::Deny));
    assert_eq!(by.assertion_window.as_secs(), 60);
    let signed = parse(
        "attestation = { assertion = \"challenge\" }\n[attestation]\n[attestation.app_attest]\napps = [\"ABCDE12345.com.example.app\"]\n[attestation.app_attest.receipts]\nkey = \"k\"\nkey_id = \"F6G7H8I9J0\"\n",
    );
    let demand = signed.routes[0].attestation.clone().unwrap();
    assert_eq!((demand.group.as_str(), demand.max_body_bytes), (signed.routes[0].name.as_str(), 1 << 20));
    let receipts = signed.attestation.unwrap().app_attest.unwrap().receipts.unwrap();
    assert_eq!((receipts.team.as_str(), receipts.api, receipts.root), ("ABCDE12345", None, None));
    assert_eq!((receipts.timeout.as_secs(), receipts.every.as_secs()), (10, 86_400));
    assert_eq!((receipts.calls_per_day, receipts.max_receipts), (10_000, 100_000));
    assert_eq!(parse("[bans]\nstore = \"off\"\n[attestation]\n").attestation.unwrap().store, None);
    // Devices are read at the start, so the section cannot come or go with a reload.
    let (settled, pending) = settle(&parse(""), config.clone());
    assert_eq!((settled.attestation, pending), (None, vec!["attestation".to_owned()]));
    let (settled, pending) =
        settle(&config, parse("[attestation]\nmax_devices = 5\nsession_lifetime = \"1m\"\n"));
    let kept = settled.attestation.unwrap();
    assert_eq!((kept.max_devices, kept.session_lifetime.as_secs()), (1_000_000, 60));
    assert_eq!(pending, ["attestation.max_devices"]);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (route, sections, expected) in [
        ("attestation = {}", "", "there is no [attestation]"),
        ("attestation = { max_age = \"20m\" }", "[attestation]", "longer than attestation.session_lifetime"),
        ("attestation = { platform = [] }", "[attestation]", "route[0].attestation.platform: empty"),
        ("attestation = { level = \"weak\" }", "[attestation]", "`weak` is no choice"),
        ("", "[attestation]\nenrol_path = \"enrol\"", "no path of one endpoint"),
        ("", "[attestation]\nenrol_path = \"/a/../b\"", "no path of one endpoint"),
        ("", "[attestation]\nkeys_path = \"/.well-known/enforcer/enrol\"", "another endpoint's"),
        ("", "[attestation]\nunknown_devices = \"by-session\"", "nobody else makes sessions"),
        ("", "[attestation]\nlimit = { rate = \"off\" }", "attestation.limit.rate"),
        ("", "[attestation]\nsession_lifetime = \"1s\"", "out of range"),
        ("", "[attestation.app_attest]", "attestation.app_attest.apps: missing"),
        ("", "[attestation.app_attest]\napps = []", "attestation.app_attest.apps: empty"),
        ("", "[attestation.app_attest]\napps = [\"com.example.app\"]", "no identifier of an app"),
        ("", "[attestation.app_attest]\napps = [\"ABCDE12345.\"]", "no identifier of an app"),
        ("attestation = { assertion = \"sometimes\" }", "[attestation]", "`sometimes` is no choice"),
        ("attestation = { group = \"pay\" }", "[attestation]", "this route asks for none"),
        ("attestation = { max_body_bytes = \"1KiB\" }", "[attestation]", "this route asks for none"),
        ("attestation = { assertion = \"time\", group = \"a b\" }", "[attestation]", "not a usable name"),
        (
            "attestation = { assertion = \"time\", max_body_bytes = \"1GiB\" }",
            "[attestation]",
            "out of range",
        ),
        (
            "attestation = { assertion = \"time\" }\nupgrade = [\"websocket\"]",
            "[attestation]",
            "nothing that follows would be signed",
        ),
        (
            "attestation = { assertion = \"time\" }\nearly_data = true",
            "[attestation]",
            "attestation.assertion: beside `early_data`",
        ),
        ("attestation = { over_risk = \"flag\" }", "[attestation]", "which is not there"),
        ("attestation = { max_risk = 0 }", "[attestation]", "out of range"),
        ("attestation = { max_risk = 2, over_risk = \"pass\" }", "[attestation]", "`pass` is no choice"),
        ("", "[attestation]\nassertion_window = \"1h\"", "out of range"),
        ("", "IOS\n[attestation.app_attest.receipts]\nkey_id = \"F6G7H8I9J0\"", "receipts.key: missing"),
        ("", "IOS\n[attestation.app_attest.receipts]\nkey = \"k\"", "receipts.key_id: missing"),
        (
            "",
            "IOS\n[attestation.app_attest.receipts]\nkey = \"k\"\nkey_id = \"f6g7h8i9j0\"",
            "no id of a key",
        ),
        ("", "RECEIPTS\napi = \"http://127.0.0.1\"", "no https address"),
        ("", "RECEIPTS\napi = \"https://apple.example.com/v1\"", "no https address"),
        ("", "RECEIPTS\ncalls_per_day = 0", "out of range"),
        ("", "RECEIPTS\nevery = \"1s\"", "out of range"),
        (
            "",
            "[attestation.app_attest]\napps = [\"ABCDE12345.a\", \"BCDEF12345.b\"]\n[attestation.app_attest.receipts]\nkey = \"k\"\nkey_id = \"F6G7H8I9J0\"",
            "more than one team",
        ),
        (
            "",
            "[attestation.android_key]\ncertificates = [\"CERT\"]",
            "attestation.android_key.packages: missing",
        ),
        (
            "",
            "[attestation.android_key]\npackages = [\"a.b\"]",
            "attestation.android_key.certificates: missing",
        ),
        ("", "[attestation.android_key]\nAPPS\nmin_patch = 202513", "no year and month"),
        ("", "[attestation.android_key]\nAPPS\nmin_patch = 2025", "no year and month"),
        ("", "[attestation.android_key]\nAPPS\nsecurity = \"software\"", "`software` is no choice"),
        ("", "[attestation.android_key]\nAPPS\nboot = \"failed\"", "`failed` is no choice"),
        ("", "[attestation.android_key]\nAPPS\nrequire_play = true", "there is no [attestation.play]"),
        (
            "",
            "[attestation.android_key]\nAPPS\nboot = \"self-signed\"",
            "boot: without `boot_keys` any system",
        ),
        ("", "[attestation.android_key]\nAPPS\nboot = \"self-signed\"\nboot_keys = []", "boot_keys: empty"),
        ("", "[attestation.android_key]\nAPPS\nboot_keys = [\"CERT\"]", "without effect"),
        (
            "",
            "[attestation.android_key]\nAPPS\nboot = \"self-signed\"\nboot_keys = [\"5a\"]",
            "boot_keys[0]: `5a` is no SHA-256",
        ),
        ("", "[attestation]\nfacts_previous_keys = [\"old\"]", "facts_previous_keys: without `facts_key`"),
        (
            "",
            "[attestation]\nfacts_key = \"k\"\nfacts_previous_keys = [\"1\", \"2\", \"3\", \"4\", \"5\"]",
            "5 entries are too many",
        ),
        (
            "",
            "[attestation]\nsession_lifetime = \"2h\"\nforget_after = \"1h\"",
            "forget_after: is shorter than session_lifetime",
        ),
        (
            "",
            "[attestation.app_attest]\nAPPLE\ncategories = [\"app-store\", \"appstore\"]",
            "attestation.app_attest.categories[1]: `appstore` is no category",
        ),
        ("", "[attestation.app_attest]\nAPPLE\ncategories = [\"77\"]", "categories[0]: `77` is no category"),
        ("", "[attestation.app_attest]\nAPPLE\ncategories = []", "categories: empty"),
        (
            "",
            "[attestation.app_attest]\nAPPLE\nminimum_version = \"4.x\"",
            "attestation.app_attest.minimum_version: `4.x` is no version",
        ),
        ("", "[attestation.app_attest]\nAPPLE\nminimum_version = \"4.\"", "`4.` is no version"),
        ("", "[attestation.play]\nAPPS", "attestation.play.keys: missing"),
        (
            "",
            "[attestation.play]\nkeys = \"k\"\npackages = [\"app\"]\ncertificates = [\"CERT\"]",
            "no name of a package",
        ),
        (
            "",
            "[attestation.play]\nkeys = \"k\"\npackages = [\"a.b\"]\ncertificates = [\"3c:3c\"]",
            "no SHA-256",
        ),
        ("", "[attestation.play]\nAPPS\nkeys = \"k\"\nmax_age = \"2h\"", "out of range"),
    ] {
        let certificate = "3c".repeat(32);
        let apps = "packages = [\"com.example.app\"]\ncertificates = [\"CERT\"]";
        let apple = "apps = [\"ABCDE12345.com.example.app\"]";
        let ios = "[attestation.app_attest]\nAPPLE";
        let receipts = "IOS\n[attestation.app_attest.receipts]\nkey = \"k\"\nkey_id = \"F6G7H8I9J0\"";
        let sections = sections.replace("RECEIPTS", receipts).replace("IOS", ios);
        let sections = &sections.replace("APPLE", apple).replace("APPS", apps).replace("CERT", &certificate);
        let errors = errors(route, sections);
        assert!(errors.iter().any(|error| error.contains(expected)), "{route} {sections}: {errors:?}");
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
    assert!(errors("limits = [{ key = \"device\", rate = \"1/s\" }]", "").len() == 1);
    assert!(
        errors("attestation = {}\nlimits = [{ key = \"device\", rate = \"1/s\" }]", "[attestation]")
            .is_empty()
    );
}

/// What the configuration takes is what judges: every word of either is one of the other.
#[test]
fn categories_and_versions_are_read_as_they_are_judged() {
    let judged = |text: &str| text.parse::<app_attest::Category>().is_ok();
    let written = |key: &str, text: &str| {
        let apple = "[attestation.app_attest]\napps = [\"ABCDE12345.com.example.app\"]\n";
        errors("", &format!("{apple}{key} = {text}")).is_empty()
    };
    let names = ["platform", "testflight", "development", "app-store", "enterprise", "developer-id", "none"];
    let numbers = (0..20).map(|number: u32| number.to_string());
    let texts =
        names.map(str::to_owned).into_iter().chain(numbers).chain(["store", "04", "+4"].map(str::to_owned));
    for text in texts {
        assert_eq!(written("categories", &format!("[\"{text}\"]")), judged(&text), "{text}");
    }
    for text in ["4", "4.2", "4.2.0", "0", "1.2a", "-1", "+1", ".", "4.", ".4", "99999999999999999999", "4 "]
    {
        let judged = text.parse::<app_attest::BundleVersion>().is_ok();
        assert_eq!(written("minimum_version", &format!("\"{text}\"")), judged, "{text}");
    }
}
