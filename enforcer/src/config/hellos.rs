//! What is listed of ClientHellos: `[kernel.hellos]`.

use std::fmt;

use enforcer_common::hello::marks::LABELS;

use super::value::Written;

/// Names and fingerprints that are listed at most, all lists together.
pub const MAX_HELLOS: usize = enforcer_common::hello::lists::ENTRIES / 2;

/// Longest name and longest label that DNS knows, in bytes (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Which ClientHellos are refused besides those that are too old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hellos {
    /// `refuse_names`: server names that are refused. Default: none.
    pub refuse_names: Vec<ServerName>,
    /// `only_names`: the only ones that are served; none (default): all of them.
    pub only_names: Vec<ServerName>,
    /// `refuse_fingerprints`: fingerprints that are refused. Default: none.
    pub refuse_fingerprints: Vec<Fingerprint>,
}

impl Hellos {
    /// Whether nothing is listed.
    pub const fn is_empty(&self) -> bool {
        self.refuse_names.is_empty() && self.only_names.is_empty() && self.refuse_fingerprints.is_empty()
    }
}

/// A server name (SNI, RFC 6066 section 3), in lower case and without a dot at its end; or, written with `*.` in front, every name below it,
/// however deep.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerName {
    /// The name.
    pub name: String,
    /// Whether the names below it are meant, and not itself.
    pub below: bool,
}

impl ServerName {
    /// A name that a client asks for, as names are written here: in lower case and without a dot at its end, which names the same server
    /// (RFC 1034 section 3.1). RFC 6066 section 3 wants it left out, and not everybody does so.
    pub fn plain(asked: &str) -> String {
        asked.strip_suffix('.').unwrap_or(asked).to_ascii_lowercase()
    }

    /// Whether `name`, as [`ServerName::plain`] writes it, is meant.
    pub fn covers(&self, name: &str) -> bool {
        match name.strip_suffix(&self.name) {
            Some("") => !self.below,
            Some(rest) => self.below && rest.ends_with('.'),
            None => false,
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

impl Written for ServerName {
    const EXPECTED: &'static str =
        "a server name like \"api.example.com\", or \"*.example.com\" for all below it";
    fn read(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (name, below) = match lower.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (lower.as_str(), false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let usable = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let label = |label: &str| (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(usable);
        if name.len() > LONGEST_NAME || !name.split('.').all(label) {
            return Err(String::new());
        }
        if name.split('.').count() > LABELS {
            return Err(format!(
                "`{text}` has more than {LABELS} labels; name a part of it, like \"*.example.com\""
            ));
        }
        Ok(Self { name: name.to_owned(), below })
    }
}

/// The fingerprint of a ClientHello, see [`enforcer_common::hello::marks`]: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Written for Fingerprint {
    const EXPECTED: &'static str =
        "a fingerprint of 16 hexadecimal digits, as `enforcer explain` and the log show it beside `ja4`";
    fn read(text: &str) -> Result<Self, String> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or_else(String::new)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_itself_or_all_below_it() {
        let read = |text| ServerName::read(text).unwrap();
        let exact = read("API.Example.com.");
        assert_eq!(exact.to_string(), "api.example.com");
        assert!(exact.covers("api.example.com") && !exact.covers("x.api.example.com"));
        assert!(!exact.covers("notapi.example.com") && !exact.covers("example.com"));
        let below = read("*.example.com");
        assert!(below.covers("api.example.com") && below.covers("a.b.example.com"));
        assert!(!below.covers("example.com") && !below.covers("notexample.com"));
        for bad in ["", "*", "*.", "a..b", ".a", "a b", "a.*.b", "a/b", "1.2.3.4.5.6.7.8.9"] {
            assert!(ServerName::read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_fingerprint_has_sixteen_digits() {
        assert_eq!(Fingerprint::read("00000000DEADbeef"), Ok(Fingerprint(0xdead_beef)));
        assert_eq!(Fingerprint(0xdead_beef).to_string(), "00000000deadbeef");
        for bad in ["", "deadbeef", "+000000000000000", "t13d1516h2_8daaf6152771_e5627efa2ab1"] {
            assert!(Fingerprint::read(bad).is_err(), "{bad:?}");
        }
    }
}
