//! The guard and the switch under the real program: what clients that pin see, what is counted of it, and what files and listeners cannot
//! do behind the guard's back.

use std::{
    fs,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use super::{
    CONFIG, Site, eventually,
    files::{pair, same},
    pins::by_openssl,
};

/// A certificate for `localhost` that ends with the beginning of `year`: its pin.
fn until(site: &Site, chain: &str, key: &str, year: i32) -> String {
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let made = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&made).unwrap().pem();
    site.write(chain, &certificate);
    site.write(key, &made.serialize_pem());
    by_openssl(&certificate)
}

/// Whether a client that knows these pins alone gets on: what it sees is compared with them, as apps do.
fn gets_on(site: &Site, pins: &[&str]) -> bool {
    let shown = site.shown(&site.listener());
    let begin = shown.find("-----BEGIN").unwrap();
    pins.contains(&by_openssl(&shown[begin..]).as_str())
}

fn gauge(metrics: &str, name: &str) -> i64 {
    let line = format!("enforcer_pins_{name}{{set=\"site\"}} ");
    let value = metrics.lines().find_map(|found| found.strip_prefix(&line));
    value.unwrap_or_else(|| panic!("{name}: {metrics}")).parse().unwrap()
}

#[test]
fn apps_of_both_kinds_see_the_switch_and_every_gauge_tells_of_it() {
    let site = Site::new();
    let serving = until(&site, "cert.pem", "key.pem", 2040);
    let backup = until(&site, "backup.pem", "backup.key", 2041);
    site.write(
        "enforcer.toml",
        &format!(
            "{CONFIG}\n[pins.set.site]\nhosts = [\"localhost\"]\nmin_overlap = \"45d\"\n\
             backup = {{ chain = \"backup.pem\", key = \"backup.key\" }}\n\
             pins = [{{ sha256 = \"{serving}\", published = \"2020-01-01\" }}, {{ sha256 = \"{backup}\", published = \"2020-02-01\" }}]\n"
        ),
    );
    // Seconds at the beginning of 2040, 2041, 2020-01-01 and 2020-02-01.
    let (y2040, y2041, january, february) = (2_208_988_800, 2_240_611_200, 1_577_836_800, 1_580_515_200);
    let own = [y2040, january, 45 * 86_400, 1, y2041, 0, 0];
    let switched = [y2041, february, 45 * 86_400, 1, y2041, 1, 0];
    let all = || {
        let metrics = site.get("/metrics");
        [
            "certificate_expiry_timestamp_seconds",
            "published_timestamp_seconds",
            "min_overlap_seconds",
            "spare",
            "backup_expiry_timestamp_seconds",
            "switched",
            "forced",
        ]
        .map(|name| gauge(&metrics, name))
    };
    let daemon = site.start();
    let sees = |pin: &str, other: &str| {
        assert!(gets_on(&site, &[pin]) && gets_on(&site, &[pin, other]) && !gets_on(&site, &[other]));
    };
    assert_eq!(all(), own);
    sees(&serving, &backup);
    let (code, out, err) = site.output("pins switch site");
    assert!(code == 0 && out.starts_with("pins.set.site is served by its backup from now on"), "{out} {err}");
    assert_eq!(all(), switched);
    sees(&backup, &serving);
    let row = site.json("status")["pins"][0].clone();
    assert_eq!((&row["switched"], &row["serving"]), (&true.into(), &serde_json::json!([backup])));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit(), 0);
    let _daemon = site.start();
    assert_eq!(all(), switched, "after a restart");
    sees(&backup, &serving);
    assert_eq!(site.output("pins switch site --back").0, 0);
    assert_eq!(all(), own);
    sees(&serving, &backup);
    // A backup that is broken, and a key that is forced.
    site.write("backup.key", "no key");
    let forced = until(&site, "cert.pem", "key.pem", 2042);
    let text = fs::read_to_string(site.path("enforcer.toml")).unwrap();
    site.write("enforcer.toml", &format!("{text}force = [\"{forced}\"]\n"));
    let before = enforcer::clock::unix_now();
    assert_eq!(site.output("reload").0, 0);
    let [ends, published, _, spare, backup_ends, is_switched, is_forced] = all();
    assert_eq!((ends, spare, backup_ends, is_switched, is_forced), (2_272_147_200, 2, 0, 0, 1));
    assert!(published >= i64::try_from(before).unwrap(), "it is in no pin: {published}");
    let (code, _, err) = site.output("pins switch site");
    assert!(code == 1 && err.contains("backup.key"), "{code} {err}");
    sees(&forced, &serving);
}

/// As the file was once written: the pin follows the certificate, and would say of any key that apps have it.
#[test]
fn a_renewal_is_not_vouched_for_by_the_very_file_that_it_replaces() {
    let site = Site::new();
    let before = fs::read_to_string(site.path("cert.pem")).unwrap();
    let serving = by_openssl(&before);
    let text = |serving: &str| {
        format!(
            "{CONFIG}\n[pins.set.site]\nhosts = [\"localhost\"]\npins = [{{ {serving}, published = \"2026-01-10\" }}, \
             {{ sha256 = \"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\", published = \"2026-01-10\" }}]\n"
        )
    };
    site.write("enforcer.toml", &text("file = \"cert.pem\""));
    let told = |words: &str, exit: i32| {
        let (code, out, err) = site.output(words);
        let expected = format!("write `sha256 = \"{serving}\"` in place of `file`");
        let all = out + &err;
        assert!(
            code == exit && all.contains(&expected) && all.contains("since 2026-01-10"),
            "{words}: {code} {all}"
        );
    };
    told("check -c enforcer.toml", 78);
    told("run -c enforcer.toml", 78);
    told("pins check -c enforcer.toml", 1);
    told("pins android -c enforcer.toml", 1);
    let (_, out, _) = site.output("pins show -c enforcer.toml");
    let row = out.lines().find(|line| line.contains(&serving) && line.contains("never: `file`"));
    assert!(row.is_some_and(|row| row.contains("serving")), "{out}");
    // Written as it says, it is served; and a renewal is refused.
    site.write("enforcer.toml", &text(&format!("sha256 = \"{serving}\"")));
    let _daemon = site.start();
    site.write("enforcer.toml", &text("file = \"cert.pem\""));
    told("reload", 78);
    let (chain, key) = pair();
    site.replace("key.pem", &key);
    site.replace("cert.pem", &chain);
    let (code, _, err) = site.output("reload");
    assert!(code == 78 && err.contains("in place of `file`") && err.contains(&by_openssl(&chain)), "{err}");
    assert!(same(&site.shown(&site.listener()), &before), "the old certificate serves");
}

#[test]
fn a_listener_that_loses_the_certificate_of_a_pinned_host_keeps_the_old_one() {
    let site = Site::new();
    let pin = by_openssl(&fs::read_to_string(site.path("cert.pem")).unwrap());
    for (from, to) in [("cert.pem", "second.pem"), ("key.pem", "second.key")] {
        fs::copy(site.path(from), site.path(to)).unwrap();
    }
    let before = fs::read_to_string(site.path("second.pem")).unwrap();
    let second = "[[listener]]\naddress = \"127.0.0.2:0\"\ncertificates = [{ chain = \"second.pem\", key = \"second.key\" }]\n\n[metrics]";
    site.write(
        "enforcer.toml",
        &format!(
            "{}\n[pins.set.site]\nhosts = [\"localhost\"]\npins = [{{ sha256 = \"{pin}\", published = \"2026-01-10\" }}, \
             {{ sha256 = \"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\", published = \"2026-01-10\" }}]\n",
            CONFIG.replace("[metrics]", second)
        ),
    );
    let _daemon = site.start();
    let listeners = site.json("status")["listeners"].clone();
    let listener = listeners
        .as_array()
        .unwrap()
        .iter()
        .find_map(|one| one.as_str().filter(|one| one.starts_with("127.0.0.2:")));
    let listener = listener.unwrap().to_owned();
    assert!(same(&site.shown(&listener), &before));
    let made = rcgen::generate_simple_self_signed(["www.example.net".to_owned()]).unwrap();
    site.replace("second.key", &made.signing_key.serialize_pem());
    site.replace("second.pem", &made.cert.pem());
    eventually("the refusal is told", || {
        let error = site.json("status")["files"]["error"].as_str().unwrap_or_default().to_owned();
        error.contains("listener 127.0.0.2:0 has no certificate for `localhost`")
    });
    assert!(same(&site.shown(&listener), &before), "the old certificate serves");
    let log = fs::read_to_string(site.path("log")).unwrap();
    assert!(log.contains("PIN GUARD"), "{log}");
    // Where nobody is shown another name's certificate it is free.
    let text = fs::read_to_string(site.path("enforcer.toml")).unwrap();
    let text =
        text.replace("address = \"127.0.0.2:0\"", "address = \"127.0.0.2:0\"\nunknown_name = \"refuse\"");
    site.write("enforcer.toml", &text);
    assert_eq!(site.output("reload").0, 0);
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &listener, "-servername", "localhost"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("unrecognized name"), "{said}");
}
