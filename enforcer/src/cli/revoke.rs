//! `enforcer token revoke`, `restore` and `revoked`: what the daemon is asked.

use std::{
    io::{self, Read as _},
    path::Path,
};

use super::{
    args::{TokenVerb, What},
    exit::{self, Exit},
    output, remote,
};
use crate::control::wire::{Command, Named, TokenCommand};

/// Bytes of standard input that are read: more than any token may have.
const MOST: u64 = 64 << 10;

/// Asks the daemon at `socket`; nothing comes of `verify`, which is elsewhere.
pub(super) fn ask(socket: &Path, verb: TokenVerb, json: bool) -> Exit {
    let command = match command(verb) {
        Ok(Some(command)) => command,
        Ok(None) => return exit::USAGE,
        Err(problem) => {
            output::complain(&problem);
            return exit::USAGE;
        }
    };
    remote::tell(socket, Command::Token(command), json)
}

fn command(verb: TokenVerb) -> Result<Option<TokenCommand>, String> {
    let missing =
        || "name what is meant by --jti, --sid, --subject, --device, --kid, --token or --every".to_owned();
    Ok(Some(match verb {
        TokenVerb::Revoke(revoke) => TokenCommand::Revoke {
            what: named(revoke.what)?.ok_or_else(missing)?,
            issued_before: revoke.issued_before,
            whenever: revoke.whenever,
            seconds: revoke.duration.map(|duration| duration.as_secs()),
            forever: revoke.forever,
        },
        TokenVerb::Restore(what) => TokenCommand::Restore { what: named(what)?.ok_or_else(missing)? },
        TokenVerb::Revoked(what) => TokenCommand::Revoked { what: named(what)? },
        TokenVerb::Verify(_) => return Ok(None),
    }))
}

/// `None` where nothing is named.
fn named(what: What) -> Result<Option<Named>, String> {
    let What { names, issuer } = what;
    let token = match names.token {
        Some(text) if text == "-" => {
            let mut text = String::new();
            let read = io::stdin().lock().take(MOST).read_to_string(&mut text);
            read.map_err(|error| format!("standard input: {error}"))?;
            Some(text.trim().to_owned())
        }
        other => other,
    };
    let given = [
        ("jti", names.jti),
        ("sid", names.sid),
        ("subject", names.subject),
        ("device", names.device),
        ("kid", names.kid),
        ("token", token),
        ("every", names.every.then(String::new)),
    ];
    let found = given.into_iter().find_map(|(kind, text)| Some((kind, text?)));
    Ok(found.map(|(kind, text)| Named { kind: kind.to_owned(), text, issuer }))
}
