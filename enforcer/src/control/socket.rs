//! Who may speak to the daemon: the socket's place, its permissions, and the check of the peer.
//!
//! The file mode keeps strangers out; the peer's credentials are checked besides, because modes are easily widened by
//! hand. The daemon binds once at its start; the file goes when the [`Socket`] is dropped.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    sys::signal::kill,
    unistd::{Gid, Group, Pid, Uid, User},
};
use tokio::net::UnixListener;

use crate::fault;

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
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        make(folder).map_err(|error| {
            let what = format!("cannot create the folder {} of the control socket", folder.display());
            explain(error, &what)
        })?;
        refuse_occupied(path)?;
        remove_leftovers(folder);
        // Between bind and chmod the socket has the mode that the umask leaves: it lies in a folder that nobody else
        // may enter until it is as it should be, and is then moved into place.
        let aside = Aside::make(folder).map_err(|error| {
            explain(error, &format!("cannot prepare the control socket {}", path.display()))
        })?;
        let fresh = aside.0.join("s");
        let listener = UnixListener::bind(&fresh)
            .map_err(|error| explain(error, &format!("cannot bind the control socket {}", path.display())))?;
        let inode = place(&fresh, path, group)?;
        Ok(Self { listener, group, path: path.to_path_buf(), inode })
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

/// What the names of folders begin with in which sockets are made; the process's id follows.
const ASIDE: &str = ".socket.";

/// A folder for the daemon's user alone, which goes when this is dropped.
struct Aside(PathBuf);

impl Aside {
    fn make(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("{ASIDE}{}", std::process::id()));
        clear(&path);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        clear(&self.0);
    }
}

/// Removes such a folder and the socket in it, and nothing else.
fn clear(aside: &Path) {
    let _ = fs::remove_file(aside.join("s"));
    let _ = fs::remove_dir(aside);
}

/// Removes what a process left behind that was killed while it started.
fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(ASIDE)).and_then(|id| id.parse().ok());
        let gone = |id: i32| kill(Pid::from_raw(id), None) == Err(Errno::ESRCH);
        if id.is_some_and(|id| id > 0 && gone(id)) {
            clear(&entry.path());
        }
    }
}

/// What the system said, and what to do about it.
#[allow(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open-ended")]
fn explain(error: io::Error, what: &str) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full: make room there",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only: name a path under /run",
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "no folder can be made there: name a path under /run"
        }
        io::ErrorKind::PermissionDenied => {
            return fault::permission(format!(
                "{what} (control.socket): permission denied; let the daemon's user write there, or name a path where it may"
            ));
        }
        _ => return anyhow::Error::new(error).context(format!("{what} (control.socket)")),
    };
    anyhow!("{what} (control.socket): {advice}")
}

/// Makes the directory, if it is not there, with a mode that no umask cuts: members of the group must get through.
fn make(directory: &Path) -> io::Result<()> {
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
            let text = format!(
                "there is no group `{name}` (control.group): create it with `groupadd --system {name}`"
            );
            Err(fault::configuration(text))
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

fn place(fresh: &Path, path: &Path, group: Option<Gid>) -> Result<u64> {
    let what = || format!("setting up the control socket {}", path.display());
    nix::unistd::chown(fresh, None, group).with_context(what)?;
    fs::set_permissions(fresh, fs::Permissions::from_mode(MODE)).with_context(what)?;
    fs::rename(fresh, path).with_context(what)?;
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
