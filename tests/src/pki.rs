//! Certificates for tests: an authority and leaves, made when a test runs and never kept.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
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
}

impl Authority {
    /// A fresh root with this common name.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyKind::P256.generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The root, for clients that parse DER.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The root, for clients that read a PEM file (`curl --cacert`).
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A server certificate for `names`: DNS names, wildcards, or IP addresses.
    pub fn issue(&self, names: &[&str], kind: KeyKind) -> Result<Leaf> {
        let key = kind.generate()?;
        let mut params =
            CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>())?;
        let common_name = names.first().copied().unwrap_or("leaf");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf { chain_pem: leaf.pem(), key_pem: key.serialize_pem() })
    }
}

/// A server certificate and its private key (PKCS#8), both PEM.
pub struct Leaf {
    /// The leaf alone: the authority is what clients trust.
    pub chain_pem: String,
    /// The private key.
    pub key_pem: String,
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
