//! How long a million bans and a hundred thousand banned prefixes take: into the kernel's tables alone, and from a file through
//! the daemon, with its store, while a client is served. Beside them nftables, with a set of as many elements.
//!
//! The addresses are only listed; no packet comes from them or goes to them.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use enforcer::{clock, kernel::Kernel};
use enforcer_common::{
    ban::{Ban, FOREVER, Listing},
    source::{SourceKey, v6_mask},
};

use crate::{
    daemon::Daemon,
    kernel::plain,
    netns::{Netns, source_v4},
    poll, process,
    scene::Scene,
};

/// What loading them all may take, in seconds.
const BAR: f64 = 2.0;
/// Between two requests of the client.
const PAUSE: Duration = Duration::from_millis(20);
/// What the client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// For one command, however slow.
const LONGEST: Duration = Duration::from_secs(600);
/// Blocks that hold the addresses and the prefixes.
const SOURCES_BASE: u32 = 11 << 24;
const PREFIXES_BASE: u32 = 12 << 24;

/// How many there are, and how long the bans of the last step last.
#[derive(Clone, Debug, clap::Args)]
pub struct Scale {
    /// Banned addresses, at most a million.
    #[arg(long, default_value_t = 1_000_000)]
    pub sources: u32,
    /// Banned prefixes, at most a hundred thousand.
    #[arg(long, default_value_t = 100_000)]
    pub prefixes: u32,
}

/// One measurement.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// What was done.
    pub name: &'static str,
    /// With how many.
    pub entries: u32,
    /// How long it took.
    pub seconds: f64,
    /// How long it may take.
    pub bar: Option<f64>,
    /// What nftables takes for the same, as a multiple of that.
    pub against_nftables: Option<f64>,
    /// How the client fared meanwhile.
    pub client: Option<Served>,
}

/// Requests of a legitimate client.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Served {
    /// How many.
    pub requests: u32,
    /// How many were not answered with 200.
    pub failed: u32,
    /// Half of them were faster: milliseconds, the start of the client included.
    pub median_ms: f64,
    /// The slowest.
    pub worst_ms: f64,
}

/// Everything that was measured.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The lines.
    pub rows: Vec<Row>,
    /// Resident memory of the daemon before and with all bans, MiB.
    pub resident_mib: [u64; 2],
}

/// Measures everything, calling `told` after each line.
pub fn run(scale: &Scale, told: impl Fn(&Row)) -> Result<Report> {
    ensure!((1..=1_000_000).contains(&scale.sources), "--sources must be 1 to 1000000");
    ensure!((1..=100_000).contains(&scale.prefixes), "--prefixes must be 1 to 100000");
    let mut bench = Bench { rows: Vec::new(), told };
    bench.tables(scale)?;
    let scene = Scene::new()?;
    bench.nftables(&scene, scale)?;
    let resident_mib = bench.daemon(&scene, scale)?;
    Ok(Report { rows: bench.rows, resident_mib })
}

struct Bench<T> {
    rows: Vec<Row>,
    told: T,
}

impl<T: Fn(&Row)> Bench<T> {
    fn add(&mut self, row: Row) {
        (self.told)(&row);
        self.rows.push(row);
    }

    fn plain(&mut self, name: &'static str, entries: u32, took: Duration, bar: Option<f64>) {
        let seconds = took.as_secs_f64();
        self.add(Row { name, entries, seconds, bar, against_nftables: None, client: None });
    }

    /// The kernel's tables, written as the ban task writes them.
    fn tables(&mut self, scale: &Scale) -> Result<()> {
        let kernel = Kernel::load(&plain(), scale.sources)?;
        let mut lists = kernel.lists()?;
        let bans: Vec<_> = (0..scale.sources)
            .map(|n| (SourceKey::of(source(n).into(), v6_mask(64)), Ban { until: FOREVER }))
            .collect();
        let begun = clock::instant_now();
        lists.ban_many(&bans)?;
        self.plain("tables: sources", scale.sources, begun.elapsed(), Some(BAR));
        let prefixes = (0..scale.prefixes).map(|n| prefix(n).parse().map_err(anyhow::Error::msg));
        let prefixes = prefixes.collect::<Result<Vec<_>>>()?;
        let begun = clock::instant_now();
        for prefix in prefixes {
            lists.list(prefix, Listing::banned(FOREVER))?;
        }
        self.plain("tables: prefixes", scale.prefixes, begun.elapsed(), Some(BAR));
        Ok(())
    }

    /// The same lists as elements of nftables' sets.
    fn nftables(&mut self, scene: &Scene, scale: &Scale) -> Result<()> {
        let server = &scene.lab.server;
        let file = scene.site.dir.join("rules.nft");
        for (name, count, kind, element) in [
            ("nft -f: sources", scale.sources, "", (|n| source(n).to_string()) as fn(u32) -> String),
            ("nft -f: prefixes", scale.prefixes, "flags interval;", prefix),
        ] {
            let mut text =
                format!("table netdev guard {{ set banned {{ type ipv4_addr; {kind} elements = {{ ");
            for n in 0..count {
                let _ = write!(text, "{}, ", element(n));
            }
            fs::write(&file, text + "}; }\n}\n")?;
            let begun = clock::instant_now();
            nft(server, &["-f", &file.display().to_string()])?;
            self.plain(name, count, begun.elapsed(), None);
            nft(server, &["delete", "table", "netdev", "guard"])?;
        }
        Ok(())
    }

    /// From a file, through the control socket, with the store; and their end, all at the same instant.
    fn daemon(&mut self, scene: &Scene, scale: &Scale) -> Result<[u64; 2]> {
        let daemon = scene.daemon(&scene.plan())?;
        let token = scene.site.long_token("read", Duration::from_secs(3600))?;
        let file = |name: &str, count, line: fn(u32) -> String| -> Result<PathBuf> {
            let file = scene.site.dir.join(name);
            let mut text = String::new();
            for n in 0..count {
                let _ = writeln!(text, "{}", line(n));
            }
            fs::write(&file, text)?;
            Ok(file)
        };
        let sources = file("sources", scale.sources, |n| source(n).to_string())?;
        let prefixes = file("prefixes", scale.prefixes, prefix)?;
        let before = daemon.resident()? / 1024;
        let idle = served(scene, &token, || {
            thread::sleep(Duration::from_secs(2));
            Ok(())
        })?;
        let idle = idle.0;
        self.add(Row {
            name: "daemon: nothing to do",
            entries: 0,
            seconds: 2.0,
            bar: None,
            against_nftables: None,
            client: Some(idle),
        });
        let mut imported = |name, words: &[&str], file: &Path, entries, bar, peer: Option<&str>| {
            let (client, took) = served(scene, &token, || import(&daemon, words, file))?;
            let peer = self.rows.iter().find(|row| Some(row.name) == peer).map(|row| row.seconds);
            let seconds = took.as_secs_f64();
            let against_nftables = peer.map(|peer| seconds / peer);
            self.add(Row { name, entries, seconds, bar, against_nftables, client: Some(client) });
            anyhow::Ok(())
        };
        let forever = ["ban", "add", "--forever", "--reason", "bench", "--file"];
        let lift = ["ban", "del", "--file"];
        let (few, many) = (scale.prefixes, scale.sources);
        imported("ban add --file: prefixes", &forever, &prefixes, few, Some(BAR), Some("nft -f: prefixes"))?;
        imported("ban del --file: prefixes", &lift, &prefixes, few, None, None)?;
        imported("ban add --file: sources", &forever, &sources, many, Some(BAR), Some("nft -f: sources"))?;
        let with = daemon.resident()? / 1024;
        imported(
            "ban add --file: again, for 15s",
            &["ban", "add", "--for", "15s", "--file"],
            &sources,
            many,
            None,
            None,
        )?;
        let (client, took) = served(scene, &token, || {
            poll::until("the end of all bans", LONGEST, || {
                let left = daemon.ask(&["status"])?["list_entries"].as_u64().context("no list_entries")?;
                Ok((left == 0).then_some(()))
            })
        })?;
        let seconds = took.as_secs_f64();
        self.add(Row {
            name: "daemon: all bans end, 15s included",
            entries: many,
            seconds,
            bar: None,
            against_nftables: None,
            client: Some(client),
        });
        Ok([before, with])
    }
}

/// Runs `work` while a client asks for pages, and says how both went.
fn served(scene: &Scene, token: &str, work: impl FnOnce() -> Result<()>) -> Result<(Served, Duration)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<Served> {
            let mut served = Served::default();
            let mut times = Vec::new();
            while times.is_empty() || !done.load(Ordering::SeqCst) {
                let begun = clock::instant_now();
                let answer = scene.get(source_v4(6), "/api/v1/x").token(token).within(PATIENCE).send()?;
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
                served.failed += u32::from(answer.status != 200);
                thread::sleep(PAUSE);
            }
            times.sort_by(f64::total_cmp);
            served.requests = times.len() as u32;
            served.median_ms = times.get(times.len() / 2).copied().unwrap_or_default();
            served.worst_ms = times.last().copied().unwrap_or_default();
            Ok(served)
        });
        let begun = clock::instant_now();
        let result = work();
        let took = begun.elapsed();
        done.store(true, Ordering::SeqCst);
        let served = client.join().map_err(|_| anyhow!("the client panicked"))??;
        result.map(|()| (served, took))
    })
}

fn import(daemon: &Daemon<'_>, words: &[&str], file: &Path) -> Result<()> {
    let mut command = daemon.command(words);
    process::run(command.arg(file), LONGEST)?.success("the import").map(drop)
}

fn nft(netns: &Netns, words: &[&str]) -> Result<()> {
    let finished = process::run(netns.command("nft").args(words), LONGEST)?;
    // It quotes the whole line.
    let said: String = finished.stderr.chars().take(200).collect();
    ensure!(finished.code == Some(0), "nft ended with {:?}: {said}", finished.code);
    Ok(())
}

/// Spread over a block, as in real lists.
fn source(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(SOURCES_BASE + n * 16)
}

fn prefix(n: u32) -> String {
    format!("{}/24", Ipv4Addr::from(PREFIXES_BASE + n * 256))
}
