//! Tests that passed, failed, or could not be run, read from what test runs print. Called by `suite` and `vm`.

use std::fmt;

/// Counts of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub passed: u64,
    pub failed: u64,
    /// For want of something in the kernel at hand: neither passed nor failed.
    pub not_run: u64,
}

impl Tally {
    /// One test.
    pub(crate) fn of(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed), not_run: 0 }
    }

    /// Adds another one's counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.not_run += other.not_run;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.not_run > 0 {
            write!(f, ", {} not run here", self.not_run)?;
        }
        Ok(())
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; ...` and a plain `3 passed, 0 failed` or `3 passed, 0 failed, 1 not run
/// here`; other lines count nothing.
pub(crate) fn parse(line: &str) -> Tally {
    let text = match line.strip_prefix("test result: ") {
        Some(rest) => rest.split_once(". ").map_or("", |(_, counts)| counts),
        None => line,
    };
    let mut words = text.split([' ', ',', ';']).filter(|word| !word.is_empty());
    let mut next = |label: &str| {
        let count = words.next()?.parse().ok()?;
        (words.next()? == label).then_some(count)
    };
    match (next("passed"), next("failed")) {
        (Some(passed), Some(failed)) => Tally { passed, failed, not_run: next("not").unwrap_or(0) },
        _ => Tally::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_what_test_runs_print() {
        let line =
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        let tally = |passed, failed, not_run| Tally { passed, failed, not_run };
        assert_eq!(parse(line), tally(12, 0, 0));
        assert_eq!(parse("test result: FAILED. 2 passed; 1 failed; 0 ignored"), tally(2, 1, 0));
        assert_eq!(parse("14 passed, 2 failed"), tally(14, 2, 0));
        assert_eq!(parse(&tally(1, 0, 3).to_string()), tally(1, 0, 3));
        for other in
            ["", "running 3 tests", "test a::b ... ok", "3 passed", "passed 3, failed 0", "test result: "]
        {
            assert_eq!(parse(other), Tally::default(), "{other}");
        }
    }
}
