//! The real daemon, started in a namespace, watched, asked and ended.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    cleanup::Owned,
    netns::Netns,
    poll, process,
    scrape::{self, Scrape},
    site::{METRICS, Plan, Site},
};

/// Until a daemon is ready; loading the program under a busy machine takes most of it.
const START: Duration = Duration::from_secs(30);
/// Until a daemon that was told to end has ended; longer than any drain that a test configures.
const END: Duration = Duration::from_secs(30);
/// For one command line.
const PATIENCE: Duration = Duration::from_secs(10);

/// The `enforcer` binary: `ENFORCER_BIN`, or the one that was built beside this program.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ENFORCER_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("enforcer")).find(|path| path.is_file());
    found.context("the enforcer binary is not built; run `cargo build`, or set ENFORCER_BIN")
}

/// A running daemon. Dropping it kills it; [`Daemon::stop`] ends it properly.
pub struct Daemon<'a> {
    server: &'a Netns,
    site: &'a Site,
    binary: PathBuf,
    child: Child,
    log: PathBuf,
    owned: Owned,
}

impl<'a> Daemon<'a> {
    /// Writes the configuration, starts the daemon in `server` and waits until it is ready.
    pub fn start(server: &'a Netns, site: &'a Site, plan: &Plan) -> Result<Self> {
        site.write(plan)?;
        let mut daemon = Self::launch(server, site)?;
        let ready = poll::until("the daemon to be ready", START, || {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("the daemon ended with {status} instead of becoming ready");
            }
            Ok(daemon.is_ready().then_some(()))
        });
        match ready {
            Ok(()) => Ok(daemon),
            Err(error) => bail!("{error:#}; its log:\n{}", daemon.log()),
        }
    }

    /// Starts the daemon on the configuration that lies in the site, and waits for nothing.
    pub fn launch(server: &'a Netns, site: &'a Site) -> Result<Self> {
        let binary = binary()?;
        let mut command = server.command(&binary.display().to_string());
        command.args(["run", "-c"]).arg(site.config());
        Self::launch_as(server, site, &mut command)
    }

    /// As [`Daemon::launch`], by another command line that ends up as the daemon.
    pub fn launch_as(server: &'a Netns, site: &'a Site, command: &mut Command) -> Result<Self> {
        let log = site.dir.join("daemon.log");
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdout(file.try_clone()?).stderr(file).env("NO_COLOR", "1");
        let (owned, child) = Owned::process(command)?;
        Ok(Self { server, site, binary: binary()?, child, log, owned })
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        matches!(self.metrics_get("/readyz"), Ok((200, _)))
    }

    /// Status and body of a path on the metrics listener.
    pub fn metrics_get(&self, path: &str) -> Result<(u16, String)> {
        let address: SocketAddr = METRICS.parse()?;
        scrape::get(self.server, address, path)
    }

    /// All metrics, now.
    pub fn scrape(&self) -> Result<Scrape> {
        let (status, text) = self.metrics_get("/metrics")?;
        if status != 200 {
            bail!("/metrics answers {status}: {text}");
        }
        Ok(Scrape::parse(&text))
    }

    /// A command line for this daemon, without `--json`.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--socket").arg(self.site.socket()).args(words).env("NO_COLOR", "1");
        command
    }

    /// What a command prints for people.
    pub fn say(&self, words: &[&str]) -> Result<String> {
        process::run(&mut self.command(words), PATIENCE)?.success(&format!("enforcer {}", words.join(" ")))
    }

    /// What a command answers with `--json`.
    pub fn ask(&self, words: &[&str]) -> Result<Value> {
        let mut command = self.command(&["--json"]);
        let said = process::run(command.args(words), PATIENCE)?;
        let said = said.success(&format!("enforcer --json {}", words.join(" ")))?;
        serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Of [`Daemon::resident`], what is the program's own code, of which a debug build has more than a release.
    pub fn code(&self) -> Result<u64> {
        let own = format!(" {}", fs::read_link(format!("/proc/{}/exe", self.id()))?.display());
        let maps = fs::read_to_string(format!("/proc/{}/smaps", self.id()))?;
        let mut inside = false;
        let mut sum = 0;
        for line in maps.lines() {
            // The head of a mapping begins with its addresses in hexadecimal, a line about it with a capital letter.
            if line.starts_with(|first: char| first.is_ascii_digit() || first.is_ascii_lowercase()) {
                inside = line.ends_with(&own);
            } else if inside && let Some(resident) = line.strip_prefix("Rss:") {
                sum += resident.trim().trim_end_matches(" kB").parse::<u64>()?;
            }
        }
        Ok(sum)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        let status = poll::until("the end of the daemon", END, || Ok(child.try_wait()?))?;
        self.owned.forget();
        Ok(status)
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait().with_context(|| format!("its log:\n{}", self.log()))
    }

    /// The program's file.
    pub fn binary(&self) -> &Path {
        &self.binary
    }
}
