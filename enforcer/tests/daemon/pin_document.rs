//! Which pin document apps have is known after a restart, too: they would take an older one for none.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{CONFIG, Daemon, Site, pins::by_openssl};

const SPARE: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

/// A configuration with a document of this version, whose spare pin was published on this day.
fn text(site: &Site, version: u64, day: &str) -> String {
    let serving = by_openssl(&fs::read_to_string(site.path("cert.pem")).unwrap());
    format!(
        "{CONFIG}\n[pins.set.site]\nhosts = [\"localhost\"]\npins = [{{ sha256 = \"{serving}\", published = \"2026-01-10\" }}, \
         {{ sha256 = \"{SPARE}\", published = \"{day}\" }}]\n[pins.document]\nkey = \"document.key\"\nversion = {version}\n"
    )
}

fn site() -> Site {
    let site = Site::new();
    site.write("document.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    site
}

/// The version of the document that is served.
fn version(site: &Site) -> u64 {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let url = format!("https://{}/.well-known/enforcer/pins", site.listener());
    let output = std::process::Command::new("curl").args(["-sk", &url]).output().unwrap();
    let body = String::from_utf8(output.stdout).unwrap();
    let claims = URL_SAFE_NO_PAD.decode(body.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["version"].as_u64().unwrap()
}

fn end(daemon: Daemon) {
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit(), 0);
}

#[test]
fn a_document_that_apps_would_not_take_is_refused_after_a_restart() {
    let site = site();
    let (day, other) = ("2026-01-10", "2026-01-11");
    site.write("enforcer.toml", &text(&site, 5, day));
    assert_eq!(site.output("check -c enforcer.toml").0, 0);
    assert!(!site.path("pin-switches.version").exists(), "a check gives nothing out");
    let daemon = site.start();
    assert_eq!(version(&site), 5);
    site.write("enforcer.toml", &text(&site, 7, other));
    assert_eq!(site.output("reload").0, 0);
    assert_eq!(version(&site), 7);
    end(daemon);
    for (number, day, says) in [
        (6, other, "apps have been given version 7, and take no older document: write 7 or more"),
        (6, day, "apps have been given version 7, and take no older document: write 8 or more"),
        (7, day, "the pins are others than those of version 7"),
    ] {
        site.write("enforcer.toml", &text(&site, number, day));
        // The check first, since it ends in any case.
        for words in ["check -c enforcer.toml", "run -c enforcer.toml"] {
            let (code, _, err) = site.output(words);
            assert!(code == 78 && err.contains(says) && err.contains("pin-switches.version"), "{code} {err}");
        }
    }
    // What is not a version is not taken for none.
    let kept = fs::read_to_string(site.path("pin-switches.version")).unwrap();
    for bad in ["", "7\n", "x y\n", "7 AAAA\n"] {
        site.write("pin-switches.version", bad);
        for words in ["check -c enforcer.toml", "run -c enforcer.toml"] {
            let (code, _, err) = site.output(words);
            assert!(code == 78 && err.contains("holds no version and hash of a document"), "{bad:?}: {err}");
        }
    }
    site.write("pin-switches.version", &kept);
    site.write("enforcer.toml", &text(&site, 7, other));
    end(site.start());
    site.write("enforcer.toml", &text(&site, 8, day));
    let _daemon = site.start();
    assert_eq!(version(&site), 8);
    assert!(fs::read_to_string(site.path("pin-switches.version")).unwrap().starts_with("8 "));
    // What is given out already does not depend on it, and is written down again.
    site.write("pin-switches.version", "x");
    assert_eq!(site.output("reload").0, 0);
    assert_eq!(version(&site), 8);
    assert!(fs::read_to_string(site.path("pin-switches.version")).unwrap().starts_with("8 "));
}

#[test]
fn a_document_is_served_although_its_version_cannot_be_written_down() {
    let site = site();
    site.write("enforcer.toml", &text(&site, 5, "2026-01-10"));
    // What is written beside the file stands in the way.
    fs::create_dir(site.path("pin-switches.version.new")).unwrap();
    let _daemon = site.start();
    assert_eq!(version(&site), 5);
    assert!(site.get("/metrics").contains("enforcer_pin_document_write_errors_total 1"));
    assert!(fs::read_to_string(site.path("log")).unwrap().contains("is not written down"));
    fs::remove_dir(site.path("pin-switches.version.new")).unwrap();
    assert_eq!(site.output("reload").0, 0);
    assert!(site.get("/metrics").contains("enforcer_pin_document_write_errors_total 1"));
    assert!(fs::read_to_string(site.path("pin-switches.version")).unwrap().starts_with("5 "));
}
