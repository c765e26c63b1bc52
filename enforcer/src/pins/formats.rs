//! Pins as apps and their libraries read them. What is written goes into an app as it stands; names and pins hold no character that any
//! of the formats would have to escape.

use std::fmt::{self, Write as _};

use super::{Pin, day};

/// A host, or with `*.` all that are below it, and the pins that an app shall know.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Host {
    /// Small letters, digits, `-`, `_`, dots.
    pub name: String,
    /// Base64, the serving ones first.
    #[serde(serialize_with = "texts")]
    pub pins: Vec<Pin>,
}

impl Host {
    /// The domain, and whether what is below it is meant: the vendors' files know no `*.`.
    fn domain(&self) -> (&str, bool) {
        self.name.strip_prefix("*.").map_or((&*self.name, false), |parent| (parent, true))
    }

    fn covers(&self, name: &str) -> bool {
        match (name.strip_suffix(self.domain().0), self.domain().1) {
            (Some(rest), true) => rest.ends_with('.'),
            (Some(rest), false) => rest.is_empty(),
            (None, _) => false,
        }
    }
}

/// A host with all that is below it cannot be written without itself, and nobody has judged the key that it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alone(String);

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.0;
        write!(
            f,
            "`*.{name}` alone cannot be written here: what pins the names below `{name}` pins `{name}` itself, and no host of a set is that, so nobody sees to it that it shows a pinned key; add `{name}` to `hosts` of the set, or list the names below it one by one"
        )
    }
}

impl std::error::Error for Alone {}

/// A domain as Android, iOS and TrustKit know it.
struct Domain<'h> {
    name: &'h str,
    /// Whether what is below it is meant too.
    below: bool,
    pins: Vec<Pin>,
}

/// Each domain once: an app with one that stands there twice does not start on Android, and has either of the two on iOS. It gets the pins
/// of all hosts that it comes from, so that each of them can show its key.
fn domains(hosts: &[Host]) -> Result<Vec<Domain<'_>>, Alone> {
    let mut domains: Vec<Domain<'_>> = Vec::new();
    for host in hosts {
        let (name, below) = host.domain();
        let i = domains.iter().position(|domain| domain.name == name).unwrap_or_else(|| {
            domains.push(Domain { name, below: false, pins: Vec::new() });
            domains.len() - 1
        });
        let mut pins = host.pins.clone();
        if below {
            let itself: Vec<&Host> = hosts.iter().filter(|host| host.covers(name)).collect();
            if itself.is_empty() {
                return Err(Alone(name.to_owned()));
            }
            pins.extend(itself.iter().flat_map(|host| &host.pins));
        }
        if let Some(domain) = domains.get_mut(i) {
            domain.below |= below;
            for pin in pins {
                if !domain.pins.contains(&pin) {
                    domain.pins.push(pin);
                }
            }
        }
    }
    Ok(domains)
}

fn texts<S: serde::Serializer>(pins: &[Pin], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pins.iter().map(Pin::to_string))
}

/// `res/xml/network_security_config.xml` of an Android app (API 24; developer.android.com, "Network security configuration"). Pins are
/// no longer asked for on the day `expires` (seconds since 1970), so that an app that is never updated goes on.
pub fn android(hosts: &[Host], expires: u64) -> Result<String, Alone> {
    let mut text = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<network-security-config>\n".to_owned();
    for Domain { name, below, pins } in domains(hosts)? {
        let _ = write!(
            text,
            "    <domain-config cleartextTrafficPermitted=\"false\">\n        <domain includeSubdomains=\"{below}\">{name}</domain>\n        <pin-set expiration=\"{}\">\n",
            day(expires)
        );
        for pin in pins {
            let _ = writeln!(text, "            <pin digest=\"SHA-256\">{pin}</pin>");
        }
        text += "        </pin-set>\n    </domain-config>\n";
    }
    Ok(text + "</network-security-config>\n")
}

/// What belongs into the `Info.plist` of an app for iOS 14 or newer (`NSPinnedDomains`). It has no expiration, and pins of what is below a
/// domain the next level alone (developer.apple.com, `NSIncludesSubdomains`).
pub fn ios(hosts: &[Host]) -> Result<String, Alone> {
    let mut text = PLIST.to_owned();
    text += "\t<key>NSAppTransportSecurity</key>\n\t<dict>\n\t\t<key>NSPinnedDomains</key>\n\t\t<dict>\n";
    for Domain { name, below, pins } in domains(hosts)? {
        let _ = write!(
            text,
            "\t\t\t<key>{name}</key>\n\t\t\t<dict>\n\t\t\t\t<key>NSIncludesSubdomains</key>\n\t\t\t\t<{below}/>\n\t\t\t\t<key>NSPinnedLeafIdentities</key>\n\t\t\t\t<array>\n"
        );
        for pin in pins {
            let _ = write!(
                text,
                "\t\t\t\t\t<dict>\n\t\t\t\t\t\t<key>SPKI-SHA256-BASE64</key>\n\t\t\t\t\t\t<string>{pin}</string>\n\t\t\t\t\t</dict>\n"
            );
        }
        text += "\t\t\t\t</array>\n\t\t\t</dict>\n";
    }
    Ok(text + "\t\t</dict>\n\t</dict>\n</dict>\n</plist>\n")
}

/// What belongs into the `Info.plist` of an app with TrustKit; it asks for two pins of each host at least.
pub fn trustkit(hosts: &[Host], expires: u64) -> Result<String, Alone> {
    let mut text = PLIST.to_owned();
    text += "\t<key>TSKConfiguration</key>\n\t<dict>\n\t\t<key>TSKPinnedDomains</key>\n\t\t<dict>\n";
    for Domain { name, below, pins } in domains(hosts)? {
        let _ = write!(
            text,
            "\t\t\t<key>{name}</key>\n\t\t\t<dict>\n\t\t\t\t<key>TSKIncludeSubdomains</key>\n\t\t\t\t<{below}/>\n\t\t\t\t<key>TSKEnforcePinning</key>\n\t\t\t\t<true/>\n\t\t\t\t<key>TSKExpirationDate</key>\n\t\t\t\t<string>{}</string>\n\t\t\t\t<key>TSKPublicKeyHashes</key>\n\t\t\t\t<array>\n",
            day(expires)
        );
        for pin in pins {
            let _ = writeln!(text, "\t\t\t\t\t<string>{pin}</string>");
        }
        text += "\t\t\t\t</array>\n\t\t\t</dict>\n";
    }
    Ok(text + "\t\t</dict>\n\t</dict>\n</dict>\n</plist>\n")
}

/// Kotlin for OkHttp 4 or newer. Its `*.` stands for one label, and not for the domain itself.
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
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn host(name: &str, keys: &[&str]) -> Host {
        let pins = keys.iter().map(|key| Pin::of_public_key(key.as_bytes())).collect();
        Host { name: name.to_owned(), pins }
    }

    /// Domains with what is meant below them, and as many pins.
    fn told(hosts: &[Host]) -> Result<Vec<(&str, bool, usize)>, Alone> {
        let domains = domains(hosts)?;
        Ok(domains.iter().map(|domain| (domain.name, domain.below, domain.pins.len())).collect())
    }

    #[test]
    fn each_domain_stands_once_with_the_pins_of_all_that_it_comes_from() {
        let both = [host("example.com", &["a", "b"]), host("*.example.com", &["b", "c"])];
        assert_eq!(told(&both).unwrap(), [("example.com", true, 3)]);
        let [apex, below] = both;
        assert_eq!(told(&[below.clone(), apex]).unwrap(), [("example.com", true, 3)]);
        assert_eq!(told(&[]).unwrap(), []);
        // What is below a domain that is below another one: that one shows its key for the domain itself.
        let deeper = [below.clone(), host("example.com", &["b", "c"]), host("*.eu.example.com", &["d"])];
        assert_eq!(told(&deeper).unwrap(), [("example.com", true, 2), ("eu.example.com", true, 3)]);
        for alone in [&[below][..], &[host("*.example.com", &["a"]), host("notexample.com", &["a"])]] {
            assert_eq!(told(alone), Err(Alone("example.com".to_owned())));
        }
    }
}
