//! Certificates that Google has revoked, because their keys have leaked or their devices are not what they say: from a file, the document
//! at android.googleapis.com/attestation/status as it stands.

use std::collections::HashMap;

use serde_json::Value;

use crate::{attestation::Refused, denial::Denial, strict_json};

/// Bytes of a list, at most.
pub const MOST: usize = 64 << 20;

/// A list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    entries: HashMap<Box<str>, Box<str>>,
}

impl Revocations {
    /// Reads a list. An empty one is taken for what it is: Google's never is, so that an operator who has one is told.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        if json.len() > MOST {
            return Err(format!("it has more than {MOST} bytes"));
        }
        let document = strict_json::value(json)
            .map_err(|error| format!("not JSON without duplicate members: {error}"))?;
        let entries = document.get("entries").and_then(Value::as_object);
        let entries = entries.ok_or("no object `entries`: it is not Google's list")?;
        let mut list = Self::default();
        for (serial, entry) in entries {
            if serial.is_empty() || !serial.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("`{}` is no serial number in hexadecimal digits", serial.escape_debug()));
            }
            // Whatever stands there: who is in the list is not to be trusted.
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("unknown");
            let why = format!("{}, {}", text("status"), text("reason"));
            list.entries.insert(normal(serial), why.into());
        }
        if list.entries.is_empty() {
            return Err("it has no entries: Google's list always has some".to_owned());
        }
        Ok(list)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Refuses a certificate that is in the list, by its serial number in hexadecimal digits.
    pub fn check(&self, serial: &str) -> Result<(), Refused> {
        match self.entries.get(&normal(serial)) {
            None => Ok(()),
            Some(why) => {
                let why = format!("the certificate {serial} is revoked: {why}");
                Err(Refused::new(Denial::AttestationRevoked, "revocation", why))
            }
        }
    }
}

/// A serial number as lists have it: Google writes small letters without leading zeros.
pub fn normal(serial: &str) -> Box<str> {
    let serial = serial.to_ascii_lowercase();
    match serial.trim_start_matches('0') {
        "" => "0".into(),
        digits => digits.into(),
    }
}
