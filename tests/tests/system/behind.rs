//! nginx and HAProxy as servers behind the edge: every protocol that they speak, with their own ideas of framing.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};
use enforcer_tests::{
    edge::{Client, Site},
    origin::Origin,
    pki::{Authority, KeyKind},
    poll, process,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};

const NAME: &str = "behind.internal";
/// Larger than every window and buffer on the way.
const LARGE: usize = 8 << 20;
/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server program; ends when dropped.
struct Server {
    _running: process::Running,
}

impl Server {
    /// Starts a program and waits until it listens on all of `ports`.
    fn start(command: &mut Command, ports: &[SocketAddr]) -> Result<Self> {
        let mut running = process::start(command)?;
        for port in ports {
            let listens = poll::until("the server to listen", PATIENCE, || {
                if running.has_ended()? {
                    return Ok(Some(false));
                }
                Ok(TcpStream::connect(port).is_ok().then_some(true))
            })?;
            if !listens {
                let said = running.finish(PATIENCE)?;
                bail!("the server ended: {}{}", said.stdout, said.stderr);
            }
        }
        Ok(Self { _running: running })
    }
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Three ports of nginx: HTTP/1.1, HTTP/2 without TLS, both within TLS with client certificates.
fn nginx(dir: &Path, ports: &[SocketAddr; 3]) -> Result<Server> {
    let place = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {place}/nginx-{kind};\n"))
        .concat();
    fs::create_dir(dir.join("files"))?;
    fs::write(dir.join("files/large"), vec![b'x'; LARGE])?;
    let [plain, http2, tls] = ports;
    let config = format!(
        "daemon off;\nmaster_process off;\npid {place}/nginx.pid;\nevents {{ }}\nhttp {{\naccess_log off;\n{temporary}\
         server {{ listen {plain}; listen {http2} http2; listen {tls} ssl http2;\n\
         ssl_certificate {place}/nginx.pem; ssl_certificate_key {place}/nginx.key;\n\
         ssl_verify_client on; ssl_client_certificate {place}/gateways.pem;\n\
         client_max_body_size 0; default_type text/plain; root {place}/files;\n\
         error_page 497 =400 @said;\n\
         location @said {{ return 400; }}\n\
         location /public/said {{ return 200 '$server_protocol $host $http_x_forwarded_for $ssl_client_s_dn'; }}\n\
         location /public/large {{ alias {place}/files/large; }}\n}} }}\n"
    );
    fs::write(dir.join("nginx.conf"), config)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("nginx.err"));
    Server::start(&mut command, ports)
}

/// The same three of HAProxy, in front of `origin`.
fn haproxy(dir: &Path, ports: &[SocketAddr; 3], origin: SocketAddr) -> Result<Server> {
    let bundle = dir.join("haproxy.pem");
    let part = |name: &str| fs::read_to_string(dir.join(name));
    fs::write(&bundle, part("nginx.pem")? + &part("nginx.key")?)?;
    let ([plain, http2, tls], bundle) = (ports, bundle.display());
    let gateways = dir.join("gateways.pem");
    let config = format!(
        "defaults\n  mode http\n  timeout client 30s\n  timeout server 30s\n  timeout connect 2s\n\
         frontend behind\n  bind {plain}\n  bind {http2} proto h2\n\
         \x20 bind {tls} ssl crt {bundle} alpn h2,http/1.1 verify required ca-file {}\n\
         \x20 http-request set-header x-seen-version %HV\n\
         \x20 default_backend origin\n\
         backend origin\n  server one {origin}\n",
        gateways.display()
    );
    fs::write(dir.join("haproxy.cfg"), config)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
    Server::start(&mut command, ports)
}

/// A site in front of one port of a server.
fn site(server: &str, behind: &Authority, gateways: &Authority) -> Result<Site> {
    let mut site = Site::new("127.0.0.1:9".parse()?)?;
    let dir = site.dir.path().to_owned();
    fs::write(dir.join("behind.pem"), behind.pem())?;
    let (chain, key) = gateways.issue_client("gateway")?.write(&dir, "own")?;
    site.config.http.max_body_bytes = 0;
    let upstream = site.config.upstreams.get_mut("api").expect("the site has it");
    upstream.servers = vec![server.parse()?];
    if server.starts_with("https") {
        upstream.tls.authorities = Some(dir.join("behind.pem"));
        upstream.tls.server_name = Some(NAME.to_owned());
        upstream.tls.certificate = Some(enforcer::config::Certificate { chain, key, ocsp: None });
    }
    Ok(site)
}

async fn get(client: &mut Client, path: &str) -> Result<(StatusCode, bytes::Bytes)> {
    let request = Request::get(path).body(Empty::new().boxed())?;
    let response = tokio::time::timeout(PATIENCE, client.send(request)).await??;
    let status = response.status();
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await??;
    Ok((status, body.to_bytes()))
}

/// A directory with a server's certificate, and who signs for servers and for gateways.
fn keys() -> Result<(tempfile::TempDir, Authority, Authority)> {
    let dir = tempfile::tempdir()?;
    let (behind, gateways) = (Authority::new("Behind")?, Authority::new("Gateways")?);
    behind.issue(&[NAME], KeyKind::P256)?.write(dir.path(), "nginx")?;
    fs::write(dir.path().join("gateways.pem"), gateways.pem())?;
    Ok((dir, behind, gateways))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_is_spoken_to_in_every_protocol() -> Result<()> {
    let (dir, behind, gateways) = keys()?;
    let ports = [free_port()?, free_port()?, free_port()?];
    let _nginx = nginx(dir.path(), &ports)?;
    for (server, version, name) in [
        (format!("http://{}", ports[0]), "HTTP/1.1", ""),
        (format!("h2c://{}", ports[1]), "HTTP/2.0", ""),
        (format!("https://{}", ports[2]), "HTTP/2.0", "CN=gateway"),
    ] {
        let edge = site(&server, &behind, &gateways)?.start()?;
        for mut client in edge.clients().await? {
            for _ in 0..3 {
                let (status, said) = get(&mut client, "/public/said").await?;
                let said = String::from_utf8_lossy(&said).into_owned();
                let expected = format!("{version} api.example.com 127.0.0.1 {name}");
                assert_eq!((status, said.trim_end()), (StatusCode::OK, expected.trim_end()), "{server}");
            }
            let (status, large) = get(&mut client, "/public/large").await?;
            assert_eq!((status, large.len()), (StatusCode::OK, LARGE), "{server}");
            assert_eq!(get(&mut client, "/public/none").await?.0, StatusCode::NOT_FOUND);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_is_spoken_to_in_every_protocol() -> Result<()> {
    let (dir, behind, gateways) = keys()?;
    let origin = Origin::start().await?;
    let ports = [free_port()?, free_port()?, free_port()?];
    let _haproxy = haproxy(dir.path(), &ports, origin.address)?;
    for (server, version) in [
        (format!("http://{}", ports[0]), "HTTP/1.1"),
        (format!("h2c://{}", ports[1]), "HTTP/2.0"),
        (format!("https://{}", ports[2]), "HTTP/2.0"),
    ] {
        let edge = site(&server, &behind, &gateways)?.start()?;
        for mut client in edge.clients().await? {
            let (status, seen) = get(&mut client, "/public/x").await?;
            let seen: serde_json::Value = serde_json::from_slice(&seen)?;
            let headers = seen["headers"].as_array().expect("a list");
            let versions: Vec<_> =
                headers.iter().filter(|one| one[0] == "x-seen-version").map(|one| &one[1]).collect();
            assert_eq!((status, versions), (StatusCode::OK, vec![&version.into()]), "{server}");
            let body = Full::new(bytes::Bytes::from(vec![b'y'; LARGE])).boxed();
            let request = Request::post("/public/sink").body(body)?;
            let response = tokio::time::timeout(PATIENCE, client.send(request)).await??;
            let length = tokio::time::timeout(PATIENCE, response.into_body().collect()).await??.to_bytes();
            assert_eq!(length, LARGE.to_string(), "{server}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_restart_lose_no_request_that_may_be_repeated() -> Result<()> {
    let (dir, behind, gateways) = keys()?;
    let origin = Origin::start().await?;
    for scheme in ["http", "h2c"] {
        let ports = [free_port()?, free_port()?, free_port()?];
        let port = if scheme == "http" { ports[0] } else { ports[1] };
        let mut site = site(&format!("{scheme}://{port}"), &behind, &gateways)?;
        let upstream = site.config.upstreams.get_mut("api").expect("the site has it");
        upstream.servers.push(format!("http://{}", origin.address).parse()?);
        upstream.idle_timeout = Duration::from_secs(60);
        let edge = site.start()?;
        let mut client = edge.http2().await?;
        for _ in 0..5 {
            let server = haproxy(dir.path(), &ports, origin.address)?;
            for _ in 0..20 {
                assert_eq!(get(&mut client, "/public/x").await?.0, StatusCode::OK);
            }
            drop(server);
            for _ in 0..20 {
                assert_eq!(get(&mut client, "/public/x").await?.0, StatusCode::OK);
            }
        }
    }
    Ok(())
}
