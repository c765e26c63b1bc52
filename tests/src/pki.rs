//! Certificates for tests: an authority and leaves, made when a test runs and never kept.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    RevokedCertParams, RsaKeySize, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

/// What kind of key a leaf has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// RSA with 2048 bits.
    Rsa2048,
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair> {
        Ok(match self {
            Self::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Self::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        })
    }
}

/// A certificate authority that only the test trusts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    key_pem: String,
}

/// Serial numbers of leaves, unique in a process.
static SERIAL: AtomicU64 = AtomicU64::new(1 << 40);

impl Authority {
    /// A fresh root with this common name.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyKind::P256.generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let key_pem = key.serialize_pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, key_pem })
    }

    /// The root, for clients that parse DER.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The root, for clients that read a PEM file (`curl --cacert`).
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// The root's private key, for programs that sign in its name.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A certificate for a client: its common name, and the same name in the URI `spiffe://test/NAME`.
    pub fn issue_client(&self, name: &str) -> Result<Leaf> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://test/{name}").try_into()?)];
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, KeyKind::P256)
    }

    /// A list that revokes these leaves and holds until the beginning of `year`; PEM.
    pub fn revoke(&self, leaves: &[&Leaf], year: i32) -> Result<String> {
        let entry = |leaf: &&Leaf| RevokedCertParams {
            serial_number: SerialNumber::from(leaf.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: leaves.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// A server certificate for `names`: DNS names, wildcards, or IP addresses.
    pub fn issue(&self, names: &[&str], kind: KeyKind) -> Result<Leaf> {
        let mut params =
            CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>())?;
        let common_name = names.first().copied().unwrap_or("leaf");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, kind)
    }

    fn sign(&self, mut params: CertificateParams, kind: KeyKind) -> Result<Leaf> {
        let (key, serial) = (kind.generate()?, SERIAL.fetch_add(1, Ordering::Relaxed));
        params.serial_number = Some(SerialNumber::from(serial));
        let leaf = params.signed_by(&key, &self.issuer)?;
        let certificate = leaf.der().clone();
        Ok(Leaf { chain_pem: leaf.pem(), key_pem: key.serialize_pem(), certificate, serial })
    }
}

/// A certificate and its private key (PKCS#8), both PEM.
pub struct Leaf {
    /// The leaf alone: the authority is what clients trust.
    pub chain_pem: String,
    /// The private key.
    pub key_pem: String,
    /// The leaf, for clients that parse DER.
    pub certificate: CertificateDer<'static>,
    /// Its serial number.
    pub serial: u64,
}

impl Leaf {
    /// Writes `STEM.pem` and `STEM.key` below `dir`; returns chain and key. Files that exist are replaced.
    pub fn write(&self, dir: &Path, stem: &str) -> Result<(PathBuf, PathBuf)> {
        let chain = dir.join(format!("{stem}.pem"));
        let key = dir.join(format!("{stem}.key"));
        std::fs::write(&chain, &self.chain_pem)
            .with_context(|| format!("cannot write {}", chain.display()))?;
        std::fs::write(&key, &self.key_pem).with_context(|| format!("cannot write {}", key.display()))?;
        Ok((chain, key))
    }
}
