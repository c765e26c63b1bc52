//! Every check and test in the order in which continuous integration runs them, with one sum at the end.
//!
//! All steps share one profile and one environment, so that nothing is built twice.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    compile::{binary, with_program},
    demo,
    process::{cargo, output, program, spell},
    setup,
    tally::{self, Tally},
    tidy,
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

/// Name, tally and seconds of each step so far.
struct Run {
    steps: Vec<(String, Tally, f64, bool)>,
}

/// `cargo xtask test` and `cargo xtask ci`
pub(crate) fn command(parts: Parts) -> Result<()> {
    let mut run = Run { steps: Vec::new() };
    if parts == Parts::Rootless {
        // What cannot be had says so, and its tests that they are not run.
        if let Err(missing) = setup::clients() {
            eprintln!("{missing}");
        }
        run.rootless(setup::toolchain_is_there(), false);
        return run.finish(None);
    }
    let setup = setup::everything();
    if parts == Parts::All {
        run.own_step("clients", || setup::clients().map_err(|missing| anyhow!("{missing}")));
        run.rootless(setup.require_build().is_ok(), true);
    }
    let blocked = setup.require_system().err();
    if blocked.is_none() {
        run.system();
    }
    run.finish(blocked)
}

impl Run {
    /// `clients`: the interoperation tests must find what they need.
    fn rootless(&mut self, program: bool, clients: bool) {
        let cargo = || if program { with_program(cargo()) } else { cargo() };
        self.own_step("tools", setup::lint_tools);
        self.step("format", cargo().args(["fmt", "--all", "--check"]));
        self.own_step("tidy", tidy::command);
        self.dependencies();
        // The system tests are named because `--tests` passes over what plain `cargo test` does not run; `--all-targets` would
        // pass over them even when they are named.
        let mut lint = cargo();
        lint.args(["clippy", "--quiet", "--lib", "--bins", "--tests", "--test", "system", "--test", "wires"]);
        self.step("lint", lint.args(["--", "-D", "warnings"]));
        let mut tests = cargo();
        if clients {
            tests.env("ENFORCER_REQUIRE_CLIENTS", "1");
        }
        self.step("rootless tests", tests.args(["test", "--quiet", "--no-fail-fast"]));
    }

    /// What `deny.toml` says of licenses, bans and sources. Advisories come from the network: they are asked for by hand.
    fn dependencies(&mut self) {
        let name = "dependencies";
        if output(cargo().args(["deny", "--version"])).is_ok() {
            self.step(name, cargo().args(["deny", "--locked", "check", "licenses", "bans", "sources"]));
            return;
        }
        println!(
            "\n== {name}\nNOT CHECKED: there is no cargo-deny; `cargo install cargo-deny --locked` brings it"
        );
        self.steps.push((name.to_owned(), Tally { not_run: 1, ..Tally::default() }, 0.0, true));
    }

    fn system(&mut self) {
        let cargo = || with_program(cargo());
        if !self.step("build", cargo().args(["build", "--quiet", "--bin", "enforcer", "--bin", "demo"])) {
            return;
        }
        let mut tests = cargo();
        // Without `--package`: a smaller selection could mean other features, and then another build.
        tests.args(["test", "--quiet", "--test", "system", "--test", "wires", "--no-fail-fast"]);
        self.step("system tests", tests.env("ENFORCER_BIN", binary("debug", "enforcer")));
        self.step("demo", &mut demo::story(false));
        // The floor; the other kernels are one command: `cargo xtask vm`.
        match std::env::current_exe() {
            Ok(own) => drop(self.step("kernel 6.1", program(own).args(["vm", "6.1", "--quick"]))),
            Err(error) => self.own_step("kernel 6.1", || bail!("this program does not find itself: {error}")),
        }
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
        let tally = Tally { failed: u64::from(result.is_err()), ..Tally::default() };
        self.steps.push((name.to_owned(), tally, start.elapsed().as_secs_f64(), result.is_ok()));
    }

    fn finish(self, blocked: Option<anyhow::Error>) -> Result<()> {
        println!("\n== summary");
        let mut sum = Tally::default();
        for (name, tally, seconds, good) in &self.steps {
            let word = match (good, tally) {
                (false, _) => "FAILED",
                (true, Tally { passed: 0, failed: 0, not_run: 1.. }) => "NOT RUN",
                (true, _) => "ok",
            };
            println!("{name:<16} {word:<7} {seconds:>7.1} s  {tally}");
            sum.add(*tally);
        }
        if let Some(reason) = &blocked {
            println!("system tests and demo NOT RUN: {reason:#}");
            println!("To run only what works here: cargo xtask test --rootless");
        }
        println!("{sum}");
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
        tally.add(tally::parse(&line));
    }
    Ok((tally, child.wait()?.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_is_not_good() {
        assert!(!follow(&mut Command::new("false")).unwrap().1);
        assert_eq!(
            follow(Command::new("echo").arg("4 passed, 1 failed")).unwrap(),
            (Tally { passed: 4, failed: 1, not_run: 0 }, true)
        );
    }
}
