//! The rules of the house, as far as a program can check them. Called by `cargo xtask tidy` and by the test suite;
//! reads the files that git tracks or would track, changes nothing.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, output, program, root};

mod documents;
mod imports;
mod source;

/// One breach of a rule, in the form that editors jump to.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: PathBuf,
    /// From 1; 0 where the file as a whole is meant.
    line: usize,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.text),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.text),
        }
    }
}

/// A tracked text file.
struct File {
    /// Relative to the root of the checkout.
    path: PathBuf,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }

    fn finding(&self, line: usize, text: impl Into<String>) -> Finding {
        Finding { file: self.path.clone(), line, text: text.into() }
    }
}

/// What may lie at the top, besides dot files.
const TOP_LEVEL: [&str; 13] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "docs",
    "enforcer",
    "enforcer-common",
    "enforcer-ebpf",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
];

/// `xtask` lies at the top too.
const TASKS: &str = "xtask";

/// Crates that must stay out: aws-lc-rs is the only crypto provider.
const FOREIGN_CRYPTO: [&str; 3] = ["ring", "openssl", "openssl-sys"];

/// `cargo xtask tidy`
pub(crate) fn command() -> Result<()> {
    let files = tracked()?;
    let mut findings = top_level(&files);
    for file in &files {
        findings.extend(source::words(file));
        if file.is_rust() {
            findings.extend(source::shape(file));
            findings.extend(imports::directions(file));
        }
    }
    findings.extend(documents::configuration(&files));
    findings.extend(one_crypto_provider()?);
    if findings.is_empty() {
        println!("tidy: {} files in order", files.len());
        return Ok(());
    }
    for finding in &findings {
        println!("{finding}");
    }
    bail!("tidy: {} findings", findings.len());
}

/// Text files that git tracks, or would with the next `git add`.
fn tracked() -> Result<Vec<File>> {
    let list = output(program("git").args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]))
        .context("tidy asks git which files belong to the repository")?;
    let mut files = Vec::new();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        let path = Path::new(name);
        // Deleted but still in the index, or not text: neither has lines to check.
        if let Ok(text) = fs::read_to_string(root().join(path)) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    Ok(files)
}

fn top_level(files: &[File]) -> Vec<Finding> {
    let top = |file: &File| {
        file.path.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned())
    };
    let mut names: Vec<String> = files.iter().filter_map(top).collect();
    names.sort();
    names.dedup();
    let known = |name: &str| name.starts_with('.') || name == TASKS || TOP_LEVEL.contains(&name);
    let finding = |name: String| Finding {
        file: name.into(),
        line: 0,
        text: "does not belong at the top of the repository; find it a place below".to_owned(),
    };
    names.into_iter().filter(|name| !known(name)).map(finding).collect()
}

fn one_crypto_provider() -> Result<Vec<Finding>> {
    let tree = output(cargo().args([
        "tree",
        "--locked",
        "--workspace",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]))?;
    let mut found = Vec::new();
    for name in FOREIGN_CRYPTO {
        if tree.lines().any(|line| line.split(' ').next() == Some(name)) {
            found.push(Finding {
                file: "Cargo.lock".into(),
                line: 0,
                text: format!("`{name}` is linked in, and aws-lc-rs is to be the only provider; `cargo tree -i {name} -e normal` says by whom"),
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_at_the_top_are_found() {
        let file = |path: &str| File { path: path.into(), text: String::new() };
        let files = [file("README.md"), file(".gitignore"), file("xtask/src/main.rs"), file("notes/a.md")];
        let found = top_level(&files);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].file, Path::new("notes"));
    }
}
