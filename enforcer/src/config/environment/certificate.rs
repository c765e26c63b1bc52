//! A certificate chain and its key, as they lie on the disk: readable, of one pair, and valid today.

use std::{fs, path::Path};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    super::named::{NamedFile, Place},
    refuse, warn,
};
use crate::{clock, config::error::Collector};

const READABLE: &str = "name a file that this user may read";

/// Looks at both parts, whichever of them is named.
pub(super) fn look(
    collector: &mut Collector<'_>,
    pair: &Place,
    chain: Option<&NamedFile>,
    key: Option<&NamedFile>,
) {
    let leaf_first = chain.and_then(|(place, path)| read_chain(collector, place, path));
    let private = key.and_then(|(place, path)| read_key(collector, place, path));
    if let (Some(certificates), Some((place, path))) = (&leaf_first, chain)
        && let Some(leaf) = certificates.first()
    {
        validity(collector, place, path, leaf);
    }
    let (Some(certificates), Some(private)) = (leaf_first, private) else { return };
    let (at, chain_path) = chain.map_or((pair, Path::new("")), |(place, path)| (place, path.as_path()));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match rustls::sign::CertifiedKey::from_der(certificates, private, &provider) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            let (at, path) = key.map_or((pair, Path::new("")), |(place, path)| (place, path.as_path()));
            let problem =
                format!("{}: does not belong to the certificate in {}", path.display(), chain_path.display());
            refuse(collector, at, problem, "name the key that the certificate was issued for");
        }
        Err(error) => {
            let problem = format!("{}: {error}", chain_path.display());
            refuse(collector, at, problem, "replace the certificate or the key");
        }
    }
}

fn read_chain(
    collector: &mut Collector<'_>,
    place: &Place,
    path: &Path,
) -> Option<Vec<CertificateDer<'static>>> {
    let pem = read(collector, place, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    if chain.is_none() {
        let problem = format!("{}: holds no PEM certificate", path.display());
        refuse(collector, place, problem, "put the leaf first, then its issuers");
    }
    chain
}

fn read_key(collector: &mut Collector<'_>, place: &Place, path: &Path) -> Option<PrivateKeyDer<'static>> {
    let pem = read(collector, place, path)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).ok();
    if key.is_none() {
        let problem = format!("{}: holds no PEM private key", path.display());
        refuse(collector, place, problem, "use PKCS#8, PKCS#1 or SEC1, without a passphrase");
    }
    key
}

fn read(collector: &mut Collector<'_>, place: &Place, path: &Path) -> Option<Vec<u8>> {
    fs::read(path)
        .map_err(|error| refuse(collector, place, format!("{}: {error}", path.display()), READABLE))
        .ok()
}

/// A warning only: a daemon that does not start because a certificate ended overnight serves nobody at all.
fn validity(collector: &mut Collector<'_>, place: &Place, path: &Path, leaf: &CertificateDer<'_>) {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return };
    let now = i64::try_from(clock::unix_now()).unwrap_or(i64::MAX);
    let validity = leaf.validity();
    if validity.not_after.timestamp() < now {
        let problem = format!("{}: THE CERTIFICATE EXPIRED on {}", path.display(), validity.not_after);
        warn(collector, place, problem, "renew it, clients refuse it; `enforcer reload` takes it over");
    } else if validity.not_before.timestamp() > now {
        let problem =
            format!("{}: the certificate is not valid before {}", path.display(), validity.not_before);
        warn(collector, place, problem, "look at the clock of this machine, or replace the certificate");
    }
}
