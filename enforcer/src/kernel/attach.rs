//! Attaches the program to interfaces, at first all or none, explains why it could not, and looks after them.
//!
//! Called by `Kernel::attach` and `Kernel::reconcile` alone. A link that was made detaches when the program is dropped.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::programs::{
    ProgramError,
    xdp::{XdpError, XdpLinkId, XdpMode},
};
use tracing::{error, warn};

use super::{Attachment, DETACHED, holder, program::Program};
use crate::{config::Mode, fault};

/// A configured interface, and the link to it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) attachment: Attachment,
    /// aya's key for the link that was made last.
    id: Option<XdpLinkId>,
    /// Why it could not be attached again, as it was logged.
    told: String,
}

/// Attaches to every interface. On an error nothing stays attached: the caller drops the program.
pub(super) fn attach_all(program: &mut Program, interfaces: &[String], mode: Mode) -> Result<Vec<Link>> {
    refuse_duplicates(interfaces)?;
    let found = interfaces.iter().map(|name| find(name).map(|index| (name, index)));
    // Every name is looked up before the first interface is touched: attaching can interrupt a link.
    let found = found.collect::<Result<Vec<_>>>()?;
    found.into_iter().map(|(name, index)| attach(program, name, index, mode)).collect()
}

/// Asks the kernel whether the program is still where it was attached, and attaches it to interfaces that came back under
/// their name. A link outlives its interface but holds nothing then, and the kernel tells nobody.
pub(super) fn reconcile(program: &mut Program, links: &mut [Link], mode: Mode) -> Result<()> {
    let own = program.id()?;
    links.iter_mut().try_for_each(|link| {
        let name = link.attachment.interface.clone();
        let by_name = nix::net::if_::if_nametoindex(name.as_str()).ok();
        // One that was renamed is still judged, and there is no other.
        let index = by_name.unwrap_or(link.attachment.index);
        if holder::holds(index, own).with_context(|| format!("asking for the program on {name}"))? {
            return Ok(());
        }
        if link.attachment.is_attached() {
            error!(interface = %name, "the program is gone with its interface: no packet is judged there");
        }
        let attached_to = std::mem::replace(&mut link.attachment.index, 0);
        DETACHED.clone_into(&mut link.attachment.mode);
        // The old link holds nothing, unless its interface lives on under another name.
        if attached_to != 0 && !holder::holds(attached_to, own)? && let Some(id) = link.id.take() {
            let _ = program.xdp()?.detach(id);
        }
        let Some(index) = by_name else { return Ok(()) };
        match attach(program, &name, index, mode) {
            Ok(made) => {
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

fn attach(program: &mut Program, name: &str, index: u32, mode: Mode) -> Result<Link> {
    let native = |program: &mut Program| {
        program.xdp()?.attach_to_if_index(index, XdpMode::Driver).map_err(anyhow::Error::new)
    };
    let generic = |program: &mut Program| {
        program.xdp()?.attach_to_if_index(index, XdpMode::Skb).map_err(anyhow::Error::new)
    };
    let (label, result) = match mode {
        Mode::Native => ("native", native(program)),
        Mode::Generic => ("generic", generic(program)),
        Mode::NativeOrGeneric => match native(program) {
            Err(error) if lacks_native(errno(&error)) => {
                warn!(interface = name, "no XDP in the driver: attaching to the slower generic hook");
                ("generic", generic(program))
            }
            result => ("native", result),
        },
        Mode::Off => bail!("kernel.mode is \"off\": nothing is attached"),
    };
    let id = result.map_err(|error| explain(error, name, index, label))?;
    let attachment = Attachment { interface: name.to_owned(), index, mode: label.to_owned() };
    Ok(Link { attachment, id: Some(id), told: String::new() })
}

/// What a driver answers that cannot run XDP itself, or not with the interface's present MTU and offloads.
fn lacks_native(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE))
}

/// The system's error number at the bottom of an error.
fn errno(error: &anyhow::Error) -> Option<i32> {
    let error = error.downcast_ref::<ProgramError>()?;
    if let ProgramError::SyscallError(error) = error {
        return error.io_error.raw_os_error();
    }
    if let ProgramError::XdpError(XdpError::NetlinkError(error)) = error {
        return error.raw_os_error();
    }
    None
}

fn explain(error: anyhow::Error, name: &str, index: u32, label: &str) -> anyhow::Error {
    match errno(&error) {
        Some(libc::EBUSY | libc::EEXIST) => anyhow!(
            "interface {name} already has an XDP program{}: only one can be attached; stop the program that owns it (`ip link show dev {name}` and `bpftool link` show it; `ip link set dev {name} xdp off` detaches only what was attached without a link of its own)",
            holder::of(index).map_or_else(String::new, |program| format!(" ({program})"))
        ),
        Some(libc::EPERM | libc::EACCES) => fault::permission(format!(
            "no privilege to attach to {name}: CAP_NET_ADMIN is needed in the interface's network namespace"
        )),
        code if label == "native" && lacks_native(code) => anyhow!(
            "interface {name} cannot run XDP in its driver ({}): set kernel.mode = \"native-or-generic\" to allow the slower generic hook",
            code.map_or_else(String::new, |code| std::io::Error::from_raw_os_error(code).to_string())
        ),
        Some(libc::ENODEV | libc::ENXIO) => anyhow!("interface {name} vanished while it was attached to"),
        Some(_) | None => error.context(format!("attaching to {name} ({label})")),
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
