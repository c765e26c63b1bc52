//! Who holds an interface's XDP hook: asked over rtnetlink, so that "busy" can be explained, and so that what is said of an
//! interface is what the kernel says.
//!
//! Called by `attach`, when attaching failed and whenever it looks after its interfaces.

use std::{io, os::fd::AsRawFd as _};

use super::raw::Hook;
use aya::programs::loaded_programs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// Message type that asks for one link (linux/rtnetlink.h).
const RTM_GETLINK: u16 = 18;
/// Flag of a request (linux/netlink.h).
const NLM_F_REQUEST: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const MESSAGE_HEADER: usize = 16;
/// Bytes of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// Link attribute that nests what concerns XDP (linux/if_link.h).
const IFLA_XDP: u16 = 43;
/// In it: the id of the only program.
const IFLA_XDP_PROG_ID: u16 = 4;
/// In it: the id of the program in the driver, on the generic hook, and in the hardware.
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
/// Type of the message that carries an error number in place of an answer (linux/netlink.h).
const NLMSG_ERROR: u16 = 2;
/// Upper two bits of an attribute's type are flags (linux/netlink.h).
const TYPE_MASK: u16 = 0x3fff;
/// Room for the answer about one link, which is about 2 KiB.
const ANSWER_MAX: usize = 32 * 1024;

/// The program on an interface, for people: its id and, if it can be told, its name. No answer is no error.
pub(super) fn of(index: u32) -> Option<String> {
    let id = *programs(index).ok()?.first()?;
    let name = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    Some(match name {
        Some(name) if !name.is_empty() => format!("id {id}, `{name}`"),
        _ => format!("id {id}"),
    })
}

/// Whether the program `id` is on an interface; on one that does not exist it is not, nor on number 0, which is none and about which
/// the kernel takes no question. An error says nothing of either.
pub(super) fn holds(index: u32, id: u32) -> io::Result<bool> {
    Ok(index != 0 && programs(index)?.contains(&id))
}

/// Where on an interface the program `id` is.
pub(super) fn hook(index: u32, id: u32) -> io::Result<Option<Hook>> {
    let answer = ask(index)?;
    let on = |kind| ids_of(&answer, &[kind]).map(|found| found.contains(&id));
    Ok(if on(IFLA_XDP_DRV_PROG_ID)? {
        Some(Hook::Native)
    } else if on(IFLA_XDP_SKB_PROG_ID)? {
        Some(Hook::Generic)
    } else {
        None
    })
}

/// The ids of the XDP programs on an interface.
fn programs(index: u32) -> io::Result<Vec<u32>> {
    ids(&ask(index)?)
}

/// What the kernel says of an interface.
fn ask(index: u32) -> io::Result<Vec<u8>> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(socket.as_raw_fd(), &request(index), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER_MAX];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

/// The ids in an answer, which is a link, or an error.
fn ids(answer: &[u8]) -> io::Result<Vec<u32>> {
    ids_of(answer, &[IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID])
}

/// Those of these kinds.
fn ids_of(answer: &[u8], kinds: &[u16]) -> io::Result<Vec<u32>> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (header, body) = answer.split_first_chunk::<MESSAGE_HEADER>().ok_or_else(cut)?;
    if u16::from_ne_bytes([header[4], header[5]]) == NLMSG_ERROR {
        let code = i32::from_ne_bytes(*body.first_chunk().ok_or_else(cut)?).saturating_neg();
        return if code == libc::ENODEV { Ok(Vec::new()) } else { Err(io::Error::from_raw_os_error(code)) };
    }
    let attributes = body.get(LINK_HEADER..).ok_or_else(cut)?;
    let Some(xdp) = attribute(attributes, IFLA_XDP) else { return Ok(Vec::new()) };
    let found =
        kinds.iter().filter_map(|kind| Some(u32::from_ne_bytes(attribute(xdp, *kind)?.try_into().ok()?)));
    Ok(found.filter(|id| *id != 0).collect())
}

fn request(index: u32) -> Vec<u8> {
    let length = (MESSAGE_HEADER + LINK_HEADER) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number, port
    message.extend([0; 4]); // family, padding, device type
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]); // flags, mask of changes
    message
}

/// The payload of the first attribute of type `wanted`: length and type of 16 bits each, then the payload, padded to 4 bytes.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (header, _) = attributes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let payload = attributes.get(4..length)?;
        if kind == wanted {
            return Some(payload);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_broken_ones_end_the_search() {
        let entry = |kind: u16, payload: &[u8]| {
            let mut bytes = Vec::from((4 + payload.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let all =
            [entry(3, b"lo\0"), entry(IFLA_XDP | 0x8000, &entry(IFLA_XDP_PROG_ID, &7u32.to_ne_bytes()))]
                .concat();
        let nested = attribute(&all, IFLA_XDP).unwrap();
        assert_eq!(attribute(nested, IFLA_XDP_PROG_ID), Some(&7u32.to_ne_bytes()[..]));
        assert_eq!(attribute(&all, 9), None);
        assert_eq!(attribute(&[0, 0, 0, 0, 1], 9), None, "a length of 0 must not loop");
        assert_eq!(attribute(&[200, 0, 9, 0, 1], 9), None, "a length beyond the end");
    }

    #[test]
    fn an_interface_that_is_gone_has_no_program_and_other_errors_are_errors() {
        let error = |code: i32| {
            let mut answer = vec![0; MESSAGE_HEADER];
            answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
            answer.extend((-code).to_ne_bytes());
            ids(&answer)
        };
        assert_eq!(error(libc::ENODEV).unwrap(), Vec::<u32>::new());
        assert_eq!(error(libc::EPERM).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(ids(&[0; 7]).is_err());
    }

    #[test]
    fn loopback_has_no_program() {
        assert_eq!(of(1), None);
        assert!(!holds(1, 1).unwrap());
        assert!(!holds(i32::MAX as u32, 1).unwrap(), "no such interface");
        assert!(!holds(0, 1).unwrap(), "no interface at all");
    }
}
