//! What the demo looks like: chapters, steps, marks and the sum. The only place of the demo that prints.
#![allow(clippy::print_stdout, reason = "showing things is what the demo is for")]

use std::io::IsTerminal;

use anyhow::Result;

use crate::cleanup;

/// Columns that a line may fill.
const WIDTH: usize = 100;
/// Columns before the text of a field.
const INDENT: usize = 15;

/// Columns before a quotation, which needs the room more than the alignment.
const QUOTE: usize = 5;

/// Whether a step came out as expected, and what was seen.
pub(super) struct Observed {
    /// As expected.
    pub(super) good: bool,
    /// What was seen, in one sentence.
    pub(super) text: String,
}

impl Observed {
    /// An observation.
    pub(super) fn new(good: bool, text: impl Into<String>) -> Self {
        Self { good, text: text.into() }
    }
}

/// Counts steps and prints them.
#[derive(Debug)]
pub(super) struct Screen {
    colour: bool,
    passed: u32,
    failed: u32,
}

impl Screen {
    /// On standard output; in colour only on a terminal.
    pub(super) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, passed: 0, failed: 0 }
    }

    /// The heading of several steps.
    pub(super) fn chapter(&self, title: &str) {
        let line = "─".repeat(WIDTH.saturating_sub(title.chars().count() + 4));
        println!("\n{}", self.paint("1;36", &format!("── {title} {line}")));
    }

    /// A paragraph between steps.
    pub(super) fn note(&self, text: &str) {
        for line in wrap(text, WIDTH - 1) {
            println!("{}", format!(" {line}").trim_end());
        }
    }

    /// Lines as they are, set off from the rest.
    pub(super) fn quote(&self, text: &str) {
        for line in text.lines() {
            let shown: String = line.chars().take(WIDTH - QUOTE - 2).collect();
            println!("{:QUOTE$}{}", "", self.paint("2", format!("│ {shown}").trim_end()));
        }
    }

    /// Lines as they are, to be copied from the screen.
    pub(super) fn plain(&self, text: &str) {
        println!("{text}");
    }

    /// One step: says what is sent and expected, does it, and says what was observed. A failure ends nothing.
    pub(super) fn step(
        &mut self,
        title: &str,
        sent: &str,
        expected: &str,
        act: impl FnOnce() -> Result<Observed>,
    ) -> bool {
        println!("\n {:>2}  {}", self.passed + self.failed + 1, self.paint("1", title));
        self.field("sent", sent);
        self.field("expected", expected);
        let observed = act().unwrap_or_else(|error| Observed::new(false, format!("{error:#}")));
        cleanup::rest_if_interrupted();
        self.field("observed", &observed.text);
        if observed.good {
            self.passed += 1;
            println!("{:INDENT$}{}", "", self.paint("1;32", "✔ PASS"));
        } else {
            self.failed += 1;
            println!("{:INDENT$}{}", "", self.paint("1;31", "✘ FAIL"));
        }
        observed.good
    }

    /// The story cannot go on: as a failure, in words.
    pub(super) fn broken(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        println!("\n {} {error:#}", self.paint("1;31", "✘ The story breaks off:"));
    }

    /// Prints the sum, always as the last line; whether every step was as expected.
    pub(super) fn finish(&self) -> bool {
        println!("\n{} passed, {} failed", self.passed, self.failed);
        self.failed == 0
    }

    fn field(&self, name: &str, text: &str) {
        for (number, line) in wrap(text, WIDTH - INDENT).into_iter().enumerate() {
            let name = if number == 0 { name } else { "" };
            println!("     {}{line}", self.paint("2", &format!("{name:<width$}", width = INDENT - 5)));
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Breaks a text at blanks into lines of at most `width` characters; longer words stay whole.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_blanks() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 4), ["unbreakable"]);
        assert_eq!(wrap("a\nb", 9), ["a", "b"]);
    }
}
