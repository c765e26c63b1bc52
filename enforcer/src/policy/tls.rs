//! TLS parameters of a listener: versions, suites, groups, and the certificate for a server name.
//!
//! Part of the policy: a reload makes a new one, connections that are open keep the one that they began with.

use std::{io, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};
use rustls::{
    InconsistentKeys, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs as provider},
    server::{ClientHello, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use crate::config::{Certificate, Listener, TlsVersion};

/// Protocols by preference, as ALPN names (RFC 7301, RFC 9113 section 3.1).
pub const ALPN_H2: &[u8] = b"h2";
/// See [`ALPN_H2`].
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Until when a certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Its first DNS name; empty if it has none.
    pub name: String,
    /// Seconds since 1970 (`notAfter`, RFC 5280 section 4.1.2.5).
    pub unix: i64,
}

/// The ends of a listener's certificates, in their order. What cannot be read has been refused before.
pub fn expiries(listener: &Listener) -> Vec<Expiry> {
    let expiry = |certificate: &Certificate| {
        let chain = read_chain(&certificate.chain).ok()?;
        let leaf = chain.first()?;
        let name = match server_names(leaf).into_iter().next() {
            Some(Name::Exact(name)) => name,
            Some(Name::Wildcard(parent)) => format!("*{parent}"),
            None => String::new(),
        };
        let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(leaf).ok()?;
        Some(Expiry { name, unix: leaf.validity().not_after.timestamp() })
    };
    listener.certificates.iter().filter_map(expiry).collect()
}

/// What a listener's connections are served with.
pub fn server_config(
    listener: &Listener,
    minimum: TlsVersion,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig> {
    // Other code of this process (metrics, tests) may build rustls configurations without naming a provider.
    drop(crypto_provider().install_default());
    let crypto = Arc::new(crypto_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = match minimum {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let certificates = Certificates::load(&listener.certificates, &crypto)?;
    let mut config = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(versions)
        .context("cannot set the TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    config.ticketer = tickets;
    // 0-RTT can be replayed (RFC 8446 section 8); no request here is known to be safe for that.
    config.max_early_data_size = 0;
    Ok(config)
}

/// aws-lc-rs with the suites and groups that the product names; the client's order decides, because only the client
/// knows whether it has AES in hardware.
pub fn crypto_provider() -> CryptoProvider {
    use provider::{cipher_suite as suite, kx_group};
    CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        ..provider::default_provider()
    }
}

/// A listener's certificates with the names that each serves.
#[derive(Debug)]
struct Certificates {
    entries: Vec<(Vec<Name>, Arc<CertifiedKey>)>,
}

#[derive(Debug, PartialEq)]
enum Name {
    Exact(String),
    /// `*.example.com` as `.example.com`; stands for exactly one label (RFC 9525 section 6.3).
    Wildcard(String),
}

impl Name {
    fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => Self::Wildcard(rest.to_owned()),
            _ => Self::Exact(name),
        }
    }

    fn matches(&self, server_name: &str) -> bool {
        match self {
            Self::Exact(name) => name == server_name,
            Self::Wildcard(parent) => server_name
                .strip_suffix(parent.as_str())
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        }
    }
}

impl Certificates {
    fn load(certificates: &[Certificate], crypto: &CryptoProvider) -> Result<Self> {
        let mut entries = Vec::with_capacity(certificates.len());
        for certificate in certificates {
            let key = certified_key(certificate, crypto)?;
            let names = key.cert.first().map(server_names).unwrap_or_default();
            entries.push((names, Arc::new(key)));
        }
        if entries.is_empty() {
            bail!("no certificate");
        }
        Ok(Self { entries })
    }

    /// Exact names before wildcards, the file's order among equals; the first certificate for everybody else.
    fn find(&self, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let by_name = server_name.and_then(|server_name| {
            let serving = |wildcard: bool| {
                self.entries.iter().find(|(names, _)| {
                    names.iter().any(|name| {
                        matches!(name, Name::Wildcard(_)) == wildcard && name.matches(server_name)
                    })
                })
            };
            serving(false).or_else(|| serving(true))
        });
        by_name.or(self.entries.first()).map(|(_, key)| Arc::clone(key))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

fn certified_key(certificate: &Certificate, crypto: &CryptoProvider) -> Result<CertifiedKey> {
    let Certificate { chain: chain_path, key: key_path } = certificate;
    let chain = read_chain(chain_path)?;
    let key = PrivateKeyDer::from_pem_file(key_path)
        .map_err(|error| pem_error(error, key_path, "a private key"))?;
    let key = crypto.key_provider.load_private_key(key).with_context(|| {
        format!("the key in {} is of no supported kind (RSA, ECDSA, Ed25519)", key_path.display())
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // `Unknown` is for keys outside this process; all of ours are known.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => bail!(
            "the key in {} does not belong to the first certificate in {}: check that both are of one pair and that the chain begins with the leaf",
            key_path.display(),
            chain_path.display()
        ),
        Err(error) => Err(error)
            .with_context(|| format!("the first certificate in {} cannot be read", chain_path.display())),
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(error, path, "certificates"))?;
    if chain.is_empty() {
        bail!("{} holds no certificate in PEM form", path.display());
    }
    Ok(chain)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open-ended")]
fn pem_error(error: pem::Error, path: &Path, what: &str) -> anyhow::Error {
    let path = path.display();
    if let pem::Error::Io(error) = &error {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                let user = nix::unistd::Uid::effective();
                Some(format!(
                    "the daemon runs as uid {user} and must be able to read it (`namei -l {path}` shows what stands in the way)"
                ))
            }
            io::ErrorKind::NotFound => Some("there is no such file".to_owned()),
            _ => None,
        };
        if let Some(advice) = advice {
            return anyhow!("cannot read {what} (PEM) from {path}: {advice}");
        }
    }
    anyhow::Error::new(error).context(format!("cannot read {what} (PEM) from {path}"))
}

/// The DNS names of a leaf; a certificate that cannot be parsed here serves as default only.
fn server_names(leaf: &CertificateDer<'_>) -> Vec<Name> {
    let Ok((_, leaf)) = x509_parser::certificate::X509Certificate::from_der(leaf) else { return Vec::new() };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| {
        if let GeneralName::DNSName(name) = name { Some(Name::new(name)) } else { None }
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let name = Name::new("*.Example.com");
        assert!(name.matches("api.example.com"));
        assert!(
            !name.matches("example.com") && !name.matches("a.b.example.com") && !name.matches(".example.com")
        );
        assert!(Name::new("API.example.com").matches("api.example.com"));
    }
}
