//! The `enforcer` command; everything is in the library.

use std::process::ExitCode;

use enforcer::{
    cli::{self, local::Program},
    daemon,
};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &Program { run: daemon::run, verify: daemon::verify })
}
