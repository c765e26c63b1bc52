//! The clients that people really use, run inside a namespace, with their answers read.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::net::TcpSocket;

use crate::{
    netns::{Lab, Netns},
    poll, process,
};

/// The name that certificates of the harness carry and that clients ask for.
pub const HOST: &str = "api.test";
/// For one request; longer than any limit of the daemon that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request by curl.
#[derive(Clone, Debug)]
pub struct Curl<'a> {
    netns: &'a Netns,
    authority: PathBuf,
    source: IpAddr,
    port: u16,
    path: String,
    more: Vec<String>,
    limit: Duration,
}

/// What curl was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status; 0 if there was none.
    pub status: u16,
    /// `1.1`, `2`, or `0` if there was no answer.
    pub version: String,
    /// Field lines, in lower case, `name: value`.
    pub headers: Vec<String>,
    /// Content.
    pub body: String,
    /// curl's exit code; `None` if it had to be killed. 7: refused, 28: timed out, 35: TLS failed.
    pub exit: Option<i32>,
    /// What curl says about a failure.
    pub error: String,
}

impl Answer {
    /// The value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The `code` of a problem document; empty if there is none.
    pub fn code(&self) -> String {
        let document: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        document["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl<'a> Curl<'a> {
    /// `GET path` from `source` (an address of `netns`) to the lab's server.
    pub fn get(netns: &'a Netns, authority: PathBuf, source: IpAddr, path: &str) -> Self {
        let (path, limit) = (path.to_owned(), poll::stretched(PATIENCE));
        Self { netns, authority, source, port: 443, path, more: Vec::new(), limit }
    }

    /// With this bearer token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.more(&["-H", &format!("authorization: Bearer {token}")])
    }

    /// With these further words on the command line.
    #[must_use]
    pub fn more(mut self, words: &[&str]) -> Self {
        self.more.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Gives up after `limit`.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// To another port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sends it. Not being answered is no error, but an [`Answer`] with status 0.
    pub fn send(&self) -> Result<Answer> {
        let server = Lab::server_address(self.source);
        let server = if server.is_ipv6() { format!("[{server}]") } else { server.to_string() };
        let mut command = self.netns.command("curl");
        command.args([
            "-q",
            "-s",
            "-o",
            "-",
            "-D",
            "/dev/stderr",
            "-w",
            "%{stderr}\n%{json}",
            "--noproxy",
            "*",
        ]);
        command.arg("--cacert").arg(&self.authority);
        command.args(["--resolve", &format!("{HOST}:{}:{server}", self.port)]);
        command.args(["--interface", &self.source.to_string()]);
        command.args(["--max-time", &self.limit.as_secs_f64().to_string()]);
        command.args(&self.more);
        command.arg(format!("https://{HOST}:{}{}", self.port, self.path));
        read(process::run(&mut command, self.limit + Duration::from_secs(5))?)
    }
}

fn read(finished: process::Finished) -> Result<Answer> {
    let (head, report) = finished.stderr.rsplit_once('\n').unwrap_or(("", &finished.stderr));
    let report: serde_json::Value = serde_json::from_str(report)
        .with_context(|| format!("curl gave no report ({:?}): {}", finished.code, finished.stderr))?;
    let headers = head.lines().map(str::trim_end).filter(|line| line.contains(':'));
    let headers = headers.map(|line| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
        None => line.to_owned(),
    });
    Ok(Answer {
        status: report["http_code"].as_u64().unwrap_or_default() as u16,
        version: report["http_version"].as_str().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: finished.stdout,
        exit: finished.code,
        error: report["errormsg"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Opens a TCP connection from `source`, an address of `netns`; an error if it is refused or not answered within `limit`.
pub fn connect(netns: &Netns, source: IpAddr, to: SocketAddr, limit: Duration) -> Result<TcpStream> {
    netns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stream = runtime.block_on(async {
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind(SocketAddr::new(source, 0))?;
            tokio::time::timeout(poll::stretched(limit), socket.connect(to))
                .await
                .context("no answer")?
                .context("refused")
        })?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    })
}

/// What `openssl s_client` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Finished, with this version.
    Done(String),
    /// The server refused it: an alert, or the end of the connection.
    Refused(String),
    /// Nothing came back within the limit.
    Unanswered,
}

/// Shakes hands with the lab's server by `openssl s_client` and hangs up. `version` is like `-tls1_2`.
pub fn openssl(netns: &Netns, source: IpAddr, version: &str, limit: Duration) -> Result<Handshake> {
    openssl_start(netns, source, version)?.finish(limit).map(|finished| read_handshake(&finished))
}

/// The same, asking for a server of another name.
pub fn openssl_asking(
    netns: &Netns,
    source: IpAddr,
    name: &str,
    version: &str,
    limit: Duration,
) -> Result<Handshake> {
    start(netns, source, name, version)?.finish(limit).map(|finished| read_handshake(&finished))
}

/// Starts the handshake of [`openssl`]; whoever ends it reads it with [`read_handshake`].
pub fn openssl_start(netns: &Netns, source: IpAddr, version: &str) -> Result<process::Running> {
    start(netns, source, HOST, version)
}

fn start(netns: &Netns, source: IpAddr, name: &str, version: &str) -> Result<process::Running> {
    let bracketed = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let mut command = netns.command("openssl");
    command.args(["s_client", "-connect", &format!("{}:443", bracketed(Lab::server_address(source)))]);
    command.args(["-bind", &format!("{}:0", bracketed(source)), "-servername", name, version]);
    // Debian's OpenSSL offers TLS 1.0 and 1.1 only at its lowest security level.
    command.args(["-cipher", "DEFAULT@SECLEVEL=0"]);
    process::start(&mut command)
}

/// What s_client's output says.
pub fn read_handshake(finished: &process::Finished) -> Handshake {
    let version = finished.stdout.lines().find_map(|line| line.strip_prefix("New, ")?.split(',').next());
    match version {
        Some(version) if version.starts_with("TLS") => Handshake::Done(version.to_owned()),
        _ if finished.code.is_none() => Handshake::Unanswered,
        _ => {
            let said = finished.stderr.lines().find(|line| line.contains("error") || line.contains("alert"));
            Handshake::Refused(said.unwrap_or("connection closed").to_owned())
        }
    }
}

/// What h2load counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that were answered.
    pub succeeded: u64,
    /// Requests that failed, for whatever reason: errors, time limits, status 4xx and 5xx.
    pub failed: u64,
    /// Answers with 2xx.
    pub status_2xx: u64,
    /// Answers with any other status.
    pub status_other: u64,
}

/// A command line for h2load against the lab's server; `options` say how much.
pub fn h2load(netns: &Netns, options: &[&str], token: &str, path: &str) -> std::process::Command {
    let server = crate::netns::SERVER_V4;
    let mut command = netns.command("h2load");
    command.args(options).args(["-H", &format!("authorization: Bearer {token}")]);
    command.arg(format!("--connect-to={server}:443")).arg(format!("https://{HOST}{path}"));
    command
}

/// Reads h2load's summary.
pub fn read_load(finished: &process::Finished) -> Result<Load> {
    let mut load = Load::default();
    let mut seen = 0;
    for line in finished.stdout.lines() {
        if let Some(requests) = line.strip_prefix("requests: ") {
            load.succeeded = count(requests, "succeeded")?;
            load.failed = count(requests, "failed")?;
            seen += 1;
        } else if let Some(status) = line.strip_prefix("status codes: ") {
            load.status_2xx = count(status, "2xx")?;
            load.status_other = count(status, "3xx")? + count(status, "4xx")? + count(status, "5xx")?;
            seen += 1;
        }
    }
    if seen != 2 {
        bail!("h2load ended with {:?} and no summary: {}{}", finished.code, finished.stdout, finished.stderr);
    }
    Ok(load)
}

/// `17` out of `20 total, 17 succeeded, ...`.
fn count(line: &str, what: &str) -> Result<u64> {
    let part = line.split(',').find(|part| part.trim().ends_with(what));
    let number = part.and_then(|part| part.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("no `{what}` in `{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_summary_of_h2load() {
        let stdout = "requests: 20 total, 20 started, 20 done, 17 succeeded, 3 failed, 2 errored, 1 timeout\n\
                      status codes: 16 2xx, 0 3xx, 1 4xx, 0 5xx\n";
        let finished = process::Finished {
            code: Some(0),
            stdout: stdout.to_owned(),
            stderr: String::new(),
            took: Duration::ZERO,
        };
        let load = read_load(&finished).unwrap();
        assert_eq!(load, Load { succeeded: 17, failed: 3, status_2xx: 16, status_other: 1 });
    }
}
