//! What apps are given of several hosts: each domain once, and none that nobody has judged.

use std::fs;

use serde_json::{Value, json};

use super::{
    CONFIG, Site,
    pins::{by_openssl, by_python},
};

/// The files of apps are read by the parsers of another language, which keep quiet about keys that stand there twice; so they are looked
/// for in the elements themselves.
const ONCE: &str = "
import sys, json, plistlib, xml.etree.ElementTree as x
data = sys.stdin.buffer.read()
for d in x.fromstring(data).iter('dict'):
    keys = [k.text for k in d.findall('key')]
    assert len(keys) == len(set(keys)), keys
print(json.dumps(plistlib.loads(data)))
";

const ANDROID: &str = "
import sys, json, xml.etree.ElementTree as x
root = x.fromstring(sys.stdin.buffer.read())
assert root.tag == 'network-security-config', root.tag
rows = []
for c in root.findall('domain-config'):
    for d in c.findall('domain'):
        rows.append([d.text, d.get('includeSubdomains'), [p.text for p in c.find('pin-set').findall('pin')]])
print(json.dumps(rows))
";

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Serves `names` by `cert.pem`: its pin.
fn certified(site: &Site, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    site.write("cert.pem", &made.cert.pem());
    site.write("key.pem", &made.signing_key.serialize_pem());
    by_openssl(&made.cert.pem())
}

#[test]
fn a_domain_and_all_below_it_stand_once_in_the_files_of_apps() {
    let site = Site::new();
    let serving = certified(&site, &["example.com", "*.example.com", "*.eu.example.com"]);
    let spare = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let set = |hosts: &str| {
        let pins = [serving.as_str(), spare]
            .map(|pin| format!("{{ sha256 = \"{pin}\", published = \"2020-01-01\" }}"));
        format!("{CONFIG}\n[pins.set.site]\nhosts = {hosts}\npins = [{}]\n", pins.join(", "))
    };
    site.write("enforcer.toml", &set(r#"["example.com", "*.example.com", "*.eu.example.com"]"#));
    let written = |verb: &str| {
        let (code, out, err) = site.output(&format!("pins {verb} -c enforcer.toml"));
        assert_eq!((code, err.as_str()), (0, ""), "{verb}");
        out
    };
    let pins = json!([serving, spare]);
    let android = written("android");
    for (part, count) in [(">example.com<", 1), (">eu.example.com<", 1), ("<domain ", 2), ("<pin ", 4)] {
        assert_eq!(android.matches(part).count(), count, "{part}: {android}");
    }
    if let Some(rows) = by_python(ANDROID, &android) {
        assert_eq!(read(&rows), json!([["example.com", "true", pins], ["eu.example.com", "true", pins]]));
    }
    let ios = written("ios");
    assert_eq!(ios.matches("<key>example.com</key>").count(), 1, "{ios}");
    if let Some(list) = by_python(ONCE, &ios).as_deref().map(read) {
        let domains = &list["NSAppTransportSecurity"]["NSPinnedDomains"];
        assert_eq!(domains.as_object().unwrap().len(), 2, "{domains}");
        for name in ["example.com", "eu.example.com"] {
            assert_eq!(domains[name]["NSIncludesSubdomains"], true);
            assert_eq!(domains[name]["NSPinnedLeafIdentities"][0]["SPKI-SHA256-BASE64"], serving.as_str());
        }
    }
    let trustkit = written("trustkit");
    assert_eq!(trustkit.matches("<key>example.com</key>").count(), 1, "{trustkit}");
    if let Some(list) = by_python(ONCE, &trustkit).as_deref().map(read) {
        let domains = &list["TSKConfiguration"]["TSKPinnedDomains"];
        assert_eq!(domains.as_object().unwrap().len(), 2, "{domains}");
        assert_eq!(domains["example.com"]["TSKIncludeSubdomains"], true);
        assert_eq!(domains["example.com"]["TSKPublicKeyHashes"], pins);
    }
    // OkHttp takes each as it is; its `*.` is not for the domain itself.
    let okhttp = written("okhttp");
    for name in ["example.com", "*.example.com", "*.eu.example.com"] {
        for pin in [&serving, spare] {
            assert_eq!(okhttp.matches(&format!(".add(\"{name}\", \"sha256/{pin}\")")).count(), 1, "{okhttp}");
        }
    }

    // The names below alone: what is written would pin the domain itself as well, whose key nobody judges.
    site.write("enforcer.toml", &set(r#"["*.example.com"]"#));
    for verb in ["android", "ios", "trustkit"] {
        let (code, out, err) = site.output(&format!("pins {verb} -c enforcer.toml"));
        assert_eq!((code, out.as_str()), (1, ""), "{verb}");
        assert!(
            err.contains("`*.example.com` alone cannot be written")
                && err.contains("add `example.com` to `hosts`"),
            "{err}"
        );
    }
    assert_eq!(written("okhttp").matches("\"*.example.com\"").count(), 2);
    assert_eq!(site.output("pins check -c enforcer.toml").0, 0);
    // What is added has to be served by a pinned key, too.
    certified(&site, &["*.example.com"]);
    site.write("enforcer.toml", &set(r#"["*.example.com", "example.com"]"#));
    let (code, out, err) = site.output("pins android -c enforcer.toml");
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
}

/// Without a set, names of certificates with whatever keys there are.
#[test]
fn a_domain_that_several_certificates_are_for_gets_the_pins_of_all_of_them() {
    let site = Site::new();
    let apex = certified(&site, &["example.com"]);
    fs::rename(site.path("cert.pem"), site.path("apex.pem")).unwrap();
    fs::rename(site.path("key.pem"), site.path("apex.key")).unwrap();
    let wild = certified(&site, &["*.example.com"]);
    let both = "{ chain = \"apex.pem\", key = \"apex.key\" }, { chain = \"cert.pem\", key = \"key.pem\" }";
    site.write("enforcer.toml", &CONFIG.replace("{ chain = \"cert.pem\", key = \"key.pem\" }", both));
    let (code, out, err) = site.output("pins android -c enforcer.toml");
    assert!(code == 0 && err.contains("without a backup"), "{code} {err}");
    assert_eq!(out.matches("<domain ").count(), 1, "{out}");
    assert!(out.contains("includeSubdomains=\"true\">example.com<"), "{out}");
    assert!(out.contains(&format!(">{apex}<")) && out.contains(&format!(">{wild}<")), "{out}");
    // The one alone that is for the names below.
    site.write("enforcer.toml", CONFIG);
    let (code, out, err) = site.output("pins android -c enforcer.toml");
    assert!(code == 1 && out.is_empty() && err.contains("`*.example.com` alone"), "{code} {err}");
}
