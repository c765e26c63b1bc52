//! The daemon's life: start in an order that leaves nothing half done, serve, reload, drain, detach.
//!
//! `enforcer run` calls [`run`]; nothing imports this module but `main`. It owns every part and decides about
//! no packet and no request.

mod attestation;
mod descriptors;
mod devices;
mod facts;
mod files;
mod memory;
mod notify;
mod pins;
mod reload;
mod revocations;
mod running;
mod sockets;
mod start;
mod token;

use std::{fmt, path::PathBuf, time::Duration};

use crate::{
    cli::{
        args::{AttestationVerify, TokenVerify},
        attestation::Report as AttestationReport,
        exit,
        local::{Remarks, Stopped},
        pins::Report as PinsReport,
        token::Report,
    },
    clock,
    config::Config,
    fault,
    log::{self, Log},
    policy::Policy,
};

/// Threads for control, metrics, bans and reloads; the front door has its own.
const THREADS: usize = 2;

/// How long the end waits for tasks to be dropped: they are idle, so this is never used up but by a stuck disk.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the daemon did not start or did not go on.
#[derive(Debug)]
enum Error {
    /// The configuration, or a file that it names, is wrong.
    Configuration(anyhow::Error),
    /// Something needs a permission or a capability.
    Permission(anyhow::Error),
    /// Anything else.
    Failed(anyhow::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(error) | Self::Permission(error) | Self::Failed(error) => {
                write!(f, "{error:#}")
            }
        }
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        match fault::kind(&error) {
            Some(fault::Kind::Permission) => Self::Permission(error),
            Some(fault::Kind::Configuration) => Self::Configuration(error),
            None => Self::Failed(error),
        }
    }
}

/// Runs the daemon with `config`, which was read from `path`, until it is told to stop.
pub fn run(config: Config, path: PathBuf) -> Result<(), Stopped> {
    live(config, path).map_err(|error| {
        let exit = match error {
            Error::Configuration(_) => exit::CONFIGURATION,
            Error::Permission(_) => exit::PERMISSION,
            Error::Failed(_) => exit::FAILED,
        };
        Stopped { exit, message: error.to_string() }
    })
}

/// Reads every file that `config` names, and starts nothing. What is probably not meant comes back: keys, and what is odd about them.
pub fn verify(config: &Config) -> anyhow::Result<Remarks> {
    log::filter(&config.log)?;
    let policy = Policy::load(config)?;
    let bare = policy.hosts_without_certificate().iter().map(|(route, host)| {
        let problem = format!("no certificate is for `{host}`: no client gets there");
        let remedy = "give a listener a certificate for it, or take the host out";
        (format!("route[{route}].hosts"), problem, remedy)
    });
    let now = clock::unix_now();
    let pinned = policy.pins().sets.iter().flat_map(|set| {
        let told = move |remark| (format!("pins.set.{}", set.name), remark, "see `enforcer pins show`");
        set.remarks(now).into_iter().map(told)
    });
    let devices = policy.attestation().map(|attestation| attestation.remarks(now)).unwrap_or_default();
    let devices = devices.into_iter().map(|(key, what, remedy)| (key.to_owned(), what, remedy));
    Ok(bare.chain(pinned).chain(devices).collect())
}

/// What a configuration comes to for apps that pin, at a time in seconds since 1970.
pub fn pins(config: &Config, now: u64) -> anyhow::Result<PinsReport> {
    pins::report(config, now)
}

/// What a request with a token would meet.
pub fn token(config: &Config, verb: &TokenVerify, token: &[u8]) -> anyhow::Result<Report> {
    token::judge(config, verb, token)
}

/// What would become of what a device sends.
pub fn attestation(verb: &AttestationVerify, object: &[u8]) -> anyhow::Result<AttestationReport> {
    attestation::judge(verb, object)
}

fn live(config: Config, path: PathBuf) -> Result<(), Error> {
    let log = Log::start(&config.log).map_err(Error::Configuration)?;
    memory::refuse_huge_pages();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("enforcer")
        .enable_all()
        .build()
        .map_err(|error| Error::Failed(error.into()))?;
    let ended = runtime.block_on(async {
        let signals = running::Signals::install()?;
        let running = start::start(config, path, log).await?;
        memory::give_back();
        running.serve(signals).await.map_err(Error::from)
    });
    // Dropping the tasks removes the control socket; a read of a slow disk may be left behind.
    runtime.shutdown_timeout(FAREWELL);
    ended
}
