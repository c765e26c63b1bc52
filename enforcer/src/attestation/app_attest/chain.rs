//! The certificates that lead from a device's key, or from a receipt's signer, to one of Apple's roots.

use std::sync::LazyLock;

use rustls_pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
    pem::{self, PemObject as _},
};
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert, aws_lc_rs as algorithm};

/// "Apple App Attestation Root CA", until 2045.
const APP_ATTEST: &[u8] = include_bytes!("apple_app_attestation_root_ca.pem");
/// "Apple Root CA - G3", until 2039.
const RECEIPTS: &[u8] = include_bytes!("apple_root_ca_g3.pem");

/// Signatures of Apple's authorities: on P-384 with SHA-384 for authorities, and with SHA-256 for what these sign.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] =
    &[algorithm::ECDSA_P384_SHA384, algorithm::ECDSA_P384_SHA256, algorithm::ECDSA_P256_SHA256];

/// Roots that are believed.
#[derive(Clone, Debug)]
pub struct Roots(Vec<TrustAnchor<'static>>);

impl Roots {
    /// The root of attestations.
    pub fn app_attest() -> &'static Self {
        static ROOTS: LazyLock<Roots> = LazyLock::new(|| Roots::built_in(APP_ATTEST));
        &ROOTS
    }

    /// The root of receipts.
    pub fn receipts() -> &'static Self {
        static ROOTS: LazyLock<Roots> = LazyLock::new(|| Roots::built_in(RECEIPTS));
        &ROOTS
    }

    /// Without a root nothing is believed; a test reads both.
    fn built_in(pem: &[u8]) -> Self {
        Self::from_pem(pem).unwrap_or(Self(Vec::new()))
    }

    /// Other ones, in PEM form: for tests.
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(text)
            .collect::<Result<_, _>>()
            .map_err(|error: pem::Error| format!("no PEM: {error}"))?;
        let root = |certificate| Ok(anchor_from_trusted_cert(certificate)?.to_owned());
        let roots: Vec<_> = certificates
            .iter()
            .map(root)
            .collect::<Result<_, Error>>()
            .map_err(|error| format!("no certificate: {error}"))?;
        if roots.is_empty() { Err("no certificate in PEM form".to_owned()) } else { Ok(Self(roots)) }
    }
}

/// Why a chain is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A certificate is not valid at that time.
    Time(String),
    /// Anything else.
    Untrusted(String),
}

/// Follows the chain from `leaf` over `others` to one of the roots, at `now`. Where the leaf says what it is for, it has to say
/// `usage`, the value of an OID; `between` is how many certificates stand between leaf and root.
pub(super) fn follow(
    leaf: &EndEntityCert<'_>,
    others: &[CertificateDer<'_>],
    roots: &Roots,
    (usage, between): (&'static [u8], usize),
    now: u64,
) -> Result<(), Fault> {
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
    let usage = KeyUsage::required_if_present(usage);
    let path = leaf.verify_for_usage(ALGORITHMS, &roots.0, others, time, usage, None, None);
    let path = path.map_err(|error| {
        if matches!(error, Error::CertExpired { .. } | Error::CertNotValidYet { .. }) {
            Fault::Time(error.to_string())
        } else {
            Fault::Untrusted(error.to_string())
        }
    })?;
    let found = path.intermediate_certificates().count();
    if found == between {
        return Ok(());
    }
    Err(Fault::Untrusted(format!("{found} certificates stand between leaf and root, and not {between}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::app_attest::sha256;

    #[test]
    fn apples_roots_are_those_that_are_published() {
        for (pem, roots, fingerprint) in [
            (
                APP_ATTEST,
                Roots::app_attest(),
                "1cb9823ba28ba6ad2d33a006941de2ae4f513ef1d4e831b9f7e0fa7b6242c932",
            ),
            (RECEIPTS, Roots::receipts(), "63343abfb89a6a03ebb57e9b3f5fa7be7c4f5c756f3017b3a8c488c3653e9179"),
        ] {
            assert_eq!(roots.0.len(), 1);
            let hash = sha256(&CertificateDer::from_pem_slice(pem).unwrap());
            assert_eq!(hash.map(|byte| format!("{byte:02x}")).concat(), fingerprint);
        }
        assert!(Roots::from_pem(b"").is_err());
    }
}
