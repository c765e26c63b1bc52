//! What stands in for servers by https, and does what a test wants: answers, or behaves badly.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::pki::{Authority, KeyKind};

/// What a request gets.
#[derive(Clone, Debug)]
pub enum Manner {
    /// This status, these fields (each with its line end) and this body.
    Answer(u16, String, Vec<u8>),
    /// This document by this `ETag` (with its quotes), good for a minute; 304 for who knows it.
    Tagged(String, Vec<u8>),
    /// The end of the connection, without a word.
    HangUp,
    /// Nothing, for ever.
    Silence,
    /// A body that never ends, one byte at a time.
    Drip,
    /// A body that never ends, as fast as it is taken.
    Flood,
}

/// A free port of loopback, with a certificate under a root of its own.
pub struct Door {
    /// Where it is.
    pub address: SocketAddr,
    /// The file with the root.
    pub authorities: PathBuf,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    dir: TempDir,
}

impl Door {
    /// Opens one.
    pub async fn open(name: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new(name)?;
        let authorities = dir.path().join("roots.pem");
        std::fs::write(&authorities, authority.pem())?;
        let leaf = authority.issue(&["127.0.0.1"], KeyKind::P256)?;
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).context("reading a key")?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.certificate], key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { address, authorities, listener, acceptor: TlsAcceptor::from(Arc::new(config)), dir })
    }

    /// Serves each connection by `serve`, until its runtime ends. Whoever has the folder that is returned keeps the file with the root.
    pub fn serve<F>(self, serve: impl Fn(Visit) -> F + Send + 'static) -> TempDir
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let Self { listener, acceptor, dir, .. } = self;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = serve(Visit { stream, acceptor: acceptor.clone() });
                // Whatever goes wrong here, the client says so.
                tokio::spawn(async move { drop(served.await) });
            }
        });
        dir
    }
}

/// A connection that has come.
pub struct Visit {
    stream: TcpStream,
    acceptor: TlsAcceptor,
}

impl Visit {
    /// Its one request.
    pub async fn read(self) -> Result<Asked> {
        let mut stream = self.acceptor.accept(self.stream).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = field(&head, "content-length: ").parse().unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(Asked { head, body, stream })
    }
}

/// A request.
pub struct Asked {
    /// Its first line and its fields.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
    stream: TlsStream<TcpStream>,
}

impl Asked {
    /// What stands behind this, like `authorization: `; nothing where it is not there.
    pub fn field(&self, name: &str) -> &str {
        field(&self.head, name)
    }

    /// Whether its sender has what is known by this `ETag`.
    pub fn knows(&self, tag: &str) -> bool {
        self.head.contains(&format!("if-none-match: {tag}\r\n"))
    }

    /// Does to it what is to be done.
    pub async fn serve(mut self, manner: Manner) -> Result<()> {
        let endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        match manner {
            Manner::Answer(status, fields, body) => self.respond(status, &fields, &body).await?,
            Manner::Tagged(tag, body) => {
                let fields = format!("ETag: {tag}\r\nCache-Control: max-age=60\r\n");
                match self.knows(&tag) {
                    true => self.respond(304, &fields, b"").await?,
                    false => self.respond(200, &fields, &body).await?,
                }
            }
            Manner::HangUp => {}
            Manner::Silence => std::future::pending().await,
            Manner::Drip => {
                self.stream.write_all(endless).await?;
                loop {
                    self.stream.write_all(b"1\r\n \r\n").await?;
                    self.stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Manner::Flood => {
                self.stream.write_all(endless).await?;
                let piece = [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat();
                loop {
                    self.stream.write_all(&piece).await?;
                }
            }
        }
        Ok(())
    }

    async fn respond(&mut self, status: u16, fields: &str, body: &[u8]) -> Result<()> {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
        self.stream.write_all(&[head.as_bytes(), body].concat()).await?;
        Ok(self.stream.shutdown().await?)
    }
}

fn field<'h>(head: &'h str, name: &str) -> &'h str {
    head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default()
}
