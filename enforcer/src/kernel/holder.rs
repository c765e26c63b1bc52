//! Who holds an interface's XDP hook: asked over rtnetlink, so that "busy" can be explained.
//!
//! Called by `attach` when attaching failed, and by tests. Everything here is best effort: no answer is no error.

use std::os::fd::AsRawFd as _;

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
/// In it: the id of the program.
const IFLA_XDP_PROG_ID: u16 = 4;
/// Upper two bits of an attribute's type are flags (linux/netlink.h).
const TYPE_MASK: u16 = 0x3fff;
/// Room for the answer about one link, which is about 2 KiB.
const ANSWER_MAX: usize = 32 * 1024;

/// The program on an interface, for people: its id and, if it can be told, its name.
pub(super) fn of(index: u32) -> Option<String> {
    let id = program_id(index)?;
    let name = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    Some(match name {
        Some(name) if !name.is_empty() => format!("id {id}, `{name}`"),
        _ => format!("id {id}"),
    })
}

/// The id of the XDP program on an interface.
fn program_id(index: u32) -> Option<u32> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .ok()?;
    sendto(socket.as_raw_fd(), &request(index), &NetlinkAddr::new(0, 0), MsgFlags::empty()).ok()?;
    let mut answer = vec![0; ANSWER_MAX];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
    let attributes = answer.get(MESSAGE_HEADER + LINK_HEADER..length)?;
    let id = attribute(attribute(attributes, IFLA_XDP)?, IFLA_XDP_PROG_ID)?;
    Some(u32::from_ne_bytes(id.try_into().ok()?)).filter(|id| *id != 0)
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
    fn loopback_has_no_program() {
        assert_eq!(of(1), None);
    }
}
