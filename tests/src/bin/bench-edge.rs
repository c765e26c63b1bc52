//! The edge beside HAProxy and nginx, doing the same job on the same machine in the same run.
//!
//! Every proxy has one worker thread, the same certificate and the same nginx behind it. What counts is the proxy's own CPU
//! time; requests per second also measure the client and whatever else runs here.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use enforcer::clock;
use enforcer_tests::{
    bench::edge::{self, Effort, Handshakes, Job, Memory, Reading},
    contestants::Contestant,
    edge::{AUDIENCE, ISSUER, Site},
    tokens,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

/// Compares the edge with HAProxy and nginx on loopback.
#[derive(Parser)]
struct Arguments {
    /// Requests per measurement.
    #[arg(long, default_value_t = 40_000)]
    requests: u64,
    /// New connections per measurement.
    #[arg(long, default_value_t = 1_000)]
    connections: u64,
    /// Connections that idle while memory is looked at.
    #[arg(long, default_value_t = 4_000)]
    idle: usize,
    /// Measurements per line; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Show where the edge spends its time under requests with a token, by perf(1), instead of comparing.
    #[arg(long)]
    profile: bool,
}

const H2: Job = Job { protocol: "h2", checked: false };
const H1: Job = Job { protocol: "http/1.1", checked: false };
const H2_CHECKED: Job = Job { checked: true, ..H2 };
const H1_CHECKED: Job = Job { checked: true, ..H1 };

/// What one proxy came to; a job that it cannot do is absent.
struct Figures {
    name: &'static str,
    requests: Vec<(Job, Reading)>,
    fresh: Reading,
    handshakes: Handshakes,
    memory: Memory,
}

/// A ratio and what it may be.
struct Bar {
    name: String,
    ratio: f64,
    bar: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Idle connections need a descriptor at either end; the proxies inherit the limit.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let dir = tempfile::tempdir()?;
    let origin = Contestant::nginx_origin(dir.path())?;
    let site = Site::new(origin.open)?;
    let mut claims = tokens::claims(ISSUER, AUDIENCE, "read", clock::unix_now());
    claims["exp"] = json!(clock::unix_now() + 3600 * 12);
    let token = site.key.mint(&claims)?;
    if arguments.profile {
        return profile(&Contestant::ours(&site, origin.open, 1)?, &token, arguments.requests);
    }
    let effort = Effort {
        requests: arguments.requests,
        connections: arguments.connections,
        idle: arguments.idle,
        runs: arguments.runs,
    };
    let all = [H2, H1, H2_CHECKED, H1_CHECKED];
    let figures = [
        measure(Contestant::ours(&site, origin.open, 1)?, &site, &token, &all, effort)?,
        measure(Contestant::haproxy(&site, origin.open)?, &site, &token, &all, effort)?,
        measure(Contestant::nginx(&site, origin.open)?, &site, &token, &all[..2], effort)?,
    ];
    let spread = edge::requests(&Contestant::ours(&site, origin.open, 2)?, H2_CHECKED, &token, effort)?;
    let bars = bars(&figures, arguments.idle)?;
    let text = if arguments.json {
        as_json(&figures, &spread, &bars)?
    } else {
        as_table(&figures, &spread, &bars, effort)
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn measure(proxy: Contestant, site: &Site, token: &str, jobs: &[Job], effort: Effort) -> Result<Figures> {
    let mut requests = Vec::new();
    for job in jobs {
        requests.push((*job, edge::requests(&proxy, *job, token, effort)?));
    }
    let fresh = edge::fresh(&proxy, effort)?;
    let handshakes = edge::handshakes(&proxy, site, effort)?;
    let memory = edge::memory(&proxy, site, effort.idle)?;
    Ok(Figures { name: proxy.name, requests, fresh, handshakes, memory })
}

impl Figures {
    fn cpu(&self, job: Job) -> Option<f64> {
        self.requests.iter().find(|(known, _)| *known == job).map(|(_, reading)| reading.cpu_us)
    }
}

fn bars([ours, haproxy, nginx]: &[Figures; 3], idle: usize) -> Result<Vec<Bar>> {
    let mut bars = Vec::new();
    for (job, plain) in [(H2_CHECKED, H2), (H1_CHECKED, H1)] {
        let (ours, theirs) = (ours.cpu(job).context("no job")?, haproxy.cpu(plain).context("no job")?);
        let name = format!("{}: ours with token / HAProxy without, CPU per request", job.protocol);
        bars.push(Bar { name, ratio: ours / theirs, bar: 1.0 });
    }
    bars.push(Bar {
        name: "new connection with its first request: ours / nginx, CPU".to_owned(),
        ratio: ours.fresh.cpu_us / nginx.fresh.cpu_us,
        bar: 0.55,
    });
    type Pick = fn(&Memory) -> u64;
    let kinds: [(&str, Pick); 2] =
        [("http/1.1", |memory| memory.http1_kib), ("h2", |memory| memory.http2_kib)];
    for (protocol, pick) in kinds {
        let name = format!("memory with {idle} idle {protocol} connections: ours / HAProxy");
        let ratio = pick(&ours.memory) as f64 / pick(&haproxy.memory) as f64;
        bars.push(Bar { name, ratio, bar: 0.6 });
    }
    Ok(bars)
}

fn name_of(job: Job) -> String {
    format!("{} {}", job.protocol, if job.checked { "with ES256 token" } else { "without token" })
}

fn as_table(figures: &[Figures; 3], spread: &Reading, bars: &[Bar], effort: Effort) -> String {
    let mut text = format!(
        "{:<44} {:>9} {:>10} {:>10} {:>8} {:>8}\n",
        "per request", "proxy", "CPU us", "per s", "p50 us", "p99 us"
    );
    let mut line = |name: &str, proxy: &str, reading: &Reading| {
        let Reading { cpu_us, per_second, p50_us, p99_us } = reading;
        text += &format!("{name:<44} {proxy:>9} {cpu_us:>10.1} {per_second:>10.0} {p50_us:>8} {p99_us:>8}\n");
    };
    for job in [H2, H1, H2_CHECKED, H1_CHECKED] {
        for one in figures {
            if let Some((_, reading)) = one.requests.iter().find(|(known, _)| *known == job) {
                line(&name_of(job), one.name, reading);
            }
        }
    }
    line(&format!("{}, two workers", name_of(H2_CHECKED)), figures[0].name, spread);
    for one in figures {
        line("new connection each", one.name, &one.fresh);
    }
    text += &format!("\n{:<44} {:>9} {:>9} {:>9}\n", "", figures[0].name, figures[1].name, figures[2].name);
    type Row<'r> = (String, Box<dyn Fn(&Figures) -> f64 + 'r>);
    let idle = effort.idle;
    let rows: [Row<'_>; 7] = [
        ("TLS 1.3 handshake, CPU us".to_owned(), Box::new(|one| one.handshakes.full)),
        ("TLS 1.3 handshake, resumed, CPU us".to_owned(), Box::new(|one| one.handshakes.resumed)),
        ("handshake and request, CPU us".to_owned(), Box::new(|one| one.handshakes.full_and_request)),
        ("the same, resumed, CPU us".to_owned(), Box::new(|one| one.handshakes.resumed_and_request)),
        ("resident before, KiB".to_owned(), Box::new(|one| one.memory.before_kib as f64)),
        (format!("resident with {idle} idle h2, KiB"), Box::new(|one| one.memory.http2_kib as f64)),
        (format!("resident with {idle} idle http/1.1, KiB"), Box::new(|one| one.memory.http1_kib as f64)),
    ];
    for (name, of) in rows {
        let [ours, haproxy, nginx] = figures;
        text += &format!("{name:<44} {:>9.0} {:>9.0} {:>9.0}\n", of(ours), of(haproxy), of(nginx));
    }
    text += &format!("\n{:<64} {:>6} {:>5}\n", "bars", "ratio", "bar");
    for Bar { name, ratio, bar } in bars {
        let met = if ratio <= bar { "met" } else { "NOT MET" };
        text += &format!("{name:<64} {ratio:>6.2} {bar:>5.2} {met}\n");
    }
    text
}

fn as_json(figures: &[Figures; 3], spread: &Reading, bars: &[Bar]) -> Result<String> {
    let proxy = |one: &Figures| -> Value {
        let request = |(job, reading): &(Job, Reading)| {
            json!({
                "protocol": job.protocol, "token": job.checked.then_some("ES256"), "per_request": reading,
            })
        };
        json!({
            "name": one.name,
            "requests": one.requests.iter().map(request).collect::<Vec<_>>(),
            "new_connection_each": one.fresh,
            "handshakes_cpu_us": one.handshakes,
            "memory": one.memory,
        })
    };
    let bar = |Bar { name, ratio, bar }: &Bar| json!({"name": name, "ratio": ratio, "bar": bar, "met": ratio <= bar});
    let document = json!({
        "proxies": figures.iter().map(proxy).collect::<Vec<_>>(),
        "two_workers": spread,
        "bars": bars.iter().map(bar).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// Samples the edge under load, and shows what it was found doing.
fn profile(ours: &Contestant, token: &str, requests: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("perf.data");
    for job in [H2_CHECKED, H1_CHECKED] {
        edge::load(ours, job, token, requests / 10)?;
        let mut perf = Command::new("perf")
            .args(["record", "--quiet", "-F", "1999", "-g", "-p", &ours.id().to_string(), "-o"])
            .arg(&data)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run perf, without which there is no profile: apt-get install linux-perf")?;
        let reading = edge::load(ours, job, token, requests);
        // perf writes its file when it is told to end.
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(perf.id())?),
            nix::sys::signal::Signal::SIGINT,
        )?;
        perf.wait()?;
        reading?;
        let report = Command::new("perf")
            .args(["report", "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.5", "-i"])
            .arg(&data)
            .output()?;
        ensure!(report.status.success(), "perf: {}", String::from_utf8_lossy(&report.stderr));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}\n", name_of(job))?;
        out.write_all(&report.stdout)?;
    }
    Ok(())
}
