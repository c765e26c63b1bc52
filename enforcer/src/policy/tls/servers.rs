//! How servers behind are known, and what is shown to them: the client's side of TLS.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs as provider};
use rustls_pki_types::CertificateDer;

use super::{ALPN_H2, ALPN_HTTP1, clients, read};
use crate::config::{UpstreamProtocol, UpstreamTls};

/// What connections to servers are encrypted with.
#[derive(Clone, Debug)]
pub struct Encryption {
    /// Offers what the configuration says.
    pub config: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone, for what has to be spoken in that.
    pub http1: Arc<ClientConfig>,
    /// Differs where roots or the own certificate differ.
    pub(in crate::policy) identity: [u8; 32],
}

/// Reads what `tls` names.
pub fn connect(tls: &UpstreamTls) -> Result<Encryption> {
    let mut identity = digest::Context::new(&digest::SHA256);
    let roots = match &tls.authorities {
        Some(path) => {
            let (roots, certificates) = clients::authorities(path).context("authorities")?;
            certificates.iter().for_each(|certificate| identity.update(certificate));
            roots
        }
        None => system(&mut identity)?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .context("cannot set the TLS versions")?
        .with_root_certificates(roots);
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let chain = read::chain(&certificate.chain).context("chain")?;
            let key = read::private_key(&certificate.key).context("key")?;
            chain.iter().for_each(|certificate| identity.update(certificate));
            identity.update(key.secret_der());
            builder.with_client_auth_cert(chain, key).with_context(|| {
                let (chain, key) = (certificate.chain.display(), certificate.key.display());
                format!("the key in {key} cannot be used with the certificate in {chain}")
            })?
        }
    };
    let name = |protocol: &UpstreamProtocol| match protocol {
        UpstreamProtocol::Http2 => ALPN_H2.to_vec(),
        UpstreamProtocol::Http1 => ALPN_HTTP1.to_vec(),
    };
    config.alpn_protocols = tls.alpn.iter().map(name).collect();
    let mut http1 = config.clone();
    http1.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    let mut sum = [0; 32];
    sum.copy_from_slice(identity.finish().as_ref());
    Ok(Encryption { config: Arc::new(config), http1: Arc::new(http1), identity: sum })
}

/// The roots that this system trusts, where `SSL_CERT_FILE` and `SSL_CERT_DIR` or the distribution say.
fn system(identity: &mut digest::Context) -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let mut certificates: Vec<CertificateDer<'static>> = found.certs;
    certificates.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
    for certificate in certificates {
        identity.update(&certificate);
        // Bundles of distributions hold some that no verifier takes; the others are as good without them.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        bail!(
            "this system has no root certificates{why}: install ca-certificates, or name a file in `authorities`"
        );
    }
    Ok(roots)
}
