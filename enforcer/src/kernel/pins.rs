//! What outlives the daemon: a directory on a bpffs with one pin per attached interface, and one directory of maps per layout
//! with the program that uses them.
//!
//! Called by `Kernel::load`, `attach` and `detach`. One process at a time has the directory, by a lock that ends with it.
//! Nothing in use is touched before a new program has taken its place: [`Stage`] is what is being made meanwhile.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::programs::ProgramInfo;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use tracing::{info, warn};

use super::{
    bpffs,
    layout::{self, Layout},
    program::Program,
    raw::{self, LinkInfo},
};

/// How the pin of a link is called: the interface's index follows, for its name may hold a dot and may change.
const LINK: &str = "link-";
/// The program that is in use, in the directory of its maps.
const PROGRAM: &str = "program";
/// The one that is about to take its place.
const NEXT: &str = "program-next";
/// How often everything is removed before what is left is taken for somebody else's: a daemon pins a link once a second at most.
const REMOVALS: usize = 4;

/// The directory, and the right to change what is in it.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    lock: Flock<File>,
}

/// A link that was found pinned.
#[derive(Debug)]
pub(super) struct PinnedLink {
    pub(super) path: PathBuf,
    pub(super) link: OwnedFd,
    pub(super) info: LinkInfo,
}

/// The maps of one layout, and the programs that use them.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) directory: PathBuf,
    programs: Vec<(u32, OwnedFd)>,
}

/// What an earlier daemon left.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing that can be taken over.
    Nothing,
    /// Maps that the new program can use.
    Same(Layer),
    /// Maps of another layout.
    Other(Layer),
}

impl Pins {
    /// Makes the directory where it is not there, and takes it; refused while another process has it.
    pub(super) fn claim(directory: &Path) -> Result<Self> {
        bpffs::make(directory)?;
        Self::lock(directory)?.ok_or_else(|| {
            anyhow!(
                "kernel.pin_directory: another enforcer is running on {}: stop it, or name another directory",
                directory.display()
            )
        })
    }

    /// Takes the directory if it is there; `None` also while another process has it.
    pub(super) fn find(directory: &Path) -> Result<Option<Self>> {
        if bpffs::exists(directory) { Self::lock(directory) } else { Ok(None) }
    }

    fn lock(directory: &Path) -> Result<Option<Self>> {
        let file = File::open(directory).with_context(|| format!("opening {}", directory.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // The one before may have removed it between the two calls.
            Ok(lock) if lock.metadata()?.nlink() == 0 => {
                bail!("{} was removed just now: try again", directory.display())
            }
            Ok(lock) => Ok(Some(Self { directory: directory.to_owned(), lock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("locking {}", directory.display())),
        }
    }

    /// Whether somebody has removed the directory. Nothing is pinned there any more, nor may anything be attached.
    pub(super) fn is_gone(&self) -> bool {
        // A descriptor that is held answers always.
        self.lock.metadata().is_ok_and(|found| found.nlink() == 0)
    }

    /// Where the link to an interface is pinned.
    pub(super) fn link_path(&self, interface: u32) -> PathBuf {
        self.directory.join(format!("{LINK}{interface}"))
    }

    /// The link that is pinned for an interface.
    pub(super) fn link(&self, interface: u32) -> Result<Option<PinnedLink>> {
        let path = self.link_path(interface);
        if path.exists() { open_link(path).map(Some) } else { Ok(None) }
    }

    /// What an earlier daemon left, seen from `layout`. Decided by what the links say is in use: a daemon may have been
    /// killed between any two steps.
    pub(super) fn look(&self, layout: &Layout) -> Result<Found> {
        let links = links(&self.directory)?;
        let in_use = |id| links.iter().any(|link| link.info.interface != 0 && link.info.program == id);
        let attached = links.iter().any(|link| link.info.interface != 0);
        let own = self.directory.join(layout.name());
        let mut layers = Vec::new();
        for directory in layers_in(&self.directory)? {
            let programs = programs(&directory);
            let used = programs.iter().any(|(id, _)| in_use(*id));
            if used || !attached {
                layers.push((!used, directory != own, Layer { directory, programs }));
            }
        }
        // What is in use first, then what fits.
        layers.sort_by_key(|(unused, foreign, _)| (*unused, *foreign));
        let Some((_, _, layer)) = layers.into_iter().next() else { return Ok(Found::Nothing) };
        if layer.directory != own {
            return Ok(Found::Other(layer));
        }
        match layout.differs(&own) {
            Ok(()) => Ok(Found::Same(layer)),
            Err(reason) => {
                warn!(directory = %own.display(), reason = format!("{reason:#}"), "what is pinned there is not used again");
                Ok(Found::Other(layer))
            }
        }
    }

    /// Pins the maps of `program`, unless they come from there (`same`), and the program beside them.
    pub(super) fn stage(&self, layout: &Layout, program: &Program, same: bool) -> Result<Stage> {
        let directory = self.directory.join(layout.name());
        let stage = Stage { directory, made: !same, kept: false };
        let context = || format!("pinning the maps in {}", stage.directory.display());
        if !same {
            clear(&stage.directory).with_context(context)?;
            fs::create_dir(&stage.directory).with_context(context)?;
            for name in layout.maps() {
                program.pin_map(name, &stage.directory.join(name)).with_context(context)?;
            }
        }
        let next = stage.directory.join(NEXT);
        if next.exists() {
            // Of a daemon that was killed between two steps; what it attached was found as in use.
            fs::rename(&next, stage.directory.join(PROGRAM)).with_context(context)?;
        }
        raw::pin(program.fd()?, &next).with_context(context)?;
        Ok(stage)
    }

    /// Removes the layers that are not `layout`'s, and the links that are not on one of `interfaces`. Nothing depends on
    /// them any more, so what fails is only told.
    pub(super) fn tidy(&self, layout: &Layout, interfaces: &[u32]) {
        let own = self.directory.join(layout.name());
        let tidied = (|| {
            for link in links(&self.directory)? {
                if !interfaces.contains(&link.info.interface) {
                    if link.info.interface != 0 {
                        info!(
                            interface = link.info.interface,
                            "detached: it is no longer in kernel.interfaces"
                        );
                    }
                    drop_link(&link)?;
                }
            }
            for layer in layers_in(&self.directory)?.iter().filter(|layer| **layer != own) {
                clear(layer)?;
            }
            anyhow::Ok(())
        })();
        if let Err(error) = tidied {
            warn!(error = format!("{error:#}"), "what an earlier daemon pinned cannot be removed");
        }
    }

    /// Detaches and removes everything, the directory included; answers how many interfaces had the program.
    pub(super) fn remove_all(self) -> Result<usize> {
        remove_all(&self.directory)
    }

    /// Removes every pin but leaves attached what is held otherwise: by the links of this process.
    pub(super) fn abandon(self) -> Result<()> {
        for link in links(&self.directory)? {
            fs::remove_file(&link.path)?;
        }
        remove_all(&self.directory).map(drop)
    }
}

/// Detaches and removes everything in `directory`, whoever has it. A daemon that runs on it may attach again until the directory
/// is gone, which its last removal finds out: it succeeds only if nothing was pinned meanwhile.
pub(super) fn remove_all(directory: &Path) -> Result<usize> {
    let mut interfaces = BTreeSet::new();
    for _ in 0..REMOVALS {
        let links = links(directory)?;
        for link in &links {
            drop_link(link)?;
        }
        interfaces.extend(links.iter().map(|link| link.info.interface).filter(|index| *index != 0));
        for layer in layers_in(directory)? {
            clear(&layer)?;
        }
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(interfaces.len()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => return Err(error).with_context(|| format!("removing {}", directory.display())),
        }
    }
    let left = bpffs::list(directory)?;
    let first = left.first().unwrap_or(&directory.to_owned()).display().to_string();
    bail!("{first} is not of enforcer: it stays, and so does {}", directory.display())
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.is_gone() {
            // What has that name now is another's.
            return;
        }
        // A start that failed leaves nothing behind; what is in use keeps its directory.
        let _ = fs::remove_dir(&self.directory);
    }
}

impl Layer {
    /// The program of this number, if it is pinned here.
    pub(super) fn program(&self, id: u32) -> Option<&OwnedFd> {
        self.programs.iter().find(|(other, _)| *other == id).map(|(_, program)| program)
    }

    /// The name of its layout.
    pub(super) fn name(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether this version knows what its tables mean, whichever made them.
    pub(super) fn is_known(&self) -> bool {
        layout::tables(&self.name()) == Some(enforcer_common::settings::TABLES)
    }
}

/// Pins that are removed again unless they are kept.
#[derive(Debug)]
pub(super) struct Stage {
    directory: PathBuf,
    /// Whether the maps were pinned for this start.
    made: bool,
    kept: bool,
}

impl Stage {
    /// The program is in use.
    pub(super) fn keep(mut self) {
        self.kept = true;
        if let Err(error) = fs::rename(self.directory.join(NEXT), self.directory.join(PROGRAM)) {
            // The next start finds it under this name as well.
            warn!(%error, "the pin of the program keeps its first name");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let removed =
            if self.made { clear(&self.directory) } else { fs::remove_file(self.directory.join(NEXT)) };
        if let Err(error) = removed {
            warn!(%error, directory = %self.directory.display(), "what was pinned for this start stays");
        }
    }
}

fn open_link(path: PathBuf) -> Result<PinnedLink> {
    let opened = raw::pinned(&path).and_then(|link| {
        let info = raw::link_info(link.as_fd())?;
        Ok((link, info))
    });
    let (link, info) = opened.with_context(|| format!("opening the pinned link {}", path.display()))?;
    Ok(PinnedLink { path, link, info })
}

fn links(directory: &Path) -> Result<Vec<PinnedLink>> {
    let is_link = |path: &PathBuf| {
        path.file_name().is_some_and(|name| {
            name.to_string_lossy().strip_prefix(LINK).is_some_and(|index| index.parse::<u32>().is_ok())
        })
    };
    bpffs::list(directory)?.into_iter().filter(is_link).map(open_link).collect()
}

fn layers_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let is_layer = |path: &PathBuf| {
        path.is_dir() && path.file_name().is_some_and(|name| layout::abi(&name.to_string_lossy()).is_some())
    };
    Ok(bpffs::list(directory)?.into_iter().filter(is_layer).collect())
}

fn programs(layer: &Path) -> Vec<(u32, OwnedFd)> {
    let open = |name: &str| {
        let path = layer.join(name);
        Some((ProgramInfo::from_pin(&path).ok()?.id(), raw::pinned(&path).ok()?))
    };
    [PROGRAM, NEXT].into_iter().filter_map(open).collect()
}

/// Takes the program off, and removes the pin. A link whose interface is gone holds nothing.
fn drop_link(link: &PinnedLink) -> Result<()> {
    if link.info.interface != 0 {
        let detached = raw::link_detach(link.link.as_fd());
        detached.with_context(|| format!("detaching {}", link.path.display()))?;
    }
    fs::remove_file(&link.path).with_context(|| format!("removing {}", link.path.display()))
}

/// Removes a directory of pins; not being there is no error.
fn clear(layer: &Path) -> io::Result<()> {
    if !layer.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(layer)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(layer)
}
