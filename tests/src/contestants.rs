//! What the edge benchmark compares: proxies as child processes with the same certificate in front of the same server.
//!
//! Every contestant runs with one worker thread, unless ours is asked to run with more. All are ended by their process ids when they are dropped.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::edge::{AUDIENCE, ISSUER, Site};

/// A proxy or server that listens.
#[derive(Debug)]
pub struct Contestant {
    /// What the table calls it.
    pub name: &'static str,
    /// Where it listens: without and with token check. The same for ours, which tells by the path.
    pub open: SocketAddr,
    /// See `open`.
    pub checked: SocketAddr,
    child: Child,
}

impl Drop for Contestant {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Microseconds of CPU time of a process so far, of all threads; see [`Contestant::cpu_micros`].
pub fn cpu_micros(process: u32) -> Result<f64> {
    let mut nanoseconds = 0_u64;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let spent = text.split_whitespace().next().context("an empty schedstat")?;
        nanoseconds += spent.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1_000.0)
}

impl Contestant {
    /// Microseconds of CPU time so far, of all threads, from `/proc/PID/task/TID/schedstat`: in nanoseconds, where `stat` counts
    /// ticks.
    pub fn cpu_micros(&self) -> Result<f64> {
        cpu_micros(self.child.id())
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// nginx as the server behind: one process, keep-alive, a fixed answer.
    pub fn nginx_origin(dir: &Path) -> Result<Self> {
        let address = free_port()?;
        let config = dir.join("nginx.conf");
        let place = dir.display();
        fs::write(
            &config,
            format!(
                "daemon off;\nmaster_process off;\nworker_processes 1;\npid {place}/nginx.pid;\n\
                 error_log {place}/nginx.err;\nevents {{ worker_connections 16384; }}\nhttp {{\n\
                 access_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 600s;\n\
                 client_body_temp_path {place}/nginx-body;\nproxy_temp_path {place}/nginx-proxy;\n\
                 fastcgi_temp_path {place}/nginx-fastcgi;\nuwsgi_temp_path {place}/nginx-uwsgi;\n\
                 scgi_temp_path {place}/nginx-scgi;\n\
                 server {{ listen {address} backlog=4096; location / {{ default_type application/json; \
                 return 200 '{{\"ok\":true}}'; }} }}\n}}\n"
            ),
        )?;
        let mut command = bound_to_us("nginx");
        command.arg("-c").arg(&config).arg("-e").arg(dir.join("nginx.err"));
        Self::spawn("nginx", command, address, address)
    }

    /// HAProxy: TLS in front, one port without and one with an ES256 check.
    pub fn haproxy(site: &Site, origin: SocketAddr) -> Result<Self> {
        let dir = site.dir.path();
        let (open, checked) = (free_port()?, free_port()?);
        let bundle = dir.join("haproxy.pem");
        let (chain, key) =
            (fs::read_to_string(dir.join("api.pem"))?, fs::read_to_string(dir.join("api.key"))?);
        fs::write(&bundle, chain + &key)?;
        let public = dir.join("token-key.pem");
        fs::write(&public, site.key.public_pem()?)?;
        let (bundle, public) = (bundle.display(), public.display());
        let config = dir.join("haproxy.cfg");
        fs::write(
            &config,
            format!(
                "global\n  nbthread 1\n  maxconn 8192\n\
                 defaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  timeout connect 2s\n\
                 \x20 timeout http-keep-alive 60s\n  option http-keep-alive\n  http-reuse always\n\
                 frontend open\n  bind {open} ssl crt {bundle} alpn h2,http/1.1 ssl-min-ver TLSv1.2\n\
                 \x20 http-response set-header Strict-Transport-Security max-age=31536000\n\
                 \x20 default_backend origin\n\
                 frontend checked\n  bind {checked} ssl crt {bundle} alpn h2,http/1.1 ssl-min-ver TLSv1.2\n\
                 \x20 http-request set-var(txn.bearer) http_auth_bearer\n\
                 \x20 http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(\"ES256\",\"{public}\") 1 }}\n\
                 \x20 http-response set-header Strict-Transport-Security max-age=31536000\n\
                 \x20 default_backend origin\n\
                 backend origin\n  server one {origin}\n"
            ),
        )?;
        let mut command = bound_to_us("haproxy");
        command.arg("-db").arg("-f").arg(&config);
        Self::spawn("HAProxy", command, open, checked)
    }

    /// nginx as a proxy: TLS in front, kept connections behind. It has no token check.
    pub fn nginx(site: &Site, origin: SocketAddr) -> Result<Self> {
        let open = free_port()?;
        let dir = site.dir.path();
        let place = dir.display();
        let config = dir.join("nginx-proxy.conf");
        fs::write(
            &config,
            format!(
                "daemon off;\nmaster_process off;\nworker_processes 1;\npid {place}/nginx-proxy.pid;\n\
                 error_log {place}/nginx-proxy.err;\nevents {{ worker_connections 16384; }}\nhttp {{\n\
                 access_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 600s;\n\
                 client_body_temp_path {place}/p-body;\nproxy_temp_path {place}/p-proxy;\n\
                 fastcgi_temp_path {place}/p-fastcgi;\nuwsgi_temp_path {place}/p-uwsgi;\n\
                 scgi_temp_path {place}/p-scgi;\n\
                 upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}\n\
                 server {{ listen {open} ssl http2 backlog=4096; ssl_certificate {place}/api.pem;\n\
                 ssl_certificate_key {place}/api.key; ssl_protocols TLSv1.2 TLSv1.3;\n\
                 ssl_session_cache shared:tickets:4m;\n\
                 location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                 add_header Strict-Transport-Security max-age=31536000 always; }} }}\n}}\n"
            ),
        )?;
        let mut command = bound_to_us("nginx");
        command.arg("-c").arg(&config).arg("-e").arg(dir.join("nginx-proxy.err"));
        Self::spawn("nginx", command, open, open)
    }

    /// Ours: the whole daemon but for its program. Every route has a limit, which is charged and never reached.
    pub fn ours(site: &Site, origin: SocketAddr, workers: usize) -> Result<Self> {
        let program = std::env::var_os("ENFORCER_BIN").context("ENFORCER_BIN does not name the daemon")?;
        let (open, dir) = (free_port()?, site.dir.path());
        let place = dir.display();
        let config = dir.join("enforcer.toml");
        let limit = "limit = { rate = \"10000000/s\", burst = 10000000 }";
        fs::write(
            &config,
            format!(
                "[kernel]\nmode = \"off\"\n\n[[listener]]\naddress = \"{open}\"\n\
                 certificates = [{{ chain = \"{place}/api.pem\", key = \"{place}/api.key\" }}]\n\n\
                 [upstream.api]\nservers = [\"http://{origin}\"]\nidle_timeout = \"60s\"\n\n\
                 [token.main]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\njwks = \"{place}/jwks.json\"\n\n\
                 [[route]]\npath = \"/public/\"\nupstream = \"api\"\npublic = true\n{limit}\n\n\
                 [[route]]\npath = \"/api/\"\nupstream = \"api\"\ntoken = \"main\"\nscopes = [\"read\"]\n{limit}\n\n\
                 [http]\nworkers = {workers}\nidle_timeout = \"10m\"\nmax_connections_per_source = 0\nresponse_headers = {{ \
                 Content-Security-Policy = \"\", X-Content-Type-Options = \"\" }}\n\n\
                 [bans]\nstore = \"off\"\n\n[metrics]\naddress = \"off\"\n\n\
                 [control]\nsocket = \"{place}/control.sock\"\n\n[log]\nlevel = \"warn\"\n"
            ),
        )?;
        let mut command = bound_to_us(&program.to_string_lossy());
        command.arg("run").arg("-c").arg(&config);
        Self::spawn("enforcer", command, open, open)
    }

    fn spawn(
        name: &'static str,
        mut command: Command,
        open: SocketAddr,
        checked: SocketAddr,
    ) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn().with_context(|| {
            format!(
                "cannot start {name}: is the package installed (apt-get install {})?",
                name.to_lowercase()
            )
        })?;
        let mut contestant = Self { name, open, checked, child };
        for _ in 0..500 {
            if TcpStream::connect(open).is_ok() {
                return Ok(contestant);
            }
            if let Some(status) = contestant.child.try_wait()? {
                bail!("{name} ended at once: {status}");
            }
            sleep(Duration::from_millis(10));
        }
        bail!("{name} does not listen on {open}")
    }
}

/// A command that ends with this process, however that ends: setpriv (util-linux) asks the kernel for it and becomes the
/// program, so the process id stays the same.
fn bound_to_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// A loopback port that nobody listens on; somebody might take it before the child does, who then says so.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
