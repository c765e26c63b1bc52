//! What the edge and the proxies beside it are asked to do, and what it costs them.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use super::connections::Caller;
use crate::{contestants::Contestant, edge::Site};

/// Connections of the client, and requests at once on each with HTTP/2.
const CLIENTS: u64 = 20;
const STREAMS: u64 = 10;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Requests per measurement.
    pub requests: u64,
    /// Connections per measurement.
    pub connections: u64,
    /// Connections that idle.
    pub idle: usize,
    /// Measurements per line; the median counts.
    pub runs: usize,
}

/// What requests are sent how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// `h2` or `http/1.1`.
    pub protocol: &'static str,
    /// With an ES256 token.
    pub checked: bool,
}

/// What a load came to, per request.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// CPU time of the proxy, user and system.
    pub cpu_us: f64,
    /// Requests per second, which also measures the client and whatever else runs.
    pub per_second: f64,
    /// Half of the answers were there so soon.
    pub p50_us: u64,
    /// 99 of a hundred were.
    pub p99_us: u64,
}

/// Kept connections with many requests: the median of the runs after a short warm-up.
pub fn requests(contestant: &Contestant, job: Job, token: &str, effort: Effort) -> Result<Reading> {
    load(contestant, job, token, effort.requests / 10)?;
    let mut readings = Vec::new();
    for _ in 0..effort.runs.max(1) {
        let before = contestant.cpu_micros()?;
        let mut reading = load(contestant, job, token, effort.requests)?;
        reading.cpu_us = (contestant.cpu_micros()? - before) / effort.requests as f64;
        readings.push(reading);
    }
    readings.sort_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us));
    Ok(readings[readings.len() / 2])
}

/// Sends requests by h2load; every single one must be answered by 200.
pub fn load(contestant: &Contestant, job: Job, token: &str, requests: u64) -> Result<Reading> {
    let requests = requests.max(CLIENTS);
    let (address, path) =
        if job.checked { (contestant.checked, "api/x") } else { (contestant.open, "public/x") };
    let log = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("h2load");
    command.args(["-t", "1", "-c", &CLIENTS.to_string(), "-n", &requests.to_string()]);
    command.arg(format!("--log-file={}", log.path().display()));
    match job.protocol {
        "h2" => command.args(["-m", &STREAMS.to_string()]),
        _ => command.arg("--h1"),
    };
    if job.checked {
        command.args(["-H", &format!("authorization: Bearer {token}")]);
    }
    let output = command
        .arg(format!("https://{address}/{path}"))
        .output()
        .context("cannot run h2load: apt-get install nghttp2-client")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(per_second) = after(&text, "finished in", ", ") else {
        bail!("h2load said nothing of requests per second:\n{text}")
    };
    // A line per answer: when it was asked for, its status, and microseconds.
    let log = std::fs::read_to_string(log.path())?;
    let mut times = Vec::new();
    for line in log.lines() {
        let mut fields = line.split('\t').skip(1);
        let (status, time) = (fields.next(), fields.next().and_then(|time| time.parse::<u64>().ok()));
        ensure!(status == Some("200"), "{} answered {status:?} ({job:?})", contestant.name);
        times.extend(time);
    }
    ensure!(times.len() as u64 == requests, "{} answered {} of {requests}", contestant.name, times.len());
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    Ok(Reading { cpu_us: 0.0, per_second: per_second.parse()?, p50_us: at(50), p99_us: at(99) })
}

/// CPU microseconds of the proxy for each new connection with its first request, by wrk, which offers no session.
pub fn fresh(contestant: &Contestant, effort: Effort) -> Result<Reading> {
    let mut readings = Vec::new();
    for _ in 0..effort.runs.max(1) {
        let before = contestant.cpu_micros()?;
        let output = Command::new("wrk")
            .args(["-t", "1", "-c", &CLIENTS.to_string(), "-d", "3s", "--latency"])
            .args(["-H", "Connection: close", &format!("https://{}/public/x", contestant.open)])
            .output()
            .context("cannot run wrk: apt-get install wrk")?;
        let spent = contestant.cpu_micros()? - before;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(!text.contains("Non-2xx"), "{}:\n{text}", contestant.name);
        let count = text.lines().find_map(|line| line.trim().split_once(" requests in ").map(|(n, _)| n));
        let count: f64 = count.with_context(|| format!("wrk said:\n{text}"))?.parse()?;
        let per_second = after(&text, "Requests/sec", ":").context("wrk gave no rate")?.parse()?;
        let share = |name: &str| {
            let line = text.lines().find(|line| line.trim().starts_with(name));
            line.and_then(|line| micros(line.split_whitespace().nth(1)?)).unwrap_or(0)
        };
        let (p50_us, p99_us) = (share("50%"), share("99%"));
        readings.push(Reading { cpu_us: spent / count.max(1.0), per_second, p50_us, p99_us });
    }
    readings.sort_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us));
    Ok(readings[readings.len() / 2])
}

/// CPU microseconds of the proxy for a whole handshake of TLS 1.3 and nothing else; for one with a request and the end of the
/// connection; and for the same of a session that is resumed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Handshakes {
    /// A whole one, alone.
    pub full: f64,
    /// Of a session that is resumed, with the ticket for the next one.
    pub resumed: f64,
    /// With a request.
    pub full_and_request: f64,
    /// Resumed, with a request.
    pub resumed_and_request: f64,
}

/// Measures handshakes one after the other.
pub fn handshakes(contestant: &Contestant, site: &Site, effort: Effort) -> Result<Handshakes> {
    let each = |calls: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        let mut runs = Vec::new();
        for _ in 0..effort.runs.max(1) {
            let before = contestant.cpu_micros()?;
            for _ in 0..effort.connections {
                calls()?;
            }
            runs.push((contestant.cpu_micros()? - before) / effort.connections as f64);
        }
        runs.sort_by(f64::total_cmp);
        Ok(runs[runs.len() / 2])
    };
    let caller = |resume| Caller::new(&site.authority, contestant.open, "http/1.1", resume);
    let (anew, again) = (caller(false)?, caller(true)?);
    let full = each(&mut || anew.shake().map(drop))?;
    let full_and_request = each(&mut || anew.ask_once("/public/x").map(drop))?;
    again.ask_once("/public/x")?;
    let (mut asked, mut count) = (0_u64, 0_u64);
    let mut counted = |resumed: bool| {
        asked += 1;
        count += u64::from(resumed);
    };
    let resumed = each(&mut || again.shake_again().map(&mut counted))?;
    let resumed_and_request = each(&mut || again.ask_once("/public/x").map(&mut counted))?;
    ensure!(count * 100 >= asked * 95, "{} resumed {count} of {asked}", contestant.name);
    Ok(Handshakes { full, resumed, full_and_request, resumed_and_request })
}

/// Resident memory in KiB, before and while connections idle.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Before any of them.
    pub before_kib: u64,
    /// With connections that had one HTTP/1.1 request each.
    pub http1_kib: u64,
    /// With as many that speak HTTP/2 instead.
    pub http2_kib: u64,
}

/// Opens connections and leaves them idle.
pub fn memory(contestant: &Contestant, site: &Site, idle: usize) -> Result<Memory> {
    let caller = |alpn| Caller::new(&site.authority, contestant.open, alpn, false);
    let before_kib = contestant.resident_kib()?;
    let http2 = caller("h2")?;
    let open = (0..idle).map(|_| http2.idle_http2()).collect::<Result<Vec<_>>>()?;
    let http2_kib = contestant.resident_kib()?;
    drop(open);
    let http1 = caller("http/1.1")?;
    let open = (0..idle).map(|_| http1.idle_http1("/public/x")).collect::<Result<Vec<_>>>()?;
    let http1_kib = contestant.resident_kib()?;
    drop(open);
    Ok(Memory { before_kib, http1_kib, http2_kib })
}

/// The word behind `mark` in the line that begins so.
fn after(text: &str, line: &str, mark: &str) -> Option<String> {
    let line = text.lines().find(|candidate| candidate.trim().starts_with(line))?;
    line.split(mark).nth(1)?.split_whitespace().next().map(str::to_owned)
}

/// As wrk writes times: `1.23ms`.
fn micros(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1_000.0,
        "s" => 1_000_000.0,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * factor) as u64)
}
