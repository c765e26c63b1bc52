//! Pins of public keys, as apps keep them: what a pin is, whether a key may be served to apps that know a set of pins, and how pins are
//! written for apps. Pure: files, clocks and the network are elsewhere.

pub mod document;
pub mod formats;
pub mod guard;

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// The SHA-256 of a SubjectPublicKeyInfo in DER form (RFC 7469 section 2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Of a SubjectPublicKeyInfo, DER.
    pub fn of_public_key(spki: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, spki).as_ref());
        Self(hash)
    }

    /// Of a certificate's key, DER; `None` if it cannot be read.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self::of_public_key(certificate.public_key().raw))
    }

    /// Of the first certificate, or else the first public key, of a PEM file.
    pub fn of_pem(text: &[u8]) -> Option<Self> {
        match CertificateDer::from_pem_slice(text) {
            Ok(certificate) => Self::of_certificate(&certificate),
            Err(_) => SubjectPublicKeyInfoDer::from_pem_slice(text).ok().map(|key| Self::of_public_key(&key)),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl FromStr for Pin {
    type Err = ();

    /// Base64, with or without `sha256/` before it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = STANDARD.decode(text.strip_prefix("sha256/").unwrap_or(text)).map_err(drop)?;
        bytes.try_into().map(Self).map_err(drop)
    }
}

/// A pin, and since when apps can know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Of which key.
    pub pin: Pin,
    /// Seconds since 1970.
    pub at: u64,
    /// Whether it was read from a file. Nothing tells whether the file held this key on that day.
    pub is_read: bool,
}

/// The day of a time, like `2026-01-31`; seconds since 1970, UTC.
pub fn day(unix: u64) -> String {
    let at = i64::try_from(unix).ok().and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok());
    at.map_or_else(|| unix.to_string(), |at| at.date().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_base64_of_32_bytes_and_comes_back_as_written() {
        let text = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let pin = Pin::of_public_key(b"");
        assert_eq!(pin.to_string(), text);
        assert_eq!(text.parse(), Ok(pin));
        assert_eq!(format!("sha256/{text}").parse(), Ok(pin));
        for bad in
            ["", "sha256/", "47DEQpj8", &text[1..], "sha1/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]
        {
            assert_eq!(bad.parse::<Pin>(), Err(()), "{bad}");
        }
        assert_eq!(Pin::of_pem(b"no key"), None);
    }

    #[test]
    fn days_are_those_of_utc() {
        assert_eq!(day(1_767_225_599), "2025-12-31");
        assert_eq!(day(1_767_225_600), "2026-01-01");
    }
}
