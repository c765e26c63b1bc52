//! `ban add --file` and `ban del --file`: reads a list, and asks the daemon part by part.
//!
//! [`super::remote`] calls it. A list with a wrong line changes nothing, unless such lines are to be skipped: whoever
//! means a whole list must not get half of it.

use std::{
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    exit::{self, Exit},
    output,
    remote::refused,
    render,
};
use crate::{
    control::{
        bulk::{Order, parts},
        client::{ClientError, Conversation},
        wire::{Answer, Many},
    },
    prefix::Prefix,
};

/// The name of standard input.
pub const STDIN: &str = "-";

/// Parts that are sent before the first of them is answered: the daemon carries one out while the next is written.
const AHEAD: usize = 2;

/// Bytes of a usual line: an address of IPv4 and its end.
const USUAL: usize = 12;

/// What an import is made from.
#[derive(Debug)]
pub struct Import {
    /// The list; `-` is standard input.
    pub file: PathBuf,
    /// Whether lines that cannot be read are passed over.
    pub skip_invalid: bool,
    /// What to do with everybody on it.
    pub order: Order,
}

/// A line that is neither an address nor a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Wrong {
    line: usize,
    message: String,
}

/// What a list says.
#[derive(Debug, Default, PartialEq, Eq)]
struct List {
    prefixes: Vec<Prefix>,
    wrong: Vec<Wrong>,
    /// Lines that name a prefix once more.
    repeated: u64,
}

/// The account of an import.
#[derive(Debug, Serialize)]
pub(super) struct Imported {
    /// What the daemon did.
    #[serde(flatten)]
    pub many: Many,
    /// Lines that were passed over.
    pub skipped: u64,
}

/// Carries out `import` at the daemon that listens on `socket`.
pub fn import(socket: &Path, import: &Import, json: bool) -> Exit {
    let name =
        if is_stdin(&import.file) { "standard input".into() } else { import.file.display().to_string() };
    let bytes = match read(&import.file) {
        Ok(bytes) => bytes,
        Err(error) => return fail(json, "file", &format!("cannot read {name}: {error}"), &[]),
    };
    let list = parse(&bytes);
    drop(bytes);
    let problems = list.wrong.iter().map(|wrong| Problem { name: &name, wrong }).collect::<Vec<_>>();
    output::problems(&problems);
    if !list.wrong.is_empty() && !import.skip_invalid {
        let message = format!(
            "nothing was done: wrong lines in {name}: {}; correct them, or use --skip-invalid",
            list.wrong.len()
        );
        return fail(json, "invalid_lines", &message, &list.wrong);
    }
    let mut many = Many::default();
    let done = ask(socket, &list.prefixes, &import.order, &mut many);
    let begun = many != Many::default();
    many.repeated += list.repeated;
    let imported = Imported { many, skipped: list.wrong.len() as u64 };
    if let Err(error) = done {
        if begun {
            output::remark(&format!("before that:\n{}", render::imported(&imported, &import.order)));
        }
        return refused(&error, json);
    }
    if json {
        output::json(&imported);
    } else {
        output::answer(&render::imported(&imported, &import.order));
    }
    if imported.many.refused.is_empty() { exit::OK } else { exit::FAILED }
}

fn ask(socket: &Path, prefixes: &[Prefix], order: &Order, sum: &mut Many) -> Result<(), ClientError> {
    let mut conversation = Conversation::begin(socket)?;
    let mut unanswered = 0;
    for command in parts(prefixes, order) {
        conversation.tell(command);
        unanswered += 1;
        if unanswered > AHEAD {
            sum.add(hear(&mut conversation)?);
            unanswered -= 1;
        }
    }
    for _ in 0..unanswered {
        sum.add(hear(&mut conversation)?);
    }
    Ok(())
}

fn hear(conversation: &mut Conversation<'_>) -> Result<Many, ClientError> {
    let Answer::Many(part) = conversation.hear()? else {
        return Err(ClientError::Garbled("the daemon answered something else".to_owned()));
    };
    Ok(part)
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new(STDIN)
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if is_stdin(file) {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(file)
}

/// One address or prefix per line; what follows `#` is a comment, and lines without anything else do not count.
fn parse(bytes: &[u8]) -> List {
    let mut list = List { prefixes: Vec::with_capacity(bytes.len() / USUAL), ..List::default() };
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            continue;
        }
        let read = std::str::from_utf8(line).map_err(|_| "not text (UTF-8)".to_owned());
        match read.and_then(str::parse::<Prefix>) {
            Ok(prefix) => list.prefixes.push(prefix),
            Err(message) => list.wrong.push(Wrong { line: number + 1, message }),
        }
    }
    // The order of addresses lets the daemon find neighbours together.
    let named = list.prefixes.len();
    list.prefixes.sort_unstable();
    list.prefixes.dedup();
    list.repeated = (named - list.prefixes.len()) as u64;
    list
}

fn fail(json: bool, kind: &str, message: &str, lines: &[Wrong]) -> Exit {
    if json {
        output::json(&serde_json::json!({ "error": { "kind": kind, "message": message, "lines": lines } }));
    }
    output::complain(message);
    exit::FAILED
}

struct Problem<'a> {
    name: &'a str,
    wrong: &'a Wrong,
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.name, self.wrong.line, self.wrong.message.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_line_by_line() {
        let text = b"# scrapers\r\n198.18.0.7\r\n\n  2001:db8::/32 # all of it\n198.18.0.7/32\nnobody\n\xff\xfe\n198.18.0.9/24";
        let list = parse(text);
        let prefixes: Vec<String> = list.prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(prefixes, ["198.18.0.7", "2001:db8::/32"]);
        assert_eq!(list.repeated, 1);
        let wrong: Vec<usize> = list.wrong.iter().map(|wrong| wrong.line).collect();
        assert_eq!(wrong, [6, 7, 8]);
        let shown = Problem { name: "list", wrong: &list.wrong[2] }.to_string();
        assert_eq!(
            shown,
            "list:8: `198.18.0.9/24` has bits set behind its length; did you mean 198.18.0.0/24?"
        );
        assert_eq!(parse(b""), List::default());
    }
}
