//! The file that remembers which document apps have: its version and a hash of what it says, on one line. It outlives the process, since
//! apps that are given an older document go on with the one that they have, and say nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{super::switches, Document};

/// Beside the file of the switches, with `.version` behind its name.
fn beside(switches: &Path) -> PathBuf {
    let mut path = switches.as_os_str().to_owned();
    path.push(".version");
    path.into()
}

/// Version and hash; `None`: no document has been given out.
fn read(path: &Path) -> Result<Option<(u64, String)>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let known = text.trim().split_once(' ').and_then(|(version, hash)| {
        let is_hash = URL_SAFE_NO_PAD.decode(hash).is_ok_and(|hash| hash.len() == 32);
        version.parse().ok().filter(|_| is_hash).map(|version| (version, hash.to_owned()))
    });
    let Some(known) = known else {
        bail!(
            "{} holds no version and hash of a document: look in an app which version it has, write that or more as pins.document.version, and remove the file",
            path.display()
        );
    };
    Ok(Some(known))
}

impl Document {
    /// Whether apps that have the last document which was written down take this one.
    ///
    /// # Errors
    ///
    /// It is older, or of the same version and says something else; or nobody can tell.
    pub(in crate::policy::pins) fn succeeds(&self, switches: &Path) -> Result<()> {
        let path = beside(switches);
        let Some((version, hash)) = read(&path).context("pins.document")? else { return Ok(()) };
        if self.version < version {
            bail!(
                "pins.document.version: apps have been given version {version}, and take no older document: write {} or more ({} remembers it)",
                version + u64::from(hash != self.hash()),
                path.display()
            );
        }
        if self.version == version && hash != self.hash() {
            bail!(
                "pins.document.version: the pins are others than those of version {version}, and apps take no other document of version {version}: write {} or more ({} remembers it)",
                version + 1,
                path.display()
            );
        }
        Ok(())
    }

    /// Writes it down, unless it is what was written last. It is on the disk when that is over.
    ///
    /// # Errors
    ///
    /// The file beside that of the switches cannot be replaced.
    pub fn remember(&self, switches: &Path) -> Result<()> {
        let path = beside(switches);
        let known = (self.version, self.hash());
        if matches!(read(&path), Ok(Some(found)) if found == known) {
            return Ok(());
        }
        let text = format!("{} {}\n", known.0, known.1);
        switches::replace(&path, &text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Of what it says of pins.
    fn hash(&self) -> String {
        let text = serde_json::to_vec(&self.entries).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &text).as_ref())
    }
}
