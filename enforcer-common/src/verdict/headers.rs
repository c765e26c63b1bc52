//! The steps that read a frame's headers, and what these alone decide. Taken by [`super::take`].

use super::{
    Context, Tables, Taken, go, pass, standing,
    work::{Step, Work},
};
use crate::{
    headers::{Headers, Link, Transport},
    packet::Packet,
    port::Port,
    reason::{DropReason, PassReason},
    settings::{ABI, flag},
};

/// Everything up to the IP header. A source that is allowed needs no further look.
#[inline(always)]
pub(super) fn begin<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    let Context { packet, settings, .. } = context;
    if settings.abi != ABI {
        return pass(PassReason::NoSettings);
    }
    if settings.flags & flag::BANS_WITHOUT_LEASE == 0 && context.lease_is_over() {
        return pass(PassReason::LeaseExpired);
    }
    let headers = &mut work.headers;
    *headers = Headers::UNREAD;
    if let Err(reason) = headers.read_link(*packet) {
        return context.unparsed(reason);
    }
    match headers.link {
        Link::Control => return pass(PassReason::LinkControl),
        Link::Other => {
            if settings.flags & flag::DROP_NOT_IP != 0 {
                context.refuse(DropReason::NotIpRefused)?;
            }
            return pass(PassReason::NotIp);
        }
        Link::Ipv4 => {
            if let Err(reason) = headers.read_ipv4(*packet) {
                return context.unparsed(reason);
            }
        }
        Link::Ipv6 => {
            if let Err(reason) = headers.read_ipv6(*packet) {
                return context.unparsed(reason);
            }
            if headers.is_neighbour_discovery(*packet) {
                return pass(PassReason::NeighbourDiscovery);
            }
        }
    }
    work.source = standing::find(context.tables, settings, &work.headers);
    work.broken = 0;
    work.shared = false;
    if work.source.is_allowed() {
        return pass(PassReason::Allowed);
    }
    if work.headers.is_at_extension() { go(Step::Extensions) } else { go(Step::Transport) }
}

/// IPv6 extension headers.
#[inline(always)]
pub(super) fn extensions<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    if let Err(reason) = work.headers.read_extensions(context.packet) {
        work.broken = reason.number();
    }
    go(Step::Transport)
}

/// TCP or UDP, and what is known of the port. That the packet is broken is said only once it has been charged.
#[inline(always)]
pub(super) fn transport<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    if work.broken == 0
        && let Err(reason) = work.headers.read_payload(context.packet)
    {
        work.broken = reason.number();
    }
    work.port = Port::UNKNOWN;
    if matches!(work.headers.transport, Transport::Tcp | Transport::Udp) {
        work.port = context.tables.port(work.headers.port);
    }
    let tcp = work.headers.transport == Transport::Tcp;
    match work.source.gets_through(work.port, tcp) {
        Some(reason) => pass(reason),
        None => go(Step::Charge),
    }
}
