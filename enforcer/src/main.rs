//! The `enforcer` command; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer::cli::main(std::env::args_os())
}
