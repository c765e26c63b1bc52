//! TLS parameters of a listener: versions, suites, groups, certificates, whose client certificates count, tickets.
//!
//! Part of the policy: a reload makes a new one, connections that are open keep the one that they began with.

pub mod certificates;
mod clients;
mod read;
pub mod servers;
pub mod sessions;
mod staple;
pub mod tickets;

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs as provider},
    server::{NoServerSessionStorage, ProducesTickets},
};

use super::{faults::Faults, pins::Switched};
use crate::config::{self, KeyExchange, Suite, TlsFile, TlsVersion};
use certificates::Certificates;
pub(super) use clients::Judgement;
use sessions::{Remembered, Sessions};
use tickets::{NoTickets, TicketKeys, Tickets};

/// Protocols by preference, as ALPN names (RFC 7301, RFC 9113 section 3.1).
pub const ALPN_H2: &[u8] = b"h2";
/// See [`ALPN_H2`].
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Bytes of early data: the heads of some requests. What is more has to wait for the handshake.
const EARLY_DATA: u32 = 16 << 10;

/// What a listener's connections are served with.
#[derive(Debug)]
pub struct Served {
    /// For handshakes.
    pub config: ServerConfig,
    /// What can be shown, and for which names.
    pub certificates: Arc<Certificates>,
    /// How clients that show a certificate are judged; `None`: none is asked for.
    pub(super) clients: Option<Judgement>,
}

/// What of a listener was made of files, and whether its certificates stay whatever there is to read.
pub(super) type Kept<'k> = (&'k Arc<Certificates>, Option<&'k Judgement>, bool);

/// Reads what `listener` names and makes a configuration of it. Tickets are sealed with `keys`, if there are any; sessions that may
/// bring early data are kept in `sessions`; `switched` replaces certificates. `kept` may stand in for what cannot be read.
pub(super) fn serve(
    listener: &config::Listener,
    minimum: TlsVersion,
    tls: &config::Tls,
    (keys, sessions): (&Arc<TicketKeys>, &Arc<Sessions>),
    switched: &[Switched],
    kept: Option<Kept<'_>>,
    faults: &mut Faults,
) -> Result<Served> {
    // Other code of this process (metrics, tests) may build rustls configurations without naming a provider.
    drop(crypto_provider(tls).install_default());
    let crypto = Arc::new(crypto_provider(tls));
    let versions: &[&rustls::SupportedProtocolVersion] = match minimum {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let certificates = match kept {
        Some((old, _, true)) => Arc::clone(old),
        kept => {
            let old = kept.map(|(old, ..)| &**old);
            Arc::new(Certificates::load(&listener.certificates, switched, &crypto, old, faults)?)
        }
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&crypto))
        .with_protocol_versions(versions)
        .context("cannot set the TLS versions")?;
    let (builder, trust, clients) = match &listener.clients {
        None => (builder.with_no_client_auth(), tickets::NO_CLIENTS, None),
        Some(asked) => {
            let old = kept.and_then(|(_, judgement, _)| judgement).cloned();
            let judgement = faults.or_kept(clients::verifier(asked, crypto), old)?;
            let builder = builder.with_client_cert_verifier(Arc::clone(&judgement.verifier));
            (builder, judgement.trust, Some(judgement))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as Arc<_>);
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    config.ticketer = match tls.ticket_lifetime {
        Some(_) if listener.early_data => Arc::new(NoTickets),
        Some(lifetime) => Arc::new(Tickets::new(Arc::clone(keys), lifetime, trust)),
        None => Arc::new(NoTickets) as Arc<dyn ProducesTickets>,
    };
    // Sessions live in tickets alone: a cache in memory would be locked by all workers, and know nothing of other nodes.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One is enough for the next connection, and each is sealed whether or not it is ever used.
    config.send_tls13_tickets = usize::from(tls.ticket_lifetime.is_some());
    // Early data can be replayed (RFC 8446 section 8), unless whoever takes it remembers which sessions were used: so the client of such
    // a listener gets a number in place of a ticket, good for one connection.
    if let Some(lifetime) = tls.ticket_lifetime.filter(|_| listener.early_data) {
        config.session_storage = Arc::new(Remembered::new(Arc::clone(sessions), lifetime));
        config.max_early_data_size = EARLY_DATA;
        // Each is good for one connection, and clients open two at once.
        config.send_tls13_tickets = 2;
        // The answer does not wait for the client's end of the handshake either.
        config.send_half_rtt_data = true;
    }
    Ok(Served { config, certificates, clients })
}

/// aws-lc-rs with the suites and groups of the configuration; the client's order decides, because only the client knows
/// whether it has AES in hardware.
fn crypto_provider(tls: &config::Tls) -> CryptoProvider {
    use provider::{cipher_suite as suite, kx_group};
    let suites = |wanted: &Suite| match wanted {
        Suite::Aes256Gcm => [
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ],
        Suite::ChaCha20Poly1305 => [
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        Suite::Aes128Gcm => [
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ],
    };
    let group = |wanted: &KeyExchange| match wanted {
        KeyExchange::X25519Mlkem768 => kx_group::X25519MLKEM768,
        KeyExchange::X25519 => kx_group::X25519,
        KeyExchange::P256 => kx_group::SECP256R1,
    };
    CryptoProvider {
        cipher_suites: tls.suites.iter().flat_map(suites).collect(),
        kx_groups: tls.key_exchange.iter().map(group).collect(),
        ..provider::default_provider()
    }
}

/// The first private key of a PEM file.
pub(super) fn private_key(path: &Path) -> Result<rustls_pki_types::PrivateKeyDer<'static>> {
    read::private_key(path)
}

/// What is wrong with a file that the configuration names for TLS; for `enforcer check`.
pub fn problem(kind: TlsFile, path: &Path) -> Option<String> {
    let looked = match kind {
        TlsFile::OcspResponse => staple::read(path).map(drop),
        TlsFile::ClientAuthorities | TlsFile::ServerAuthorities => clients::authorities(path).map(drop),
        TlsFile::RevocationList => clients::revocations(path).map(drop),
        TlsFile::TicketKeys => TicketKeys::from_file(path).map(drop),
        TlsFile::PayloadKey => super::payload::read(path).map(drop),
        TlsFile::SignatureKey(scheme) => super::signature::Key::read(path, scheme).map(drop),
        TlsFile::SessionKeys
        | TlsFile::FactsKey
        | TlsFile::AttestationRoot
        | TlsFile::AndroidRoots
        | TlsFile::AndroidRevocations
        | TlsFile::PlayKeys => super::attestation::problem(kind, path),
    };
    looked.err().map(|error| format!("{error:#}"))
}
