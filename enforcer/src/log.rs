//! The daemon's log: structured lines on standard error, for the journal.
//!
//! `main` starts it once the configuration is read; a reload may change the filter. Secrets never come here: whoever logs
//! names fields, and no field is a header, a token or a body.

use std::{
    io::stderr,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, anyhow};
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::config::{self, LogFormat};

/// The environment's filter beats the configuration's: for one run under observation.
const OVERRIDE: &str = "ENFORCER_LOG";

/// The running log, to change its filter.
#[derive(Clone, Debug)]
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// Installs the log for the whole process.
    pub fn start(config: &config::Log) -> Result<Self> {
        let (filter, handle) = reload::Layer::new(filter(config)?);
        let registry = tracing_subscriber::registry().with(filter);
        let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_target(false);
        let started = match config.format {
            LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
            LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        };
        started.context("starting the log")?;
        Ok(Self(handle))
    }

    /// Takes over a new filter; the format stays as it was.
    pub fn apply(&self, filter: EnvFilter) -> Result<()> {
        self.0.reload(filter).context("changing the log's filter")
    }
}

/// The filter that `config` or the environment asks for.
pub fn filter(config: &config::Log) -> Result<EnvFilter> {
    let (text, origin) = match std::env::var(OVERRIDE) {
        Ok(text) if !text.is_empty() => (text, OVERRIDE),
        Ok(_) | Err(_) => (config.level.clone(), "log.level"),
    };
    let mut filter = config::log_filter(&text).map_err(|problem| {
        anyhow!("{origin}: {problem}; write off, error, warn, info, debug or trace, or levels per module")
    })?;
    // These libraries warn of what a client does wrong (h2 of many resets, rustls of an address as server name), so that
    // any client could fill the log with it; what is refused is counted and is an offence.
    for library in ["h2", "rustls"] {
        if !text.contains(library) {
            filter = filter.add_directive(format!("{library}=error").parse()?);
        }
    }
    Ok(filter)
}

/// Lets one line per second through, for what may fail at any rate. One static per kind of failure.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Nothing was said yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether nobody has said anything in this second, given as seconds of the wall clock.
    pub fn may_speak(&self, second: u64) -> bool {
        self.0.swap(second, Ordering::Relaxed) != second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_make_libraries_talk_unless_somebody_asks_them_to() {
        let of = |level: &str| {
            filter(&config::Log { level: level.to_owned(), format: LogFormat::Text }).unwrap().to_string()
        };
        assert!(of("info").contains("h2=error") && of("info").contains("rustls=error"));
        assert_eq!(of("info,rustls=debug").matches("rustls").count(), 1);
        assert_eq!(of("info,h2=debug").matches("h2").count(), 1);
    }

    #[test]
    fn one_line_per_second() {
        let seldom = Seldom::new();
        assert_eq!([5, 5, 5, 6, 6].map(|second| seldom.may_speak(second)), [true, false, false, true, false]);
    }
}
