//! Boots a guest and reads what it says. Called by `vm`; what the results mean is decided there.
//!
//! The guest speaks on its second serial line, one event a line: `@vm boot RELEASE`, `@vm begin STEP`, `@vm end CODE
//! STEP`, `@vm done`; lines between begin and end are the step's own. Its console goes to a file, for when it does not
//! come as far.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::process::program;

/// How every event begins.
const MARK: &str = "@vm ";
/// KVM may be there and hang; a guest that has not spoken by then never will.
const KVM_PATIENCE: Duration = Duration::from_secs(10);
/// Emulated, on a busy machine, with a large archive to unpack.
const TCG_PATIENCE: Duration = Duration::from_secs(180);
/// Where two CPUs are emulated, one may still run the breakpoint by which a kernel patches its own code when the other has taken it away
/// again, and a booting kernel patches much of it.
const BOOTS: u32 = 3;
/// Lines of the console that an error quotes.
const QUOTED: usize = 12;

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// qemu itself: slow, and everywhere.
    Tcg,
}

/// What is booted, and for how long.
pub(super) struct Guest<'a> {
    pub kernel: &'a Path,
    pub image: &'a Path,
    /// Where console and transcript are written.
    pub folder: &'a Path,
    /// From the first sign of life to the last step.
    pub limit: Duration,
}

/// One step, as it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub name: String,
    /// Exit code; 137 if its time was up.
    pub code: i32,
    /// What it printed.
    pub lines: Vec<String>,
    pub seconds: u64,
}

/// Everything that a guest said.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    /// The kernel's own word for itself.
    pub release: String,
    pub steps: Vec<Step>,
    /// What the guest itself could not do.
    pub broken: Vec<String>,
}

impl Guest<'_> {
    /// Boots it by KVM if that answers, otherwise emulated; `accelerator` remembers for the next guest.
    pub(super) fn run(&self, accelerator: &mut Accelerator) -> Result<Transcript> {
        if *accelerator == Accelerator::Kvm {
            match self.boot(Accelerator::Kvm) {
                Ok(Some(transcript)) => return Ok(transcript),
                Ok(None) => {
                    println!("vm: KVM does not answer within {} s; emulating", KVM_PATIENCE.as_secs())
                }
                Err(error) => return Err(error),
            }
            *accelerator = Accelerator::Tcg;
        }
        for _ in 0..BOOTS {
            if let Some(transcript) = self.boot(Accelerator::Tcg)? {
                return Ok(transcript);
            }
            println!("vm: the guest's kernel panicked before its first word; booting again");
        }
        bail!("the guest's kernel panicked {BOOTS} times{}", quote(&self.console()))
    }

    fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// `None`: it did not get as far as the first line, and that may be the accelerator's fault.
    fn boot(&self, accelerator: Accelerator) -> Result<Option<Transcript>> {
        let console = self.console();
        let mut qemu = program("qemu-system-x86_64");
        match accelerator {
            Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Tcg => qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]),
        };
        // Two CPUs, since limits have to hold between them; memory for the archive, unpacked, and two daemons.
        qemu.args([
            "-smp",
            "2",
            "-m",
            "1536",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-net",
            "none",
        ]);
        qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
        qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.image);
        qemu.args(["-append", "console=ttyS0 panic=-1 loglevel=5 rdinit=/init"]);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Running(qemu.spawn().context("cannot start qemu-system-x86_64")?);
        let output = child.0.stdout.take().context("qemu has no output")?;
        let complaints = child.0.stderr.take().context("qemu has no errors")?;
        let complaints = thread::spawn(move || {
            BufReader::new(complaints).lines().map_while(Result::ok).collect::<Vec<_>>().join(" ")
        });
        let lines = follow(output);
        let patience = if accelerator == Accelerator::Kvm { KVM_PATIENCE } else { TCG_PATIENCE };
        let mut log = File::create(self.folder.join("transcript.log"))?;
        let mut reader = Reader::default();
        let mut deadline = Instant::now() + patience;
        while !reader.done {
            let wait = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(wait) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    let first = reader.transcript.release.is_empty();
                    reader.line(&line)?;
                    if first && !reader.transcript.release.is_empty() {
                        deadline = Instant::now() + self.limit;
                    }
                }
                Err(_) if accelerator == Accelerator::Kvm && reader.transcript.release.is_empty() => {
                    return Ok(None);
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the guest was not done in time ({}){}", reader.place(), quote(&console))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // Its output has ended, so it is about to end itself.
                    let status = child.0.wait()?;
                    let said = complaints.join().unwrap_or_default();
                    if reader.transcript.release.is_empty() && panicked(&console) {
                        return Ok(None);
                    }
                    bail!(
                        "the guest ended early ({}; qemu: {status} {said}){}",
                        reader.place(),
                        quote(&console)
                    )
                }
            }
        }
        Ok(Some(reader.transcript))
    }
}

/// A guest that ends with its reader.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn follow(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What a kernel that cannot go on says on its console.
const PANIC: &str = "Kernel panic";

fn panicked(console: &Path) -> bool {
    String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).contains(PANIC)
}

/// The end of the console, or what it says of a panic.
fn quote(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let panic = lines.iter().position(|line| line.contains(PANIC));
    let from =
        panic.unwrap_or(lines.len()).saturating_sub(QUOTED / 2).min(lines.len().saturating_sub(QUOTED));
    let quoted: String = lines.iter().skip(from).take(QUOTED).map(|line| format!("\n    {line}")).collect();
    let head = if panic.is_some() { "its kernel panicked" } else { "the end of its console" };
    format!("; {head} ({}):{quoted}", console.display())
}

#[derive(Default)]
struct Reader {
    transcript: Transcript,
    current: Option<(String, Vec<String>, Option<Instant>)>,
    done: bool,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        // The program before may have left half a line.
        let Some((_, event)) = line.split_once(MARK) else {
            if let Some((_, lines, _)) = &mut self.current {
                lines.push(line.to_owned());
            }
            return Ok(());
        };
        let (word, rest) = event.split_once(' ').unwrap_or((event, ""));
        match word {
            "boot" => rest.clone_into(&mut self.transcript.release),
            "broken" => self.transcript.broken.push(rest.to_owned()),
            "begin" => self.current = Some((rest.to_owned(), Vec::new(), Some(Instant::now()))),
            "end" => {
                let (code, name) = rest.split_once(' ').unwrap_or((rest, ""));
                let Some((begun, lines, since)) = self.current.take() else {
                    bail!("`{line}` without a begin")
                };
                if begun != name {
                    bail!("`{line}` ends {begun}");
                }
                let seconds = since.map_or(0, |since| since.elapsed().as_secs());
                let code = code.parse().with_context(|| format!("`{line}`"))?;
                self.transcript.steps.push(Step { name: begun, code, lines, seconds });
            }
            "done" => self.done = true,
            _ => bail!("the guest says `{line}`"),
        }
        Ok(())
    }

    fn place(&self) -> String {
        match (&self.current, self.transcript.release.is_empty()) {
            (_, true) => "before its first word".to_owned(),
            (Some((step, lines, _)), _) => {
                let last = lines.iter().rev().find(|line| !line.is_empty());
                format!("in `{step}`, last line: {}", last.map_or("none", String::as_str))
            }
            (None, _) => "between two steps".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_from_what_programs_print() {
        let mut reader = Reader::default();
        for line in [
            "@vm boot 6.1.0-50",
            "noise",
            "@vm begin a test",
            "one",
            "half a line @vm end 3 a test",
            "@vm broken module x",
        ] {
            reader.line(line).unwrap();
        }
        assert!(!reader.done);
        reader.line("@vm done").unwrap();
        assert!(reader.done);
        let transcript = reader.transcript;
        assert_eq!(
            (transcript.release.as_str(), &*transcript.broken),
            ("6.1.0-50", &["module x".to_owned()][..])
        );
        let [step] = &transcript.steps[..] else { panic!("{transcript:?}") };
        assert_eq!((step.name.as_str(), step.code, &*step.lines), ("a test", 3, &["one".to_owned()][..]));
    }

    #[test]
    fn a_panic_is_quoted_with_what_led_to_it() {
        let console = std::env::temp_dir().join(format!("enforcer-console-{}", std::process::id()));
        let mut text: String = (0..50).map(|number| format!("[ {number} ] line {number}\r\n")).collect();
        text += "[ 50 ] Kernel panic - not syncing: No working init found.\r\n";
        text += &"[ 51 ] Call Trace\r\n".repeat(40);
        fs::write(&console, text).unwrap();
        let quoted = quote(&console);
        assert!(panicked(&console));
        fs::remove_file(&console).unwrap();
        assert!(quoted.contains("its kernel panicked"), "{quoted}");
        assert!(quoted.contains("line 49") && quoted.contains("No working init"), "{quoted}");
        assert_eq!(quoted.lines().count(), 1 + QUOTED);
        assert!(quote(Path::new("absent")).contains("the end of its console"));
        assert!(!panicked(Path::new("absent")));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut reader = Reader::default();
        assert!(reader.line("@vm end 0 a").is_err());
        reader.line("@vm begin a").unwrap();
        assert!(reader.line("@vm end 0 b").is_err());
        assert!(reader.line("@vm surprise").is_err());
    }
}
