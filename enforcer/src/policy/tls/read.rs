//! PEM files as they lie on the disk, with errors that say which file and why. Decides nothing about their content.

use std::{fs, io, path::Path};

use anyhow::{Result, anyhow, bail};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// Larger files are refused unread: no list of certificates or revocations that a server wants in memory is that long.
const MOST_BYTES: u64 = 64 << 20;

/// The certificates of a file, one at least.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(error, path, "certificates"))?;
    if chain.is_empty() {
        bail!("{} holds no certificate in PEM form", path.display());
    }
    Ok(chain)
}

/// The first private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| pem_error(error, path, "a private key"))
}

/// A file's bytes.
pub(super) fn bytes(path: &Path, what: &str) -> Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        if fs::metadata(path)?.len() > MOST_BYTES {
            return Err(io::Error::other(format!("it has more than {} MiB", MOST_BYTES >> 20)));
        }
        fs::read(path)
    };
    read().map_err(|error| io_error(error, path, what))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "all others are about the text")]
fn pem_error(error: pem::Error, path: &Path, what: &str) -> anyhow::Error {
    match error {
        pem::Error::Io(error) => io_error(error, path, &format!("{what} (PEM)")),
        error => {
            anyhow::Error::new(error).context(format!("cannot read {what} (PEM) from {}", path.display()))
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open-ended")]
fn io_error(error: io::Error, path: &Path, what: &str) -> anyhow::Error {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let user = nix::unistd::Uid::effective();
            anyhow!(
                "cannot read {what} from {path}: the daemon runs as uid {user} and must be able to read it (`namei -l {path}` shows what stands in the way)"
            )
        }
        io::ErrorKind::NotFound => anyhow!("cannot read {what} from {path}: there is no such file"),
        _ => anyhow::Error::new(error).context(format!("cannot read {what} from {path}")),
    }
}
