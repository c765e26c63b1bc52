//! Whether the program and the TLS stack judge ClientHellos alike.
//!
//! The daemon spawns [`compare`]: samples of hellos that the program refused are shown to rustls, which has the last word. A refused
//! hello that it would have taken is a false drop, and there must be none. The opposite, an old hello that got as far as TLS, is
//! counted by `ingress`. Nothing here has any effect on a packet or on a connection.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use enforcer_common::{
    headers::Headers,
    reason::{DropReason, PassReason},
};
use rustls::{
    Error, PeerIncompatible, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs::default_provider,
    server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{
    clock,
    config::TlsVersion,
    kernel::{Reason, events::Sample},
    log::Seldom,
    metrics::Metrics,
    policy::SharedPolicy,
};

/// A log line a second says enough.
static FALSE_DROPS: Seldom = Seldom::new();

/// What the TLS stack says of the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opinion {
    /// A hello whose versions are good; whether a handshake comes of it depends on more than that.
    Taken,
    /// A hello that it refuses for its versions.
    TooOld,
    /// It waits for more.
    Unfinished,
    /// It refuses them for another reason.
    Refused,
}

/// rustls as the edge uses it, but without certificates: hellos are read and versions chosen, and nothing is answered.
#[derive(Clone, Debug)]
pub struct TlsStack {
    since_12: Arc<ServerConfig>,
    since_13: Arc<ServerConfig>,
}

impl TlsStack {
    /// One for each minimum.
    pub fn new() -> Result<Self> {
        Ok(Self { since_12: server(&[&TLS13, &TLS12])?, since_13: server(&[&TLS13])? })
    }

    /// What becomes of these bytes where `minimum` is required.
    pub fn opinion(&self, mut bytes: &[u8], minimum: TlsVersion) -> Opinion {
        let mut acceptor = Acceptor::default();
        let accepted = loop {
            match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) if bytes.is_empty() => return Opinion::Unfinished,
                Ok(None) => {}
                Err((error, _)) => return of(&error),
            }
            if acceptor.read_tls(&mut bytes).is_err() {
                return Opinion::Refused;
            }
        };
        let config = match minimum {
            TlsVersion::Tls12 => &self.since_12,
            TlsVersion::Tls13 => &self.since_13,
        };
        match accepted.into_connection(Arc::clone(config)) {
            Ok(_) => Opinion::Taken,
            Err((error, _)) => match of(&error) {
                Opinion::TooOld => Opinion::TooOld,
                // Versions come first, and that there is no certificate comes next.
                Opinion::Taken | Opinion::Unfinished | Opinion::Refused => Opinion::Taken,
            },
        }
    }
}

fn server(versions: &[&'static SupportedProtocolVersion]) -> Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .context("cannot set the TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Whether rustls says that a client's versions are why it refuses a hello.
pub const fn is_too_old(error: &Error) -> bool {
    matches!(
        error,
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
        )
    )
}

const fn of(error: &Error) -> Opinion {
    if is_too_old(error) { Opinion::TooOld } else { Opinion::Refused }
}

/// Compares samples until there are no more.
pub async fn compare(
    mut samples: Receiver<Arc<Sample>>,
    policy: SharedPolicy,
    metrics: Metrics,
) -> Result<()> {
    let stack = TlsStack::new()?;
    loop {
        let sample = match samples.recv().await {
            Ok(sample) => sample,
            // A sample of samples does as well.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return Ok(()),
        };
        let Some(data) = judged(&sample) else { continue };
        match stack.opinion(data, policy.load().minimum_tls()) {
            Opinion::Unfinished => continue,
            Opinion::TooOld | Opinion::Refused => {}
            Opinion::Taken => {
                metrics.false_drops.inc();
                if FALSE_DROPS.may_speak(clock::unix_now()) {
                    tracing::error!(
                        reason = sample.reason.label(),
                        interface = sample.interface,
                        "A HELLO WAS REFUSED THAT TLS WOULD HAVE TAKEN; `enforcer events --pcap` keeps such ones"
                    );
                }
            }
        }
        metrics.hellos_compared.inc();
    }
}

/// The data of a sample whose reason is what was thought of its hello, if it is there from its first byte to the frame's last.
fn judged(sample: &Sample) -> Option<&[u8]> {
    let of_hello = match sample.reason {
        Reason::Drop(reason) | Reason::WouldDrop(reason) => {
            matches!(reason, DropReason::TlsVersion | DropReason::MalformedHello | DropReason::NotHello)
        }
        Reason::Pass(reason) => reason == PassReason::HelloPoisoned,
    };
    if !of_hello {
        return None;
    }
    let begins = sample.reason.label() == DropReason::NotHello.label();
    let frame = sample.bytes.as_slice();
    if frame.len() != sample.length {
        return None;
    }
    let headers = Headers::of_tcp(&frame)?;
    let data = frame.get(headers.offset..headers.end)?;
    // A hello may be refused by a segment in its middle, of which nothing can be said.
    (begins || data.starts_with(&[0x16, 3])).then_some(data)
}
