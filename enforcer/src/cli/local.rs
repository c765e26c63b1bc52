//! The verbs that need no running daemon: to be one, and to judge a configuration.

use std::path::{Path, PathBuf};

use super::{
    exit::{self, Exit},
    output,
};
use crate::config::{self, Config, Error, Finding};

/// The program behind the verbs: `main` hands it in, for the command line knows nothing of the daemon's inside.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Is the daemon, with the configuration that was read from the file, until it ends.
    pub run: fn(Config, PathBuf) -> Result<(), Stopped>,
    /// Reads everything that the configuration names, as the daemon would.
    pub verify: fn(&Config) -> anyhow::Result<()>,
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
    errors: Vec<Error>,
    findings: Vec<Finding>,
}

/// `check`: the file first, then what it names.
pub fn check(program: &Program, path: &Path, json: bool) -> Exit {
    let (errors, findings, summary) = match config::load(path) {
        Err(errors) => (errors.0, Vec::new(), String::new()),
        Ok(config) => (Vec::new(), findings(program, &config), summary(path, &config)),
    };
    let report = Report { valid: errors.is_empty() && findings.is_empty(), errors, findings };
    if json {
        output::json(&report);
    } else if report.valid {
        output::answer(&summary);
    } else {
        output::problems(&report.errors);
        output::problems(&report.findings);
    }
    if report.valid { exit::OK } else { exit::CONFIGURATION }
}

/// What the machine lacks; when it seems to lack nothing, what the daemon would stumble over nevertheless.
fn findings(program: &Program, config: &Config) -> Vec<Finding> {
    let mut findings = config::check_environment(config);
    if findings.is_empty()
        && let Err(error) = (program.verify)(config)
    {
        findings.push(Finding {
            key: "policy".to_owned(),
            problem: format!("{error:#}"),
            remedy: "correct the file or the key that is named".to_owned(),
        });
    }
    findings
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
