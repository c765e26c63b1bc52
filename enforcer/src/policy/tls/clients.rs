//! Whose client certificates a listener takes: roots, revocations, and whether it goes without.
//!
//! Revocation fails closed: where lists are configured, a certificate whose state none of them tells is refused, and so is
//! every certificate once a list has run out.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};

use x509_parser::{prelude::FromDer as _, revocation_list::CertificateRevocationList};

use super::{read, tickets::Trust};
use crate::config::Clients;

/// The first byte of every list in DER form: a SEQUENCE.
const DER: u8 = 0x30;

/// How a listener judges its clients.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Judgement {
    /// Checks their certificates.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// What a session must have been judged by to be resumed without that check.
    pub(super) trust: Trust,
    /// When the first of the revocation lists runs out, seconds since 1970.
    pub(in crate::policy) lists_end: Option<i64>,
}

/// Reads what `clients` names.
pub(super) fn verifier(clients: &Clients, crypto: Arc<CryptoProvider>) -> Result<Judgement> {
    let mut judged = digest::Context::new(&digest::SHA256);
    judged.update(if clients.required { b"required" } else { b"optional" });
    let (roots, certificates) = authorities(&clients.authorities)?;
    for certificate in &certificates {
        judged.update(certificate);
    }
    let mut lists = Vec::new();
    for path in &clients.crls {
        lists.extend(revocations(path)?);
    }
    for list in &lists {
        judged.update(list);
    }
    let lists_end = lists.iter().filter_map(end).min();
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto);
    if !lists.is_empty() {
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().context("client certificates cannot be checked")?;
    let mut trust = [0; 32];
    trust.copy_from_slice(judged.finish().as_ref());
    Ok(Judgement { verifier, trust, lists_end })
}

/// `nextUpdate` of a list (RFC 5280 section 5.1.2.5).
fn end(list: &CertificateRevocationListDer<'_>) -> Option<i64> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    list.next_update().map(|time| time.timestamp())
}

/// The roots of a file, and as they were read.
pub(super) fn authorities(path: &Path) -> Result<(RootCertStore, Vec<Vec<u8>>)> {
    let chain = read::chain(path)?;
    let mut roots = RootCertStore::empty();
    for (n, certificate) in chain.iter().enumerate() {
        let which = || format!("certificate {n} in {} cannot be a root", path.display());
        roots.add(certificate.clone()).with_context(which)?;
    }
    Ok((roots, chain.iter().map(|certificate| certificate.to_vec()).collect()))
}

/// The lists of a file, one at least.
pub(super) fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let bytes = read::bytes(path, "a certificate revocation list")?;
    let lists = if bytes.first() == Some(&DER) {
        vec![CertificateRevocationListDer::from(bytes)]
    } else {
        CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("cannot read revocation lists (PEM) from {}", path.display()))?
    };
    if lists.is_empty() {
        bail!("{} holds no certificate revocation list, PEM or DER", path.display());
    }
    for list in &lists {
        // The library reads them again; it does not say which file was wrong.
        CertificateRevocationList::from_der(list)
            .with_context(|| format!("{} holds no certificate revocation list", path.display()))?;
    }
    Ok(lists)
}
