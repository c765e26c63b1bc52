//! Who may speak to the daemon: the socket's place, its permissions, and the check of the peer.
//!
//! The file mode keeps strangers out; the peer's credentials are checked besides, because modes are easily widened by
//! hand. The daemon binds once at its start; the file goes when the [`Socket`] is dropped.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{Gid, Group, Uid, User};
use tokio::net::UnixListener;

/// Read and write for owner and group, nobody else.
const MODE: u32 = 0o660;

/// Others may look for the socket.
const DIRECTORY_MODE: u32 = 0o755;

/// A bound control socket.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    pub(super) group: Option<Gid>,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Binds `path` for root, the daemon's own user and the members of `group`. A file that nobody answers on is replaced.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self> {
        let group = group.map(find_group).transpose()?;
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            make(directory)
                .with_context(|| format!("creating {} for the control socket", directory.display()))?;
        }
        refuse_occupied(path)?;
        // Bound aside and moved into place: nobody can connect before the mode is right.
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(aside);
        let _ = fs::remove_file(&aside);
        let listener = UnixListener::bind(&aside)
            .with_context(|| format!("binding the control socket {} (control.socket)", path.display()))?;
        let placed = place(&aside, path, group);
        if placed.is_err() {
            let _ = fs::remove_file(&aside);
        }
        Ok(Self { listener, group, path: path.to_path_buf(), inode: placed? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a peer may use the socket.
pub(super) fn permitted(uid: u32, gid: u32, group: Option<Gid>) -> bool {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if uid.is_root() || uid == Uid::effective() || group == Some(gid) {
        return true;
    }
    let (Some(group), Ok(Some(user))) = (group, User::from_uid(uid)) else { return false };
    let Ok(name) = std::ffi::CString::new(user.name) else { return false };
    nix::unistd::getgrouplist(&name, gid).is_ok_and(|groups| groups.contains(&group))
}

/// Makes the directory, if it is not there, with a mode that no umask cuts: members of the group must get through.
fn make(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE))
}

fn find_group(name: &str) -> Result<Gid> {
    let group =
        Group::from_name(name).with_context(|| format!("looking up the group `{name}` (control.group)"))?;
    match group {
        Some(group) => Ok(group.gid),
        None => {
            bail!("there is no group `{name}` (control.group): create it with `groupadd --system {name}`")
        }
    }
}

fn refuse_occupied(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        bail!("{} exists and is no socket: remove it, or set control.socket", path.display());
    }
    match UnixStream::connect(path) {
        Ok(_) => {
            bail!("another daemon answers on {}: stop it, or set another control.socket", path.display())
        }
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("asking whether another daemon answers on {}", path.display()))
        }
    }
}

fn place(aside: &Path, path: &Path, group: Option<Gid>) -> Result<u64> {
    let what = || format!("setting up the control socket {}", path.display());
    nix::unistd::chown(aside, None, group).with_context(what)?;
    fs::set_permissions(aside, fs::Permissions::from_mode(MODE)).with_context(what)?;
    fs::rename(aside, path).with_context(what)?;
    Ok(fs::metadata(path).with_context(what)?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_refused_and_the_group_is_not() {
        // An id that no system hands out, and a group that this user is not in.
        let (stranger, theirs, group) = (4_000_000_001, 4_000_000_002, Gid::from_raw(4_000_000_003));
        assert!(!permitted(stranger, theirs, None));
        assert!(!permitted(stranger, theirs, Some(group)));
        assert!(permitted(stranger, group.as_raw(), Some(group)));
        assert!(permitted(0, theirs, None) && permitted(Uid::effective().as_raw(), theirs, None));
    }
}
