//! The thread that writes lines to the file. It may be stuck for as long as the file is; nobody waits for it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError},
    },
    time::Duration,
};

use prometheus::IntCounter;

use super::Message;
use crate::{clock, log::Seldom};

/// Lines that are written at once hold so many bytes, but for the last one.
const BATCH: usize = 64 << 10;
/// Pause when there is nothing to write. While the writer pauses, handing over a line wakes nobody.
const PAUSE: Duration = Duration::from_millis(20);
/// Pauses after which it rather waits to be woken: a second.
const PAUSES: u32 = 50;
/// How often it looks whether the file was moved away while nobody asks for anything.
const IDLE: Duration = Duration::from_secs(1);
/// Whoever may read the log may know who asked for what.
const MODE: u32 = 0o640;

static FAILURES: Seldom = Seldom::new();

/// Where lines go.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// To open it anew; nothing for standard output.
    path: Option<PathBuf>,
}

impl Output {
    pub(super) fn stdout() -> io::Result<Self> {
        Ok(Self { file: io::stdout().as_fd().try_clone_to_owned()?.into(), path: None })
    }

    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self { file: open(path)?, path: Some(path.to_owned()) })
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe that is opened for reading as well does not wait for a reader (fifo(7)).
    let pipe = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    OpenOptions::new().read(pipe).append(true).create(!pipe).mode(MODE).open(path)
}

#[derive(Debug)]
pub(super) struct Writer {
    output: Output,
    reopen: Arc<AtomicBool>,
    written: IntCounter,
    failed: IntCounter,
    batch: Vec<u8>,
    lines: u64,
    /// A write failed in the middle of a line.
    torn: bool,
    waiting: Vec<SyncSender<()>>,
}

impl Writer {
    pub(super) fn new(
        output: Output,
        reopen: Arc<AtomicBool>,
        written: IntCounter,
        failed: IntCounter,
    ) -> Self {
        let batch = Vec::with_capacity(BATCH);
        Self { output, reopen, written, failed, batch, lines: 0, torn: false, waiting: Vec::new() }
    }

    /// Writes until everybody who could hand over a line is gone.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        let mut pauses = 0;
        loop {
            let gone = match messages.try_recv() {
                Ok(message) => {
                    pauses = 0;
                    self.take(message);
                    if self.batch.len() < BATCH {
                        continue;
                    }
                    false
                }
                Err(TryRecvError::Empty) => false,
                Err(TryRecvError::Disconnected) => true,
            };
            self.write();
            if gone {
                return;
            }
            if self.reopen.swap(false, Relaxed) {
                self.open_anew();
            }
            if pauses < PAUSES {
                pauses += 1;
                std::thread::sleep(PAUSE);
            } else {
                match messages.recv_timeout(IDLE) {
                    Ok(message) => {
                        pauses = 0;
                        self.take(message);
                    }
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => {
                self.batch.extend_from_slice(&line);
                self.lines += 1;
            }
            Message::Flush(done) => self.waiting.push(done),
        }
    }

    fn write(&mut self) {
        if !self.batch.is_empty() {
            let end = if std::mem::take(&mut self.torn) { self.output.file.write_all(b"\n") } else { Ok(()) };
            match end.and_then(|()| self.output.file.write_all(&self.batch)) {
                Ok(()) => self.written.inc_by(self.lines),
                Err(error) => {
                    self.torn = true;
                    self.failed.inc_by(self.lines);
                    if FAILURES.may_speak(clock::unix_now()) {
                        tracing::error!(%error, lines = self.lines, "lines of the access log are lost");
                    }
                }
            }
            self.batch.clear();
            self.lines = 0;
        }
        for done in self.waiting.drain(..) {
            // Whoever asked may have lost patience.
            let _ = done.try_send(());
        }
    }

    fn open_anew(&mut self) {
        let Some(path) = &self.output.path else { return };
        match open(path) {
            Ok(file) => {
                self.output.file = file;
                self.torn = false;
            }
            Err(error) => {
                let path = path.display();
                tracing::error!(%error, %path, "the access log cannot be opened anew; the old file is written on");
            }
        }
    }
}
