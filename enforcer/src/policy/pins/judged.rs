//! What the guard judges: every key that a client could be shown that asks for a pinned host, listener by listener, by the rule by which
//! certificates are chosen.

use std::net::SocketAddr;

use super::{Served, Set};
use crate::{
    config::{self, ServerName, UnknownName},
    policy::{Listener, tls::certificates::Certificates},
};

/// What clients meet at a listener.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Door<'c> {
    /// As in the configuration.
    address: SocketAddr,
    /// What those meet who ask for a name of no certificate.
    unknown: UnknownName,
    certificates: &'c Certificates,
}

impl<'c> Door<'c> {
    /// Of a listener in force.
    pub(in crate::policy) fn new((address, listener): (&SocketAddr, &'c Listener)) -> Self {
        Self { address: *address, unknown: listener.unknown_name, certificates: &listener.certificates }
    }

    /// Of a listener as configured, with what it would show.
    pub(super) const fn of(listener: &config::Listener, certificates: &'c Certificates) -> Self {
        Self { address: listener.address, unknown: listener.unknown_name, certificates }
    }
}

/// Every key that clients could be shown that ask for `host`, each once; and how some would be cut off whatever they pin, if they would.
pub(super) fn shown<'c>(
    host: &ServerName,
    doors: impl Iterator<Item = Door<'c>>,
) -> (Vec<Served>, Option<String>) {
    let (mut all, mut bare) = (Vec::new(), None);
    for Door { address, unknown, certificates } in doors {
        let shown = certificates.shown(host);
        match unknown {
            UnknownName::Default if shown.is_empty() => bare = bare.or(Some(address)),
            // Nobody is shown anything there.
            UnknownName::Refuse | UnknownName::Default => {}
        }
        for served in shown {
            if !all.contains(&served) {
                all.push(served);
            }
        }
    }
    let cut_off = match bare {
        _ if all.is_empty() => Some(format!(
            "no listener has a certificate for `{host}`: every app that pins is cut off; give one of them its certificate, or take the host out"
        )),
        Some(address) => Some(format!(
            "listener {address} has no certificate for `{host}`, and shows its first one to apps that ask there for it: give it the host's certificate, or, if no app comes there, unknown_name = \"refuse\""
        )),
        None => None,
    };
    (all, cut_off)
}

impl Set {
    /// Pins that were read from files: for people.
    pub(super) fn read(&self) -> impl Iterator<Item = String> {
        let read = self.pins.iter().enumerate().filter(|(_, published)| published.is_read);
        let remark = |(i, published): (usize, &crate::pins::Published)| {
            format!(
                "pins[{i}] is read from a `file`, so its key is no backup and will not be served: once apps have it, write `sha256 = \"{}\"` in its place",
                published.pin
            )
        };
        read.map(remark)
    }
}
