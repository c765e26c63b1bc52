//! `log`: shows lines of the access log, those that are asked for. Reads the file itself; no daemon is needed.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    args::Log,
    exit::{self, Exit},
    output,
};
use crate::{
    config::{self, AccessFormat, Destination},
    prefix::Prefix,
};

/// How often it is looked for new lines.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows what there is, and with `--follow` what comes.
pub fn log(verb: &Log, json: bool) -> Exit {
    match place(verb).and_then(|place| show(&place, verb, json)) {
        Ok(()) => exit::OK,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            exit::FAILED
        }
    }
}

/// Where the lines are.
fn place(verb: &Log) -> Result<PathBuf> {
    if let Some(file) = &verb.file {
        return Ok(file.clone());
    }
    let config = config::load(&verb.config)?;
    if config.access_log.format == AccessFormat::Combined {
        bail!(
            "access_log.format is \"combined\", whose lines cannot be told apart by these; set it to \"json\""
        );
    }
    match config.access_log.destination {
        Destination::File(path) => Ok(path),
        Destination::Off => bail!("access_log.destination is \"off\": there is no access log"),
        Destination::Stdout => {
            bail!(
                "access_log.destination is \"stdout\"; pipe it here: `journalctl -u enforcer -o cat | enforcer log --file -`"
            )
        }
    }
}

fn show(place: &Path, verb: &Log, json: bool) -> Result<()> {
    if place == Path::new("-") {
        return pass(io::stdin().lock(), verb, json).map(drop);
    }
    let context = || format!("cannot read {}", place.display());
    let mut file = File::open(place).with_context(context)?;
    loop {
        let (more, half) = pass(&file, verb, json).with_context(context)?;
        if !more || !verb.follow {
            return Ok(());
        }
        // A line that is only half there is read again once there is more.
        file.seek_relative(-i64::try_from(half).unwrap_or(0)).with_context(context)?;
        sleep(PAUSE);
        if let Some(next) = successor(&mut file, place)? {
            file = next;
        }
    }
}

/// The file that has come in the place of the one that is read, once all of that was.
fn successor(file: &mut File, place: &Path) -> Result<Option<File>> {
    let (own, position) = (file.metadata()?, file.stream_position()?);
    if own.len() > position {
        return Ok(None);
    }
    // Between its removal and the daemon's new one there is none.
    let Ok(there) = fs::metadata(place) else { return Ok(None) };
    let moved = (there.dev(), there.ino()) != (own.dev(), own.ino());
    if !moved && own.len() == position {
        return Ok(None);
    }
    // Or the same one, emptied.
    File::open(place).map(Some).context("the file was replaced, and the new one cannot be opened")
}

/// Shows what is wanted of all that can be read; whether anybody still reads it, and how long the last, half line is.
fn pass(input: impl Read, verb: &Log, json: bool) -> Result<(bool, usize)> {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = input.read_until(b'\n', &mut line)?;
        if length == 0 || line.last() != Some(&b'\n') {
            return Ok((true, length));
        }
        // Whatever else stands in a journal is none of ours.
        let Ok(record) = serde_json::from_slice::<Value>(&line) else { continue };
        if !is_wanted(&record, verb) {
            continue;
        }
        let shown = if json {
            output::one_of_many(&String::from_utf8_lossy(&line))
        } else {
            output::one_of_many(&spelled(&record))
        };
        if !shown {
            return Ok((false, 0));
        }
    }
}

/// Whether a line has everything that was asked for.
fn is_wanted(record: &Value, verb: &Log) -> bool {
    let is = |name: &str, wanted: &Option<String>| {
        wanted.as_deref().is_none_or(|wanted| record[name].as_str() == Some(wanted))
    };
    let from = |prefix: &Prefix| {
        record["source"]
            .as_str()
            .and_then(|source| source.parse().ok())
            .is_some_and(|source| prefix.contains(source))
    };
    record.is_object()
        && is("device", &verb.device)
        && is("code", &verb.code)
        && is("route", &verb.route)
        && is("subject", &verb.subject)
        && is("request_id", &verb.request)
        && verb.status.is_none_or(|status| record["status"].as_u64() == Some(u64::from(status)))
        && verb.source.as_ref().is_none_or(from)
}

/// A line for people: when, what came of it, who, what.
fn spelled(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or("-").escape_debug().to_string();
    let time = record["time"].as_str().unwrap_or("-");
    format!(
        "{} {} {} {} {} {} {}{} {:.1}ms route={} device={} subject={} id={}\n",
        time.get(..23).unwrap_or(time).escape_debug(),
        record["status"].as_u64().unwrap_or(0),
        text("code"),
        text("source"),
        text("protocol"),
        text("method"),
        record["host"].as_str().unwrap_or("").escape_debug(),
        text("path"),
        record["duration_ms"].as_f64().unwrap_or(0.0),
        text("route"),
        text("device"),
        text("subject"),
        text("request_id"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(change: impl FnOnce(&mut Log)) -> Log {
        let mut log = Log::default();
        change(&mut log);
        log
    }

    #[test]
    fn lines_are_told_apart_by_everything_that_is_asked() {
        let line = serde_json::json!({
            "device": "d", "code": "rate_limited", "route": "/a", "source": "192.0.2.7", "status": 429,
            "subject": "s", "request_id": "0f",
        });
        let some = |text: &str| Some(text.to_owned());
        for (verb, wanted) in [
            (Log::default(), true),
            (log(|log| log.device = some("d")), true),
            (log(|log| log.device = some("e")), false),
            (log(|log| (log.code, log.route) = (some("rate_limited"), some("/a"))), true),
            (log(|log| (log.code, log.route) = (some("rate_limited"), some("/b"))), false),
            (log(|log| log.source = Some("192.0.2.0/24".parse().unwrap())), true),
            (log(|log| log.source = Some("192.0.3.0/24".parse().unwrap())), false),
            (log(|log| log.status = Some(429)), true),
            (log(|log| log.status = Some(200)), false),
            (log(|log| (log.subject, log.request) = (some("s"), some("0f"))), true),
            (log(|log| log.request = some("0e")), false),
        ] {
            assert_eq!(is_wanted(&line, &verb), wanted, "{verb:?}");
        }
        assert!(!is_wanted(&Value::from(7), &Log::default()), "a number in a journal");
    }

    #[test]
    fn what_clients_say_cannot_steer_a_terminal() {
        let line = serde_json::json!({ "path": "/\u{1b}[2J\n", "host": "\u{9b}x", "status": 200 });
        let shown = spelled(&line);
        assert_eq!(shown.matches(|c: char| c.is_control()).count(), 1, "{shown:?}");
    }

    #[test]
    fn a_half_line_is_kept_for_later() {
        let half = b"{\"status\":200}\n{\"sta";
        assert_eq!(pass(&half[..], &log(|log| log.status = Some(1)), false).unwrap(), (true, 5));
    }
}
