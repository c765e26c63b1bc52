//! What is told of pins by the file that has every key, and which files are refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{fs, path::Path, time::Duration};

use enforcer::config::{self, Backup, PinDocument, PinEntry, PinnedKey};

const SHA256: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

#[test]
fn what_is_written_of_pins_is_what_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/valid");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let config = config::parse(&read("every_key.toml"), Path::new("every_key.toml")).unwrap();
    let set = &config.pins.sets["mobile"];
    let hosts: Vec<String> = set.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["api.example.com", "*.eu.example.com"]);
    let pin = SHA256.parse().unwrap();
    assert_eq!(set.pins[0], PinEntry { key: PinnedKey::File("next.pem".into()), published: 1_767_225_600 });
    assert_eq!(set.pins[1], PinEntry { key: PinnedKey::Pin(pin), published: 1_769_817_600 });
    assert_eq!((set.min_overlap, set.force.as_slice()), (Duration::from_secs(45 * 86_400), &[pin][..]));
    assert_eq!(set.backup, Some(Backup { chain: "backup.pem".into(), key: "backup.key".into() }));
    let document = PinDocument {
        key: "document.key".into(),
        path: "/pins".to_owned(),
        version: 7,
        lifetime: Duration::from_secs(86_400),
    };
    assert_eq!(config.pins.document, Some(document));
    assert_eq!(config.pins.switches, Path::new("state/switches"));
    let files = config.files();
    for name in ["next.pem", "backup.pem", "backup.key", "document.key", "state/switches"] {
        assert!(files.contains(&Path::new(name)), "{name}: {files:?}");
    }
    let plain = config::parse(&read("smallest.toml"), Path::new("smallest.toml")).unwrap().pins;
    assert!(plain.sets.is_empty() && plain.document.is_none());
    assert_eq!(plain.switches, Path::new("/var/lib/enforcer/pin-switches"));
}

#[test]
fn mistakes_are_told_where_they_stand() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/valid");
    let base = fs::read_to_string(folder.join("smallest.toml")).unwrap();
    let two = format!(
        "{{ file = \"a.pem\", published = \"2026-01-01\" }}, {{ sha256 = \"{SHA256}\", published = \"2026-01-01\" }}"
    );
    let set = |rest: &str| format!("[pins.set.api]\nhosts = [\"api.example.com\"]\n{rest}\n");
    let document = |path: &str| {
        let document =
            format!("pins = [{two}]\n[pins.document]\nkey = \"d.key\"\nversion = 1\npath = \"{path}\"\n");
        set(&format!("{document}[attestation]\n"))
    };
    for (text, expected) in [
        (set(""), "pins.set.api.pins: missing; list the pin of the serving key"),
        (format!("[pins.set.api]\npins = [{two}]\n"), "pins.set.api.hosts: missing"),
        (
            set("pins = [{ file = \"a.pem\", published = \"2026-01-01\" }]"),
            "pins.set.api.pins: no backup: with one pin alone",
        ),
        (set(&format!("pins = [{two}, {{ file = \"b.pem\" }}]")), "pins.set.api.pins[2].published: missing"),
        (
            set(&format!("pins = [{two}, {{ published = \"2026-01-01\" }}]")),
            "pins.set.api.pins[2].file: missing; name a certificate or a public key",
        ),
        (
            set(&format!(
                "pins = [{two}, {{ file = \"b.pem\", sha256 = \"{SHA256}\", published = \"2026-01-01\" }}]"
            )),
            "pins.set.api.pins[2].file: stands beside `sha256`",
        ),
        (
            set(&format!("pins = [{two}, {{ sha256 = \"{SHA256}\", published = \"2026-01-01\" }}]")),
            "stands here twice",
        ),
        (
            set("pins = [{ sha256 = \"abc\", published = \"2026-01-01\" }]"),
            "write a pin: the base64 of 32 bytes",
        ),
        (set("pins = [{ file = \"a.pem\", published = \"1.1.2026\" }]"), "write a day like"),
        (set(&format!("pins = [{two}]\nmin_overlap = \"30\"")), "write a duration like \"30d\""),
        (
            set(&format!("pins = [{two}]\nbackup = {{ chain = \"b.pem\" }}")),
            "pins.set.api.backup.key: missing",
        ),
        (
            set(&format!("pins = [{two}]\n[pins.set.more]\nhosts = [\"API.example.com\"]\npins = [{two}]")),
            "`api.example.com` is in [pins.set.api] already",
        ),
        (
            set(&format!("pins = [{two}]\n[pins.set.more]\nhosts = [\"*.Example.com\"]\npins = [{two}]")),
            "pins.set.api.hosts[0]: `api.example.com` is one of `*.example.com` in [pins.set.more]",
        ),
        (
            set(&format!(
                "pins = [{two}]\n[pins.set.all]\nhosts = [\"*.example.org\"]\npins = [{two}]\n\
                 [pins.set.more]\nhosts = [\"example.org\", \"*.a.b.example.org\"]\npins = [{two}]"
            )),
            "pins.set.more.hosts[1]: `*.a.b.example.org` is one of `*.example.org` in [pins.set.all]",
        ),
        (
            "[pins.document]\nkey = \"d.key\"\nversion = 1\n".to_owned(),
            "pins.document: there is no [pins.set.NAME]",
        ),
        (
            set(&format!(
                "pins = [{two}]\n[pins.document]\nkey = \"d.key\"\npath = \"pins\"\nlifetime = \"1s\""
            )),
            "pins.document.path: `pins` is no path",
        ),
        (set(&format!("pins = [{two}]\n[pins.document]\nkey = \"d.key\"")), "pins.document.version: missing"),
        (
            set(&format!("pins = [{two}]\n[pins.document]\nkey = \"d.key\"\nversion = 1\nlifetime = \"1s\"")),
            "pins.document.lifetime: 1s is out of range; write 60s to 3650d",
        ),
        (
            document("/.well-known/enforcer/session"),
            "pins.document.path: `/.well-known/enforcer/session` is `attestation.session_path` already",
        ),
        (
            format!("{}challenge_path = \"/pins\"\n", document("/pins")),
            "is `attestation.challenge_path` already",
        ),
        (document("/a/../b"), "pins.document.path: `/a/../b` is no path of one endpoint"),
        (document("/."), "`/.` is no path of one endpoint; begin it with `/`, end it without"),
        (document("/pins/"), "`/pins/` is no path of one endpoint"),
        (document("/"), "`/` is no path of one endpoint"),
    ] {
        let errors = config::parse(&format!("{base}\n{text}"), Path::new("x.toml")).unwrap_err().to_string();
        assert!(errors.contains(expected), "{text}\n{expected}:\n{errors}");
    }
    for good in [
        set(&format!("pins = [{two}]")),
        document("/.well-known/enforcer/key"),
        // Neither is one of the other.
        set(&format!("pins = [{two}]\n[pins.set.more]\nhosts = [\"*.api.example.com\"]\npins = [{two}]")),
    ] {
        config::parse(&format!("{base}\n{good}"), Path::new("x.toml")).unwrap();
    }
}
