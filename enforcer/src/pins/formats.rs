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

impl Host {
    /// The domain, and whether what is below it is meant: the vendors' files know no `*.`.
    fn domain(&self) -> (&str, bool) {
        self.name.strip_prefix("*.").map_or((&*self.name, false), |parent| (parent, true))
    }
}

fn texts<S: serde::Serializer>(pins: &[Pin], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pins.iter().map(Pin::to_string))
}

/// `res/xml/network_security_config.xml` of an Android app (API 24; developer.android.com, "Network security configuration"). Pins are
/// no longer asked for on the day `expires` (seconds since 1970), so that an app that is never updated goes on.
pub fn android(hosts: &[Host], expires: u64) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<network-security-config>\n".to_owned();
    for host in hosts {
        let (name, below) = host.domain();
        let _ = write!(
            text,
            "    <domain-config cleartextTrafficPermitted=\"false\">\n        <domain includeSubdomains=\"{below}\">{name}</domain>\n        <pin-set expiration=\"{}\">\n",
            day(expires)
        );
        for pin in &host.pins {
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
    for host in hosts {
        let (name, below) = host.domain();
        let _ = write!(
            text,
            "\t\t\t<key>{name}</key>\n\t\t\t<dict>\n\t\t\t\t<key>NSIncludesSubdomains</key>\n\t\t\t\t<{below}/>\n\t\t\t\t<key>NSPinnedLeafIdentities</key>\n\t\t\t\t<array>\n"
        );
        for pin in &host.pins {
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
    for host in hosts {
        let (name, below) = host.domain();
        let _ = write!(
            text,
            "\t\t\t<key>{name}</key>\n\t\t\t<dict>\n\t\t\t\t<key>TSKIncludeSubdomains</key>\n\t\t\t\t<{below}/>\n\t\t\t\t<key>TSKEnforcePinning</key>\n\t\t\t\t<true/>\n\t\t\t\t<key>TSKExpirationDate</key>\n\t\t\t\t<string>{}</string>\n\t\t\t\t<key>TSKPublicKeyHashes</key>\n\t\t\t\t<array>\n",
            day(expires)
        );
        for pin in &host.pins {
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
