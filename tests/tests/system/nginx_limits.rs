//! Limits of routes beside `limit_req` of a real nginx: the same requests in the same order, and the same ones pass.
//!
//! Budgets refill once a minute, so that no outcome hangs on how fast the requests come.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context, Result};
use enforcer::config::{Limit, LimitKey, RateLimit};
use enforcer_tests::{
    edge::{Edge, Site, route},
    eventually,
    origin::Origin,
};
use http::{HeaderName, Request};
use http_body_util::{BodyExt, Empty};

/// What a limit counts by in both: the client, or a field.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Client,
    Key,
}

/// One limit: by what, how many at once beyond the first, how many of these without a delay.
type Zone = (By, u64, Option<u64>);

/// A path, its limits, whether they are only rehearsed, and the keys of the requests that it gets.
struct Case {
    name: &'static str,
    zones: &'static [Zone],
    dry_run: bool,
    keys: &'static str,
}

/// A letter is the value of the field in one request, `-` a request without it.
const CASES: &[Case] = &[
    Case { name: "none", zones: &[(By::Client, 0, None)], dry_run: false, keys: "----" },
    Case { name: "burst", zones: &[(By::Client, 10, None)], dry_run: false, keys: "--------------------" },
    Case { name: "keys", zones: &[(By::Key, 1, None)], dry_run: false, keys: "aabbaacb-----cc" },
    Case {
        name: "stacked",
        zones: &[(By::Client, 7, None), (By::Key, 2, None)],
        dry_run: false,
        keys: "aaaaaaaabbbbbbccccddd----",
    },
    Case {
        name: "turned",
        zones: &[(By::Key, 2, None), (By::Client, 7, None)],
        dry_run: false,
        keys: "aaaaaaaabbbbbbccccddd----",
    },
    Case {
        name: "twice",
        zones: &[(By::Key, 5, None), (By::Key, 1, None), (By::Client, 4, None)],
        dry_run: false,
        keys: "aaaabbbbccccdddd--aabb",
    },
    Case { name: "delay", zones: &[(By::Client, 6, Some(2))], dry_run: true, keys: "------------" },
    Case { name: "queue", zones: &[(By::Client, 3, Some(0))], dry_run: true, keys: "------------" },
    Case {
        name: "delays",
        zones: &[(By::Client, 9, Some(4)), (By::Key, 3, Some(1))],
        dry_run: true,
        keys: "aaaaabbbbbccc----ddaa",
    },
];

/// A running nginx; ends when dropped.
pub(super) struct Nginx {
    child: Child,
    dir: PathBuf,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nginx {
    /// Starts it on a socket in `dir`, with these parts of a configuration, and a file `x` below each of these paths.
    pub(super) fn start<'a>(
        dir: &Path,
        paths: impl IntoIterator<Item = &'a str>,
        zones: &str,
        locations: &str,
    ) -> Result<Self> {
        let place = dir.display();
        for path in paths {
            fs::create_dir_all(dir.join("www").join(path))?;
            fs::write(dir.join("www").join(path).join("x"), "x")?;
        }
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .collect();
        let text = format!(
            "daemon off;\nmaster_process off;\nworker_processes 1;\npid {place}/nginx.pid;\nuser root;\n\
             error_log {place}/error.log info;\nevents {{ worker_connections 512; }}\nhttp {{\naccess_log off;\n{temporary}\
             limit_req_status 429;\nlimit_req_log_level warn;\n{zones}\
             server {{ listen unix:{place}/nginx.sock; server_name here; root {place}/www;\n{locations}}}\n}}\n"
        );
        fs::write(dir.join("nginx.conf"), text)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log"));
        let nginx = Self { child: command.spawn().context("starting nginx")?, dir: dir.to_owned() };
        eventually!(10, "nginx listens", UnixStream::connect(nginx.socket()).is_ok())?;
        Ok(nginx)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("nginx.sock")
    }

    /// How often its log says `what` of a request whose line begins so.
    pub(super) fn logged(&self, line: &str, what: &str) -> Result<usize> {
        let (log, about) = (fs::read_to_string(self.dir.join("error.log"))?, format!("\"{line}"));
        Ok(log.lines().filter(|line| line.contains(what) && line.contains(&about)).count())
    }
}

/// The part of nginx's configuration: zones and locations.
fn theirs() -> (String, String) {
    let (mut zones, mut locations) = (String::new(), String::new());
    for case in CASES {
        locations += &format!("location /{}/ {{\n", case.name);
        for (i, (by, burst, delay)) in case.zones.iter().enumerate() {
            let zone = format!("{}{i}", case.name);
            let key = if *by == By::Client { "$server_name" } else { "$http_x_api_key" };
            zones += &format!("limit_req_zone {key} zone={zone}:1m rate=1r/m;\n");
            let delay = match delay {
                None => "nodelay".to_owned(),
                // What nginx does unless it is told otherwise.
                Some(0) => String::new(),
                Some(delay) => format!("delay={delay}"),
            };
            let burst = if *burst > 0 { format!("burst={burst} {delay}") } else { String::new() };
            locations += &format!("limit_req zone={zone} {burst};\n");
        }
        locations += if case.dry_run { "limit_req_dry_run on; }\n" } else { "}\n" };
    }
    (zones, locations)
}

fn ask(nginx: &Nginx, case: &Case, key: char) -> Result<u16> {
    let mut stream = UnixStream::connect(nginx.socket())?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let field = if key == '-' { String::new() } else { format!("X-Api-Key: {key}\r\n") };
    write!(stream, "GET /{}/x HTTP/1.0\r\nHost: here\r\n{field}\r\n", case.name)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).context("no status")?.parse()?)
}

/// How many requests of a case nginx would have delayed, and how many refused.
fn rehearsed(nginx: &Nginx, case: &Case) -> Result<(usize, usize)> {
    let line = format!("GET /{}/x ", case.name);
    let (delayed, refused) = ("delaying request, dry run", "limiting requests, dry run");
    Ok((nginx.logged(&line, delayed)?, nginx.logged(&line, refused)?))
}

fn ours(case: &Case) -> enforcer::config::Route {
    let limit = |(i, (by, burst, delay)): (usize, &Zone)| {
        let key = match by {
            By::Client => LimitKey::Address,
            By::Key => LimitKey::Header(HeaderName::from_static("x-api-key")),
        };
        let rate = RateLimit { events: 1, period: Duration::from_secs(60), burst: *burst };
        Limit { name: format!("{i}"), key, rate, delay: *delay, dry_run: case.dry_run }
    };
    let limits = case.zones.iter().enumerate().map(limit).collect();
    enforcer::config::Route { limits, ..route(&format!("/{}/", case.name), None, &[]) }
}

async fn ask_ours(client: &mut enforcer_tests::edge::Client, case: &Case, key: char) -> Result<u16> {
    let mut request = Request::get(format!("/{}/x", case.name));
    if key != '-' {
        request = request.header("x-api-key", key.to_string());
    }
    let response = client.send(request.body(Empty::new().boxed())?).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

fn counted(edge: &Edge, case: &Case, result: &str) -> u64 {
    let path = format!("/{}/", case.name);
    let of = |i: usize| edge.metrics.limits.with_label_values(&[&path, &i.to_string(), result]).get();
    (0..case.zones.len()).map(of).sum()
}

#[tokio::test]
async fn the_same_requests_pass_as_through_nginx() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (zones, locations) = theirs();
    let nginx = Nginx::start(dir.path(), CASES.iter().map(|case| case.name), &zones, &locations)?;
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.routes = CASES.iter().map(ours).collect();
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    for case in CASES {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for key in case.keys.chars() {
            theirs.push(ask(&nginx, case, key)?);
            ours.push(ask_ours(&mut client, case, key).await?);
        }
        assert_eq!(ours, theirs, "{}: {:?} with {}", case.name, case.zones, case.keys);
        let refused = theirs.iter().filter(|status| **status == 429).count();
        assert_eq!(case.dry_run, refused == 0, "{}: the case says something", case.name);
        if case.dry_run {
            let (delayed, limited) = rehearsed(&nginx, case)?;
            assert!(delayed > 0 && limited > 0, "{}: {delayed} delayed, {limited} limited", case.name);
            if case.zones.len() == 1 {
                let seen = (counted(&edge, case, "would_delay"), counted(&edge, case, "would_refuse"));
                assert_eq!(seen, (delayed as u64, limited as u64), "{}", case.name);
            }
        }
    }
    Ok(())
}
