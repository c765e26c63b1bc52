//! The `enforcer` command; everything is in the library.

use std::process::ExitCode;

use enforcer::{
    cli::{self, local::Program},
    daemon,
    policy::jwks,
};

fn main() -> ExitCode {
    let program = Program { run: daemon::run, verify: daemon::verify, key_set: jwks::problems };
    cli::main(std::env::args_os(), &program)
}
