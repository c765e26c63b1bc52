//! Which certificate a client is shown: by the name that it asks for, and by the signatures that it can verify.
//!
//! Called by rustls in every handshake. For one name there may be several certificates, RSA beside ECDSA; the first one in
//! the file whose signature the client understands is taken.

mod shown;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use rustls::{
    InconsistentKeys, SignatureScheme,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{
    read,
    staple::{self, Staple},
};
use crate::{
    clock,
    config::{Certificate, ServerName},
    pins::Pin,
    policy::{
        faults::Faults,
        pins::{Served, Switched},
    },
};

/// Until when a certificate, and what is stapled to it, is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Its first DNS name; empty if it has none.
    pub name: String,
    /// Seconds since 1970 (`notAfter`, RFC 5280 section 4.1.2.5).
    pub unix: i64,
    /// `nextUpdate` of the OCSP response (RFC 6960 section 4.2.1), if there is one.
    pub staple: Option<i64>,
}

/// A listener's certificates with the names that each serves. Never empty.
#[derive(Debug)]
pub struct Certificates {
    entries: Vec<Entry>,
    /// What is shown in their place for some names.
    switched: Vec<(Vec<ServerName>, Entry)>,
}

#[derive(Clone, Debug)]
struct Entry {
    names: Vec<Name>,
    plain: Arc<CertifiedKey>,
    /// The same with an OCSP response, and until when that holds.
    stapled: Option<(Arc<CertifiedKey>, Option<i64>)>,
    expiry: Expiry,
    /// Of its key; `None` for a leaf that cannot be parsed.
    pin: Option<Pin>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// `name` is in lower case.
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Wildcard(parent) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        }
    }

    const fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    fn written(&self) -> String {
        match self {
            Self::Exact(name) => name.clone(),
            Self::Wildcard(parent) => format!("*{parent}"),
        }
    }
}

impl Entry {
    fn load(certificate: &Certificate, crypto: &CryptoProvider) -> Result<Self> {
        let key = certified_key(&certificate.chain, &certificate.key, crypto)?;
        let names = key.cert.first().map(server_names).unwrap_or_default();
        let staple = match &certificate.ocsp {
            Some(path) => Some(staple_of(path, &key, &certificate.chain)?),
            None => None,
        };
        let expiry = Expiry {
            name: names.first().map(Name::written).unwrap_or_default(),
            unix: key.cert.first().and_then(not_after).unwrap_or(i64::MAX),
            staple: staple.as_ref().and_then(|staple| staple.until),
        };
        let pin = key.cert.first().and_then(|leaf| Pin::of_certificate(leaf));
        let stapled = staple.map(|staple| {
            let key = CertifiedKey { ocsp: Some(staple.der), ..key.clone() };
            (Arc::new(key), staple.until)
        });
        Ok(Self { names, plain: Arc::new(key), stapled, expiry, pin })
    }

    /// What `set` is switched to, which has to be for each of `names`.
    fn backup(set: &Switched, names: &BTreeSet<String>, crypto: &CryptoProvider) -> Result<Self> {
        let entry = Self::load(&set.certificate, crypto)?;
        match names.iter().find(|name| !entry.is_for(name)) {
            Some(name) => bail!("the certificate in {} is not for `{name}`", set.certificate.chain.display()),
            None => Ok(entry),
        }
    }

    fn serves(&self, name: &str, exactly: bool) -> bool {
        self.names.iter().any(|own| own.is_exact() == exactly && own.matches(name))
    }

    fn served(&self) -> Option<Served> {
        Some(Served { pin: self.pin?, ends: self.expiry.unix })
    }

    fn suits(&self, schemes: &[SignatureScheme]) -> bool {
        self.plain.key.choose_scheme(schemes).is_some()
    }

    /// A response that has run out is worse than none: clients take it for an attack.
    fn key(&self, now: i64) -> Arc<CertifiedKey> {
        match &self.stapled {
            Some((key, until)) if until.is_none_or(|until| now < until) => Arc::clone(key),
            _ => Arc::clone(&self.plain),
        }
    }
}

impl Certificates {
    /// Reads `certificates`, and of `switched` what is for one of them. `old` were made for the same `certificates`: what cannot be read is
    /// taken from them, and so is whatever was or would be shown for a host of `stays`.
    pub(in crate::policy) fn load(
        certificates: &[Certificate],
        switched: &[Switched],
        crypto: &CryptoProvider,
        old: Option<&Self>,
        stays: &[ServerName],
        faults: &mut Faults,
    ) -> Result<Self> {
        let mut entries = Vec::with_capacity(certificates.len());
        for (n, certificate) in certificates.iter().enumerate() {
            let kept = old.and_then(|old| old.entries.get(n));
            let entry = faults.or_kept(Entry::load(certificate, crypto), kept.cloned())?;
            let kept = kept.filter(|kept| kept.is_for_any(stays) || entry.is_for_any(stays));
            entries.push(kept.cloned().unwrap_or(entry));
        }
        if entries.is_empty() {
            bail!("no certificate");
        }
        let mut replaced = Vec::new();
        for set in switched {
            let names = shown::names(&entries, &set.hosts);
            if names.is_empty() {
                continue;
            }
            let kept = old.and_then(|old| old.switched.iter().find(|(hosts, _)| *hosts == set.hosts));
            let kept = kept.map(|(_, backup)| backup.clone());
            let backup = match kept.clone().filter(|_| set.hosts.iter().all(|host| stays.contains(host))) {
                Some(backup) => backup,
                None => faults.or_kept(Entry::backup(set, &names, crypto).context("the backup"), kept)?,
            };
            replaced.push((set.hosts.clone(), backup));
        }
        Ok(Self { entries, switched: replaced })
    }

    /// Names of the certificates, each with a key that is shown for it.
    pub fn named(&self) -> impl Iterator<Item = (String, Pin)> {
        self.entries
            .iter()
            .flat_map(|entry| entry.names.iter().filter_map(|name| Some((name.written(), entry.pin?))))
    }

    /// Whether one of the certificates is for `name`.
    pub fn serve(&self, name: &str) -> bool {
        let name = ServerName::plain(name);
        self.entries.iter().any(|entry| entry.serves(&name, true) || entry.serves(&name, false))
    }

    /// Whether a client could be shown a certificate for a host of a route: for the name itself, or, of `*.` and a name, for that or for
    /// one of the names that it stands for.
    pub fn cover(&self, host: &str) -> bool {
        let Some(parent) = host.strip_prefix('*') else { return self.serve(host) };
        let names = self.entries.iter().flat_map(|entry| &entry.names);
        names.clone().any(|name| *name == Name::Wildcard(parent.to_owned()))
            || names.filter(|name| name.is_exact()).any(|name| Name::new(host).matches(&name.written()))
    }

    /// When they end, in the order of the configuration.
    pub fn expiries(&self) -> impl Iterator<Item = &Expiry> {
        self.entries.iter().chain(self.switched.iter().map(|(_, backup)| backup)).map(|entry| &entry.expiry)
    }

    /// What is shown to those who ask for `name`, as [`ServerName::plain`] writes it: the first one whose signature they understand, or
    /// else the first one. Exact names before wildcards, the file's order among equals; for everybody else the first certificate, and
    /// those of other kinds for the same names.
    fn candidates(&self, name: &str) -> Vec<&Entry> {
        let instead =
            |name: &str| self.switched.iter().find(|(hosts, _)| hosts.iter().any(|host| host.covers(name)));
        if let Some((_, backup)) = instead(name) {
            return vec![backup];
        }
        let of = |exactly: bool| self.entries.iter().filter(move |entry| entry.serves(name, exactly));
        let named: Vec<&Entry> = of(true).chain(of(false)).collect();
        let Some(first) = self.entries.first().filter(|_| named.is_empty()) else { return named };
        // Whoever names no server is shown what stands first, or what stands in its place.
        let mut names = first.names.iter().map(Name::written);
        if let Some((_, backup)) = names.find_map(|name| instead(name.trim_start_matches("*."))) {
            return vec![backup];
        }
        self.entries.iter().filter(|entry| entry.names == first.names).collect()
    }

    /// Where nothing suits, the handshake fails with the alert that says so.
    fn find(&self, server_name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Entry> {
        let candidates = self.candidates(&ServerName::plain(server_name.unwrap_or_default()));
        let suited = candidates.iter().find(|entry| entry.suits(schemes));
        suited.or(candidates.first()).copied()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = i64::try_from(clock::unix_now()).unwrap_or(i64::MAX);
        self.find(hello.server_name(), hello.signature_schemes()).map(|entry| entry.key(now))
    }
}

/// Reads a certificate as for serving it for all of `hosts`; `None` if its leaf cannot be parsed.
pub(in crate::policy) fn look(
    certificate: &Certificate,
    hosts: &[ServerName],
    crypto: &CryptoProvider,
) -> Result<Option<Served>> {
    let entry = Entry::load(certificate, crypto)?;
    let served = entry.served();
    let missed = hosts.iter().find(|host| !entry.is_for_any(std::slice::from_ref(host)));
    match missed.filter(|_| served.is_some()) {
        Some(host) => bail!("the certificate in {} is not for `{host}`", certificate.chain.display()),
        None => Ok(served),
    }
}

fn certified_key(chain_path: &Path, key_path: &Path, crypto: &CryptoProvider) -> Result<CertifiedKey> {
    let chain = read::chain(chain_path)?;
    let key = read::private_key(key_path)?;
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

fn staple_of(path: &Path, key: &CertifiedKey, chain: &Path) -> Result<Staple> {
    let leaf = key.cert.first().map(CertificateDer::as_ref).unwrap_or_default();
    let (_, leaf) = X509Certificate::from_der(leaf)
        .with_context(|| format!("the first certificate in {} cannot be read", chain.display()))?;
    let response = staple::read(path)?;
    response
        .about(leaf.raw_serial())
        .with_context(|| format!("{} (for the first certificate in {})", path.display(), chain.display()))
}

/// The DNS names of a leaf; a certificate that cannot be parsed here serves as default only.
fn server_names(leaf: &CertificateDer<'_>) -> Vec<Name> {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| {
        if let GeneralName::DNSName(name) = name { Some(Name::new(name)) } else { None }
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

fn not_after(leaf: &CertificateDer<'_>) -> Option<i64> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    Some(leaf.validity().not_after.timestamp())
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
