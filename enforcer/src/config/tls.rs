//! What the file says about TLS, with every default filled in: listeners, certificates, client certificates, suites,
//! tickets. Part of [`super::Config`]; reads nothing.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::Config;
use crate::prefix::Prefix;

/// A TLS listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `address`, like `[::]:443` (IPv4 too) or `192.0.2.1:443`.
    pub address: SocketAddr,
    /// `certificates`, at least one; chosen by SNI, the first one is the default.
    pub certificates: Vec<Certificate>,
    /// `unknown_name`: what a client meets that asks for a name of no certificate, default `default`.
    pub unknown_name: UnknownName,
    /// `client_certificates`, `client_authorities`, `client_crls`; `None` is `client_certificates = "off"`.
    pub clients: Option<Clients>,
    /// `handshake_timeout`, default 10 s.
    pub handshake_timeout: Duration,
    /// `proxy_protocol_from`: load balancers whose connections begin with a header of the PROXY protocol. Default: none.
    pub proxy_protocol_from: Vec<Prefix>,
    /// `early_data`: whether clients that come back may send requests before their handshake is complete (0-RTT). Default false.
    pub early_data: bool,
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// `chain`: leaf first.
    pub chain: PathBuf,
    /// `key`: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// `ocsp`: an OCSP response (DER, RFC 6960) to staple. Default: none.
    pub ocsp: Option<PathBuf>,
}

/// What is shown to a client that names no server, or one for which there is no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownName {
    /// `default`: the first certificate.
    Default,
    /// `refuse`: the alert `unrecognized_name` (RFC 6066 section 3).
    Refuse,
}

/// `client_certificates`, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClientCertificates {
    /// Nobody is asked for one.
    #[default]
    Off,
    /// Everybody is asked; whoever shows one must show a good one.
    Optional,
    /// Nobody gets in without.
    Required,
}

/// Whose certificates clients may show.
#[derive(Clone, Debug, PartialEq)]
pub struct Clients {
    /// Whether a client without one is refused.
    pub required: bool,
    /// `client_authorities`: PEM file with the roots.
    pub authorities: PathBuf,
    /// `client_crls`: PEM or DER files; with one of them, a certificate whose state no list tells is refused.
    pub crls: Vec<PathBuf>,
}

/// `[tls]`: what all listeners have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// `suites`, default AES-256-GCM and ChaCha20-Poly1305, always with ECDHE.
    pub suites: Vec<Suite>,
    /// `key_exchange`, default X25519MLKEM768, X25519 and P-256.
    pub key_exchange: Vec<KeyExchange>,
    /// `ticket_keys`: file with keys that several daemons share. Default: own ones, which nobody else knows.
    pub ticket_keys: Option<PathBuf>,
    /// `ticket_lifetime`, default 12 h; `None` (`"0s"`) means that no session is resumed.
    pub ticket_lifetime: Option<Duration>,
    /// `early_data_sessions`: sessions that are remembered for listeners with `early_data`, default 65,536.
    pub early_data_sessions: u32,
}

/// Authenticated encryption that may be chosen, in either version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
pub enum Suite {
    /// RFC 5288 and RFC 8446.
    #[serde(rename = "AES-256-GCM")]
    Aes256Gcm,
    /// RFC 7905 and RFC 8446.
    #[serde(rename = "CHACHA20-POLY1305")]
    ChaCha20Poly1305,
    /// RFC 5288 and RFC 8446.
    #[serde(rename = "AES-128-GCM")]
    Aes128Gcm,
}

/// Groups in which keys may be agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
pub enum KeyExchange {
    /// ML-KEM-768 beside X25519: holds against a quantum computer too.
    #[serde(rename = "X25519MLKEM768")]
    X25519Mlkem768,
    /// RFC 7748.
    #[serde(rename = "X25519")]
    X25519,
    /// NIST P-256.
    #[serde(rename = "P-256")]
    P256,
}

/// Kinds of files that are named for TLS beside certificates and keys, and keys of request signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// `ocsp`
    OcspResponse,
    /// `client_authorities`
    ClientAuthorities,
    /// An entry of `client_crls`.
    RevocationList,
    /// `ticket_keys`
    TicketKeys,
    /// `authorities` of an upstream.
    ServerAuthorities,
    /// An entry of `keys` of a signature.
    SignatureKey(super::SignatureScheme),
    /// An entry of `keys` of encrypted bodies.
    PayloadKey,
    /// `session_keys` of attestation.
    SessionKeys,
    /// `facts_key` of attestation.
    FactsKey,
    /// `root` of App Attest.
    AttestationRoot,
    /// `root` of Android's keys.
    AndroidRoots,
    /// `revocations` of Android's keys.
    AndroidRevocations,
    /// `keys` of Google Play.
    PlayKeys,
}

impl Config {
    /// Every file that a policy is made from, so that a change of one can be noticed.
    pub fn files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = Vec::new();
        for listener in &self.listeners {
            for certificate in &listener.certificates {
                files.extend([certificate.chain.as_path(), certificate.key.as_path()]);
                files.extend(certificate.ocsp.as_deref());
            }
            if let Some(clients) = &listener.clients {
                files.push(&clients.authorities);
                files.extend(clients.crls.iter().map(PathBuf::as_path));
            }
        }
        files.extend(self.pin_files());
        files.extend(self.payload_files());
        for tls in self.upstreams.values().map(|upstream| &upstream.tls) {
            files.extend(tls.authorities.as_deref());
            if let Some(certificate) = &tls.certificate {
                files.extend([certificate.chain.as_path(), certificate.key.as_path()]);
            }
        }
        files.extend(self.tls.ticket_keys.as_deref());
        files.extend(self.revocation.file.as_deref());
        files.extend(self.revocation.client.as_ref().map(|client| client.secret.as_path()));
        files.extend(self.tokens.values().filter_map(|token| token.keys.file()));
        files.extend(
            self.signatures.values().flat_map(|signature| signature.keys.values().map(PathBuf::as_path)),
        );
        if let Some(attestation) = &self.attestation {
            files.extend(attestation.session_keys.as_deref());
            files.extend(attestation.facts_key.as_deref());
            files.extend(attestation.app_attest.as_ref().and_then(|app_attest| app_attest.root.as_deref()));
            if let Some(android_key) = &attestation.android_key {
                files.extend(android_key.root.as_deref());
                files.extend(android_key.revocations.as_deref());
            }
            files.extend(attestation.play.as_ref().map(|play| play.keys.as_path()));
        }
        let asked = self.tokens.values().filter_map(|token| token.introspection.as_ref());
        files.extend(asked.map(|introspection| introspection.secret.as_path()));
        files.sort_unstable();
        files.dedup();
        files
    }
}
