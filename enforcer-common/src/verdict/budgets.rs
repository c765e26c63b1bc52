//! What an event costs its source, and, because that is the same lookup, whether the source is banned. [`charge_packet`] is a step of
//! [`super::take`], the rest serves other steps.

use super::{
    Context, Source, Tables, Taken, go, pass, standing,
    work::{Step, Work},
};
use crate::{
    gcra::Rate,
    headers::Transport,
    limiter::Charge,
    packet::Packet,
    port::Port,
    reason::{DropReason, PassReason},
    settings::{Limit, flag},
};

/// Drops what comes from a banned prefix or source, and charges every other packet, of whatever kind. A source that is banned under a dry
/// run is not charged: its slot holds the ban.
#[inline(always)]
pub(super) fn charge_packet<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    standing::refuse_banned_prefix(context, &work.source)?;
    if context.lease_is_over() {
        return refuse_banned_alone(context, &work.source);
    }
    let rate = context.settings.limit(Limit::Packets, work.source.listing.tier);
    settle(context, &work.source, Limit::Packets, rate, DropReason::PacketLimit)?;
    if let Some(reason) = DropReason::from_number(work.broken) {
        return context.unparsed(reason);
    }
    let headers = &work.headers;
    let protected = work.port.is(Port::PROTECTED);
    match headers.transport {
        Transport::LaterFragment => pass(PassReason::Fragment),
        Transport::Udp if work.port.is(Port::QUIC) => go(Step::Quic),
        Transport::Udp | Transport::Other => pass(PassReason::Clean),
        Transport::Tcp => {
            if headers.fragment && protected {
                context.refuse(DropReason::TcpFragment)?;
            }
            if headers.opens() {
                return go(Step::Open);
            }
            if protected { go(Step::Segment) } else { pass(PassReason::Clean) }
        }
    }
}

/// Where nothing but bans goes on without a daemon, this is the end: the lookup that charges is the one that finds them.
#[inline(always)]
fn refuse_banned_alone<P: Packet, T: Tables>(context: &Context<'_, P, T>, source: &Source) -> Taken {
    let tier = source.listing.tier;
    let rate = context.settings.limit(Limit::Packets, tier);
    let charged = context.tables.charge(Limit::Packets, tier, source.key, context.tables.now(), rate);
    if let Charge::Banned(_) = charged {
        context.refuse(DropReason::Banned)?;
    }
    pass(PassReason::LeaseExpired)
}

/// Charges one event; what is over the limit is dropped for `exceeded`.
#[inline(always)]
pub(super) fn charge<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    limit: Limit,
    exceeded: DropReason,
) -> Result<(), DropReason> {
    let rate = context.settings.limit(limit, source.listing.tier);
    if !rate.is_limited() {
        return Ok(());
    }
    settle(context, source, limit, rate, exceeded)
}

#[inline(always)]
fn settle<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    limit: Limit,
    rate: Rate,
    exceeded: DropReason,
) -> Result<(), DropReason> {
    match context.tables.charge(limit, source.listing.tier, source.key, context.tables.now(), rate) {
        Charge::Within => Ok(()),
        Charge::Banned(_) => context.refuse(DropReason::Banned),
        Charge::Exceeded(_) => context.refuse(exceeded),
        Charge::Full if context.settings.flags & flag::DROP_WHEN_FULL != 0 => {
            context.refuse(DropReason::LimiterFull)
        }
        Charge::Full => Ok(()),
    }
}
