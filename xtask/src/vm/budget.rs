//! How many instructions the verifier of each kernel walked through, as recorded in `xtask/verifier-budget.toml`, and
//! whether a count is still within what was recorded. Called by `vm`.
//!
//! The verifier gives up at a million. A change that suddenly costs much more is to be noticed here, by the one who makes
//! it, and not by the kernel of a customer.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::root;

/// What a count may exceed its record by, in percent: room for another compiler's mood, not for another walk.
const MARGIN: u64 = 10;

const HEAD: &str = "\
# Instructions that each kernel's verifier walked through, by program; `cargo xtask vm --record` writes this file,
# `cargo xtask vm` fails where a count exceeds its record by more than 10 %. The verifier gives up at 1000000.
";

/// Kernel -> program -> instructions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Budget(BTreeMap<String, BTreeMap<String, u64>>);

/// What was counted, from lines like `verified: enforcer = 1234`.
pub(super) fn counts<'a>(lines: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, u64> {
    let read = |line: &String| {
        let (_, rest) = line.split_once("verified: ")?;
        let (name, count) = rest.split_once(" = ")?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    lines.into_iter().filter_map(read).collect()
}

impl Budget {
    /// Reads the committed file.
    pub(super) fn read() -> Result<Self> {
        let text = fs::read_to_string(path()).with_context(|| format!("cannot read {}", path().display()))?;
        Self::parse(&text)
    }

    /// The file's few forms of lines; xtask has no TOML library.
    fn parse(text: &str) -> Result<Self> {
        let mut budget = Self::default();
        let mut kernel = None;
        for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
            let bad = || format!("verifier-budget.toml:{number}: `{line}`");
            if line.is_empty() || line.starts_with('#') {
            } else if let Some(name) = line.strip_prefix("[\"").and_then(|rest| rest.strip_suffix("\"]")) {
                kernel = Some(budget.0.entry(name.to_owned()).or_default());
            } else {
                let (name, count) = line.split_once('=').with_context(bad)?;
                let counts = kernel.as_mut().with_context(bad)?;
                counts.insert(
                    name.trim().trim_matches('"').to_owned(),
                    count.trim().parse().with_context(bad)?,
                );
            }
        }
        Ok(budget)
    }

    /// Holds what was counted on a kernel against its record; answers one line for each count.
    pub(super) fn check(&self, kernel: &str, counted: &BTreeMap<String, u64>) -> Result<Vec<String>> {
        let none = BTreeMap::new();
        let recorded = self.0.get(kernel).unwrap_or(&none);
        let mut lines = Vec::new();
        let mut wrong = Vec::new();
        for (program, count) in counted {
            let Some(record) = recorded.get(program) else {
                wrong.push(format!("{program}: {count} instructions, and none are recorded"));
                continue;
            };
            let line = format!("{program}: {count} verified instructions, {record} recorded");
            if count * 100 > record * (100 + MARGIN) {
                wrong.push(format!("{line}, more than {MARGIN} % beyond"));
            }
            lines.push(line);
        }
        let lost = recorded.keys().filter(|program| !counted.contains_key(*program));
        wrong.extend(lost.map(|program| format!("{program}: recorded, but not counted")));
        if wrong.is_empty() {
            return Ok(lines);
        }
        bail!("{} (if it is meant to be so: `cargo xtask vm --record {kernel}`)", wrong.join("; "))
    }

    /// Takes counts over as the new record.
    pub(super) fn record(&mut self, kernel: &str, counted: BTreeMap<String, u64>) -> Result<()> {
        self.0.insert(kernel.to_owned(), counted);
        fs::write(path(), self.render()).with_context(|| format!("cannot write {}", path().display()))
    }

    fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        for (kernel, counts) in &self.0 {
            text += &format!("\n[\"{kernel}\"]\n");
            text.extend(counts.iter().map(|(program, count)| format!("\"{program}\" = {count}\n")));
        }
        text
    }
}

fn path() -> PathBuf {
    root().join("xtask/verifier-budget.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut budget = Budget::default();
        budget.0.insert("6.1".to_owned(), counted(&[("enforcer", 1000), ("enforcer, diagnostics", 1100)]));
        budget.0.insert("7".to_owned(), counted(&[("enforcer", 900)]));
        assert_eq!(Budget::parse(&budget.render()).unwrap(), budget);
        assert!(Budget::parse("\"a\" = 1\n").is_err(), "no kernel above");
        assert!(Budget::parse("[\"6.1\"]\na = much\n").is_err());
        Budget::read().unwrap();
    }

    #[test]
    fn a_count_may_exceed_its_record_by_the_margin_and_no_more() {
        let mut budget = Budget::default();
        budget.0.insert("6.1".to_owned(), counted(&[("enforcer", 1000)]));
        assert!(budget.check("6.1", &counted(&[("enforcer", 1100)])).is_ok());
        assert!(budget.check("6.1", &counted(&[("enforcer", 1101)])).is_err());
        assert!(budget.check("6.1", &counted(&[])).is_err(), "nothing counted");
        assert!(budget.check("6.1", &counted(&[("enforcer", 1), ("other", 1)])).is_err(), "not recorded");
        assert!(budget.check("6.12", &counted(&[("enforcer", 1)])).is_err(), "not recorded");
    }

    #[test]
    fn counts_are_found_in_what_tests_print() {
        let lines = ["test a ... verified: enforcer = 1234".to_owned(), "noise".to_owned()];
        assert_eq!(counts(&lines), counted(&[("enforcer", 1234)]));
    }
}
