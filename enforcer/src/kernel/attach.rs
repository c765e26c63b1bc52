//! Attaches the program to interfaces, all or none, explains why it could not, and looks after them.
//!
//! Called by `Kernel::attach` and `Kernel::reconcile` alone. Where links are pinned, the program on a link that is there is
//! replaced: every packet meets the old one or the new one. Without pins, what was attached ends with its [`Link`].

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tracing::{error, info, warn};

use super::{
    Attachment, DETACHED, WITHDRAWN, holder,
    pins::{Layer, PinnedLink, Pins},
    program::Program,
    raw::{self, Hook},
};
use crate::{config::Mode, fault};

/// A configured interface, and the link to it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) attachment: Attachment,
    /// None while the program is not attached.
    link: Option<OwnedFd>,
    /// Why it could not be attached again, as it was logged.
    told: String,
}

/// How to attach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) program: &'a Program,
    pub(super) mode: Mode,
    /// Where an earlier daemon has pinned links.
    pub(super) pins: Option<&'a Pins>,
    /// Whether new links are pinned there; otherwise they end with this process.
    pub(super) persist: bool,
    /// Where the programs are that the pinned links have now.
    pub(super) before: Option<&'a Layer>,
}

/// Attaches to every interface, or to none: until the change is kept, dropping it makes everything as it was.
pub(super) fn attach_all(site: Site<'_>, interfaces: &[String]) -> Result<(Vec<Link>, Change)> {
    refuse_duplicates(interfaces)?;
    let found = interfaces.iter().map(|name| find(name).map(|index| (name, index)));
    // Every name is looked up before the first interface is touched: attaching can interrupt a link.
    let found = found.collect::<Result<Vec<_>>>()?;
    let mut change = Change { steps: Vec::new() };
    let links = found.into_iter().map(|(name, index)| replace_or_attach(site, name, index, &mut change));
    let links = links.collect::<Result<Vec<_>>>()?;
    Ok((links, change))
}

/// What was done to interfaces, newest last.
#[derive(Debug)]
pub(super) struct Change {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    /// The program on a link was replaced; this one was there.
    Replaced { link: OwnedFd, before: Option<OwnedFd> },
    /// A link was taken away.
    Removed { interface: u32, hook: Hook, before: Option<OwnedFd>, pin: PathBuf },
    /// A link was made.
    Made { link: OwnedFd, pin: Option<PathBuf> },
}

impl Change {
    /// All is well: nothing is undone any more.
    pub(super) fn keep(mut self) {
        self.steps.clear();
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        for step in self.steps.drain(..).rev() {
            if let Err(error) = step.undo() {
                error!(%error, "an interface could not be left as it was");
            }
        }
    }
}

impl Step {
    fn undo(self) -> io::Result<()> {
        match self {
            Self::Replaced { link, before: Some(before) } => raw::link_update(link.as_fd(), before.as_fd()),
            Self::Removed { interface, hook, before: Some(before), pin } => {
                let link = raw::link_create(before.as_fd(), interface, hook)?;
                raw::pin(link.as_fd(), &pin)
            }
            Self::Replaced { before: None, .. } | Self::Removed { before: None, .. } => {
                Err(io::Error::new(io::ErrorKind::NotFound, "the program from before is not pinned"))
            }
            Self::Made { link, pin } => {
                raw::link_detach(link.as_fd())?;
                pin.map_or(Ok(()), fs::remove_file)
            }
        }
    }
}

/// Asks the kernel whether the program is still where it was attached, and attaches it to interfaces that came back under
/// their name. A link outlives its interface but holds nothing then, and the kernel tells nobody.
pub(super) fn reconcile(site: Site<'_>, links: &mut [Link]) -> Result<()> {
    let own = site.program.id()?;
    let withdrawn = site.pins.is_some_and(Pins::is_gone);
    links.iter_mut().try_for_each(|link| {
        let name = link.attachment.interface.clone();
        let by_name = nix::net::if_::if_nametoindex(name.as_str()).ok();
        // One that was renamed is still judged, and there is no other.
        let index = by_name.unwrap_or(link.attachment.index);
        if holder::holds(index, own).with_context(|| format!("asking for the program on {name}"))? {
            return Ok(());
        }
        if link.attachment.is_attached() {
            if withdrawn {
                error!(interface = %name, "an operator has detached the program: no packet is judged there until the daemon is started anew");
            } else {
                error!(interface = %name, "the program is gone with its interface: no packet is judged there");
            }
        }
        if withdrawn {
            // Who has removed the pins does not want it back.
            WITHDRAWN.clone_into(&mut link.attachment.mode);
            link.link = None;
            return Ok(());
        }
        let attached_to = std::mem::replace(&mut link.attachment.index, 0);
        DETACHED.clone_into(&mut link.attachment.mode);
        // The old link holds nothing, unless its interface lives on under another name.
        if attached_to != 0 && !holder::holds(attached_to, own)? {
            link.link = None;
            if let Some(pins) = site.pins {
                let _ = fs::remove_file(pins.link_path(attached_to));
            }
        }
        let Some(index) = by_name else { return Ok(()) };
        let mut change = Change { steps: Vec::new() };
        match attach(site, &name, index, &mut change) {
            Ok(made) => {
                change.keep();
                *link = made;
                warn!(interface = %name, mode = %link.attachment.mode, "attached to the interface of that name");
            }
            Err(error) => {
                let message = format!("{error:#}");
                if link.told != message {
                    error!(interface = %name, error = message, "cannot attach again; trying on");
                    link.told = message;
                }
            }
        }
        Ok(())
    })
}

fn find(interface: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(interface).map_err(|error| {
        if error != nix::errno::Errno::ENODEV {
            return anyhow!("kernel.interfaces: `{interface}`: {error}");
        }
        fault::configuration(format!(
            "kernel.interfaces: there is no interface `{interface}` here; there are: {}",
            names().join(", ")
        ))
    })
}

/// The interfaces of this network namespace.
fn names() -> Vec<String> {
    let mut names: Vec<String> = nix::net::if_::if_nameindex()
        .iter()
        .flat_map(|all| all.iter().map(|interface| interface.name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

/// Puts the program on the pinned link of an interface, or attaches it where there is none.
fn replace_or_attach(site: Site<'_>, name: &str, index: u32, change: &mut Change) -> Result<Link> {
    let Some(pinned) = site.pins.map(|pins| pins.link(index)).transpose()?.flatten() else {
        return attach(site, name, index, change);
    };
    if pinned.info.interface == 0 {
        // Its interface is gone, and another one has got the number.
        fs::remove_file(&pinned.path)?;
        return attach(site, name, index, change);
    }
    let Some(hook) = holder::hook(index, pinned.info.program)? else {
        bail!(
            "the link in {} is on an interface of another network namespace: name another kernel.pin_directory for this one, or run `enforcer detach` there",
            pinned.path.display()
        );
    };
    let before = site.before.and_then(|layer| layer.program(pinned.info.program));
    let before = before.map(OwnedFd::try_clone).transpose()?;
    if !accepts(site.mode, hook) {
        warn!(
            interface = name,
            from = hook.label(),
            "kernel.mode has changed: for a moment no packet is judged on this interface"
        );
        return move_hook(site, name, index, change, (pinned, hook, before));
    }
    let context = || format!("replacing the program on {name}");
    raw::link_update(pinned.link.as_fd(), site.program.fd()?).with_context(context)?;
    change.steps.push(Step::Replaced { link: pinned.link.try_clone()?, before });
    info!(interface = name, link = pinned.info.id, before = pinned.info.program, "the program was replaced");
    let attachment = Attachment { interface: name.to_owned(), index, mode: hook.label().to_owned() };
    Ok(Link { attachment, link: Some(pinned.link), told: String::new() })
}

/// Takes the program off one hook and attaches the new one to the other: the kernel has no program on both at once.
fn move_hook(
    site: Site<'_>,
    name: &str,
    index: u32,
    change: &mut Change,
    (pinned, hook, before): (PinnedLink, Hook, Option<OwnedFd>),
) -> Result<Link> {
    raw::link_detach(pinned.link.as_fd()).with_context(|| format!("detaching from {name}"))?;
    fs::remove_file(&pinned.path)?;
    change.steps.push(Step::Removed { interface: index, hook, before, pin: pinned.path });
    attach(site, name, index, change)
}

const fn accepts(mode: Mode, hook: Hook) -> bool {
    match mode {
        Mode::Native => matches!(hook, Hook::Native),
        Mode::Generic => matches!(hook, Hook::Generic),
        Mode::NativeOrGeneric => true,
        Mode::Off => false,
    }
}

fn attach(site: Site<'_>, name: &str, index: u32, change: &mut Change) -> Result<Link> {
    let pins = site.pins.filter(|_| site.persist);
    // Before a link is made: it must not be there for a moment only.
    ensure!(
        !pins.is_some_and(Pins::is_gone),
        "kernel.pin_directory was removed while this process runs: start it anew"
    );
    let program = site.program.fd()?;
    let (hook, made) = match site.mode {
        Mode::Native => (Hook::Native, raw::link_create(program, index, Hook::Native)),
        Mode::Generic => (Hook::Generic, raw::link_create(program, index, Hook::Generic)),
        Mode::NativeOrGeneric => native_or_generic(program, name, index),
        Mode::Off => bail!("kernel.mode is \"off\": nothing is attached"),
    };
    let link = made.map_err(|error| explain(error, name, index, hook))?;
    let pin = pins.map(|pins| pins.link_path(index));
    if let Some(pin) = &pin {
        raw::pin(link.as_fd(), pin).with_context(|| format!("pinning the link as {}", pin.display()))?;
    }
    change.steps.push(Step::Made { link: link.try_clone()?, pin });
    let attachment = Attachment { interface: name.to_owned(), index, mode: hook.label().to_owned() };
    Ok(Link { attachment, link: Some(link), told: String::new() })
}

fn native_or_generic(program: BorrowedFd<'_>, name: &str, index: u32) -> (Hook, io::Result<OwnedFd>) {
    match raw::link_create(program, index, Hook::Native) {
        Err(error) if lacks_native(error.raw_os_error()) => {
            warn!(interface = name, "no XDP in the driver: attaching to the slower generic hook");
            (Hook::Generic, raw::link_create(program, index, Hook::Generic))
        }
        result => (Hook::Native, result),
    }
}

/// What a driver answers that cannot run XDP itself, or not with the interface's present MTU and offloads.
fn lacks_native(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE))
}

fn explain(error: io::Error, name: &str, index: u32, hook: Hook) -> anyhow::Error {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => anyhow!(
            "interface {name} already has an XDP program{}: only one can be attached; stop the program that owns it (`ip link show dev {name}` and `bpftool link` show it; `enforcer detach` removes what an enforcer has pinned, `ip link set dev {name} xdp off` only what was attached without a link of its own)",
            holder::of(index).map_or_else(String::new, |program| format!(" ({program})"))
        ),
        Some(libc::EPERM | libc::EACCES) => fault::permission(format!(
            "no privilege to attach to {name}: CAP_NET_ADMIN is needed in the interface's network namespace"
        )),
        code if hook == Hook::Native && lacks_native(code) => anyhow!(
            "interface {name} cannot run XDP in its driver ({}): set kernel.mode = \"native-or-generic\" to allow the slower generic hook",
            code.map_or_else(String::new, |code| std::io::Error::from_raw_os_error(code).to_string())
        ),
        Some(libc::ENODEV | libc::ENXIO) => anyhow!("interface {name} vanished while it was attached to"),
        Some(_) | None => {
            anyhow::Error::new(error).context(format!("attaching to {name} ({})", hook.label()))
        }
    }
}

/// Refuses a list that names an interface twice, which would otherwise end as "already has a program".
fn refuse_duplicates(interfaces: &[String]) -> Result<()> {
    ensure!(
        !interfaces.is_empty(),
        "kernel.interfaces is empty: name the interfaces that clients reach, or set kernel.mode = \"off\""
    );
    for (position, name) in interfaces.iter().enumerate() {
        ensure!(!interfaces[..position].contains(name), "kernel.interfaces names `{name}` twice");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_interface_is_answered_with_those_that_exist() {
        let message = find("no-such-if").unwrap_err().to_string();
        assert!(
            message.contains("no-such-if") && message.contains("lo") && !message.contains('\n'),
            "{message}"
        );
    }

    #[test]
    fn an_interface_named_twice_is_refused() {
        let message = refuse_duplicates(&["a".into(), "b".into(), "a".into()]).unwrap_err().to_string();
        assert!(message.contains("`a` twice"));
        assert!(refuse_duplicates(&[]).is_err());
    }
}
