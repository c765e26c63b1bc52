//! The only place that writes to the terminal.

use std::io::{self, Write as _};

use serde::Serialize;

/// Answers, on standard output. A reader that has gone away is no failure.
pub fn answer(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// The same as one JSON document.
pub fn json<T: Serialize>(value: &T) {
    let mut out = io::stdout().lock();
    if serde_json::to_writer_pretty(&mut out, value).is_ok() {
        let _ = out.write_all(b"\n");
    }
}

/// A complaint, on standard error.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "enforcer: {text}");
}

/// Problems of a file, a line each, on standard error.
pub fn problems<T: std::fmt::Display>(problems: &[T]) {
    let mut err = io::stderr().lock();
    for problem in problems {
        let _ = writeln!(err, "{problem}");
    }
}
