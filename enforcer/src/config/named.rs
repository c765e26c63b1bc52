//! What a file names outside itself, and where in the file it does. The rules gather it while they judge the file,
//! [`super::environment`] looks at it; nothing is read here.

use std::{net::SocketAddr, ops::Range, path::PathBuf};

use super::{TlsFile, TokenAlgorithm};

/// Where a value stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) span: Range<usize>,
    /// As in [`super::Error::key`].
    pub(super) key: String,
}

/// A file that is named, and where.
pub(super) type NamedFile = (Place, PathBuf);

/// Something that must be there, or free, for the daemon to start.
#[derive(Clone, Debug)]
pub(super) enum Named {
    Interface(String),
    /// What the kernel allows of SYN cookies.
    SynCookies,
    /// Whether the program may send frames on these interfaces.
    Answers(Vec<String>),
    /// Either part may be missing in the file; the other one is looked at nevertheless.
    Certificate {
        chain: Option<NamedFile>,
        key: Option<NamedFile>,
    },
    /// Another file for TLS.
    TlsFile(PathBuf, TlsFile),
    KeySet(PathBuf, Vec<TokenAlgorithm>),
    Group(String),
    /// An address to listen on, of a listener or for metrics.
    Address(SocketAddr),
    Socket(PathBuf),
}
