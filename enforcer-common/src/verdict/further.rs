//! What an event costs besides its source's own budget, see [`crate::budget`]. [`weigh`] is a step of [`super::take`]; nobody comes
//! here as long as nothing of the kind is configured.

use super::{Context, Source, Tables, Taken, budgets, work::Work};
use crate::{
    budget::{Scope, shared},
    gcra::Rate,
    limiter::{Charge, bucket_index},
    packet::Packet,
    reason::DropReason,
    settings::{GROUPS, Limit, TIERS},
};

/// Charges the bytes of a packet to its source, and both the packet and its bytes to every further budget.
#[inline(always)]
pub(super) fn weigh<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    let bytes = context.packet.length() as u64;
    charge(context, work, Limit::Packets, 0)?;
    let rate = context.settings.limit(Limit::Bytes, work.source.listing.tier);
    if rate.is_limited() {
        budgets::settle(context, &work.source, Limit::Bytes, rate.costing(bytes), DropReason::ByteLimit)?;
    }
    charge(context, work, Limit::Bytes, bytes)?;
    budgets::sort(context, work)
}

/// Charges an event to every budget besides that of its source. One that weighs `bytes` bytes costs as much, any other (0) one event.
#[inline(always)]
pub(super) fn charge<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    work: &Work,
    limit: Limit,
    bytes: u64,
) -> Result<(), DropReason> {
    let (settings, source, group) = (context.settings, &work.source, work.port.group());
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
        || context.tables.charge_shared(shared::everybody(limit), context.tables.now(), cost(all))
            == Charge::Within
    {
        return Ok(());
    }
    // Who sends little still gets through: whoever it is that sends too much, it is not he.
    spend(
        context,
        source,
        (Scope::Share, 0),
        limit,
        cost(settings.shares[limit as usize]),
        DropReason::GlobalLimit,
    )
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
            budgets::crowd(context, shared::crowd(limit, Some(scope), index), rate)
        }
        Charge::Exceeded(_) | Charge::Banned(_) => context.refuse(exceeded),
    }
}
