//! Whom chains have to end at: the keys of Google's roots, whatever certificates carry them. Older devices have other certificates of the
//! same keys.

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::state::hex;

/// The RSA root of 2016 and the P-384 root of 2025, as Google publishes them (developer.android.com/privacy-and-security/security-key-attestation).
const GOOGLE: &[u8] = include_bytes!("roots.pem");

/// Keys of roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// SubjectPublicKeyInfo, in DER.
    pub(super) keys: Vec<Vec<u8>>,
}

impl Roots {
    /// Google's two. Errors are those of a build.
    pub fn google() -> Result<Self, String> {
        Self::from_pem(GOOGLE)
    }

    /// Those of these certificates, in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let mut keys = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| format!("reading PEM: {error}"))?;
            let parsed = X509Certificate::from_der(&certificate);
            let (_, certificate) = parsed.map_err(|error| format!("reading a certificate: {error}"))?;
            keys.push(certificate.public_key().raw.to_vec());
        }
        if keys.is_empty() {
            return Err("no certificate in PEM".to_owned());
        }
        Ok(Self { keys })
    }

    /// What the roots are called where it is kept which one a chain ended at: SHA-256 of their keys.
    pub(super) fn names(&self) -> impl Iterator<Item = Box<str>> {
        self.keys.iter().map(|key| Self::name(key))
    }

    /// The same of one key.
    pub(super) fn name(key: &[u8]) -> Box<str> {
        hex(digest(&SHA256, key).as_ref())
    }
}
