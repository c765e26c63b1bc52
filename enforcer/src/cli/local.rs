//! The verbs that need no running daemon: to be one, to judge a configuration, and to clear away what one has left.

use std::path::{Path, PathBuf};

use super::{
    args::{AttestationVerify, TokenVerify},
    attestation,
    exit::{self, Exit},
    output, pins, token,
};
use crate::{
    config::{self, Config, Error, Inspection, Probes, TlsFile, TokenAlgorithm},
    control::{
        client,
        wire::{Answer, Command},
    },
    fault,
    kernel::{self, Detached},
};

/// Keys, what is odd about what stands there (allowed, and probably not meant), and what to do.
pub type Remarks = Vec<(String, String, &'static str)>;

/// The program behind the verbs: `main` hands it in, for the command line knows nothing of the daemon's inside.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Is the daemon, with the configuration that was read from the file, until it ends.
    pub run: fn(Config, PathBuf) -> Result<(), Stopped>,
    /// Reads everything that the configuration names, as the daemon would.
    pub verify: fn(&Config) -> anyhow::Result<Remarks>,
    /// Everything that is wrong with a JWK set.
    pub key_set: fn(&Path, &[TokenAlgorithm]) -> Vec<String>,
    /// What is wrong with a file for TLS.
    pub tls_file: fn(TlsFile, &Path) -> Option<String>,
    /// What a request with this token would meet.
    pub token: fn(&Config, &TokenVerify, &[u8]) -> anyhow::Result<token::Report>,
    /// What the configuration comes to for apps that pin, at a time (seconds since 1970).
    pub pins: fn(&Config, u64) -> anyhow::Result<pins::Report>,
    /// What would become of what a device sends, with the bytes of it.
    pub attestation: fn(&AttestationVerify, &[u8]) -> anyhow::Result<attestation::Report>,
}

/// Why the daemon ended.
#[derive(Debug)]
pub struct Stopped {
    /// What scripts see.
    pub exit: Exit,
    /// What people read.
    pub message: String,
}

/// `run`: returns when the daemon has ended.
pub fn run(program: &Program, path: &Path) -> Exit {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            output::problems(&errors.0);
            return exit::CONFIGURATION;
        }
    };
    let Err(stopped) = (program.run)(config, path.to_owned()) else { return exit::OK };
    output::complain(&stopped.message);
    stopped.exit
}

/// What `check` found.
#[derive(Debug, serde::Serialize)]
struct Report {
    valid: bool,
    /// What `kernel.dry_run` names.
    rehearsed: Vec<String>,
    errors: Vec<Error>,
    warnings: Vec<Error>,
}

/// `check`: the file and what it names. Warnings do not change the exit code: a check stands before every reload.
pub fn check(program: &Program, path: &Path, json: bool) -> Exit {
    let probes = Probes { key_set: program.key_set, tls_file: program.tls_file, held };
    let Inspection { config, mut errors, mut warnings } = config::inspect(path, &probes);
    // What the daemon would stumble over nevertheless.
    if let Some(config) = config.as_ref().filter(|_| errors.is_empty()) {
        let found = |key: String, problem: String, remedy: &str| Error {
            file: path.to_owned(),
            line: 0,
            key,
            problem,
            remedy: remedy.to_owned(),
        };
        match (program.verify)(config) {
            Ok(remarks) => {
                let warning = |(key, problem, remedy)| found(key, problem, remedy);
                warnings.extend(remarks.into_iter().map(warning));
            }
            Err(error) => {
                let remedy = "correct the file or the key that is named";
                errors.push(found(String::new(), format!("{error:#}"), remedy));
            }
        }
    }
    let rehearsed = config.as_ref().map(names).unwrap_or_default();
    let report = Report { valid: errors.is_empty(), rehearsed, errors, warnings };
    if json {
        output::json(&report);
    } else {
        output::problems(&report.errors);
        output::problems(&report.warnings.iter().map(Error::warning).collect::<Vec<_>>());
        if let Some(config) = config.filter(|_| report.valid) {
            output::answer(&summary(path, &config));
            if !config.kernel.dry_run.is_empty() {
                output::answer(&format!(
                    "kernel.dry_run: {} only rehearsed: such packets are counted and pass\n",
                    names(&config).join(", ")
                ));
            }
        }
    }
    if report.valid { exit::OK } else { exit::CONFIGURATION }
}

/// The directory that a configuration names for pins, or the default one: what else is wrong with the file must not keep
/// anybody from detaching.
pub fn pin_directory(path: &Path) -> PathBuf {
    let named = config::pin_directory(path).unwrap_or_else(|errors| {
        output::problems(&errors.0);
        output::complain(&format!("going on with {}", config::PIN_DIRECTORY));
        None
    });
    named.unwrap_or_else(|| config::PIN_DIRECTORY.into())
}

/// `detach`: takes away what outlives a daemon.
pub fn detach(directory: &Path, force: bool, json: bool) -> Exit {
    let detached = match kernel::detach(directory, force) {
        Ok(detached) => detached,
        Err(error) => {
            let message = format!("{error:#}");
            if json {
                output::json(&serde_json::json!({ "error": { "kind": "failed", "message": message } }));
            }
            output::complain(&message);
            return match fault::kind(&error) {
                Some(fault::Kind::Permission) => exit::PERMISSION,
                Some(fault::Kind::Configuration) | None => exit::FAILED,
            };
        }
    };
    let place = directory.display();
    let (interfaces, said) = match detached {
        Detached::Nothing => (0, format!("nothing is pinned in {place}\n")),
        Detached::Interfaces(number) => {
            let on = if number == 1 { "interface" } else { "interfaces" };
            (number, format!("detached from {number} {on}; {place} is removed\n"))
        }
    };
    if json {
        output::json(&serde_json::json!({ "interfaces": interfaces }));
    } else {
        output::answer(&said);
    }
    exit::OK
}

/// Addresses that the daemon behind `socket` listens on.
fn held(socket: &Path) -> Vec<String> {
    match client::ask(socket, Command::Status) {
        Ok(Answer::Status(status)) => status.listeners.into_iter().chain(status.metrics).collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// What is only rehearsed.
fn names(config: &Config) -> Vec<String> {
    config.kernel.dry_run.iter().map(|feature| feature.label().to_owned()).collect()
}

fn summary(path: &Path, config: &Config) -> String {
    let count = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    format!(
        "{} is valid: {}, {}, {}, {}\n",
        path.display(),
        count(config.listeners.len(), "listener"),
        count(config.routes.len(), "route"),
        count(config.tokens.len(), "token issuer"),
        count(config.upstreams.len(), "upstream"),
    )
}
