//! The daemon's log: structured lines on standard error, for the journal.
//!
//! `main` starts it once the configuration is read; a reload may change the filter. Secrets never come here: whoever logs
//! names fields, and no field is a header, a token or a body.

use std::io::stderr;

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
    EnvFilter::try_new(&text).map_err(|error| anyhow!("`{text}` ({origin}) is no log filter: {error}"))
}
