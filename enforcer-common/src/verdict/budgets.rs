//! What an event costs its source, and, because that is the same lookup, whether the source is banned. Called by
//! [`super::judge`] and its steps alone.

use super::{Context, Source, Tables};
use crate::{
    budget::{Scope, shared},
    gcra::Rate,
    limiter::{Charge, bucket_index},
    packet::Packet,
    reason::DropReason,
    settings::{GROUPS, Limit, TIERS, flag},
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
        Charge::Full => {
            let index = bucket_index(source.key.get(), context.settings.seed, context.settings.mask(limit));
            crowd(context, shared::crowd(limit, None, index), rate)
        }
    }
}

/// What becomes of a source for which there is no slot: by default it shares one budget, which is as large as its own would be, with
/// the others that find none there.
#[inline(always)]
fn crowd<P: Packet, T: Tables>(context: &Context<'_, P, T>, place: u32, rate: Rate) -> Result<(), DropReason> {
    let full = if context.settings.flags & flag::SHARE_WHEN_FULL != 0 {
        context.tables.charge_shared(place, context.tables.now(), rate) != Charge::Within
    } else {
        context.settings.flags & flag::DROP_WHEN_FULL != 0
    };
    if full { context.refuse(DropReason::LimiterFull) } else { Ok(()) }
}

/// Charges the bytes of a packet to its source, and packet and bytes to every budget besides those of the source.
#[inline(always)]
pub(super) fn charge_weight<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    group: u32,
) -> Result<(), DropReason> {
    let bytes = context.packet.length() as u64;
    let rate = context.settings.limit(Limit::Bytes, source.listing.tier);
    if rate.is_limited() {
        settle(context, source, Limit::Bytes, rate.costing(bytes), DropReason::ByteLimit)?;
    }
    charge_others(context, source, group, Limit::Packets, 0)?;
    charge_others(context, source, group, Limit::Bytes, bytes)
}

/// Charges an event to every budget besides that of its source. One that weighs `bytes` bytes costs as much, any other (0) one event.
#[inline(always)]
pub(super) fn charge_others<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    group: u32,
    limit: Limit,
    bytes: u64,
) -> Result<(), DropReason> {
    let settings = context.settings;
    let cost = |rate: Rate| if bytes == 0 { rate } else { rate.costing(bytes) };
    let tier = source.listing.tier as usize & (TIERS - 1);
    if !source.key.is_v4() {
        let site = settings.networks[Scope::Site as usize][tier][limit as usize];
        spend(context, source, (Scope::Site, 0), limit, cost(site), DropReason::SiteLimit)?;
        let network = settings.networks[Scope::Network as usize][tier][limit as usize];
        spend(context, source, (Scope::Network, 0), limit, cost(network), DropReason::NetworkLimit)?;
    }
    let own = settings.groups[group as usize & (GROUPS - 1)][limit as usize];
    spend(context, source, (Scope::Group, group), limit, cost(own), DropReason::GroupLimit)?;
    let all = settings.everybody[limit as usize];
    if !all.is_limited()
        || context.tables.charge_shared(shared::everybody(limit), context.tables.now(), cost(all)) == Charge::Within
    {
        return Ok(());
    }
    // Who sends little still gets through: whoever it is that sends too much, it is not he.
    spend(context, source, (Scope::Share, 0), limit, cost(settings.shares[limit as usize]), DropReason::GlobalLimit)
}

/// Charges one of the further budgets, if there is such.
#[inline(always)]
fn spend<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    (scope, group): (Scope, u32),
    limit: Limit,
    rate: Rate,
    exceeded: DropReason,
) -> Result<(), DropReason> {
    if !rate.is_limited() {
        return Ok(());
    }
    let settings = context.settings;
    let key = scope.key(limit, group, source.key, settings.seed);
    match context.tables.charge_budget(key, context.tables.now(), rate) {
        Charge::Within => Ok(()),
        Charge::Full => {
            let index = bucket_index(key, settings.seed, settings.budget_mask());
            crowd(context, shared::crowd(limit, Some(scope), index), rate)
        }
        Charge::Exceeded(_) | Charge::Banned(_) => context.refuse(exceeded),
    }
}
