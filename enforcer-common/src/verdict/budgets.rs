//! What an event costs its source, and, because that is the same lookup, whether the source is banned. [`charge_packet`] is a step of
//! [`super::take`], the rest serves other steps.

use super::{
    Context, Source, Tables, Taken, further, go, pass, standing,
    work::{Step, Work},
};
use crate::{
    budget::shared,
    gcra::Rate,
    headers::Transport,
    limiter::{Charge, bucket_index},
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
    if context.settings.flags & flag::MORE_BUDGETS != 0 {
        return go(Step::Weigh);
    }
    sort(context, work)
}

/// What is to be looked at in a packet that has been charged.
#[inline(always)]
pub(super) fn sort<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &Work) -> Taken {
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

/// Charges one event to the packet's source and to every further budget; what is over the source's limit is dropped for `exceeded`.
#[inline(always)]
pub(super) fn charge<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    work: &Work,
    limit: Limit,
    exceeded: DropReason,
) -> Result<(), DropReason> {
    let rate = context.settings.limit(limit, work.source.listing.tier);
    if rate.is_limited() {
        settle(context, &work.source, limit, rate, exceeded)?;
    }
    if context.settings.flags & flag::MORE_BUDGETS != 0 {
        further::charge(context, work, limit, 0)?;
    }
    Ok(())
}

/// Charges an event of this rate to its source.
#[inline(always)]
pub(super) fn settle<P: Packet, T: Tables>(
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
        Charge::Full => {
            let index = bucket_index(source.key.get(), context.settings.seed, context.settings.mask(limit));
            crowd(context, shared::crowd(limit, None, index), rate)
        }
    }
}

/// What becomes of a source for which there is no slot: by default it shares one budget, which is as large as its own would be, with
/// the others that find none there.
#[inline(always)]
pub(super) fn crowd<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    place: u32,
    rate: Rate,
) -> Result<(), DropReason> {
    let full = if context.settings.flags & flag::SHARE_WHEN_FULL != 0 {
        context.shared.set(true);
        context.tables.charge_shared(place, context.tables.now(), rate) != Charge::Within
    } else {
        context.settings.flags & flag::DROP_WHEN_FULL != 0
    };
    if full { context.refuse(DropReason::LimiterFull) } else { Ok(()) }
}
