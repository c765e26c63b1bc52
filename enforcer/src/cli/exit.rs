//! What scripts see. The numbers above 63 are those of BSD's `sysexits.h`.

use std::process::ExitCode;

use crate::control::{client::ClientError, wire::FailureKind};

/// An exit code with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

/// It was done.
pub const OK: Exit = Exit(0);
/// It was refused, or it failed.
pub const FAILED: Exit = Exit(1);
/// The command line makes no sense.
pub const USAGE: Exit = Exit(2);
/// No daemon answers.
pub const UNREACHABLE: Exit = Exit(69);
/// The caller may not.
pub const PERMISSION: Exit = Exit(77);
/// The configuration is wrong.
pub const CONFIGURATION: Exit = Exit(78);

/// The same for people, below `--help`.
pub const HELP: &str = "\
Exit codes:
  0   done
  1   refused, or failed
  2   the command line makes no sense
  69  no daemon answers on the control socket
  77  no permission
  78  the configuration is wrong";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

impl From<&ClientError> for Exit {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Unreachable(_) => UNREACHABLE,
            ClientError::Permission(_) => PERMISSION,
            ClientError::Garbled(_) => FAILED,
            ClientError::Failed(failure) => match failure.kind {
                FailureKind::Permission => PERMISSION,
                FailureKind::Configuration => CONFIGURATION,
                FailureKind::Malformed
                | FailureKind::Version
                | FailureKind::Refused
                | FailureKind::Failed
                | FailureKind::Busy => FAILED,
            },
        }
    }
}
