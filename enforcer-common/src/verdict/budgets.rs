//! What an event costs its source. Called by [`super::judge`] and its steps alone.

use super::{Context, Source, Tables};
use crate::{
    limiter::Charge,
    packet::Packet,
    reason::DropReason,
    settings::{Limit, flag},
};

/// Charges one event; what is over the limit is dropped for `exceeded`.
#[inline(always)]
pub(super) fn charge<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    limit: Limit,
    exceeded: DropReason,
) -> Result<(), DropReason> {
    let tier = source.listing.tier;
    let rate = context.settings.limit(limit, tier);
    if !rate.is_limited() {
        return Ok(());
    }
    match context.tables.charge(limit, tier, source.key, context.tables.now(), rate) {
        Charge::Within => Ok(()),
        Charge::Exceeded(_) => context.refuse(exceeded),
        Charge::Full if context.settings.flags & flag::DROP_WHEN_FULL != 0 => {
            context.refuse(DropReason::LimiterFull)
        }
        Charge::Full => Ok(()),
    }
}
