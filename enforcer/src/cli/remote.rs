//! The verbs that a running daemon answers: asks, and shows what comes back.

use std::path::Path;

use super::{
    args::{AllowVerb, BanVerb, Remote},
    exit::{self, Exit},
    output, render, session,
};
use crate::control::{
    client::{self, ClientError},
    wire::{Answer, Command},
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
        Err(error) => {
            if json {
                output::json(&serde_json::json!({ "error": error_json(&error) }));
            }
            output::complain(&error.to_string());
            Exit::from(&error)
        }
    }
}

fn command(verb: Remote) -> Command {
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
        Remote::Why { address, port } => Command::Why { address, port },
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
