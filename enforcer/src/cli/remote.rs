//! The verbs that a running daemon answers: asks, and shows what comes back.

use std::path::Path;

use super::{
    args::{AllowVerb, BanAdd, BanVerb, DeviceVerb, Events, Only, Proto, Remote, TierVerb, Whom},
    exit::{self, Exit},
    import::{self, Import},
    output, render, session,
};
use crate::{
    control::{
        bulk::Order,
        client::{self, ClientError},
        wire::{Answer, Command, DeviceCommand, DeviceFilter, TierCommand},
    },
    kernel::Protocol,
};

/// What a verb comes to.
enum Asked {
    /// A question.
    One(Command),
    /// A list, which is asked about part by part.
    Many(Import),
}

/// Asks the daemon at `socket`.
pub fn ask(socket: &Path, verb: Remote, json: bool) -> Exit {
    let command = match asked(verb) {
        Asked::One(command) => command,
        Asked::Many(list) => return import::import(socket, &list, json),
    };
    tell(socket, command, json)
}

/// Asks one thing, and shows the answer.
pub(super) fn tell(socket: &Path, command: Command, json: bool) -> Exit {
    match client::ask(socket, command) {
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

fn asked(verb: Remote) -> Asked {
    Asked::One(match verb {
        Remote::Status => Command::Status,
        Remote::Ban(BanVerb::Add(add)) => return ban(add),
        Remote::Ban(BanVerb::Del(whom)) => match whom.prefix {
            Some(prefix) => Command::BanDel { prefix },
            None => return many(whom, Order::Lift),
        },
        Remote::Ban(BanVerb::List) => Command::BanList,
        Remote::Allow(AllowVerb::Add { prefix, reason, force }) => {
            Command::AllowAdd { prefix, reason, force }
        }
        Remote::Allow(AllowVerb::Del { prefix }) => Command::AllowDel { prefix },
        Remote::Allow(AllowVerb::List) => Command::AllowList,
        Remote::Tier(TierVerb::Set { prefix, tier, reason }) => {
            Command::Tier(TierCommand::Set { prefix, tier, reason })
        }
        Remote::Tier(TierVerb::Del { prefix }) => Command::Tier(TierCommand::Del { prefix }),
        Remote::Tier(TierVerb::List) => Command::Tier(TierCommand::List),
        Remote::Device(verb) => Command::Device(match verb {
            DeviceVerb::List { after, limit, blocked, only } => {
                let Only { platform, level, app, serial, seen_before } = only;
                let only = DeviceFilter { platform, level, app, serial, seen_before };
                DeviceCommand::List { after, most: Some(limit), blocked, only }
            }
            DeviceVerb::Show { device } => DeviceCommand::Show { device },
            DeviceVerb::Block { serial: Some(serial), most, reason, .. } => {
                DeviceCommand::BlockAll { serial, reason, most }
            }
            // Without a serial number the command line demands a name.
            DeviceVerb::Block { device, reason, .. } => {
                DeviceCommand::Block { device: device.unwrap_or_default(), reason }
            }
            DeviceVerb::Unblock { device } => DeviceCommand::Unblock { device },
            DeviceVerb::Forget { device } => DeviceCommand::Forget { device },
        }),
        Remote::Why { address, port, proto } => {
            let protocol = match proto {
                Proto::Tcp => Protocol::Tcp,
                Proto::Udp => Protocol::Udp,
            };
            Command::Why { address, port, protocol }
        }
        Remote::Events(wanted) => events(wanted),
        Remote::Reload => Command::Reload,
        Remote::Metrics => Command::Metrics,
    })
}

/// What the daemon is asked for samples.
pub(super) fn events(wanted: Events) -> Command {
    let Events { reason, source, count: _, pcap } = wanted;
    Command::Events { reason, source, frames: pcap.is_some() }
}

fn ban(add: BanAdd) -> Asked {
    let BanAdd { whom, duration, forever, reason, force } = add;
    let (seconds, own_address) = (duration.map(|duration| duration.as_secs()), session::address());
    match whom.prefix {
        Some(prefix) => Asked::One(Command::BanAdd { prefix, seconds, forever, reason, force, own_address }),
        None => many(whom, Order::Ban { seconds, forever, reason, force, own_address }),
    }
}

/// Without a prefix there is a file: the command line demands one of them.
fn many(whom: Whom, order: Order) -> Asked {
    let file = whom.file.unwrap_or_else(|| import::STDIN.into());
    Asked::Many(Import { file, skip_invalid: whom.skip_invalid, order })
}

/// The answer without its wrapping: scripts know what they asked for.
fn show_json(answer: &Answer) {
    match answer {
        Answer::Status(status) => output::json(status),
        Answer::Done(done) => output::json(done),
        Answer::Many(many) => output::json(many),
        Answer::Bans(rows) => output::json(rows),
        Answer::Allowances(rows) => output::json(rows),
        Answer::Tiers(rows) => output::json(rows),
        Answer::Revoked(row) => output::json(row),
        Answer::Judged(row) => output::json(row),
        Answer::Devices(page) => output::json(page),
        Answer::Device(row) => output::json(row),
        Answer::Seen(row) => output::json(row),
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
