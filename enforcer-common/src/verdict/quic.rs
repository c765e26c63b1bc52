//! What becomes of a datagram to a port where QUIC is served. A step of [`super::take`].

use super::{Context, Tables, Taken, budgets, pass, work::Work};
use crate::{
    packet::Packet,
    quic::{self, Quic},
    reason::{DropReason, PassReason},
    settings::Limit,
};

#[inline(always)]
pub(super) fn inspect<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    let Work { headers, .. } = &*work;
    let quic = if headers.fragment {
        // No part of a datagram tells how long the whole is, and QUIC forbids fragments (RFC 9000 section 14).
        Quic::Not
    } else {
        // A datagram may be shorter than its packet; that it is not longer has been checked.
        let length = context.packet.u16(headers.segment + 4).unwrap_or(0);
        let end = context.packet.forget(headers.segment + length as usize);
        quic::inspect(context.packet, headers.offset, end, &context.settings.quic_versions)
    };
    match quic {
        // Nothing can follow a short header in a datagram (RFC 9000 section 12.2).
        Quic::Short => {}
        Quic::Long => budgets::charge(context, work, Limit::Quic, DropReason::QuicLimit)?,
        Quic::Not => context.refuse(DropReason::NotQuic)?,
        Quic::Version => context.refuse(DropReason::QuicVersion)?,
        Quic::TooShort | Quic::Initial => {
            if quic == Quic::TooShort {
                context.refuse(DropReason::QuicShort)?;
            }
            budgets::charge(context, work, Limit::Quic, DropReason::QuicLimit)?;
            return pass(PassReason::QuicInitial);
        }
    }
    pass(PassReason::Clean)
}
