//! Runs a program to its end, or to the end of our patience.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use enforcer::clock;

use crate::{cleanup::Owned, poll};

/// What a finished program left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; `None` if a signal, or our limit, ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Finished {
    /// Standard output of a program that succeeded; otherwise an error that quotes what it said.
    pub fn success(self, what: &str) -> Result<String> {
        match self.code {
            Some(0) => Ok(self.stdout),
            code => bail!("{what} ended with {code:?}: {}{}", self.stdout.trim(), self.stderr.trim()),
        }
    }
}

/// A program under way with its output collected.
#[derive(Debug)]
pub struct Running {
    child: Child,
    owned: Owned,
    begun: std::time::Instant,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// Starts `command`.
pub fn start(command: &mut Command) -> Result<Running> {
    let begun = clock::instant_now();
    let (owned, mut child) = Owned::process(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    Ok(Running { child, owned, begun, stdout, stderr })
}

/// Runs `command`, at most for `limit`; then it is killed, and its exit code is `None`.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    start(command)?.finish(limit)
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for the end, at most for `limit`; then kills.
    pub fn finish(mut self, limit: Duration) -> Result<Finished> {
        let ended = poll::until("end of a program", limit, || Ok(self.child.try_wait()?));
        let code = match ended {
            Ok(status) => status.code(),
            Err(_) => {
                self.child.kill().context("cannot kill")?;
                self.child.wait()?;
                None
            }
        };
        self.owned.forget();
        let text = |side: &mut Option<JoinHandle<String>>| {
            side.take().and_then(|t| t.join().ok()).unwrap_or_default()
        };
        let (stdout, stderr) = (text(&mut self.stdout), text(&mut self.stderr));
        Ok(Finished { code, stdout, stderr, took: self.begun.elapsed() })
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What arrived before an error is still worth reading.
        drop(from.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_read_and_patience_ends() {
        let finished = run(Command::new("echo").arg("words"), Duration::from_secs(10)).unwrap();
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "words\n"));
        let finished = run(Command::new("sleep").arg("60"), Duration::ZERO).unwrap();
        assert_eq!(finished.code, None);
        assert!(finished.success("sleep").is_err());
        assert!(run(&mut Command::new("there-is-no-such-program"), Duration::ZERO).is_err());
    }
}
