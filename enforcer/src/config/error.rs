//! What is wrong with a configuration file, where, and what to do about it. Collects everything before anything is
//! reported; never prints.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use super::named::{Named, Place};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Error {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// Like `route[2].limit.rate`, counting from 0; empty where no key is to blame.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}; {}", self.problem, self.remedy)
    }
}

/// Everything that is wrong, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Errors(pub Vec<Error>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

impl Error {
    /// The same line as a warning, as [`fmt::Display`] shows an error.
    pub fn warning(&self) -> String {
        format!("warning: {self}")
    }
}

/// More errors than this help nobody, and each one costs another reading of the file.
const MOST: usize = 100;

/// Errors of one file under way.
pub(super) struct Collector<'a> {
    text: &'a str,
    file: &'a Path,
    errors: Vec<Error>,
    warnings: Vec<Error>,
    /// What the file names outside itself.
    pub(super) named: Vec<(Place, Named)>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(text: &'a str, file: &'a Path) -> Self {
        Self { text, file, errors: Vec::new(), warnings: Vec::new(), named: Vec::new() }
    }

    /// Adds an error at a place in the text, unless there are enough.
    pub(super) fn add(&mut self, span: Range<usize>, key: &str, problem: String, remedy: String) {
        if self.is_full() {
            return;
        }
        let error = self.at(&span, key, problem, remedy);
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Adds what is allowed and probably not meant.
    pub(super) fn warn(&mut self, span: Range<usize>, key: &str, problem: String, remedy: String) {
        if self.warnings.len() < MOST {
            let warning = self.at(&span, key, problem, remedy);
            self.warnings.push(warning);
        }
    }

    /// The text at a place.
    pub(super) fn written(&self, span: &Range<usize>) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    fn at(&self, span: &Range<usize>, key: &str, problem: String, remedy: String) -> Error {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Error { file: self.file.to_owned(), line, key: key.to_owned(), problem, remedy }
    }

    /// Whether `key`, or something inside it, was reported already: it then counts as present.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.errors.iter().any(|error| {
            error.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Whether `section.name` was reported already, or all of `section`: its names are then not known.
    pub(super) fn knows_section(&self, section: &str, name: &str) -> bool {
        self.errors.iter().any(|error| error.key == section) || self.knows(&format!("{section}.{name}"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// Whether further errors are dropped.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MOST
    }

    /// The errors and the warnings, in the order of lines.
    pub(super) fn finish(mut self) -> (Vec<Error>, Vec<Error>) {
        self.errors.sort_by_key(|error| error.line);
        self.warnings.sort_by_key(|warning| warning.line);
        (self.errors, self.warnings)
    }
}
