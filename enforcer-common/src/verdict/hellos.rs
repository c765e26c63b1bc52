//! Whether a hello that is good otherwise is refused for what it asks for, or for who it seems to be: a step of [`super::take`]. Nobody comes
//! here as long as nothing is listed.

use super::{Context, Tables, Taken, pass, refusal, work::Work};
use crate::{
    hello::lists,
    packet::Packet,
    reason::{DropReason, PassReason},
    settings::flag,
};

/// Compares names first, then the fingerprint; each can be under a dry run.
#[inline(always)]
pub(super) fn compare<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    match listed(context, work) {
        Ok(()) => {
            if work.followed.kept {
                context.tables.confirm_flow(work.segment.hash, work.segment.sequence);
            }
            pass(PassReason::HelloAccepted)
        }
        Err(reason) => Err(refusal::refuse(context, work, reason)),
    }
}

#[inline(always)]
fn listed<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &Work) -> Result<(), DropReason> {
    let look = |hash| context.tables.hello(hash);
    let found = lists::of_name(context.packet, &work.marks, look);
    if let Some(reason) = lists::refusal(found, context.settings.flags & flag::ONLY_NAMES != 0) {
        context.refuse(reason)?;
    }
    if lists::of_fingerprint(&work.marks, look) {
        context.refuse(DropReason::HelloFingerprint)?;
    }
    Ok(())
}
