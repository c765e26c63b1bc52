//! A client that keeps one TLS connection of HTTP/1.1 and asks on it, again and again.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{
    clients::{self, HOST},
    netns::{Lab, Netns},
    poll,
};

/// For a connection and for each answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What such a client offers: certificates of `authority`, and protocols by ALPN.
pub fn offer(authority: &Path, protocols: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols;
    Ok(Arc::new(config))
}

/// The connection.
pub struct KeepAlive {
    stream: StreamOwned<ClientConnection, TcpStream>,
    was_last: bool,
}

impl KeepAlive {
    /// Connects from an address of `netns` to the lab's server; the handshake comes with the first request.
    pub fn connect(netns: &Netns, source: IpAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let server = SocketAddr::new(Lab::server_address(source), 443);
        let socket = clients::connect(netns, source, server, PATIENCE)?;
        socket.set_read_timeout(Some(poll::stretched(PATIENCE)))?;
        let tls = ClientConnection::new(Arc::clone(config), HOST.try_into()?)?;
        Ok(Self { stream: StreamOwned::new(tls, socket), was_last: false })
    }

    /// Whether the server said with its answer that it is the last one.
    pub fn was_last(&self) -> bool {
        self.was_last
    }

    /// Asks, with content if there is any, and answers the status.
    pub fn ask(&mut self, token: &str, path: &str, content: &[u8]) -> Result<u16> {
        let method = if content.is_empty() { "GET" } else { "POST" };
        write!(
            self.stream,
            "{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
            content.len()
        )?;
        self.stream.write_all(content)?;
        self.stream.flush()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).context("no answer")?;
            head.extend(byte);
        }
        let head = String::from_utf8(head)?.to_ascii_lowercase();
        self.was_last = head.lines().any(|line| line == "connection: close");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.with_context(|| format!("no length: {head}"))?.trim().parse()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")
    }
}
