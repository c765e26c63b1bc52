//! What an event costs its source, and, because that is the same lookup, whether the source is banned. Called by
//! [`super::judge`] and its steps alone.

use super::{Context, Source, Tables};
use crate::{
    gcra::Rate,
    limiter::Charge,
    packet::Packet,
    reason::DropReason,
    settings::{Limit, flag},
};

/// Charges a packet, of whatever kind, to its source, and drops it if that is banned. A source that is banned under a dry run is not
/// charged: its slot holds the ban.
#[inline(always)]
pub(super) fn charge_packet<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
) -> Result<(), DropReason> {
    let rate = context.settings.limit(Limit::Packets, source.listing.tier);
    settle(context, source, Limit::Packets, rate, DropReason::PacketLimit)
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
