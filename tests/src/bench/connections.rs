//! A client that opens TLS connections one after the other, or many to leave them idle: what a connection costs the server.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, client::Resumption,
    crypto::aws_lc_rs,
};
use rustls_pki_types::ServerName;

use crate::{edge::NAME, pki::Authority};

/// A server that answers nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The beginning of HTTP/2 (RFC 9113 section 3.4), with settings that change nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// How connections begin.
#[derive(Clone, Debug)]
pub struct Caller {
    config: Arc<ClientConfig>,
    address: SocketAddr,
}

/// A connection that is open.
pub type Open = StreamOwned<ClientConnection, TcpStream>;

impl Caller {
    /// Connections to `address`, of TLS 1.3 by X25519 as every contestant has it, for one protocol.
    pub fn new(authority: &Authority, address: SocketAddr, alpn: &str, resume: bool) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate())?;
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config.resumption = if resume { Resumption::in_memory_sessions(256) } else { Resumption::disabled() };
        Ok(Self { config: Arc::new(config), address })
    }

    /// A whole handshake.
    pub fn shake(&self) -> Result<Open> {
        let mut socket = TcpStream::connect(self.address).context("connecting")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut tls = ClientConnection::new(Arc::clone(&self.config), ServerName::try_from(NAME)?)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).context("shaking hands")?;
        }
        Ok(StreamOwned::new(tls, socket))
    }

    /// A handshake and the ticket that follows it, without which the next one could not be resumed; says whether this one was.
    pub fn shake_again(&self) -> Result<bool> {
        let mut open = self.shake()?;
        ensure!(open.conn.read_tls(&mut open.sock)? > 0, "no ticket");
        open.conn.process_new_packets()?;
        Ok(open.conn.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// A handshake, one request, and the end; says whether the session was resumed.
    pub fn ask_once(&self, path: &str) -> Result<bool> {
        let mut stream = self.shake()?;
        let resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = Vec::new();
        // Some servers end the connection without a word of TLS.
        if let Err(error) = stream.read_to_end(&mut answer) {
            ensure!(error.kind() == std::io::ErrorKind::UnexpectedEof, "reading an answer: {error}");
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "not 200: {}", String::from_utf8_lossy(&answer));
        Ok(resumed)
    }

    /// A connection on which one request was answered, and no other one will follow.
    pub fn idle_http1(&self, path: &str) -> Result<Open> {
        let mut stream = self.shake()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes())?;
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer)?;
        ensure!(answer[..read].starts_with(b"HTTP/1.1 200 "), "not 200");
        Ok(stream)
    }

    /// A connection on which HTTP/2 has begun and nothing was asked.
    pub fn idle_http2(&self) -> Result<Open> {
        let mut stream = self.shake()?;
        stream.write_all(PREFACE)?;
        let mut settings = [0; 1024];
        let read = stream.read(&mut settings)?;
        // Type 4: SETTINGS (RFC 9113 section 6.5).
        ensure!(read > 3 && settings[3] == 4, "no settings");
        Ok(stream)
    }
}
