//! Pinned keys under the real program: a certificate that would cut off apps is not served, is served if it is named, and gives way to
//! the backup by one command; and what apps are given is what their platforms read.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use super::{
    CONFIG, Site, eventually,
    files::{pair, same},
};

/// The pin of a PEM certificate, as `openssl` computes it.
pub(super) fn by_openssl(certificate: &str) -> String {
    let script = "openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64";
    piped(Command::new("sh").args(["-c", script]), certificate).trim().to_owned()
}

fn piped(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}\n{input}");
    String::from_utf8(output.stdout).unwrap()
}

/// What Python's own library makes of a text; `None` without Python.
#[allow(clippy::print_stdout, reason = "a test says what it left out")]
pub(super) fn by_python(program: &str, input: &str) -> Option<String> {
    let present =
        Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !present {
        println!("not run: there is no python3");
        return None;
    }
    Some(piped(Command::new("python3").args(["-c", program]), input).trim().to_owned())
}

/// A site with a backup, and a set of both pins that is out since 2020.
fn pinned() -> (Site, String) {
    let site = Site::new();
    let (chain, key) = pair();
    site.write("backup.pem", &chain);
    site.write("backup.key", &key);
    let serving = by_openssl(&fs::read_to_string(site.path("cert.pem")).unwrap());
    let backup = by_openssl(&chain);
    let text = format!(
        "{CONFIG}\n[pins.set.site]\nhosts = [\"localhost\"]\nbackup = {{ chain = \"backup.pem\", key = \"backup.key\" }}\n\
         pins = [{{ sha256 = \"{serving}\", published = \"2020-01-01\" }}, {{ sha256 = \"{backup}\", published = \"2020-01-01\" }}]\n"
    );
    site.write("enforcer.toml", &text);
    (site, text)
}

#[test]
fn a_key_that_no_app_knows_is_not_served_until_it_is_named() {
    let (site, text) = pinned();
    let daemon = site.start();
    let listener = site.listener();
    let before = fs::read_to_string(site.path("cert.pem")).unwrap();
    let (chain, key) = pair();
    let pin = by_openssl(&chain);
    site.replace("key.pem", &key);
    site.replace("cert.pem", &chain);
    eventually("the refusal is told", || {
        let error = site.json("status")["files"]["error"].as_str().unwrap_or_default().to_owned();
        error.contains("pins.set.site") && error.contains(&pin)
    });
    assert!(same(&site.shown(&listener), &before), "the old certificate serves");
    // Nor by a reload, and a check says so beforehand.
    let (code, _, err) = site.output("reload");
    assert!(code == 78 && err.contains("is in no published pin"), "{code} {err}");
    let (code, _, err) = site.output("check -c enforcer.toml");
    assert!(code == 78 && err.contains("is in no published pin"), "{code} {err}");
    let (code, out, _) = site.output("pins check -c enforcer.toml");
    assert!(code == 1 && out.contains("refused  pins.set.site"), "{code} {out}");
    assert_eq!(site.output("pins android -c enforcer.toml").0, 1, "nothing wrong goes into an app");
    assert!(same(&site.shown(&listener), &before), "the old certificate serves");
    let metrics = site.get("/metrics");
    // One by one: a file may be seen to change twice.
    assert!(metrics.contains(r#"enforcer_pin_guard_refusals_total{set="site"} "#), "{metrics}");
    assert!(metrics.contains("enforcer_files_refused 1"), "{metrics}");
    let log = fs::read_to_string(site.path("log")).unwrap();
    assert!(log.contains("PIN GUARD") && log.contains(&pin), "{log}");
    // Nor by a start.
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit(), 0);
    let (code, _, err) = site.output("run -c enforcer.toml");
    assert!(code == 78 && err.contains("is in no published pin") && err.contains("`force`"), "{code} {err}");
    // By its name it is.
    site.write("enforcer.toml", &format!("{text}force = [\"{pin}\"]\n"));
    let _daemon = site.start();
    assert!(same(&site.shown(&site.listener()), &chain));
    assert!(site.get("/metrics").contains(r#"enforcer_pins_forced{set="site"} 1"#));
    assert!(site.output("status").1.contains("FORCED: the served key"));
}

#[test]
fn one_command_switches_to_the_backup_and_a_restart_stays_with_it() {
    let (site, text) = pinned();
    let daemon = site.start();
    let listener = site.listener();
    let own = fs::read_to_string(site.path("cert.pem")).unwrap();
    let backup = fs::read_to_string(site.path("backup.pem")).unwrap();
    assert!(same(&site.shown(&listener), &own));
    let (code, _, err) = site.output("pins switch site --back");
    assert!(code == 1 && err.contains("is not switched to its backup already"), "{code} {err}");
    let (code, _, err) = site.output("pins switch other");
    assert!(code == 1 && err.contains("there is no [pins.set.other]"), "{code} {err}");
    let (code, out, err) = site.output("pins switch site");
    assert!(code == 0 && out.contains("is served by its backup from now on"), "{code} {out} {err}");
    assert!(same(&site.shown(&listener), &backup));
    let status = site.json("status");
    assert_eq!(status["pins"][0]["switched"], true);
    assert_eq!(status["pins"][0]["serving"][0], by_openssl(&backup));
    assert!(site.get("/metrics").contains(r#"enforcer_pins_switched{set="site"} 1"#));
    assert_eq!(site.output("reload").0, 0);
    assert!(same(&site.shown(&listener), &backup), "a reload stays with it");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit(), 0);
    let _daemon = site.start();
    let listener = site.listener();
    assert!(same(&site.shown(&listener), &backup), "a restart stays with it");
    // There is no way back to a key that apps do not know.
    let unknown = text.replacen("2020-01-01", &day_before_tomorrow(), 1);
    site.write("enforcer.toml", &unknown);
    assert_eq!(site.output("reload").0, 0, "what is not served may be young");
    let (code, _, err) = site.output("pins switch site --back");
    assert!(code == 1 && err.contains("is published since"), "{code} {err}");
    assert!(same(&site.shown(&listener), &backup), "it stays as it was");
    assert_eq!(fs::read_to_string(site.path("pin-switches")).unwrap(), "site\n");
    site.write("enforcer.toml", &text);
    assert_eq!(site.output("reload").0, 0);
    let (code, out, _) = site.output("pins switch site --back");
    assert!(code == 0 && out.contains("by its own certificate from now on"), "{out}");
    assert!(same(&site.shown(&listener), &own));
}

/// Today, in UTC.
fn day_before_tomorrow() -> String {
    enforcer::pins::day(enforcer::clock::unix_now())
}

/// What operators find out of the hellos of their apps.
#[test]
fn fingerprints_that_came_are_shown_beside_those_that_are_declared() {
    let (site, text) = pinned();
    let daemon = site.start();
    let (code, _, err) = site.output("pins seen");
    assert!(code == 1 && err.contains("there is no [suspicion]"), "{code} {err}");
    let ja4 = "t13d1516h2_8daaf6152771_02713d6af862";
    let suspicion = format!(
        "[upstream.none]\nservers = [\"http://127.0.0.1:9\"]\n[suspicion.app.phone]\nplatform = \"android\"\nja4 = [\"{ja4}\"]\n\
         [[route]]\npath = \"/\"\nupstream = \"none\"\npublic = true\nlimit = {{ rate = \"100/s\" }}\nsuspicion = {{ apps = [\"phone\"], refuse_above = 30 }}\n"
    );
    site.write("enforcer.toml", &format!("{text}{suspicion}"));
    assert_eq!(site.output("reload").0, 0);
    let (code, out, _) = site.output("pins seen");
    assert!(
        code == 0 && out.contains(ja4) && out.contains("phone (android)") && out.contains("never"),
        "{out}"
    );
    let curl =
        Command::new("curl").args(["-sk", &format!("https://{}/x", site.listener())]).output().unwrap();
    let answer = String::from_utf8_lossy(&curl.stdout);
    assert!(answer.contains("proxy_suspected"), "{answer}");
    let seen = site.json("pins seen");
    assert_eq!((&seen["declared"][0]["requests"], &seen["others"][0]["requests"]), (&0.into(), &1.into()));
    assert!(site.output("pins seen").1.contains(seen["others"][0]["ja4"].as_str().unwrap()));
    assert!(
        site.get("/metrics").contains(r#"enforcer_suspicion_requests_total{result="refused",route="/"} 1"#)
    );
    drop(daemon);
}

#[test]
fn apps_are_given_what_their_platforms_read() {
    let (site, _) = pinned();
    let [serving, backup] =
        ["cert.pem", "backup.pem"].map(|name| by_openssl(&fs::read_to_string(site.path(name)).unwrap()));
    let (code, out, _) = site.output("pins show -c enforcer.toml");
    assert!(code == 0 && out.contains(&serving) && out.contains(&backup), "{out}");
    assert!(out.contains("serving") && out.contains("backup") && out.contains("2020-01-01"), "{out}");
    let (code, out, _) = site.output("pins check -c enforcer.toml");
    assert_eq!((code, out.as_str()), (0, "good     apps know every key that is served\n"));
    let report = site.json("pins json -c enforcer.toml");
    assert_eq!(report["hosts"][0]["pins"], serde_json::json!([serving, backup]));
    let written = |verb: &str| {
        let (code, out, err) = site.output(&format!("pins {verb} -c enforcer.toml"));
        assert_eq!(code, 0, "{err}");
        out
    };
    assert_eq!(
        written("okhttp"),
        format!(
            "val certificatePinner = CertificatePinner.Builder()\n    .add(\"localhost\", \"sha256/{serving}\")\n    .add(\"localhost\", \"sha256/{backup}\")\n    .build()\n"
        )
    );
    let android = written("android --expires 2027-03-01T00:00:00Z");
    let program = "import sys, xml.etree.ElementTree as x\nd = x.fromstring(sys.stdin.buffer.read()).find('domain-config')\np = d.find('pin-set')\nprint(d.get('cleartextTrafficPermitted'), d.find('domain').text, d.find('domain').get('includeSubdomains'), p.get('expiration'), *[q.get('digest') + ':' + q.text for q in p.findall('pin')])";
    if let Some(read) = by_python(program, &android) {
        assert_eq!(read, format!("false localhost false 2027-03-01 SHA-256:{serving} SHA-256:{backup}"));
    }
    let program = "import sys, plistlib, json\nprint(json.dumps(plistlib.loads(sys.stdin.buffer.read())))";
    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    if let Some(read) = by_python(program, &written("ios")).map(json) {
        let domain = serde_json::json!({
            "NSIncludesSubdomains": false,
            "NSPinnedLeafIdentities": [{ "SPKI-SHA256-BASE64": serving }, { "SPKI-SHA256-BASE64": backup }],
        });
        assert_eq!(read["NSAppTransportSecurity"]["NSPinnedDomains"]["localhost"], domain);
    }
    if let Some(read) = by_python(program, &written("trustkit --expires 2027-03-01T00:00:00Z")).map(json) {
        let domain = serde_json::json!({
            "TSKIncludeSubdomains": false,
            "TSKEnforcePinning": true,
            "TSKExpirationDate": "2027-03-01",
            "TSKPublicKeyHashes": [serving, backup],
        });
        assert_eq!(read["TSKConfiguration"]["TSKPinnedDomains"]["localhost"], domain);
    }
    // Without a set, the keys that are served.
    site.write("enforcer.toml", CONFIG);
    let report = site.json("pins json -c enforcer.toml");
    assert_eq!(report["hosts"], serde_json::json!([{ "name": "localhost", "pins": [serving] }]));
    assert!(site.output("pins check -c enforcer.toml").1.contains("nothing is guarded"));
}
