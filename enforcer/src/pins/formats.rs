//! Pins as apps and their libraries read them. What is written goes into an app as it stands; names and pins hold no character that any
//! of the formats would have to escape.

use std::fmt::Write as _;

use super::{Pin, day};

/// A host, or with `*.` all that are one level below it, and the pins that an app shall know.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Host {
    /// Small letters, digits, `-`, `_`, dots.
    pub name: String,
    /// Base64, the serving ones first.
    #[serde(serialize_with = "texts")]
    pub pins: Vec<Pin>,
}

/// A domain as the vendors' files have it, which know no `*.`: of one that stands for what is below it, it stands for itself as well.
#[derive(Debug, PartialEq, Eq)]
struct Domain<'h> {
    name: &'h str,
    below: bool,
    pins: Vec<Pin>,
}

/// Each domain once, as Android refuses a file, and with it every connection of the app, where one stands twice: `example.com` and
/// `*.example.com` are one, and what either may be served by fits both.
fn domains(hosts: &[Host]) -> Vec<Domain<'_>> {
    let mut domains: Vec<Domain<'_>> = Vec::new();
    for host in hosts {
        let (name, below) =
            host.name.strip_prefix("*.").map_or((&*host.name, false), |parent| (parent, true));
        match domains.iter_mut().find(|domain| domain.name == name) {
            Some(domain) => {
                domain.below |= below;
                let new = host.pins.iter().filter(|pin| !domain.pins.contains(pin)).copied();
                let new: Vec<Pin> = new.collect();
                domain.pins.extend(new);
            }
            None => domains.push(Domain { name, below, pins: host.pins.clone() }),
        }
    }
    domains
}

/// Domains that the vendors' files cannot leave out although they are no host of `hosts`: those above a `*.`.
pub fn included(hosts: &[Host]) -> Vec<&str> {
    let parents = hosts.iter().filter_map(|host| host.name.strip_prefix("*."));
    parents.filter(|parent| !hosts.iter().any(|host| host.name == *parent)).collect()
}

fn texts<S: serde::Serializer>(pins: &[Pin], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pins.iter().map(Pin::to_string))
}

/// `res/xml/network_security_config.xml` of an Android app (API 24; developer.android.com, "Network security configuration"). Pins are
/// no longer asked for on the day `expires` (seconds since 1970), so that an app that is never updated goes on.
pub fn android(hosts: &[Host], expires: u64) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<network-security-config>\n".to_owned();
    for Domain { name, below, pins } in domains(hosts) {
        let _ = write!(
            text,
            "    <domain-config cleartextTrafficPermitted=\"false\">\n        <domain includeSubdomains=\"{below}\">{name}</domain>\n        <pin-set expiration=\"{}\">\n",
            day(expires)
        );
        for pin in &pins {
            let _ = writeln!(text, "            <pin digest=\"SHA-256\">{pin}</pin>");
        }
        text += "        </pin-set>\n    </domain-config>\n";
    }
    text + "</network-security-config>\n"
}

/// What belongs into the `Info.plist` of an app for iOS 14 or newer (`NSPinnedDomains`). It has no expiration.
pub fn ios(hosts: &[Host]) -> String {
    let mut text = PLIST.to_owned();
    text += "\t<key>NSAppTransportSecurity</key>\n\t<dict>\n\t\t<key>NSPinnedDomains</key>\n\t\t<dict>\n";
    for Domain { name, below, pins } in domains(hosts) {
        let _ = write!(
            text,
            "\t\t\t<key>{name}</key>\n\t\t\t<dict>\n\t\t\t\t<key>NSIncludesSubdomains</key>\n\t\t\t\t<{below}/>\n\t\t\t\t<key>NSPinnedLeafIdentities</key>\n\t\t\t\t<array>\n"
        );
        for pin in &pins {
            let _ = write!(
                text,
                "\t\t\t\t\t<dict>\n\t\t\t\t\t\t<key>SPKI-SHA256-BASE64</key>\n\t\t\t\t\t\t<string>{pin}</string>\n\t\t\t\t\t</dict>\n"
            );
        }
        text += "\t\t\t\t</array>\n\t\t\t</dict>\n";
    }
    text + "\t\t</dict>\n\t</dict>\n</dict>\n</plist>\n"
}

/// What belongs into the `Info.plist` of an app with TrustKit; it asks for two pins of each host at least.
pub fn trustkit(hosts: &[Host], expires: u64) -> String {
    let mut text = PLIST.to_owned();
    text += "\t<key>TSKConfiguration</key>\n\t<dict>\n\t\t<key>TSKPinnedDomains</key>\n\t\t<dict>\n";
    for Domain { name, below, pins } in domains(hosts) {
        let _ = write!(
            text,
            "\t\t\t<key>{name}</key>\n\t\t\t<dict>\n\t\t\t\t<key>TSKIncludeSubdomains</key>\n\t\t\t\t<{below}/>\n\t\t\t\t<key>TSKEnforcePinning</key>\n\t\t\t\t<true/>\n\t\t\t\t<key>TSKExpirationDate</key>\n\t\t\t\t<string>{}</string>\n\t\t\t\t<key>TSKPublicKeyHashes</key>\n\t\t\t\t<array>\n",
            day(expires)
        );
        for pin in &pins {
            let _ = writeln!(text, "\t\t\t\t\t<string>{pin}</string>");
        }
        text += "\t\t\t\t</array>\n\t\t\t</dict>\n";
    }
    text + "\t\t</dict>\n\t</dict>\n</dict>\n</plist>\n"
}

/// Kotlin for OkHttp 4 or newer.
pub fn okhttp(hosts: &[Host]) -> String {
    let mut text = "val certificatePinner = CertificatePinner.Builder()\n".to_owned();
    for host in hosts {
        for pin in &host.pins {
            let _ = writeln!(text, "    .add(\"{}\", \"sha256/{pin}\")", host.name);
        }
    }
    text + "    .build()\n"
}

const PLIST: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n<dict>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_stands_once_whatever_its_hosts_are() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|key| Pin::of_public_key(key));
        let host = |name: &str, pins: &[Pin]| Host { name: name.to_owned(), pins: pins.to_vec() };
        let hosts = [
            host("example.com", &[a, b]),
            host("*.example.com", &[a, c]),
            host("api.example.com", &[b]),
            host("*.example.org", &[c]),
        ];
        let found = domains(&hosts);
        let names: Vec<(&str, bool)> = found.iter().map(|domain| (domain.name, domain.below)).collect();
        assert_eq!(names, [("example.com", true), ("api.example.com", false), ("example.org", true)]);
        assert_eq!(found[0].pins, [a, b, c]);
        assert_eq!(included(&hosts), ["example.org"]);
        let xml = android(&hosts, 1_800_000_000);
        assert_eq!(xml.matches(">example.com</domain>").count(), 1, "{xml}");
        for plist in [ios(&hosts), trustkit(&hosts, 1_800_000_000)] {
            assert_eq!(plist.matches("<key>example.com</key>").count(), 1, "{plist}");
        }
        // OkHttp tells both apart.
        let kotlin = okhttp(&hosts);
        assert!(kotlin.contains("\"*.example.com\"") && kotlin.contains("\"example.com\""), "{kotlin}");
    }
}
