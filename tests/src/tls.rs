//! TLS clients against an edge in this process: `openssl s_client`, curl, and rustls with everything that can be set.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    edge::{Edge, NAME},
    pki::Leaf,
    process::{self, Finished},
};

/// For one program, or one exchange; far more than either takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `openssl s_client` for `name` against the edge with these further words, without input.
pub async fn s_client(edge: &Edge, name: Option<&str>, words: &[&str]) -> Result<Finished> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &edge.address.to_string(), "-verify_return_error", "-CAfile"]);
    command.arg(authority(edge)?);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    command.args(words).stdin(Stdio::null());
    run(command).await
}

/// Runs curl for `https://NAME:PORT/path` against the edge with these further words; the head comes before the body.
pub async fn curl(edge: &Edge, path: &str, words: &[&str]) -> Result<Finished> {
    let mut command = Command::new("curl");
    let port = edge.address.port();
    command.args(["-q", "-s", "-i", "--max-time", "15", "--noproxy", "*", "--cacert"]).arg(authority(edge)?);
    command.args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")]).args(words);
    command.arg(format!("https://{NAME}:{port}{path}")).stdin(Stdio::null());
    run(command).await
}

/// Runs a program without holding up the runtime, on which the origin lives.
pub async fn run(mut command: Command) -> Result<Finished> {
    tokio::task::spawn_blocking(move || process::run(&mut command, PATIENCE)).await?
}

/// The file with the root that clients trust.
fn authority(edge: &Edge) -> Result<std::path::PathBuf> {
    let path = edge.site.dir.path().join("ca.pem");
    std::fs::write(&path, edge.site.authority.pem())?;
    Ok(path)
}

/// What a rustls client is made of.
pub struct Setup<'a> {
    /// Its certificate.
    pub identity: Option<&'a Leaf>,
    /// Only TLS 1.2.
    pub old: bool,
    /// Protocols that it offers.
    pub alpn: &'a [&'a str],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { identity: None, old: false, alpn: &["http/1.1"] }
    }
}

impl Setup<'_> {
    /// A configuration; with the same one, sessions are resumed.
    pub fn client(&self, edge: &Edge) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(edge.site.authority.certificate())?;
        let provider: Arc<CryptoProvider> = Arc::new(default_provider());
        let versions: &[_] = if self.old { &[&TLS12] } else { &[&TLS13] };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder.with_client_auth_cert(
                vec![leaf.certificate.clone()],
                PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes())?,
            )?,
        };
        config.alpn_protocols = self.alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// One request over one connection: how the handshake went, and the status of the answer. The client reads all, so it has
/// the tickets that came along.
pub async fn exchange(edge: &Edge, config: &Arc<ClientConfig>) -> Result<(HandshakeKind, u16)> {
    exchange_with(edge, config, "/public/x", "").await
}

/// The same for a path, with a bearer token unless it is empty.
pub async fn exchange_with(
    edge: &Edge,
    config: &Arc<ClientConfig>,
    path: &str,
    token: &str,
) -> Result<(HandshakeKind, u16)> {
    let bearer = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let work = async {
        let stream = TcpStream::connect(edge.address).await?;
        let name = ServerName::try_from(NAME)?;
        let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\n{bearer}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let status = answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok());
        let status = status.context("no answer")?.parse()?;
        let kind = stream.get_ref().1.handshake_kind().context("no handshake")?;
        Ok((kind, status))
    };
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("no answer in {} s", PATIENCE.as_secs()),
    }
}

/// An OCSP response of the site's authority for the certificate `STEM.pem` in its directory, as `STEM.ocsp`: `V` for valid,
/// `R` for revoked.
pub async fn ocsp(authority: &crate::pki::Authority, dir: &Path, stem: &str, status: char) -> Result<()> {
    std::fs::write(dir.join("root.pem"), authority.pem())?;
    std::fs::write(dir.join("root.key"), authority.key_pem())?;
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-serial", "-in", &format!("{stem}.pem")]).current_dir(dir);
    let serial = run(command).await?.success("openssl x509")?;
    let serial = serial.trim().strip_prefix("serial=").context("no serial number")?.to_owned();
    let revoked = if status == 'R' { "200101000000Z" } else { "" };
    std::fs::write(
        dir.join("index"),
        format!("{status}\t491231235959Z\t{revoked}\t{serial}\tunknown\t/CN=x\n"),
    )?;
    let mut command = Command::new("openssl");
    command.args(["ocsp", "-index", "index", "-CA", "root.pem", "-rsigner", "root.pem", "-rkey", "root.key"]);
    command.args(["-issuer", "root.pem", "-cert", &format!("{stem}.pem"), "-ndays", "1", "-noverify"]);
    command.args(["-respout", &format!("{stem}.ocsp")]).current_dir(dir);
    run(command).await?.success("openssl ocsp")?;
    Ok(())
}
