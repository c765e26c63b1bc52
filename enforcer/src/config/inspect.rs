//! `enforcer check`: everything that is wrong with a file and with what it names, and what is allowed but probably not
//! meant, in one run. Called by the command line; the daemon itself uses [`super::load`].

use std::{fs, path::Path};

use super::{
    Config, Error, TlsFile, TokenAlgorithm, environment,
    load::{judge, text},
};

/// What came of an inspection.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The configuration, if the file itself has no error.
    pub config: Option<Config>,
    /// What keeps the daemon from starting, in the order of the file.
    pub errors: Vec<Error>,
    /// What does not.
    pub warnings: Vec<Error>,
}

/// Looks that need other parts of the daemon; this module knows none of them.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    /// Everything that is wrong with a JWK set.
    pub key_set: fn(&Path, &[TokenAlgorithm]) -> Vec<String>,
    /// What is wrong with a file for TLS.
    pub tls_file: fn(TlsFile, &Path) -> Option<String>,
    /// Addresses that the daemon behind a control socket listens on; none if no daemon answers.
    pub held: fn(&Path) -> Vec<String>,
}

/// Inspects the file at `path` and everything that it names.
pub fn inspect(path: &Path, probes: &Probes) -> Inspection {
    match text(path) {
        Ok(text) => inspect_text(&text, path, Some(probes)),
        Err(errors) => Inspection { config: None, errors: errors.0, warnings: Vec::new() },
    }
}

/// Inspects the text of a file that lies, or would lie, at `path`; without `probes` nothing outside the text.
pub fn inspect_text(text: &str, path: &Path, probes: Option<&Probes>) -> Inspection {
    let (config, mut collector) = judge(text, path);
    let config = config.filter(|_| collector.is_empty());
    if let Some(probes) = probes {
        environment::look(&mut collector, probes);
    }
    let (errors, warnings) = collector.finish();
    Inspection { config, errors, warnings }
}

/// Whether a folder is there.
pub(super) fn is_folder(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
