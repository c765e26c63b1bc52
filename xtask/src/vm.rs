//! Runs the system tests under other kernels than the one at hand: `cargo xtask vm [KERNEL...]`.
//!
//! Each kernel is booted in a virtual machine with the tests in its first file system. A kernel below the floor has to be
//! refused by the daemon in one line. What a kernel cannot show is said to be not run, never to have passed.

mod budget;
mod choice;
mod guest;
mod image;
mod kernels;
mod modules;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use self::{
    budget::Budget,
    guest::{Accelerator, Guest, Step},
    image::Image,
    kernels::{MATRIX, Series},
};
use crate::{
    compile::{binary, with_program},
    process::{cargo, find, output, program, run, spell, target},
    setup,
    tally::{self, Tally},
};

/// What guests run beside the daemon and the tests, as it is installed here.
const PROGRAMS: [&str; 7] = ["ip", "tc", "ss", "curl", "openssl", "h2load", "setpriv"];
/// What only guests need, by package and file; unpacked, not installed.
const GUEST_TOOLS: [(&str, &str); 2] = [("busybox-static", "busybox"), ("ethtool", "ethtool")];
/// The test that prints what the verifier counted, and what it begins its lines with.
const VERIFIER_TEST: &str = "the_verifier_is_far_from_giving_up";
/// Emulated CPUs are some twenty times slower, and others may want the machine's.
const SUITE_SECONDS: u64 = 3_000;
const WIRES_SECONDS: u64 = 900;
/// The step with the system tests.
const SYSTEM: &str = "system tests";
/// By how much tests wait longer in a guest, for the same cause.
const PATIENCE: u32 = 5;

/// How `cargo xtask vm` was called.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kernels: 5.10 (which must be refused), 6.1, 6.12, 7 (the newest that there is). All of them, if none is named.
    kernels: Vec<String>,
    /// Take what the verifier counts as the new record.
    #[arg(long)]
    record: bool,
    /// Do not fail because a kernel cannot be downloaded.
    #[arg(long)]
    allow_missing: bool,
    /// Of the system tests only those that a kernel is most likely to break: packet cases, loading, attaching, TLS.
    #[arg(long)]
    quick: bool,
    /// Of the system tests only those with this in their name, whatever guests run otherwise.
    #[arg(long, conflicts_with_all = ["quick", "load"])]
    only: Option<String>,
    /// Only load the programs: what the verifier counts, in a minute.
    #[arg(long, conflicts_with = "quick")]
    load: bool,
    /// Do not try KVM.
    #[arg(long)]
    emulate: bool,
}

/// What is the same for every kernel.
struct Plan<'a> {
    folder: &'a Path,
    tests: &'a Tests,
    filters: String,
    load: bool,
}

/// One kernel's result.
struct Outcome {
    series: &'static Series,
    release: String,
    seconds: u64,
    tally: Tally,
    /// What went wrong, a line each.
    wrong: Vec<String>,
    /// What is worth knowing.
    notes: Vec<String>,
    missing: bool,
}

/// `cargo xtask vm`
pub(crate) fn command(arguments: &Arguments) -> Result<()> {
    let chosen = choose(&arguments.kernels)?;
    setup::everything().require_system()?;
    setup::programs(setup::VM_PROGRAMS).map_err(|missing| anyhow::anyhow!("{missing}"))?;
    let folder = target().join("vm");
    fs::create_dir_all(&folder)?;
    let tests = build()?;
    let mut budget = Budget::read()?;
    let mut accelerator = if arguments.emulate || !Path::new("/dev/kvm").exists() {
        Accelerator::Tcg
    } else {
        Accelerator::Kvm
    };
    let mut outcomes = Vec::new();
    for series in chosen {
        let begun = Instant::now();
        println!("\n== kernel {}", series.name);
        let mut outcome = Outcome {
            series,
            release: String::new(),
            seconds: 0,
            tally: Tally::default(),
            wrong: Vec::new(),
            notes: Vec::new(),
            missing: false,
        };
        match kernels::obtain(series, &folder.join(series.name)) {
            Err(error) => {
                outcome.missing = true;
                outcome.notes.push(format!("{error:#}"));
            }
            Ok(kernel) => {
                let record = arguments.record.then_some(&mut budget);
                let known = Budget::read()?;
                let plan = Plan {
                    folder: &folder,
                    tests: &tests,
                    filters: choice::filters(arguments.quick, arguments.only.as_deref()),
                    load: arguments.load,
                };
                let result = outcome.fill(&kernel, &plan, &known, record, &mut accelerator);
                outcome.wrong.extend(result.err().map(|error| format!("{error:#}")));
            }
        }
        outcome.seconds = begun.elapsed().as_secs();
        outcome.wrong.iter().for_each(|line| println!("{line}"));
        outcomes.push(outcome);
    }
    summary(&outcomes, arguments.allow_missing)
}

fn choose(names: &[String]) -> Result<Vec<&'static Series>> {
    if names.is_empty() {
        return Ok(MATRIX.iter().collect());
    }
    let find = |name: &String| {
        let known: Vec<&str> = MATRIX.iter().map(|series| series.name).collect();
        let name = name.trim_end_matches(".x");
        let found = MATRIX.iter().find(|series| series.name == name);
        found.with_context(|| format!("there is no kernel `{name}` here; there are {}", known.join(", ")))
    };
    names.iter().map(find).collect()
}

/// Test binaries by name.
type Tests = Vec<(&'static str, PathBuf)>;

/// Builds daemon and tests as the other steps of a run do, and finds the tests' files.
fn build() -> Result<Tests> {
    run(with_program(cargo()).args(["build", "--quiet", "--bin", "enforcer", "--bin", "demo"]))?;
    let mut tests = with_program(cargo());
    tests.args(["test", "--no-run", "--test", "system", "--test", "wires"]);
    let done = tests.output().with_context(|| format!("cannot start {}", spell(&tests)))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        bail!("{} failed:\n{said}", spell(&tests));
    }
    let executable = |name: &'static str| {
        let source = format!("Executable tests/{name}.rs (");
        let line = said.lines().find_map(|line| line.trim().strip_prefix(&source)?.strip_suffix(')'));
        let path = line.with_context(|| format!("cargo names no executable of tests/{name}.rs:\n{said}"))?;
        Ok((name, crate::process::root().join(path)))
    };
    ["system", "wires"].into_iter().map(executable).collect()
}

impl Outcome {
    fn fill(
        &mut self,
        kernel: &kernels::Kernel,
        plan: &Plan<'_>,
        known: &Budget,
        record: Option<&mut Budget>,
        accelerator: &mut Accelerator,
    ) -> Result<()> {
        let own = plan.folder.join(self.series.name);
        let archive = own.join("image");
        image(kernel, self.series, plan)?.write(&archive)?;
        let limit = Duration::from_secs(SUITE_SECONDS + 2 * WIRES_SECONDS);
        let guest = Guest { kernel: &kernel.image, image: &archive, folder: &own, limit };
        let transcript = guest.run(accelerator)?;
        self.release.clone_from(&transcript.release);
        self.wrong.extend(transcript.broken);
        for step in &transcript.steps {
            println!("{}: ended with {} after {} s", step.name, step.code, step.seconds);
            let judged = match step.name.as_str() {
                "refusal" => refused(step).map(|line| self.notes.push(format!("refused: {line}"))),
                "programs" => programs(step, self.series, known, record.is_some()).map(|(lines, tally)| {
                    self.notes.extend(lines);
                    self.tally.add(tally);
                }),
                _ => self.tests(step),
            };
            if let Err(error) = judged {
                // Everything that it said: what came before is often what explains it.
                step.lines.iter().for_each(|line| println!("    {line}"));
                self.wrong.push(format!("{}: {error:#}", step.name));
            }
        }
        let expected = if self.series.refused || plan.load { 1 } else { 3 };
        if !self.series.refused && plan.load {
            self.notes.push("not run: system tests, wires".to_owned());
        } else if !self.series.refused {
            // The verifier's test has a step of its own.
            let left =
                choice::left_out(transcript.steps.iter().filter(|s| s.name == SYSTEM).flat_map(|s| &s.lines));
            self.tally.not_run += left.saturating_sub(1);
        }
        if transcript.steps.len() != expected {
            bail!("{} of {expected} steps were run", transcript.steps.len());
        }
        if let Some(budget) = record
            && let Some(step) = transcript.steps.iter().find(|step| step.name == "programs")
        {
            budget.record(self.series.name, budget::counts(&step.lines))?;
        }
        Ok(())
    }

    fn tests(&mut self, step: &Step) -> Result<()> {
        let mut tally = Tally::default();
        step.lines.iter().for_each(|line| tally.add(tally::parse(line)));
        self.tally.add(tally);
        if tally.not_run > 0 {
            let lines = step.lines.iter().filter(|line| line.contains("not run here"));
            self.notes.extend(lines.cloned());
        }
        if step.code == 137 {
            bail!("was ended after {} s", step.seconds);
        }
        if step.code != 0 || tally.failed > 0 || tally.passed == 0 {
            bail!("{} passed, {} failed, exit code {}", tally.passed, tally.failed, step.code);
        }
        Ok(())
    }
}

/// The daemon's answer to a kernel that is too old: one line that names the floor.
fn refused(step: &Step) -> Result<String> {
    let lines: Vec<&String> = step.lines.iter().filter(|line| !line.trim().is_empty()).collect();
    match lines[..] {
        [line] if step.code != 0 && line.contains("too old") && line.contains("6.1") => Ok(line.clone()),
        _ => bail!("exit code {} and {} lines instead of a refusal in one", step.code, lines.len()),
    }
}

/// What the verifier counted, against the record.
fn programs(step: &Step, series: &Series, known: &Budget, record: bool) -> Result<(Vec<String>, Tally)> {
    let mut tally = Tally::default();
    step.lines.iter().for_each(|line| tally.add(tally::parse(line)));
    if step.code != 0 || tally.passed == 0 {
        bail!("the programs do not load: exit code {}", step.code);
    }
    let counted = budget::counts(&step.lines);
    if counted.is_empty() {
        bail!("{VERIFIER_TEST} printed no count");
    }
    let told = || counted.iter().map(|(program, count)| format!("{program}: {count} verified instructions"));
    let lines = if record { told().collect() } else { known.check(series.name, &counted)? };
    Ok((lines, tally))
}

/// The first file system of a guest.
fn image(kernel: &kernels::Kernel, series: &Series, plan: &Plan<'_>) -> Result<Image> {
    let folder = plan.folder;
    let tools = folder.join("tools");
    let packages: Vec<&str> = GUEST_TOOLS.iter().map(|(package, _)| *package).collect();
    kernels::tools(&packages, &tools)?;
    let mut image = Image::default();
    image.file("/init", 0o755, include_bytes!("vm/init.sh"));
    for (_, name) in GUEST_TOOLS {
        let places = ["usr/bin", "bin", "usr/sbin", "sbin"].map(|place| tools.join(place).join(name));
        let path = places.iter().find(|path| path.is_file());
        let path = path.with_context(|| format!("the packages of the guest's tools hold no {name}"))?;
        if name == "busybox" {
            image.file("/bin/busybox", 0o755, &fs::read(path)?);
        } else {
            image.program(name, path)?;
        }
    }
    for name in PROGRAMS {
        let path = find(name).with_context(|| format!("there is no {name} here"))?;
        image.program(name, &path)?;
    }
    image.program("enforcer", &stripped(&binary("debug", "enforcer"), folder)?)?;
    for (name, path) in plan.tests {
        image.program(&format!("tests-{name}"), &stripped(path, folder)?)?;
    }
    image.file("/etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
    image.file("/etc/group", 0o644, b"root:x:0:\n");
    image.file("/etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n");
    let mut order = String::new();
    for module in modules::collect(&kernel.modules)? {
        image.file(format!("/modules/{}.ko", module.name), 0o644, &module.bytes);
        order += &format!("{}\n", module.name);
    }
    image.file("/modules/order", 0o644, order.as_bytes());
    let steps = if series.refused {
        certificate(folder, &mut image)?;
        image.file("/etc/enforcer/enforcer.toml", 0o644, REFUSED.as_bytes());
        "step refusal 120 enforcer run -c /etc/enforcer/enforcer.toml\n".to_owned()
    } else {
        let rest = if plan.load {
            String::new()
        } else {
            let filters = &plan.filters;
            format!(
                "step \"{SYSTEM}\" {SUITE_SECONDS} tests-system --skip {VERIFIER_TEST} {filters}\n\
                 step wires {WIRES_SECONDS} tests-wires --all\n"
            )
        };
        format!(
            "export ENFORCER_BIN=/usr/bin/enforcer ENFORCER_HANDSHAKES=200 ENFORCER_TEST_PATIENCE={PATIENCE}\n\
             step programs 300 tests-system {VERIFIER_TEST} --nocapture\n\
             {rest}"
        )
    };
    image.file("/steps", 0o644, steps.as_bytes());
    Ok(image)
}

/// What the daemon is started with where it must not start: everything in it is right.
const REFUSED: &str = r#"[kernel]
interfaces = ["lo"]

[[listener]]
address = "127.0.0.1:8443"
certificates = [{ chain = "/etc/enforcer/api.pem", key = "/etc/enforcer/api.key" }]

[upstream.api]
servers = ["http://127.0.0.1:9000"]

[[route]]
path = "/"
upstream = "api"
public = true
"#;

fn certificate(folder: &Path, image: &mut Image) -> Result<()> {
    let (chain, key) = (folder.join("api.pem"), folder.join("api.key"));
    let mut openssl: Command = program("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-subj", "/CN=api.test", "-addext", "subjectAltName=DNS:api.test", "-days", "2"]);
    output(openssl.arg("-keyout").arg(&key).arg("-out").arg(&chain))?;
    image.file("/etc/enforcer/api.pem", 0o644, &fs::read(&chain)?);
    image.file("/etc/enforcer/api.key", 0o600, &fs::read(&key)?);
    Ok(())
}

/// A copy without debug information, which nobody reads in a guest.
fn stripped(from: &Path, folder: &Path) -> Result<PathBuf> {
    let to = folder.join(from.file_name().unwrap_or_default());
    if find("strip").is_some() {
        output(program("strip").arg("--strip-debug").arg("-o").arg(&to).arg(from))?;
    } else {
        fs::copy(from, &to)?;
    }
    Ok(to)
}

fn summary(outcomes: &[Outcome], allow_missing: bool) -> Result<()> {
    println!();
    let mut sum = Tally::default();
    let mut good = true;
    for outcome in outcomes {
        let word = match (outcome.missing, outcome.wrong.is_empty()) {
            (true, _) => "NOT RUN",
            (false, true) => "ok",
            (false, false) => "FAILED",
        };
        good &= outcome.wrong.is_empty() && (!outcome.missing || allow_missing);
        let tally = outcome.tally;
        println!(
            "{:<5} {:<7} {:>5} s  {} passed, {} failed, {} not run  {}",
            outcome.series.name,
            word,
            outcome.seconds,
            tally.passed,
            tally.failed,
            tally.not_run,
            outcome.release
        );
        outcome.notes.iter().chain(&outcome.wrong).for_each(|line| println!("      {line}"));
        sum.add(tally);
        if outcome.series.refused && !outcome.missing {
            sum.add(Tally::of(outcome.wrong.is_empty()));
        } else if !outcome.wrong.is_empty() {
            sum.failed = sum.failed.max(1);
        }
    }
    if outcomes.iter().any(|outcome| outcome.missing) && !allow_missing {
        println!("kernels that cannot be had count as a failure; `--allow-missing` runs without them");
    }
    println!("{sum}");
    if !good {
        bail!("not every kernel is as it should be");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_chosen_by_name() {
        assert_eq!(choose(&[]).unwrap().len(), MATRIX.len());
        let names = ["6.1".to_owned(), "7.x".to_owned()];
        let chosen: Vec<&str> = choose(&names).unwrap().iter().map(|series| series.name).collect();
        assert_eq!(chosen, ["6.1", "7"]);
        assert!(choose(&["5.15".to_owned()]).unwrap_err().to_string().contains("6.12"));
    }

    #[test]
    fn a_refusal_is_one_line_and_an_exit_code() {
        let step = |code, lines: &[&str]| Step {
            name: "refusal".to_owned(),
            code,
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            seconds: 1,
        };
        let line = "error: Linux 5.10.0 is too old: the XDP program needs 6.1 or newer";
        assert_eq!(refused(&step(1, &[line, ""])).unwrap(), line);
        assert!(refused(&step(0, &[line])).is_err());
        assert!(refused(&step(1, &[line, "more"])).is_err());
        assert!(refused(&step(1, &["error: something else"])).is_err());
    }
}
