//! The access log: a line for each request, written by a thread of its own.
//!
//! Whoever answers requests hands over finished lines and never waits: where the disk, or whoever reads, is too slow, lines
//! are lost and counted. What a line says is [`record`]'s business; which requests get one is decided in `ingress`.

pub mod record;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use prometheus::IntCounter;

use crate::{
    clock,
    config::{self, Destination},
    metrics::Metrics,
};
use writer::{Output, Writer};

/// Pause between attempts to hand over the last word.
const PAUSE: Duration = Duration::from_millis(10);

/// A handle to the log; clones write to the same one.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lines: SyncSender<Message>,
    reopen: Arc<AtomicBool>,
    lost: IntCounter,
}

/// What goes to the writer.
#[derive(Debug)]
enum Message {
    /// A line with its end.
    Line(Vec<u8>),
    /// Tell when everything before this is written.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Opens the destination and starts the writer; `None` where there is nothing to write.
    pub fn start(config: &config::AccessLog, metrics: &Metrics) -> Result<Option<Self>> {
        let output = match &config.destination {
            Destination::Off => return Ok(None),
            Destination::Stdout => Output::stdout().context("access_log.destination: standard output")?,
            Destination::File(path) => {
                Output::file(path).with_context(|| format!("access_log.destination: {}", path.display()))?
            }
        };
        let (lines, received) = sync_channel(config.queue as usize);
        let reopen = Arc::new(AtomicBool::new(false));
        let counter = |result| metrics.access_log_lines.with_label_values(&[result]);
        let writer = Writer::new(output, Arc::clone(&reopen), counter("written"), counter("failed"));
        let work = move || writer.run(&received);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(work).context("the access log")?;
        Ok(Some(Self(Arc::new(Shared { lines, reopen, lost: counter("queue_full") }))))
    }

    /// Hands over a line; a full queue loses it.
    pub fn write(&self, line: Vec<u8>) {
        if self.0.lines.try_send(Message::Line(line)).is_err() {
            self.0.lost.inc();
        }
    }

    /// The file was moved away: go on with a new one of the same name.
    pub fn reopen(&self) {
        self.0.reopen.store(true, Relaxed);
    }

    /// Waits until everything handed over so far is written, or patience ends; `false`: something is left.
    pub fn flush(&self, patience: Duration) -> bool {
        let end = clock::instant_now() + patience;
        let left = |now: Instant| end.saturating_duration_since(now);
        let (done, told) = sync_channel(1);
        let mut message = Message::Flush(done);
        loop {
            match self.0.lines.try_send(message) {
                Ok(()) => return told.recv_timeout(left(clock::instant_now())).is_ok(),
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => message = back,
            }
            if left(clock::instant_now()).is_zero() {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
