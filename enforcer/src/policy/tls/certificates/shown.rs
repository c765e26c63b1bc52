//! Which certificates could be shown for a host, whoever asks: the choice of [`Certificates::find`], over all clients that there can be.

use std::collections::BTreeSet;

use rustls::SignatureScheme;

use super::{Certificates, Entry, Name};
use crate::{config::ServerName, policy::pins::Served};

/// Every scheme that a certificate's key can sign with here.
const SCHEMES: [SignatureScheme; 10] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// What of `hosts` the certificates are for: each host that is one name, and of those that stand for names below them every name of a
/// certificate, wildcards as `*.` and what they are below. `*` is a label like any other to [`Name::matches`].
pub(super) fn names(entries: &[Entry], hosts: &[ServerName]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for host in hosts {
        let own = entries.iter().flat_map(|entry| &entry.names);
        if host.below {
            names.extend(own.map(Name::written).filter(|name| host.covers(name)));
        } else if entries.iter().any(|entry| entry.is_for(&host.name)) {
            names.insert(host.name.clone());
        }
    }
    names
}

impl Entry {
    /// Whether it is for `name`, which may be a wildcard.
    pub(super) fn is_for(&self, name: &str) -> bool {
        self.serves(name, true) || self.serves(name, false)
    }

    /// Whether clients that ask for one of `hosts`, or for a name below it, could be shown this.
    pub(super) fn is_for_any(&self, hosts: &[ServerName]) -> bool {
        !names(std::slice::from_ref(self), hosts).is_empty()
    }
}

impl Certificates {
    /// Every key that clients could be shown that ask for `host` or, if that stands for names below, for one of those that certificates
    /// are for; none: there is no certificate for it.
    pub fn shown(&self, host: &ServerName) -> Vec<Served> {
        let names = names(&self.entries, std::slice::from_ref(host));
        names.iter().flat_map(|name| could_be(&self.candidates(name))).filter_map(Entry::served).collect()
    }
}

/// Those of `candidates` that are shown to somebody: the first one, and each that signs in a way in which none before it does. A client
/// that is shown another one than the first understands one scheme at least of it and none of those before, so one scheme is enough. A key
/// of a kind that is not listed counts as shown.
fn could_be<'e>(candidates: &[&'e Entry]) -> Vec<&'e Entry> {
    let mut left = SCHEMES.to_vec();
    let mut shown = Vec::new();
    for (i, entry) in candidates.iter().enumerate() {
        let before = left.len();
        left.retain(|scheme| !entry.suits(&[*scheme]));
        let is_unknown = !entry.suits(&SCHEMES);
        if i == 0 || left.len() < before || is_unknown {
            shown.push(*entry);
        }
    }
    shown
}
