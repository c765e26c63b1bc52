//! What the connections of one listener are judged by.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    hellos::{self, Hellos},
    tls::{self, certificates::Certificates},
};
use crate::{config, prefix::Prefix};

/// How a listener's connections are encrypted.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Certificates, versions, suites.
    pub tls: Arc<rustls::ServerConfig>,
    /// What can be shown, and for which names.
    pub certificates: Arc<Certificates>,
    /// How clients that show a certificate are judged; `None`: none is asked for.
    pub(super) clients: Option<tls::Judgement>,
    /// What a client meets that asks for another name, or for none.
    pub unknown_name: config::UnknownName,
    /// Whether a client without a certificate is refused.
    pub needs_identity: bool,
    /// Time for a handshake, from accept to the end.
    pub handshake_timeout: Duration,
    /// Whether the program refuses old hellos before they come here.
    pub hellos_judged: bool,
    /// Load balancers that say by the PROXY protocol whose connection it is.
    pub proxies: Vec<Prefix>,
    /// Whether clients that come back may send early data.
    pub early_data: bool,
    /// What is listed of hellos, if anything is.
    pub hellos: Option<Arc<Hellos>>,
}

impl Listener {
    /// Of what was made for `listener`.
    pub(super) fn new(
        listener: &config::Listener,
        kernel: &config::Kernel,
        served: tls::Served,
        hellos: Option<Arc<Hellos>>,
    ) -> Self {
        Self {
            tls: Arc::new(served.config),
            certificates: served.certificates,
            clients: served.clients,
            unknown_name: listener.unknown_name,
            needs_identity: listener.clients.as_ref().is_some_and(|clients| clients.required),
            handshake_timeout: listener.handshake_timeout,
            hellos_judged: hellos::judged(kernel, listener.address.port()),
            proxies: listener.proxy_protocol_from.clone(),
            early_data: listener.early_data,
            hellos,
        }
    }

    /// Whether connections of `peer` begin with a header of the PROXY protocol.
    pub fn is_behind(&self, peer: IpAddr) -> bool {
        Prefix::any_contains(&self.proxies, peer)
    }
}
