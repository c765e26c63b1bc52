//! Faults that have an exit code of their own: whoever finds one says what kind it is, `daemon` turns that into the code.
//!
//! The kernel side, the front door and the control socket make them while the daemon starts. An error without a kind
//! is a plain failure.

use std::{error, fmt};

/// What kind of fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A permission or a capability is missing.
    Permission,
    /// The configuration, or something that it names, is wrong.
    Configuration,
}

/// An error with a kind, which any context that is put around it keeps.
#[derive(Debug)]
struct Fault {
    kind: Kind,
    text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl error::Error for Fault {}

/// A permission or a capability is missing: `text` says which, and who can give it.
pub fn permission(text: impl Into<String>) -> anyhow::Error {
    Fault { kind: Kind::Permission, text: text.into() }.into()
}

/// The configuration is wrong: `text` says where, and what to write instead.
pub fn configuration(text: impl Into<String>) -> anyhow::Error {
    Fault { kind: Kind::Configuration, text: text.into() }.into()
}

/// The kind of `error`; what the system denied counts as a permission.
pub fn kind(error: &anyhow::Error) -> Option<Kind> {
    use nix::errno::Errno;
    error.chain().find_map(|cause| {
        let denied = matches!(cause.downcast_ref(), Some(Errno::EPERM | Errno::EACCES))
            || cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
        let own = cause.downcast_ref::<Fault>().map(|fault| fault.kind);
        own.or(denied.then_some(Kind::Permission))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_context_and_a_text_alone_has_none() {
        assert_eq!(kind(&configuration("no such group").context("binding")), Some(Kind::Configuration));
        assert_eq!(kind(&permission("CAP_BPF").context("a").context("b")), Some(Kind::Permission));
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(kind(&anyhow::Error::new(denied).context("x")), Some(Kind::Permission));
        assert_eq!(kind(&anyhow::anyhow!("permission denied")), None);
    }
}
