//! The edge alone, in this process: a policy from a configuration made in code, the front door on a free loopback port,
//! and clients that speak to it through real TLS. No kernel part, no daemon.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context as Waker, Poll},
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use enforcer::{
    access_log::AccessLog,
    bans::{Offence, Reporter, banned::Banned},
    config::{self, Config, Demands, KeyExchange, KeySource, Suite, TokenAlgorithm, TokenType},
    ingress::Ingress,
    metrics::{self, Metrics},
    policy::{Policy, SharedPolicy},
    store::Gauges,
};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    kernel,
    pki::{Authority, KeyKind},
    tokens::{self, SigningKey},
};

/// The name that the first certificate is for.
pub const NAME: &str = "api.example.com";
/// `iss` of good tokens.
pub const ISSUER: &str = "https://id.example.com/";
/// `aud` of good tokens.
pub const AUDIENCE: &str = "api";

/// Files and keys that a policy needs, and a configuration that names them.
pub struct Site {
    /// Who signs the certificates.
    pub authority: Authority,
    /// Who signs the tokens.
    pub key: SigningKey,
    /// The configuration: one listener on a free port, one upstream, `/public/` and `/api/`, the latter with token and
    /// the scope `read`.
    pub config: Config,
    /// Where the files are.
    pub dir: TempDir,
}

impl Site {
    /// Makes everything anew, in front of `origin`.
    pub fn new(origin: SocketAddr) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new("Test root")?;
        let key = SigningKey::p256("key-1")?;
        authority.issue(&[NAME, "*.example.org"], KeyKind::P256)?.write(dir.path(), "api")?;
        std::fs::write(dir.path().join("jwks.json"), tokens::jwks(&[&key]))?;
        Ok(Self { authority, key, config: config_of(dir.path(), origin)?, dir })
    }

    /// A good token.
    pub fn token(&self) -> Result<String> {
        self.key.mint(&tokens::claims(ISSUER, AUDIENCE, "read write", enforcer::clock::unix_now()))
    }

    /// Starts the edge.
    pub fn start(self) -> Result<Edge> {
        let policy = Policy::load(&self.config)?.share();
        let metrics = Metrics::new()?;
        if let Some(path) = &self.config.replay.store {
            let (pending, errors) =
                (metrics.replay_store_pending.clone(), metrics.replay_store_errors.clone());
            policy.load().replay().keep(path, Gauges { pending, errors }, enforcer::clock::unix_now())?;
        }
        if let Some(attestation) = policy.load().attestation()
            && let Some(path) = &attestation.config.store
        {
            let (pending, errors) =
                (metrics.device_store_pending.clone(), metrics.device_store_errors.clone());
            attestation.enrolment.devices.keep(path, Gauges { pending, errors })?;
        }
        metrics::upstreams::register(&metrics.registry, Arc::clone(&policy))?;
        let (reporter, offences) = Reporter::new(1024, metrics.offences_lost.clone());
        let banned = Arc::clone(reporter.banned());
        let access_log = AccessLog::start(&self.config.access_log, &metrics)?;
        let ingress =
            Ingress::bind(&self.config, Arc::clone(&policy), reporter, metrics.clone(), access_log.clone())?;
        ingress.serve();
        let address = ingress.addresses().into_iter().next().context("no listener")?;
        Ok(Edge { site: self, ingress, access_log, address, policy, metrics, offences, banned })
    }
}

/// The configuration of a [`Site`] whose files are in `dir`.
pub fn config_of(dir: &Path, origin: SocketAddr) -> Result<Config> {
    let mut config = bare_config();
    config.listeners.push(config::Listener {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        certificates: vec![certificate(dir, "api")],
        unknown_name: config::UnknownName::Default,
        clients: None,
        handshake_timeout: Duration::from_secs(10),
        proxy_protocol_from: Vec::new(),
        early_data: false,
    });
    config.upstreams.insert("api".to_owned(), upstream(origin)?);
    config.tokens.insert("main".to_owned(), token(ISSUER, dir.join("jwks.json")));
    config.routes.push(route("/public/", None, &[]));
    config.routes.push(route("/api/", Some("main"), &["read"]));
    Ok(config)
}

/// An issuer as it is by default.
pub fn token(issuer: &str, jwks: PathBuf) -> config::Token {
    config::Token {
        issuer: issuer.to_owned(),
        audience: vec![AUDIENCE.to_owned()],
        keys: KeySource::File(jwks),
        algorithms: vec![TokenAlgorithm::Rs256, TokenAlgorithm::Es256],
        kind: TokenType::Any,
        leeway: Duration::from_secs(60),
        max_lifetime: Duration::from_secs(24 * 3600),
        device_claim: "device_id".to_owned(),
        introspection: None,
    }
}

/// `[dpop]` as it is by default.
pub fn dpop() -> config::Dpop {
    config::Dpop {
        algorithms: vec![TokenAlgorithm::Es256, TokenAlgorithm::EdDsa],
        max_age: Duration::from_secs(120),
        leeway: Duration::from_secs(60),
        nonce: false,
        nonce_lifetime: Duration::from_secs(300),
    }
}

/// `[attestation]` as it is by default, but that nothing is kept, and nobody's limit is reached.
pub fn attestation() -> config::Attestation {
    let base = "/.well-known/enforcer";
    config::Attestation {
        paths: config::AttestationPaths {
            challenge: format!("{base}/challenge"),
            enrol: format!("{base}/enrol"),
            session: format!("{base}/session"),
            keys: format!("{base}/keys"),
        },
        limit: config::RateLimit { events: 10_000, period: Duration::from_secs(1), burst: 10_000 },
        challenge_lifetime: Duration::from_secs(120),
        max_challenges: 1 << 18,
        session_lifetime: Duration::from_secs(900),
        session_keys: None,
        facts_key: None,
        facts_issuer: "enforcer".to_owned(),
        facts_lifetime: Duration::from_secs(60),
        store: None,
        max_devices: 1_000_000,
        forget_after: Duration::from_secs(180 * 86_400),
        unknown_devices: config::UnknownDevices::Refuse,
        app_attest: None,
        android_key: None,
        play: None,
    }
}

/// `[attestation.app_attest]` for one app.
pub fn app_attest(app: &str) -> config::AppAttest {
    config::AppAttest {
        apps: vec![app.to_owned()],
        environment: config::Environment::Production,
        categories: Vec::new(),
        minimum_version: None,
        require_distribution: false,
        root: None,
    }
}

/// `attestation = {}` of a route.
pub fn demand() -> config::AttestationDemand {
    config::AttestationDemand {
        max_age: Duration::from_secs(900),
        level: config::Level::Device,
        platforms: Vec::new(),
    }
}

/// `STEM.pem` and `STEM.key` in `dir`.
pub fn certificate(dir: &Path, stem: &str) -> config::Certificate {
    let (chain, key) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
    config::Certificate { chain, key, ocsp: None }
}

/// `[tls]` as it is by default.
pub fn tls() -> config::Tls {
    config::Tls {
        suites: vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
        key_exchange: vec![KeyExchange::X25519Mlkem768, KeyExchange::X25519, KeyExchange::P256],
        ticket_keys: None,
        ticket_lifetime: Some(Duration::from_secs(12 * 3600)),
        early_data_sessions: 4_096,
    }
}

/// An upstream of one server.
pub fn upstream(server: SocketAddr) -> Result<config::Upstream> {
    let servers = vec![format!("http://{server}").parse()?];
    Ok(config::Upstream { idle_timeout: Duration::from_secs(60), ..config::Upstream::of(servers) })
}

/// A route to the upstream `api`.
pub fn route(path: &str, token: Option<&str>, scopes: &[&str]) -> config::Route {
    config::Route {
        name: path.to_owned(),
        hosts: Vec::new(),
        path: path.to_owned(),
        methods: Vec::new(),
        headers: Vec::new(),
        upstream: "api".to_owned(),
        tokens: token.into_iter().map(str::to_owned).collect(),
        demands: Demands {
            scopes: scopes.iter().map(|scope| scope.to_string()).collect(),
            ..Demands::default()
        },
        bindings: config::Bindings::default(),
        signature: None,
        payload: None,
        attestation: None,
        required_headers: Vec::new(),
        upgrade: Vec::new(),
        limits: Vec::new(),
        graphql: None,
        early_data: false,
        cors: None,
        oauth: None,
    }
}

fn bare_config() -> Config {
    Config {
        kernel: config::Kernel { mode: config::Mode::Off, protected_ports: Vec::new(), ..kernel::plain() },
        listeners: Vec::new(),
        tls: tls(),
        pins: config::Pins::default(),
        upstreams: BTreeMap::new(),
        tokens: BTreeMap::new(),
        dpop: dpop(),
        signatures: BTreeMap::new(),
        payloads: BTreeMap::new(),
        replay: config::Replay { max_entries: 1 << 16, store: None },
        attestation: None,
        routes: Vec::new(),
        http: config::Http {
            strict_transport_security: Some("max-age=31536000".to_owned()),
            response_headers: BTreeMap::new(),
            redirect: Vec::new(),
            max_connections: 1000,
            max_connections_per_source: 0,
            max_header_bytes: 32 << 10,
            max_header_fields: 100,
            trusted_proxies: Vec::new(),
            body_timeout: Duration::from_secs(30),
            min_body_rate: 64,
            write_timeout: Duration::from_secs(60),
            forwarded_by: config::ForwardedBy::XForwardedFor,
            forwarded_origin: false,
            control_frames: Some(config::RateLimit {
                events: 100,
                period: Duration::from_secs(1),
                burst: 1000,
            }),
            max_body_bytes: 1 << 20,
            max_held_bytes: 256 << 20,
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(20),
            max_sources: 1024,
            max_delayed: 1000,
            ratelimit_headers: true,
            tokens_in_query: false,
            unrouted: config::Unrouted::NotFound,
            token_cache: 1024,
            workers: 2,
        },
        bans: config::Bans {
            threshold: 100,
            window: Duration::from_secs(60),
            duration: Duration::from_secs(600),
            max_duration: Duration::from_secs(86_400),
            max_entries: 1000,
            dry_run: false,
            store: None,
        },
        revocation: config::Revocation { store: None, ..config::Revocation::default() },
        metrics: config::Metrics { address: None },
        control: config::Control { socket: "control.sock".into(), group: None },
        log: config::Log { level: "info".to_owned(), format: config::LogFormat::Text },
        access_log: config::AccessLog {
            destination: config::Destination::Off,
            format: config::AccessFormat::Json,
            sample: 1,
            refusals: config::Refusals::All,
            query: config::Query::Drop,
            subject: config::SubjectAs::Hash,
            queue: 8_192,
        },
    }
}

/// A running edge.
pub struct Edge {
    /// What it was made from.
    pub site: Site,
    /// The front door.
    pub ingress: Ingress,
    /// What it writes down.
    pub access_log: Option<AccessLog>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The policy in force.
    pub policy: SharedPolicy,
    /// What it counts.
    pub metrics: Metrics,
    /// What it reports.
    pub offences: mpsc::Receiver<Offence>,
    /// Whom it takes to be banned; here the test is the ban task.
    pub banned: Arc<Banned>,
}

/// What clients send.
pub type Outgoing = BoxBody<Bytes, std::convert::Infallible>;

/// A client's connection.
pub enum Client {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Outgoing>),
    /// HTTP/2.
    Http2(http2::SendRequest<Outgoing>),
}

impl Client {
    /// Sends a request; paths are made absolute.
    pub async fn send(&mut self, mut request: Request<Outgoing>) -> Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                request.headers_mut().entry("host").or_insert(http::HeaderValue::from_static(NAME));
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Self::Http2(sender) => {
                *request.uri_mut() = format!("https://{NAME}{}", request.uri()).parse()?;
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// Whether the server has ended the connection.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Edge {
    /// A TLS connection for `name`, offering the protocols of `alpn`.
    pub async fn tls(&self, name: &str, alpn: &[&str]) -> Result<TlsStream<TcpStream>> {
        self.tls_over(TcpStream::connect(self.address).await?, name, alpn).await
    }

    /// The same over a connection that stands.
    pub async fn tls_over(
        &self,
        stream: TcpStream,
        name: &str,
        alpn: &[&str],
    ) -> Result<TlsStream<TcpStream>> {
        shake(stream, self.site.authority.certificate(), name, alpn).await
    }

    /// A gRPC channel.
    pub async fn channel(&self) -> Result<tonic::transport::Channel> {
        let dial = Dial { address: self.address, root: self.site.authority.certificate() };
        // TLS is the dialler's business; tonic's own would bring another provider.
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{NAME}"))?;
        Ok(endpoint.connect_with_connector(dial).await?)
    }

    /// Ends it as a daemon ends, with everything that it had open.
    pub async fn stop(self) -> Site {
        let Self { site, ingress, policy, metrics, .. } = self;
        drop((policy, metrics));
        ingress.drain(Duration::from_secs(5)).await;
        site
    }

    /// The certificate that the server shows for `name`.
    pub async fn certificate(&self, name: &str) -> Result<CertificateDer<'static>> {
        let stream = self.tls(name, &[]).await?;
        let chain = stream.get_ref().1.peer_certificates().context("no certificate")?;
        Ok(chain.first().context("an empty chain")?.clone().into_owned())
    }

    /// A connection that speaks HTTP/1.1.
    pub async fn http1(&self) -> Result<Client> {
        let stream = self.tls(NAME, &["http/1.1"]).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client::Http1(sender))
    }

    /// A connection that speaks HTTP/2.
    pub async fn http2(&self) -> Result<Client> {
        let stream = self.tls(NAME, &["h2"]).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client::Http2(sender))
    }

    /// Both.
    pub async fn clients(&self) -> Result<[Client; 2]> {
        Ok([self.http1().await?, self.http2().await?])
    }
}

/// A TLS connection to `address` for `name`, offering the protocols of `alpn`, that trusts `root` alone.
async fn connect(
    address: SocketAddr,
    root: CertificateDer<'static>,
    name: &str,
    alpn: &[&str],
) -> Result<TlsStream<TcpStream>> {
    shake(TcpStream::connect(address).await?, root, name, alpn).await
}

async fn shake(
    stream: TcpStream,
    root: CertificateDer<'static>,
    name: &str,
    alpn: &[&str],
) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned())?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

/// Connects gRPC channels.
struct Dial {
    address: SocketAddr,
    root: CertificateDer<'static>,
}

impl tonic::codegen::Service<http::Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Waker<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (address, root) = (self.address, self.root.clone());
        Box::pin(async move { Ok(TokioIo::new(connect(address, root, NAME, &["h2"]).await?)) })
    }
}
