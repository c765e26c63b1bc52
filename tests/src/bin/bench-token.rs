//! What a token costs: the first time, when its signature is verified, and each further time, when it is known; what a proof of DPoP
//! and a signed request cost; what remembering tokens costs; and what of all that is seen in the CPU time of the daemon.
//!
//! Requests go through `checks::admit` as the edge calls it: route, limit, token, scope. A public route with the same limit
//! shows what all of that costs without a token.

use std::{io::Write as _, net::IpAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use enforcer::{
    checks::{
        Now, admit,
        facts::{Client, ClientAddr, RequestFacts, Target},
        token::KnownTokens,
    },
    clock,
    config::{self, Limit, RateLimit, SignatureScheme},
    policy::Policy,
};
use enforcer_tests::{
    bench::edge::{self as load, Effort, Job},
    contestants::Contestant,
    edge::{self, AUDIENCE, ISSUER, Site},
    signing::{Signable, Signer, nonce},
    tokens::{self, SigningKey, ath, public_jwk, thumbprint},
};
use http::{HeaderMap, Method};
use serde_json::json;

/// Measures the checks of a request with a token.
#[derive(Parser)]
struct Arguments {
    /// Requests per measurement.
    #[arg(long, default_value_t = 20_000)]
    requests: u32,
    /// Measurements per line; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Tokens whose memory is measured.
    #[arg(long, default_value_t = 100_000)]
    tokens: u32,
    /// Requests per measurement through the daemon; 0 leaves it out, which needs nginx and h2load.
    #[arg(long, default_value_t = 20_000)]
    daemon_requests: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Nanoseconds that a request with a known token may cost, everything included.
const BAR: f64 = 1_000.0;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut site = Site::new("127.0.0.1:9".parse()?)?;
    let rsa = SigningKey::rsa("rsa-1")?;
    write_keys(site.config.tokens["main"].keys.file().context("no file")?, &[&rsa, &site.key])?;
    // A limit that is charged and never reached.
    let limit =
        RateLimit { events: 10_000_000, period: std::time::Duration::from_secs(1), burst: 10_000_000 };
    for route in &mut site.config.routes {
        route.limits = vec![Limit::by_address(limit)];
    }
    let secret = Signer::secret()?;
    sign_requests(&mut site, &secret)?;
    let unix = clock::unix_now();
    // It began long ago, so that no proof needs a nonce.
    let bench = Bench { policy: Policy::load_at(&site.config, unix - 86_400)?, unix, arguments };
    let public = bench.measure("/public/x", None, 0)?;
    let mut lines = vec![("no token", public)];
    for (key, first, again) in
        [(&site.key, "ES256, first time", "ES256, known"), (&rsa, "RS256, first time", "RS256, known")]
    {
        let token = key.mint(&tokens::claims(ISSUER, AUDIENCE, "read", bench.unix))?;
        lines.push((first, bench.measure("/api/x", Some(&token), 0)?));
        lines.push((again, bench.measure("/api/x", Some(&token), 1_024)?));
    }
    lines.push(("DPoP, known token", bench.prove(&site.key)?));
    lines.push(("HMAC over lines", bench.sign(&secret)?));
    let daemon = through_daemon(&bench.arguments)?;
    let bytes = bench.memory(&site.key)?;
    let tokens = bench.arguments.tokens;
    let met = |name: &str, ns: f64| name.ends_with(", known").then_some(ns <= BAR);
    let text = if bench.arguments.json {
        let line =
            |(name, ns): &(&str, f64)| json!({"request": name, "nanoseconds": ns, "met": met(name, *ns)});
        let document = json!({
            "requests": lines.iter().map(line).collect::<Vec<_>>(), "bar_nanoseconds": BAR,
            "memory": {"tokens": tokens, "bytes": bytes},
            "daemon": daemon.iter().map(|line| json!({
                "protocol": line.protocol, "without_us": line.without, "with_us": line.with,
                "ratio": line.with / line.without,
            })).collect::<Vec<_>>(),
        });
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        let mut text = format!("{:<20} {:>10} {:>10} {:>8}\n", "request", "ns", "bar ns", "");
        for (name, ns) in &lines {
            text += &match met(name, *ns) {
                Some(met) => {
                    format!("{name:<20} {ns:>10.0} {BAR:>10} {:>8}\n", if met { "met" } else { "NOT MET" })
                }
                None => format!("{name:<20} {ns:>10.0}\n"),
            };
        }
        for line in &daemon {
            let Line { protocol, without, with } = line;
            text += &format!(
                "daemon, {protocol}: {without:.1} us of CPU per request, {with:.1} with a known ES256 token: {:.2}\n",
                with / without
            );
        }
        text + &format!("{tokens} known tokens take {:.1} MiB\n", bytes as f64 / f64::from(1 << 20))
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn write_keys(path: &Path, keys: &[&SigningKey]) -> Result<()> {
    std::fs::write(path, tokens::jwks(keys)).with_context(|| format!("writing {}", path.display()))
}

/// A route `/lines/` whose requests are signed by HMAC.
fn sign_requests(site: &mut Site, secret: &Signer) -> Result<()> {
    let file = site.dir.path().join("secret.key");
    std::fs::write(&file, secret.file()?)?;
    let signature = config::Signature {
        scheme: SignatureScheme::Hmac,
        keys: [("secret".to_owned(), file)].into(),
        window: std::time::Duration::from_secs(300),
        max_body_bytes: 1_000,
        components: Vec::new(),
        tag: None,
    };
    site.config.signatures.insert("lines".to_owned(), signature);
    let mut route = edge::route("/lines/", None, &[]);
    route.signature = Some("lines".to_owned());
    route.limits = site.config.routes.first().map(|route| route.limits.clone()).unwrap_or_default();
    site.config.routes.push(route);
    Ok(())
}

/// CPU microseconds of the daemon per request.
struct Line {
    protocol: &'static str,
    without: f64,
    with: f64,
}

/// A daemon with one worker in front of nginx, under kept connections.
fn through_daemon(arguments: &Arguments) -> Result<Vec<Line>> {
    if arguments.daemon_requests == 0 {
        return Ok(Vec::new());
    }
    let dir = tempfile::tempdir()?;
    let origin = Contestant::nginx_origin(dir.path())?;
    let site = Site::new(origin.open)?;
    let mut claims = tokens::claims(ISSUER, AUDIENCE, "read", clock::unix_now());
    claims["exp"] = json!(clock::unix_now() + 12 * 3_600);
    let token = site.key.mint(&claims)?;
    let ours = Contestant::ours(&site, origin.open, 1)?;
    let effort =
        Effort { requests: arguments.daemon_requests, connections: 0, idle: 0, runs: arguments.runs };
    ["h2", "http/1.1"]
        .into_iter()
        .map(|protocol| {
            let cpu = |checked| load::requests(&ours, Job { protocol, checked }, &token, effort);
            Ok(Line { protocol, without: cpu(false)?.cpu_us, with: cpu(true)?.cpu_us })
        })
        .collect()
}

struct Bench {
    policy: Policy,
    unix: u64,
    arguments: Arguments,
}

impl Bench {
    /// Nanoseconds per request with a token that is known and a proof that is new.
    fn prove(&self, issuer: &SigningKey) -> Result<f64> {
        let key = SigningKey::p256("client")?;
        let mut claims = tokens::claims(ISSUER, AUDIENCE, "read", self.unix);
        claims["cnf"] = json!({"jkt": thumbprint(&key)?});
        let token = issuer.mint(&claims)?;
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": public_jwk(&key)}).to_string();
        let url = format!("https://{}/api/x", edge::NAME);
        self.each_new("/api/x", || {
            let claims = json!({
                "jti": nonce(), "htm": "GET", "htu": url, "iat": self.unix, "ath": ath(&token),
            });
            let mut headers = HeaderMap::new();
            headers.insert("authorization", format!("DPoP {token}").parse()?);
            headers.insert("dpop", key.mint_raw(&header, &claims.to_string())?.parse()?);
            Ok(headers)
        })
    }

    /// Nanoseconds for the head of a request that is signed by HMAC.
    fn sign(&self, secret: &Signer) -> Result<f64> {
        self.each_new("/lines/x", || {
            let mut request = Signable {
                method: "GET",
                authority: edge::NAME.to_owned(),
                path: "/lines/x".to_owned(),
                query: None,
                headers: HeaderMap::new(),
                body: Vec::new(),
            };
            request.sign_lines_by("secret", secret, self.unix, &nonce())?;
            Ok(request.headers)
        })
    }

    /// The same of requests of which each is good once: a tenth of them, made before.
    fn each_new(&self, path: &str, make: impl Fn() -> Result<HeaderMap>) -> Result<f64> {
        let mut known = KnownTokens::new(1_024);
        let mut runs = Vec::new();
        for run in 0..=self.arguments.runs {
            let count = (self.arguments.requests / 10).max(1);
            let requests = (0..count).map(|_| make()).collect::<Result<Vec<_>>>()?;
            let begin = clock::instant_now();
            for headers in &requests {
                self.request(path, headers, &mut known)?;
            }
            let spent = clock::instant_now().duration_since(begin);
            if run > 0 {
                runs.push(spent.as_nanos() as f64 / f64::from(count));
            }
        }
        runs.sort_by(f64::total_cmp);
        runs.get(runs.len() / 2).copied().context("--runs must be at least 1")
    }

    /// Nanoseconds per request, the median of the runs after one more.
    fn measure(&self, path: &str, token: Option<&str>, remembered: usize) -> Result<f64> {
        let mut known = KnownTokens::new(remembered);
        let headers = headers(token)?;
        let mut runs = Vec::new();
        for run in 0..=self.arguments.runs {
            let begin = clock::instant_now();
            for _ in 0..self.arguments.requests {
                self.request(path, &headers, &mut known)?;
            }
            let spent = clock::instant_now().duration_since(begin);
            if run > 0 {
                runs.push(spent.as_nanos() as f64 / f64::from(self.arguments.requests));
            }
        }
        runs.sort_by(f64::total_cmp);
        runs.get(runs.len() / 2).copied().context("--runs must be at least 1")
    }

    fn request(&self, path: &str, headers: &HeaderMap, known: &mut KnownTokens) -> Result<()> {
        let client = Client::at(ClientAddr::new(IpAddr::from([192, 0, 2, 7])));
        let facts = RequestFacts {
            client: &client,
            address: client.address,
            method: &Method::GET,
            path: path.into(),
            named: Some(edge::NAME),
            authority: Some(edge::NAME),
            target: Target { path, query: None },
            headers,
            is_early: false,
            is_banned: false,
            upgrades: false,
        };
        let now = Now { monotonic: clock::kernel_now(), unix: self.unix };
        let outcome = admit(&self.policy, &facts, now, known);
        ensure!(outcome.is_ok(), "refused: {:?}", outcome.err());
        Ok(())
    }

    /// Bytes by which this process grows when so many tokens are known.
    fn memory(&self, key: &SigningKey) -> Result<u64> {
        let count = self.arguments.tokens;
        let mut known = KnownTokens::new(count as usize);
        let before = resident_bytes()?;
        for n in 0..count {
            let mut claims = tokens::claims(ISSUER, AUDIENCE, "read write", self.unix);
            claims["sub"] = json!(format!("subject-{n:020}"));
            self.request("/api/x", &headers(Some(&key.mint(&claims)?))?, &mut known)?;
        }
        ensure!(known.len() as u64 * 100 >= u64::from(count) * 95, "only {} are known", known.len());
        Ok(resident_bytes()?.saturating_sub(before))
    }
}

fn headers(token: Option<&str>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert("authorization", format!("Bearer {token}").parse()?);
    }
    Ok(headers)
}

/// From `/proc/self/statm` (proc(5)): the second number, in pages.
fn resident_bytes() -> Result<u64> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.context("no page size")?;
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split_whitespace().nth(1).context("a short /proc/self/statm")?.parse()?;
    Ok(pages * page.cast_unsigned())
}
