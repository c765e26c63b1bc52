//! Every check and test in the order in which continuous integration runs them, with one sum at the end.
//!
//! All steps share one profile and one environment, so that nothing is built twice.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    compile::{binary, with_program},
    demo,
    process::{cargo, spell},
    setup, tidy,
};

/// Which part of the suite runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Both parts.
    All,
    /// What needs neither root nor the eBPF toolchain.
    Rootless,
    /// What needs both.
    System,
}

impl Parts {
    /// From the flags of `cargo xtask test`, which exclude each other.
    pub(crate) fn from_flags(rootless: bool, system: bool) -> Self {
        match (rootless, system) {
            (true, _) => Self::Rootless,
            (_, true) => Self::System,
            _ => Self::All,
        }
    }
}

/// Tests that passed and failed, read from the output of test runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// Name, tally and seconds of each step so far.
struct Run {
    steps: Vec<(String, Tally, f64, bool)>,
}

/// `cargo xtask test` and `cargo xtask ci`
pub(crate) fn command(parts: Parts) -> Result<()> {
    let mut run = Run { steps: Vec::new() };
    if parts == Parts::Rootless {
        run.rootless(setup::toolchain_is_there());
        return run.finish(None);
    }
    let setup = setup::everything();
    if parts == Parts::All {
        run.rootless(setup.require_build().is_ok());
    }
    let blocked = setup.require_system().err();
    if blocked.is_none() {
        run.system();
    }
    run.finish(blocked)
}

impl Run {
    fn rootless(&mut self, program: bool) {
        let cargo = || if program { with_program(cargo()) } else { cargo() };
        self.own_step("tools", setup::lint_tools);
        self.step("format", cargo().args(["fmt", "--all", "--check"]));
        self.own_step("tidy", tidy::command);
        // The system tests are named because `--all-targets` passes over what plain `cargo test` does not run.
        let lint = ["clippy", "--quiet", "--all-targets", "--test", "system", "--", "-D", "warnings"];
        self.step("lint", cargo().args(lint));
        self.step("rootless tests", cargo().args(["test", "--quiet", "--no-fail-fast"]));
    }

    fn system(&mut self) {
        let cargo = || with_program(cargo());
        if !self.step("build", cargo().args(["build", "--quiet", "--bin", "enforcer", "--bin", "demo"])) {
            return;
        }
        let mut tests = cargo();
        // Without `--package`: a smaller selection could mean other features, and then another build.
        tests.args(["test", "--quiet", "--test", "system", "--no-fail-fast"]);
        self.step("system tests", tests.env("ENFORCER_BIN", binary("debug", "enforcer")));
        self.step("demo", &mut demo::story(false));
    }

    /// Runs one command with its output shown; a failure does not keep the next step from running.
    fn step(&mut self, name: &str, command: &mut Command) -> bool {
        println!("\n== {name}: {}", spell(command));
        let start = Instant::now();
        let (mut tally, error) = match follow(command) {
            Ok((tally, true)) => (tally, None),
            Ok((tally, false)) => (tally, Some(format!("{name} failed"))),
            Err(error) => (Tally::default(), Some(format!("{name}: {error:#}"))),
        };
        if let Some(error) = &error {
            eprintln!("{error}");
            tally.failed = tally.failed.max(1);
        }
        self.steps.push((name.to_owned(), tally, start.elapsed().as_secs_f64(), error.is_none()));
        error.is_none()
    }

    fn own_step(&mut self, name: &str, check: impl Fn() -> Result<()>) {
        println!("\n== {name}");
        let start = Instant::now();
        let result = check();
        if let Err(error) = &result {
            eprintln!("{error:#}");
        }
        let tally = Tally { passed: 0, failed: u64::from(result.is_err()) };
        self.steps.push((name.to_owned(), tally, start.elapsed().as_secs_f64(), result.is_ok()));
    }

    fn finish(self, blocked: Option<anyhow::Error>) -> Result<()> {
        println!("\n== summary");
        let mut sum = Tally::default();
        for (name, tally, seconds, good) in &self.steps {
            let word = if *good { "ok" } else { "FAILED" };
            println!(
                "{name:<16} {word:<6} {seconds:>7.1} s  {} passed, {} failed",
                tally.passed, tally.failed
            );
            sum.passed += tally.passed;
            sum.failed += tally.failed;
        }
        if let Some(reason) = &blocked {
            println!("system tests and demo NOT RUN: {reason:#}");
            println!("To run only what works here: cargo xtask test --rootless");
        }
        println!("{} passed, {} failed", sum.passed, sum.failed);
        let good = blocked.is_none() && self.steps.iter().all(|(.., good)| *good);
        // The sum is the last line, so the exit code speaks alone.
        std::process::exit(i32::from(!good));
    }
}

/// Runs a command, shows its output line by line, and adds up what test runs report.
fn follow(command: &mut Command) -> Result<(Tally, bool)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", spell(command)))?;
    let Some(stdout) = child.stdout.take() else { bail!("no output to read") };
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        let result = parse(&line);
        tally.passed += result.passed;
        tally.failed += result.failed;
    }
    Ok((tally, child.wait()?.success()))
}

/// Reads `test result: ok. 3 passed; 0 failed; ...` and a plain `3 passed, 0 failed`; other lines count nothing.
fn parse(line: &str) -> Tally {
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
        (Some(passed), Some(failed)) => Tally { passed, failed },
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
        assert_eq!(parse(line), Tally { passed: 12, failed: 0 });
        assert_eq!(
            parse("test result: FAILED. 2 passed; 1 failed; 0 ignored"),
            Tally { passed: 2, failed: 1 }
        );
        assert_eq!(parse("14 passed, 2 failed"), Tally { passed: 14, failed: 2 });
        for other in
            ["", "running 3 tests", "test a::b ... ok", "3 passed", "passed 3, failed 0", "test result: "]
        {
            assert_eq!(parse(other), Tally::default(), "{other}");
        }
    }

    #[test]
    fn a_command_that_fails_is_not_good() {
        assert!(!follow(&mut Command::new("false")).unwrap().1);
        assert_eq!(
            follow(Command::new("echo").arg("4 passed, 1 failed")).unwrap(),
            (Tally { passed: 4, failed: 1 }, true)
        );
    }
}
