//! The shape and the words of single files.

use std::path::Path;

use super::{File, Finding};

/// Longer files are split: nobody reads them as a whole.
const MOST_LINES: usize = 500;
/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "types", "manager", "handler"];
/// Unfinished work; written apart, so that this file keeps its own rule.
const UNFINISHED: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("#[", "ignore")];
/// Folders of one machine, as a path begins.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tm", "p/")];

/// Servers that packages come from: which one is used is a matter of the machine.
const REGISTRIES: [&str; 2] = [concat!("crates", ".io"), concat!("deb.debian", ".org")];

/// Size, header and name of a Rust file.
pub(super) fn shape(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = file.text.lines().count();
    if lines > MOST_LINES {
        findings.push(
            file.finding(MOST_LINES + 1, format!("{lines} lines, {MOST_LINES} at most; split the file")),
        );
    }
    let stem = file.path.file_stem().unwrap_or_default().to_string_lossy();
    if stem == "mod" {
        findings.push(file.finding(0, "write `foo.rs` beside `foo/` instead of `mod.rs`"));
    }
    if EMPTY_NAMES.contains(&stem.as_ref()) {
        findings
            .push(file.finding(0, format!("`{stem}` says nothing of what is inside; name what it decides")));
    }
    if !after_attributes(&file.text).is_some_and(|line| line.starts_with("//! ")) {
        findings
            .push(file.finding(1, "begin with `//!`: what it decides, who calls it, what it must never do"));
    }
    findings
}

/// The first line that is neither empty nor part of an inner attribute.
fn after_attributes(text: &str) -> Option<&str> {
    let mut depth = 0usize;
    text.lines().find(|line| {
        let attribute = depth > 0 || line.starts_with("#![");
        if attribute {
            depth = (depth + line.matches('[').count()).saturating_sub(line.matches(']').count());
        }
        !attribute && !line.trim().is_empty()
    })
}

/// Words that stand for unfinished work or for one machine.
pub(super) fn words(file: &File) -> Vec<Finding> {
    if file.path == Path::new("Cargo.lock") || file.path == Path::new("LICENSE") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (i, line) in file.text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| line.contains(*word)) {
            findings.push(file.finding(i + 1, format!("`{word}`: finish it, or leave it out")));
        }
        for host in REGISTRIES.iter().filter(|host| line.contains(*host)) {
            findings.push(file.finding(i + 1, format!("`{host}` is a server of one machine's choice")));
        }
        for path in MACHINE_PATHS.iter().filter(|path| begins_a_path(line, path)) {
            findings.push(file.finding(i + 1, format!("`{path}` is a folder of one machine")));
        }
    }
    findings
}

/// Whether `path` stands in the line as the beginning of an absolute path, not in the middle of another one.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '~' | '*'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.to_owned() }
    }

    #[test]
    fn each_rule_of_shape_is_kept() {
        let good = file("a/src/limiter.rs", "//! Decides limits.\n");
        assert_eq!(shape(&good), []);
        assert_eq!(shape(&file("a/src/main.rs", "#![no_std]\n//! The program.\n")), []);
        let attribute = "#![allow(\n    clippy::panic,\n    reason = \"a test\"\n)]\n\n//! Tests.\n";
        assert_eq!(shape(&file("a/tests/a.rs", attribute)), []);
        let long = format!("//! Long.\n{}", "x\n".repeat(500));
        for (path, text) in [
            ("a/src/mod.rs", "//! Here.\n"),
            ("a/src/utils.rs", "//! Here.\n"),
            ("a/src/limiter.rs", "use std::fs;\n"),
            ("a/src/limiter.rs", long.as_str()),
        ] {
            assert_eq!(shape(&file(path, text)).len(), 1, "{path}");
        }
    }

    #[test]
    fn unfinished_work_and_machine_paths_are_found() {
        let text = format!("fine\n// {}: later\nread {}x\n", UNFINISHED[0], MACHINE_PATHS[0]);
        let found = words(&file("a.md", &text));
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3]);
        assert!(!begins_a_path(&format!("net{}x", MACHINE_PATHS[0]), MACHINE_PATHS[0]));
    }
}
