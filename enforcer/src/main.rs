//! The `enforcer` command; everything is in the library.

use std::process::ExitCode;

use enforcer::{
    cli::{self, local::Program},
    daemon,
    policy::{jwks, tls},
};

/// Requests and connections are many small pieces of memory, which this one hands out and takes back at a fraction of the cost of
/// the C library's; what is free for a while goes back to the kernel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let program = Program {
        run: daemon::run,
        verify: daemon::verify,
        key_set: jwks::problems,
        tls_file: tls::problem,
        token: daemon::token,
        pins: daemon::pins,
        attestation: daemon::attestation,
    };
    cli::main(std::env::args_os(), &program)
}
