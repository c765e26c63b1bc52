//! The verbs that need no running daemon: to be one, and to judge a configuration.

use std::path::Path;

use super::{
    exit::{self, Exit},
    output,
};
use crate::{
    config::{self, Config, Error, Finding},
    daemon,
    policy::Policy,
};

/// `run`: returns when the daemon has ended.
pub fn run(path: &Path) -> Exit {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            output::problems(&errors.0);
            return exit::CONFIGURATION;
        }
    };
    let Err(error) = daemon::run(config, path.to_owned()) else { return exit::OK };
    output::complain(&error.to_string());
    match error {
        daemon::Error::Configuration(_) => exit::CONFIGURATION,
        daemon::Error::Permission(_) => exit::PERMISSION,
        daemon::Error::Failed(_) => exit::FAILED,
    }
}

/// What `check` found.
#[derive(Debug, serde::Serialize)]
struct Report {
    valid: bool,
    errors: Vec<Error>,
    findings: Vec<Finding>,
}

/// `check`: the file first, then what it names.
pub fn check(path: &Path, json: bool) -> Exit {
    let (errors, findings, summary) = match config::load(path) {
        Err(errors) => (errors.0, Vec::new(), String::new()),
        Ok(config) => (Vec::new(), findings(&config), summary(path, &config)),
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

/// What the machine lacks; when it seems to lack nothing, what the policy stumbles over nevertheless.
fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = config::check_environment(config);
    if findings.is_empty()
        && let Err(error) = Policy::load(config)
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
