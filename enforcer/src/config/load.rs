//! From bytes to [`Config`], with every error at once.
//!
//! serde stops at the first error. So what it complains about is recorded and cut out of the parsed table, and it
//! reads again, until it is content; the rules then judge what is left. Called by the daemon and by `enforcer check`.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, Deserializer},
};

use super::{
    Config, Error, Errors,
    error::Collector,
    file::File,
    validate::{self, validate},
};

/// Larger files are refused unread. The longest sensible list of prefixes fits many times.
const MOST_BYTES: u64 = 4 << 20;

/// Reads and validates a file. Relative paths in it count from its folder.
pub fn load(path: &Path) -> Result<Config, Errors> {
    parse(&text(path)?, path)
}

/// `kernel.pin_directory` as a file names it, whatever else is wrong in there; `None` where it does not, or is not there itself.
pub fn pin_directory(path: &Path) -> Result<Option<PathBuf>, Errors> {
    if !path.exists() {
        return Ok(None);
    }
    let text = text(path)?;
    let (table, _) = DeTable::parse_recoverable(&text);
    let named = table.get_ref().get("kernel").and_then(|kernel| {
        let value = kernel.get_ref().as_table()?.get("pin_directory")?;
        value.get_ref().as_str().map(PathBuf::from)
    });
    Ok(named.filter(|named| named.is_absolute()))
}

/// The text of a file.
pub(super) fn text(path: &Path) -> Result<String, Errors> {
    let refuse = |line, problem: String, remedy: &str| {
        let (file, key, remedy) = (path.to_owned(), String::new(), remedy.to_owned());
        Errors(vec![Error { file, line, key, problem, remedy }])
    };
    let unreadable = |error: std::io::Error| {
        refuse(0, format!("cannot be read: {error}"), "name a file that exists and that this user may read")
    };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > MOST_BYTES {
        return Err(refuse(0, format!("has {size} bytes"), "keep it below 4 MiB"));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        refuse(line, "is not UTF-8 text".to_owned(), "save the file as UTF-8")
    })
}

/// Validates the text of a file that lies, or would lie, at `path`.
pub fn parse(text: &str, path: &Path) -> Result<Config, Errors> {
    match judge(text, path) {
        (Some(config), collector) if collector.is_empty() => Ok(config),
        (_, collector) => Err(Errors(collector.finish().0)),
    }
}

/// Validates a text; where the collector holds errors, parts of the result are stand-ins.
pub(super) fn judge<'t>(text: &'t str, path: &'t Path) -> (Option<Config>, Collector<'t>) {
    let mut collector = Collector::new(text, path);
    let (table, errors) = DeTable::parse_recoverable(text);
    // What follows the first mistake in the grammar is often its echo. A key that stands twice is a mistake of its own.
    let (twice, mut grammar): (Vec<_>, Vec<_>) =
        errors.iter().partition(|error| error.message().starts_with("duplicate key"));
    grammar.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    for error in twice {
        let remedy = "remove one of the two".to_owned();
        collector.add(
            error.span().unwrap_or(0..0),
            "",
            format!("not valid TOML: {}", error.message()),
            remedy,
        );
    }
    if let Some(error) = grammar.first() {
        let remedy = "correct this line; the rest of the file is checked after that".to_owned();
        collector.add(
            error.span().unwrap_or(0..0),
            "",
            format!("not valid TOML: {}", error.message()),
            remedy,
        );
    }
    if !collector.is_empty() {
        return (None, collector);
    }
    let Some(file) = read(&table, &mut collector) else { return (None, collector) };
    let folder = path.parent().unwrap_or(Path::new(""));
    let config = validate(&file, table.get_ref(), folder, &mut collector);
    (Some(config), collector)
}

/// Reads the table as a file, without whatever is unknown or of the wrong type; `None` if there is no end to that.
fn read(original: &Spanned<DeTable<'_>>, collector: &mut Collector<'_>) -> Option<File> {
    let mut table = original.clone();
    while !collector.is_full() {
        let error = match File::deserialize(Deserializer::from(table.clone())) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let (problem, remedy) = explain(error.message(), collector.written(&span));
        let key = find_in_table(original.get_ref(), &span).unwrap_or_default();
        collector.add(span.clone(), &key, problem, remedy);
        if !cut_from_table(table.get_mut(), &span) {
            return None;
        }
    }
    None
}

/// The path of the innermost key or value that stands exactly at `span`.
pub(super) fn find_in_table(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = validate::quote(key.get_ref());
        match find_in_value(value, span) {
            Some(rest) => Some(format!(
                "{name}{}{rest}",
                if rest.is_empty() || rest.starts_with('[') { "" } else { "." }
            )),
            None => (key.span() == *span).then_some(name),
        }
    })
}

fn find_in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<String> {
    let inside = match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, span),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(i, entry)| {
            let rest = find_in_value(entry, span)?;
            let dot = if rest.is_empty() || rest.starts_with('[') { "" } else { "." };
            Some(format!("[{i}]{dot}{rest}"))
        }),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    };
    inside.or_else(|| (value.span() == *span).then(String::new))
}

/// Removes the innermost key or value that stands exactly at `span`; false if there is none.
fn cut_from_table(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    for (_, value) in table.iter_mut() {
        if cut_from_value(value, span) {
            return true;
        }
    }
    let here = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    let key = here.map(|(key, _)| key.clone());
    key.is_some_and(|key| table.remove(&key).is_some())
}

fn cut_from_value(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => cut_from_table(table, span),
        DeValue::Array(array) => {
            if array.iter_mut().any(|entry| cut_from_value(entry, span)) {
                return true;
            }
            let before = array.len();
            let mut kept = DeArray::new();
            for entry in array.iter().filter(|entry| entry.span() != *span) {
                kept.push(entry.clone());
            }
            *array = kept;
            array.len() < before
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => false,
    }
}

/// What serde says, in the form "problem; remedy". Its wording is stable, and the tests hold it to that.
fn explain(message: &str, written: &str) -> (String, String) {
    let known = || message.split('`').skip(3).step_by(2).collect::<Vec<_>>();
    let name = message.split('`').nth(1).unwrap_or_default();
    if message.starts_with("unknown field") {
        let remedy = match nearest(name, &known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known().join(", ")),
        };
        return ("unknown key".to_owned(), remedy);
    }
    if message == "wanted string or table" {
        let remedy = match written.parse::<f64>() {
            Ok(_) => format!("write \"{written}\" in quotes"),
            Err(_) => "write a string in quotes".to_owned(),
        };
        return ("not a string".to_owned(), remedy);
    }
    if message.starts_with("unknown variant") {
        let choices: Vec<String> = known().iter().map(|choice| format!("\"{choice}\"")).collect();
        return (format!("`{name}` is no choice here"), format!("write one of {}", choices.join(", ")));
    }
    for kind in ["invalid type: ", "invalid value: "] {
        if let Some((found, expected)) =
            message.strip_prefix(kind).and_then(|rest| rest.split_once(", expected "))
        {
            let expected = match expected {
                "a boolean" => "true or false, without quotes",
                "a sequence" => "a list in brackets",
                other if other.starts_with("struct ") || other == "a map" => {
                    "a table: keys and values in braces, or a section of its own"
                }
                other => other,
            };
            return (format!("found {found}"), format!("write {expected}"));
        }
    }
    match message.split_once("; ") {
        Some((problem, remedy)) => (problem.to_owned(), remedy.to_owned()),
        None => (message.to_owned(), "correct this value".to_owned()),
    }
}

/// The known word that is probably meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let budget = (word.chars().count() / 3).clamp(1, 3);
    known.iter().map(|k| (distance(word, k), *k)).filter(|(d, _)| *d <= budget).min().map(|(_, k)| k)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_word_that_is_meant() {
        assert_eq!(nearest("interface", &["mode", "interfaces"]), Some("interfaces"));
        assert_eq!(nearest("bust", &["rate", "burst"]), Some("burst"));
        assert_eq!(nearest("colour", &["rate", "burst"]), None);
        assert_eq!((distance("", "abc"), distance("abc", "abc"), distance("abc", "acb")), (3, 0, 2));
    }
}
