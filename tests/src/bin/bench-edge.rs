//! CPU time per request of the edge and of HAProxy, doing the same job on the same machine in the same run.
//!
//! h2load drives each in turn over loopback TLS, HTTP/1.1 and HTTP/2, without and with an ES256 token check. What counts
//! is the proxy's own user and system time; requests per second also measure the client and whatever else runs here.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use enforcer::{bans::Reporter, clock, ingress::Ingress, metrics::Metrics, policy::Policy};
use enforcer_tests::{
    contestants::Contestant,
    edge::{AUDIENCE, ISSUER, Site, config_of},
    tokens,
};
use serde_json::json;

/// Compares the edge with HAProxy on loopback.
#[derive(Parser)]
struct Arguments {
    /// Requests per measurement.
    #[arg(long, default_value_t = 40_000)]
    requests: u64,
    /// Measurements per line; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Serve from this directory until standard input ends (used by the benchmark itself).
    #[arg(long, hide = true, requires = "upstream")]
    serve: Option<PathBuf>,
    /// With `--serve`: where requests go.
    #[arg(long, hide = true)]
    upstream: Option<SocketAddr>,
}

/// Connections of the client, and requests at once on each with HTTP/2.
const CLIENTS: u64 = 20;
const STREAMS: u64 = 10;

#[derive(Clone, Copy, Debug)]
struct Job {
    protocol: &'static str,
    checked: bool,
}

const JOBS: [Job; 4] = [
    Job { protocol: "h2", checked: false },
    Job { protocol: "http/1.1", checked: false },
    Job { protocol: "h2", checked: true },
    Job { protocol: "http/1.1", checked: true },
];

#[derive(Clone, Copy, Debug)]
struct Reading {
    micros_per_request: f64,
    requests_per_second: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let (Some(dir), Some(upstream)) = (arguments.serve, arguments.upstream) {
        return serve(&dir, upstream);
    }
    let dir = tempfile::tempdir()?;
    let origin = Contestant::nginx_origin(dir.path())?;
    let site = Site::new(origin.open)?;
    let token = token(&site)?;
    let ours = Contestant::ours(&site, origin.open)?;
    let haproxy = Contestant::haproxy(&site, origin.open)?;
    let mut rows = Vec::new();
    for job in JOBS {
        let mut readings = Vec::new();
        for contestant in [&ours, &haproxy] {
            readings.push(measure(contestant, job, &token, arguments.requests, arguments.runs)?);
        }
        rows.push((job, readings[0], readings[1]));
    }
    let memory = (ours.resident_kib()?, haproxy.resident_kib()?);
    let text = if arguments.json { as_json(&rows, memory)? } else { as_table(&rows, memory) };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn token(site: &Site) -> Result<String> {
    let mut claims = tokens::claims(ISSUER, AUDIENCE, "read", clock::unix_now());
    claims["exp"] = json!(clock::unix_now() + 3600 * 12);
    site.key.mint(&claims)
}

/// One worker of the edge, until the benchmark closes our standard input.
fn serve(dir: &std::path::Path, upstream: SocketAddr) -> Result<()> {
    let mut config = config_of(dir, upstream)?;
    config.http.workers = 1;
    config.http.max_sources = 65_536;
    // A limit that is charged and never reached.
    for route in &mut config.routes {
        let second = std::time::Duration::from_secs(1);
        let limit = enforcer::config::RateLimit { events: 10_000_000, period: second, burst: 10_000_000 };
        route.limits = vec![enforcer::config::Limit::by_address(limit)];
    }
    let policy = Policy::load(&config)?.share();
    let metrics = Metrics::new()?;
    let (reporter, _offences) = Reporter::new(1024, metrics.offences_lost.clone());
    let ingress = Ingress::bind(&config, policy, reporter, metrics, None)?;
    ingress.serve();
    let address = ingress.addresses().first().copied().context("no listener")?;
    writeln!(std::io::stdout(), "{address}")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The median of `runs` measurements after a short warm-up.
fn measure(contestant: &Contestant, job: Job, token: &str, requests: u64, runs: usize) -> Result<Reading> {
    load(contestant, job, token, requests / 10)?;
    let mut readings = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let before = contestant.cpu_micros()?;
        let requests_per_second = load(contestant, job, token, requests)?;
        let spent = contestant.cpu_micros()? - before;
        readings.push(Reading { micros_per_request: spent as f64 / requests as f64, requests_per_second });
    }
    readings.sort_by(|a, b| a.micros_per_request.total_cmp(&b.micros_per_request));
    Ok(readings[readings.len() / 2])
}

/// Sends requests; every single one must be answered by 200. Returns requests per second.
fn load(contestant: &Contestant, job: Job, token: &str, requests: u64) -> Result<f64> {
    let (address, path) =
        if job.checked { (contestant.checked, "api/x") } else { (contestant.open, "public/x") };
    let mut command = Command::new("h2load");
    command.args(["-t", "1", "-c", &CLIENTS.to_string(), "-n", &requests.max(CLIENTS).to_string()]);
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
    let field = |line: &str, after: &str| -> Option<String> {
        let line = text.lines().find(|candidate| candidate.starts_with(line))?;
        line.split(after).nth(1)?.split_whitespace().next().map(str::to_owned)
    };
    let succeeded = field("status codes:", ":").context("h2load said nothing of status codes")?;
    ensure!(
        succeeded.parse() == Ok(requests.max(CLIENTS)),
        "{} answered {succeeded} of {requests} requests by 200 ({job:?}):\n{text}",
        contestant.name
    );
    let Some(rate) = field("finished in", ", ") else { bail!("h2load said nothing of requests per second") };
    Ok(rate.parse()?)
}

fn as_table(rows: &[(Job, Reading, Reading)], memory: (u64, u64)) -> String {
    let mut text = format!(
        "{:<28} {:>12} {:>12} {:>7} {:>12} {:>12}\n",
        "job", "enforcer µs", "HAProxy µs", "ratio", "enforcer /s", "HAProxy /s"
    );
    for (job, ours, theirs) in rows {
        let name =
            format!("{} {}", job.protocol, if job.checked { "with ES256 token" } else { "without token" });
        text += &format!(
            "{name:<28} {:>12.1} {:>12.1} {:>7.2} {:>12.0} {:>12.0}\n",
            ours.micros_per_request,
            theirs.micros_per_request,
            ours.micros_per_request / theirs.micros_per_request,
            ours.requests_per_second,
            theirs.requests_per_second,
        );
    }
    text + &format!("resident memory afterwards   {:>9} KiB {:>8} KiB\n", memory.0, memory.1)
}

fn as_json(rows: &[(Job, Reading, Reading)], memory: (u64, u64)) -> Result<String> {
    let reading = |reading: &Reading| json!({"cpu_us_per_request": reading.micros_per_request, "requests_per_second": reading.requests_per_second});
    let jobs: Vec<_> = rows
        .iter()
        .map(|(job, ours, theirs)| {
            json!({
                "protocol": job.protocol,
                "token": job.checked.then_some("ES256"),
                "enforcer": reading(ours),
                "haproxy": reading(theirs),
                "ratio": ours.micros_per_request / theirs.micros_per_request,
            })
        })
        .collect();
    let document = json!({"jobs": jobs, "resident_kib": {"enforcer": memory.0, "haproxy": memory.1}});
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
