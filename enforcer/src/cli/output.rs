//! The only place that writes to the terminal.

use std::io::{self, IsTerminal as _, Write as _};

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

/// One of many answers; `false` once nobody reads them any more.
#[must_use]
pub fn one_of_many(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// The same as a JSON document in one line.
#[must_use]
pub fn json_line<T: Serialize>(value: &T) -> bool {
    serde_json::to_string(value).is_ok_and(|text| one_of_many(&format!("{text}\n")))
}

/// Whether answers go to a terminal that shows colours (no-color.org).
pub fn shows_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A remark, on standard error: it is no part of the answer.
pub fn remark(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
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
