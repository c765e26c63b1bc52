//! The verbs that a running daemon answers: asks, and shows what comes back.

use std::path::Path;

use super::{
    args::{AllowVerb, BanVerb, Events, Proto, Remote},
    exit::{self, Exit},
    output, render, session,
};
use crate::{
    control::{
        client::{self, ClientError},
        wire::{Answer, Command},
    },
    kernel::Protocol,
};

/// Asks the daemon at `socket`.
pub fn ask(socket: &Path, verb: Remote, json: bool) -> Exit {
    match client::ask(socket, command(verb)) {
        Ok(answer) => {
            if json {
                show_json(&answer);
            } else {
                output::answer(&render::answer(&answer));
            }
            exit::OK
        }
        Err(error) => refused(&error, json),
    }
}

/// Tells why there is no answer.
pub(super) fn refused(error: &ClientError, json: bool) -> Exit {
    if json {
        output::json(&serde_json::json!({ "error": error_json(error) }));
    }
    output::complain(&error.to_string());
    Exit::from(error)
}

/// What the daemon is asked.
pub(super) fn command(verb: Remote) -> Command {
    match verb {
        Remote::Status => Command::Status,
        Remote::Ban(BanVerb::Add(add)) => Command::BanAdd {
            prefix: add.prefix,
            seconds: add.duration.map(|duration| duration.as_secs()),
            forever: add.forever,
            reason: add.reason,
            force: add.force,
            own_address: session::address(),
        },
        Remote::Ban(BanVerb::Del { prefix }) => Command::BanDel { prefix },
        Remote::Ban(BanVerb::List) => Command::BanList,
        Remote::Allow(AllowVerb::Add { prefix, reason, force }) => {
            Command::AllowAdd { prefix, reason, force }
        }
        Remote::Allow(AllowVerb::Del { prefix }) => Command::AllowDel { prefix },
        Remote::Allow(AllowVerb::List) => Command::AllowList,
        Remote::Why { address, port, proto } => {
            let protocol = match proto {
                Proto::Tcp => Protocol::Tcp,
                Proto::Udp => Protocol::Udp,
            };
            Command::Why { address, port, protocol }
        }
        Remote::Events(Events { reason, source, count: _, pcap }) => {
            Command::Events { reason, source, frames: pcap.is_some() }
        }
        Remote::Reload => Command::Reload,
        Remote::Metrics => Command::Metrics,
    }
}

/// The answer without its wrapping: scripts know what they asked for.
fn show_json(answer: &Answer) {
    match answer {
        Answer::Status(status) => output::json(status),
        Answer::Done(done) => output::json(done),
        Answer::Bans(rows) => output::json(rows),
        Answer::Allowances(rows) => output::json(rows),
        Answer::Why(why) => output::json(why),
        Answer::Reloaded(reloaded) => output::json(reloaded),
        Answer::Metrics(text) => output::json(text),
        Answer::Watching(watching) => output::json(watching),
        Answer::Event(row) => output::json(row),
        Answer::Lost(count) => output::json(count),
    }
}

fn error_json(error: &ClientError) -> serde_json::Value {
    match error {
        ClientError::Failed(failure) => serde_json::json!(failure),
        ClientError::Unreachable(message) => serde_json::json!({ "kind": "unreachable", "message": message }),
        ClientError::Permission(message) => serde_json::json!({ "kind": "permission", "message": message }),
        ClientError::Garbled(message) => serde_json::json!({ "kind": "garbled", "message": message }),
    }
}
