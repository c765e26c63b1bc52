//! `[suspicion]` and `suspicion` of a route, as they are written.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{fs, path::Path, time::Duration};

use enforcer::config::{self, Platform, RateLimit, SuspicionDemand};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/valid").join(name)).unwrap()
}

#[test]
fn what_is_written_is_what_holds() {
    let config = config::parse(&read("every_key.toml"), Path::new("every_key.toml")).unwrap();
    let suspicion = config.suspicion.unwrap();
    assert_eq!(suspicion.weights, [50, 20, 25, 45]);
    let patterns =
        |name: &str| -> Vec<&str> { suspicion.apps[name].ja4.iter().map(|pattern| pattern.text()).collect() };
    assert_eq!(patterns("android"), ["t13d1516h2_8daaf6152771_02713d6af862", "t13d1517h2_*_*"]);
    assert_eq!(
        (suspicion.apps["android"].platform, suspicion.apps["both"].platform),
        (Some(Platform::Android), None)
    );
    let reports = suspicion.reports.unwrap();
    assert_eq!((reports.path.as_str(), reports.remember), ("/report", Duration::from_secs(7_200)));
    let limit = RateLimit { events: 1, period: Duration::from_secs(60), burst: 5 };
    assert_eq!((reports.limit, reports.max_entries), (limit, 1_000));
    let apps = vec!["android".to_owned(), "both".to_owned()];
    assert_eq!(
        config.routes[0].suspicion,
        Some(SuspicionDemand { apps, refuse_above: Some(94), dry_run: true })
    );
    let plain = config::parse(&read("smallest.toml"), Path::new("smallest.toml")).unwrap();
    assert!(plain.suspicion.is_none() && plain.routes.iter().all(|route| route.suspicion.is_none()));
    // Everything else has a default.
    let text = format!("{}\n[suspicion.reports]\n", read("smallest.toml"));
    let suspicion = config::parse(&text, Path::new("x.toml")).unwrap().suspicion.unwrap();
    assert_eq!((suspicion.weights, suspicion.apps.len()), ([40, 10, 30, 30], 0));
    let reports = suspicion.reports.unwrap();
    assert_eq!(
        (reports.path.as_str(), reports.remember, reports.max_entries),
        ("/.well-known/enforcer/pin-reports", Duration::from_secs(3_600), 65_536)
    );
    assert_eq!(reports.limit, RateLimit { events: 10, period: Duration::from_secs(60), burst: 10 });
}

#[test]
fn mistakes_are_told_where_they_stand() {
    let base = read("smallest.toml");
    let route = |suspicion: &str| {
        format!(
            "[[route]]\npath = \"/x/\"\nupstream = \"api\"\npublic = true\nlimit = {{ rate = \"5/s\" }}\nsuspicion = {suspicion}\n"
        )
    };
    let app = "[suspicion.app.phone]\nja4 = [\"t13d1516h2_*_*\"]\n";
    let reports = |path: &str| {
        format!(
            "[pins.document]\n[payload.app]\nkeys_path = \"/keys\"\n[attestation]\n[suspicion.reports]\npath = \"{path}\"\n"
        )
    };
    for (text, expected) in [
        ("[suspicion.app.phone]\n".to_owned(), "suspicion.app.phone.ja4: missing; list the fingerprints"),
        ("[suspicion.app.phone]\nja4 = []\n".to_owned(), "suspicion.app.phone.ja4: empty"),
        ("[suspicion.app.phone]\nja4 = [\"*_*_*\"]\n".to_owned(), "write a JA4 fingerprint like"),
        ("[suspicion.app.phone]\nja4 = [\"x\"]\n".to_owned(), "write a JA4 fingerprint like"),
        (
            "[suspicion.app.phone]\nja4 = [\"t13d1516h2_*_*\", \"t13d1516h2_*_*\"]\n".to_owned(),
            "`t13d1516h2_*_*` stands here twice",
        ),
        (
            "[suspicion]\nweights = { hops = 101 }\n".to_owned(),
            "suspicion.weights.hops: 101 is out of range; write 0 to 100",
        ),
        (
            "[suspicion.reports]\npath = \"r\"\n".to_owned(),
            "suspicion.reports.path: `r` is no path of one endpoint",
        ),
        ("[suspicion.reports]\npath = \"/r/\"\n".to_owned(), "suspicion.reports.path: `/r/` is no path"),
        (
            reports("/.well-known/enforcer/pins"),
            "suspicion.reports.path: `/.well-known/enforcer/pins` is `pins.document.path` already",
        ),
        (reports("/keys"), "suspicion.reports.path: `/keys` is `payload.app.keys_path` already"),
        (
            reports("/.well-known/enforcer/enrol"),
            "suspicion.reports.path: `/.well-known/enforcer/enrol` is `attestation.enrol_path` already",
        ),
        (
            "[suspicion.reports]\nremember = \"1s\"\n".to_owned(),
            "suspicion.reports.remember: 1s is out of range",
        ),
        ("[suspicion.reports]\nlimit = { rate = \"off\" }\n".to_owned(), "cannot be off"),
        (route("{}"), "suspicion: there is no [suspicion]"),
        (format!("{app}{}", route("{ apps = [] }")), "suspicion.apps: empty"),
        (
            format!("{app}{}", route("{ apps = [\"phon\"] }")),
            "there is no [suspicion.app.phon]; did you mean `phone`?",
        ),
        (
            format!("{app}{}", route("{ apps = [\"phone\"], refuse_above = 100 }")),
            "100 is out of range; write 0 to 99",
        ),
        (format!("{app}{}", route("{ dry_run = true }")), "suspicion.dry_run: nothing is refused here"),
        // Without reports 40 and 30 can come together, without apps 30 alone.
        (
            format!("{app}{}", route("{ apps = [\"phone\"], refuse_above = 70 }")),
            "suspicion.refuse_above: no request can come to more than 70 here",
        ),
        (format!("{app}{}", route("{ refuse_above = 30 }")), "no request can come to more than 30 here"),
    ] {
        let errors = config::parse(&format!("{base}\n{text}"), Path::new("x.toml")).unwrap_err().to_string();
        assert!(errors.contains(expected), "{text}\n{expected}:\n{errors}");
    }
    let good = format!("{base}\n{app}{}", route("{ apps = [\"phone\"], refuse_above = 69 }"));
    config::parse(&good, Path::new("x.toml")).unwrap();
}
