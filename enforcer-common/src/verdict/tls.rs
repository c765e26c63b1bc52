//! What TCP data to a protected port is worth as a ClientHello. Called by [`super::judge`] alone.

use super::{Context, Source, Tables, budgets};
use crate::{
    headers::Headers,
    hello::Hello,
    packet::Packet,
    reason::{DropReason, PassReason},
    settings::Limit,
};

#[inline(always)]
pub(super) fn inspect<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    headers: &Headers,
) -> Result<PassReason, DropReason> {
    let minimum = context.settings.minimum_tls;
    let hello = context.packet.inspect_hello(headers.offset, headers.end, minimum);
    if hello == Hello::Absent {
        return Ok(PassReason::Clean);
    }
    // A minimum of 0 means that hellos are limited, but not judged.
    if hello == Hello::Malformed && minimum != 0 {
        context.refuse(DropReason::MalformedHello)?;
    }
    budgets::charge(context, source, Limit::Hellos, DropReason::HelloLimit)?;
    match hello {
        Hello::Incomplete => Ok(PassReason::HelloIncomplete),
        Hello::Refused => {
            context.refuse(DropReason::TlsVersion)?;
            Ok(PassReason::HelloAccepted)
        }
        Hello::Accepted | Hello::Malformed | Hello::Absent => Ok(PassReason::HelloAccepted),
    }
}
