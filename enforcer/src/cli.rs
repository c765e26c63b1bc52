//! The command line: `enforcer run`, and everything that asks a running daemon.
//!
//! [`args`] is what can be typed, [`render`] what is shown, [`exit`] what scripts see. Only [`output`] writes to the
//! terminal. It decides nothing about packets or requests.

pub mod args;
pub mod attestation;
pub mod events;
pub mod exit;
pub mod explain;
pub mod import;
pub mod local;
pub mod log;
pub mod output;
pub mod pins;
pub mod remote;
pub mod render;
mod revoke;
pub mod session;
pub mod table;
pub mod token;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

use args::{Args, AttestationVerb, Remote, TokenVerb, Verb};
use local::Program;

/// Runs the command line `args`, the program's name first, over `program`.
pub fn main(args: impl IntoIterator<Item = OsString>, program: &Program) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to do when the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::OK }.into();
        }
    };
    let code = match args.verb {
        Verb::Run { config } => local::run(program, &config),
        Verb::Check { config } => local::check(program, &config, args.json),
        Verb::Log(verb) => log::log(&verb, args.json),
        Verb::Explain(verb) => explain::explain(&verb, args.json),
        Verb::Token(TokenVerb::Verify(verb)) => token::verify(program, &args.socket, &verb, args.json),
        Verb::Attestation(AttestationVerb::Verify(verb)) => attestation::verify(program, &verb, args.json),
        Verb::Token(verb) => revoke::ask(&args.socket, verb, args.json),
        Verb::Pins(verb) => pins::pins(program, &args.socket, verb, args.json),
        Verb::Remote(Remote::Events(verb)) => events::events(&args.socket, &verb, args.json),
        Verb::Detach { pin_directory, config, force } => {
            let directory = pin_directory.unwrap_or_else(|| local::pin_directory(&config));
            local::detach(&directory, force, args.json)
        }
        Verb::Remote(verb) => remote::ask(&args.socket, verb, args.json),
    };
    code.into()
}
