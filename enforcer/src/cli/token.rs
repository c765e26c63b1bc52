//! `enforcer token verify`: what becomes of a token, step by step. The steps are the daemon's own; here they are only shown.

use std::{
    io::{self, Read as _},
    path::Path,
};

use serde::Serialize;

use super::{
    args::TokenVerify,
    exit::{self, Exit},
    local::Program,
    output,
};
use crate::{
    config,
    control::{
        client,
        wire::{Answer, Command, TokenCommand},
    },
    denial::Denial,
};

/// Bytes of standard input that are read: more than any token may have.
const MOST: u64 = 64 << 10;

/// What became of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was found in order, up to where it ended.
    pub steps: Vec<Step>,
    /// Why it is refused; absent for a good one.
    pub refused: Option<Refused>,
}

/// One step that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub found: String,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The `code` of the answer.
    pub code: &'static str,
    /// The answer's status.
    pub status: u16,
    /// What that means.
    pub meaning: &'static str,
}

/// Shows what a request with the token would meet.
pub fn verify(program: &Program, socket: &Path, verb: &TokenVerify, json: bool) -> Exit {
    let config = match config::load(&verb.config) {
        Ok(config) => config,
        Err(errors) => {
            output::problems(&errors.0);
            return exit::CONFIGURATION;
        }
    };
    let mut token = verb.token.clone().into_bytes();
    if token == b"-" {
        token.clear();
        if let Err(error) = io::stdin().lock().take(MOST).read_to_end(&mut token) {
            output::complain(&format!("standard input: {error}"));
            return exit::FAILED;
        }
    }
    let token = token.trim_ascii();
    let token = match token.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii_start(),
        _ => token,
    };
    let mut report = match (program.token)(&config, verb, token) {
        Ok(report) => report,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            return exit::CONFIGURATION;
        }
    };
    if verb.ask && report.refused.is_none() {
        match asked(socket, token) {
            Ok(answer) => report.add(answer),
            Err(problem) => {
                output::complain(&problem);
                return exit::UNREACHABLE;
            }
        }
    }
    if json {
        output::json(&report);
    } else {
        output::answer(&report.text());
    }
    if report.refused.is_none() { exit::OK } else { exit::FAILED }
}

/// What the daemon says of the token: nothing, or why it refuses it.
fn asked(socket: &Path, token: &[u8]) -> Result<Option<(Denial, Option<String>)>, String> {
    let token = String::from_utf8_lossy(token).into_owned();
    match client::ask(socket, Command::Token(TokenCommand::Judge { token })) {
        Ok(Answer::Judged(row)) => {
            let denial = row.refused.as_deref().and_then(Denial::from_code);
            Ok(denial.map(|denial| (denial, row.revoked_by)))
        }
        Ok(_) => Err("the daemon answers something else: use its own command line".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Report {
    /// What the daemon says besides.
    fn add(&mut self, answer: Option<(Denial, Option<String>)>) {
        let found = match &answer {
            None => "takes it, so it is not revoked".to_owned(),
            Some((_, Some(by))) => format!("refuses it by its {by}"),
            Some((_, None)) => "refuses it".to_owned(),
        };
        self.steps.push(Step { name: "daemon", found });
        self.refused = answer.map(|(denial, _)| Refused {
            code: denial.code(),
            status: denial.status(),
            meaning: denial.description(),
        });
    }

    /// For people.
    fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            // What stands in a token may be anything, and goes to a terminal.
            text += &format!("ok       {:<10} {}\n", step.name, step.found.escape_debug());
        }
        text + &match &self.refused {
            None => "good     a request with this token passes\n".to_owned(),
            Some(Refused { code, status, meaning }) => format!("refused  {code} ({status}): {meaning}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_says_cannot_write_to_the_terminal() {
        let step = Step { name: "key", found: "\u{1b}[2J".to_owned() };
        let refused = Refused { code: "token_expired", status: 401, meaning: "The token has expired." };
        let text = Report { steps: vec![step], refused: Some(refused) }.text();
        assert_eq!(
            text,
            "ok       key        \\u{1b}[2J\nrefused  token_expired (401): The token has expired.\n"
        );
    }
}
