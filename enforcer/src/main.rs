//! The `enforcer` command; everything is in the library.

use std::process::ExitCode;

use enforcer::{
    cli::{self, local::Program},
    daemon,
    policy::{jwks, tls},
};

fn main() -> ExitCode {
    let program = Program {
        run: daemon::run,
        verify: daemon::verify,
        key_set: jwks::problems,
        tls_file: tls::problem,
        token: daemon::token,
    };
    cli::main(std::env::args_os(), &program)
}
