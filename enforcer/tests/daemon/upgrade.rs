//! Reloads, and one daemon after the other, under the load of some 500 requests a second: not one of them fails. The sockets are
//! held by this test as a service manager holds them.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    Request, Response,
    client::conn::{http1, http2},
    server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{CONFIG, PATIENCE, Site, eventually};

/// Clients of each kind, and the time between two requests of one: 500 a second.
const CLIENTS: [(Kind, u32); 3] = [(Kind::Http1, 10), (Kind::Http2, 10), (Kind::Fresh, 5)];
const PACE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
enum Kind {
    /// Keeps its connection as long as the server does.
    Http1,
    /// The same.
    Http2,
    /// Takes a new connection for each request.
    Fresh,
}

/// What is asked, until it is stopped.
struct Load {
    runtime: tokio::runtime::Runtime,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: JoinSet<()>,
}

impl Load {
    /// A server behind, for the configuration, and nobody that asks yet.
    fn prepare() -> (Self, SocketAddr) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service =
                    service_fn(async |_| Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from("ok")))));
                tokio::spawn(
                    server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        let load = Self {
            runtime,
            stop: Arc::default(),
            answered: Arc::default(),
            failures: Arc::default(),
            clients: JoinSet::new(),
        };
        (load, address)
    }

    fn begin(&mut self, site: &Site, address: SocketAddr) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(site.path("cert.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        for (kind, count) in CLIENTS {
            let mut config = config.clone();
            let protocol = if matches!(kind, Kind::Http2) { "h2" } else { "http/1.1" };
            config.alpn_protocols = vec![protocol.into()];
            let target = Target { address, tls: TlsConnector::from(Arc::new(config)) };
            for _ in 0..count {
                let (stop, answered) = (Arc::clone(&self.stop), Arc::clone(&self.answered));
                let (failures, target) = (Arc::clone(&self.failures), target.clone());
                let client = async move {
                    let mut pace = tokio::time::interval(PACE);
                    let mut connection = None;
                    while !stop.load(SeqCst) {
                        pace.tick().await;
                        match tokio::time::timeout(PATIENCE, ask(&target, kind, &mut connection)).await {
                            Ok(Ok(())) => drop(answered.fetch_add(1, SeqCst)),
                            Ok(Err(error)) => failures.lock().unwrap().push(error),
                            Err(_) => failures.lock().unwrap().push("no answer".to_owned()),
                        }
                    }
                };
                self.clients.spawn_on(client, self.runtime.handle());
            }
        }
        self.go_on("the load has begun");
    }

    /// Waits for a second's worth of answers.
    fn go_on(&self, what: &str) {
        let before = self.answered.load(SeqCst);
        eventually(what, || self.answered.load(SeqCst) > before + 500);
    }

    /// The number of answers; nothing failed.
    fn end(mut self) -> u64 {
        self.stop.store(true, SeqCst);
        self.runtime.block_on(async { while self.clients.join_next().await.is_some() {} });
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), &failures[..failures.len().min(5)]);
        self.answered.load(SeqCst)
    }
}

#[derive(Clone)]
struct Target {
    address: SocketAddr,
    tls: TlsConnector,
}

enum Connection {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

async fn connect(target: &Target, kind: Kind) -> Result<Connection, String> {
    let text = |what: &str, error: &dyn std::fmt::Debug| format!("{what}: {error:?}");
    let stream = TcpStream::connect(target.address).await.map_err(|error| text("connect", &error))?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream: TlsStream<_> =
        target.tls.connect(name, stream).await.map_err(|error| text("handshake", &error))?;
    let stream = TokioIo::new(stream);
    if let Kind::Http2 = kind {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), stream).await.map_err(|error| text("HTTP/2", &error))?;
        tokio::spawn(connection);
        return Ok(Connection::Http2(sender));
    }
    let (sender, connection) = http1::handshake(stream).await.map_err(|error| text("HTTP/1.1", &error))?;
    tokio::spawn(connection);
    Ok(Connection::Http1(sender))
}

/// One request and its whole answer. What the library says it has not sent is sent on another connection, as every client
/// does it (RFC 9110 section 9.2.2); nothing else is tried again.
async fn ask(target: &Target, kind: Kind, kept: &mut Option<Connection>) -> Result<(), String> {
    loop {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => connect(target, kind).await?,
        };
        let request = Request::get("https://localhost/x").body(Empty::new()).unwrap();
        let answer = match &mut connection {
            Connection::Http1(sender) => {
                if sender.ready().await.is_err() {
                    continue;
                }
                let mut request = request;
                *request.uri_mut() = "/x".parse().unwrap();
                request.headers_mut().insert("host", "localhost".parse().unwrap());
                sender.try_send_request(request).await
            }
            Connection::Http2(sender) => {
                if sender.ready().await.is_err() {
                    continue;
                }
                sender.try_send_request(request).await
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.message().is_some() => continue,
            Err(error) => return Err(format!("request: {:?}", error.error())),
        };
        let status = answer.status();
        let body =
            answer.into_body().collect().await.map_err(|error| format!("answer: {error:?}"))?.to_bytes();
        if status != 200 || body != "ok" {
            return Err(format!("{status}: {}", body.escape_ascii()));
        }
        *kept = Some(connection).filter(|_| !matches!(kind, Kind::Fresh));
        return Ok(());
    }
}

fn configure(site: &Site, address: SocketAddr, upstream: SocketAddr) {
    let listener = format!("address = \"{address}\"");
    let text = CONFIG.replacen("address = \"127.0.0.1:0\"", &listener, 1);
    let more = format!(
        "[http]\nworkers = 2\n[upstream.api]\nservers = [\"http://{upstream}\"]\n[[route]]\npath = \"/\"\nupstream = \"api\"\npublic = true\n"
    );
    site.write("enforcer.toml", &format!("{text}{more}"));
}

/// The daemon as a service manager starts it that holds a socket for it.
fn activated(socket: &TcpListener) -> Command {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" run -c enforcer.toml";
    command.args(["-c", script, env!("CARGO_BIN_EXE_enforcer")]);
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    command
}

#[test]
fn reloads_and_a_restart_under_load_lose_no_request() {
    let site = Site::new();
    let (mut load, upstream) = Load::prepare();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    configure(&site, address, upstream);
    let start = || {
        let mut command = activated(&socket);
        command.current_dir(site.path("")).env_remove("NOTIFY_SOCKET").env_remove("ENFORCER_LOG");
        site.start_as(command, |command| command)
    };
    let first = start();
    load.begin(&site, address);
    for n in 0..5 {
        let key = rcgen::KeyPair::generate().unwrap();
        // Something to take over each time.
        site.write("unused.pem", &key.serialize_pem());
        assert_eq!(site.output("reload").0, 0, "{n}");
        load.go_on("the load goes on after a reload");
    }
    first.signal(Signal::SIGTERM);
    assert_eq!(first.exit(), 0);
    // Connections that come now wait in the socket.
    let second = start();
    load.go_on("the load goes on after the restart");
    let answered = load.end();
    assert!(answered > 3_000, "{answered}");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.exit(), 0);
}

#[test]
fn sockets_are_given_to_the_service_manager_once_they_are_served() {
    let site = Site::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    configure(&site, free, free);
    let manager = UnixDatagram::bind(site.path("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let _daemon = site.start_with(|command| command.env("NOTIFY_SOCKET", site.path("notify")));
    let (mut stored, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = manager.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.contains("READY=1") {
            break;
        }
        stored.push(text);
    }
    let name = format!("FDNAME=listener-127.0.0.1_{}", free.port());
    assert_eq!(stored.len(), 2, "one for each worker: {stored:?}");
    assert!(stored.iter().all(|text| text.contains("FDSTORE=1") && text.contains(&name)), "{stored:?}");
}
