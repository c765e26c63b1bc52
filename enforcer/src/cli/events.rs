//! `events`: shows refused packets as they come in, and writes them to a capture file.

use std::{
    fs::File,
    io::{self, Write},
    ops::ControlFlow,
    path::Path,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    args::Events,
    exit::{self, Exit},
    output, remote,
    render::packet::{self, Paint},
};
use crate::{
    capture::writer::Writer,
    control::{
        client,
        wire::{Answer, EventRow},
    },
};

/// Where captures go.
type Out = Writer<Box<dyn Write>>;

/// Watches the daemon at `socket` until it ends, or as many samples as were asked for have come.
pub fn events(socket: &Path, verb: &Events, json: bool) -> Exit {
    let mut capture = match verb.pcap.as_deref().map(create).transpose() {
        Ok(capture) => capture,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            return exit::FAILED;
        }
    };
    // Nobody can read lines among the bytes of a capture.
    let text = verb.pcap.as_deref() != Some(Path::new("-"));
    let paint = Paint::new(output::shows_colours());
    let mut left = verb.count.unwrap_or(u64::MAX);
    let mut failed = None;
    let watched = client::watch(socket, remote::events(verb.clone()), |answer| {
        let shown = match &answer {
            Answer::Watching(watching) if text && !json => {
                output::remark(&format!("watching refused packets: {}", watching.budget));
                output::one_of_many(&packet::events_heading())
            }
            Answer::Event(row) => {
                left -= 1;
                if let Some(Err(error)) = capture.as_mut().map(|capture| write(capture, row)) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                !text || show(row, json, paint)
            }
            Answer::Lost(count) if json => output::json_line(&serde_json::json!({ "lost": count })),
            Answer::Lost(count) => {
                output::remark(packet::lost(*count).trim_end());
                true
            }
            Answer::Watching(_)
            | Answer::Status(_)
            | Answer::Done(_)
            | Answer::Many(_)
            | Answer::Bans(_)
            | Answer::Allowances(_)
            | Answer::Tiers(_)
            | Answer::Why(_)
            | Answer::Reloaded(_)
            | Answer::Revoked(_)
            | Answer::Judged(_)
            | Answer::Devices(_)
            | Answer::Device(_)
            | Answer::Seen(_)
            | Answer::Metrics(_) => true,
        };
        if shown && left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match (watched, failed) {
        (Err(error), _) => remote::refused(&error, json),
        (Ok(()), Some(error)) => {
            output::complain(&format!("{error:#}"));
            exit::FAILED
        }
        (Ok(()), None) if verb.count.is_some() && left > 0 => {
            output::complain("the daemon has ended before so many came");
            exit::FAILED
        }
        (Ok(()), None) => exit::OK,
    }
}

fn show(row: &EventRow, json: bool, paint: Paint) -> bool {
    if json {
        // The bytes are in the capture; among the words they would only be in the way.
        output::json_line(&EventRow { frame: None, ..row.clone() })
    } else {
        output::one_of_many(&packet::event(row, paint))
    }
}

fn create(path: &Path) -> Result<Out> {
    let out: Box<dyn Write> = if path == Path::new("-") {
        Box::new(io::stdout())
    } else {
        Box::new(File::create(path).with_context(|| format!("{}", path.display()))?)
    };
    Writer::new(out)
}

fn write(capture: &mut Out, row: &EventRow) -> Result<()> {
    let bytes = STANDARD.decode(row.frame.as_deref().unwrap_or_default()).context("the daemon's frame")?;
    let comment = format!("enforcer: {} {}", row.verdict, row.reason);
    capture.add(&row.interface, row.time_ns, row.length, &bytes, &comment)
}
