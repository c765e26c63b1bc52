//! How a refused hello is answered, and every later packet of its connection. Called by [`super::tls`] and
//! [`super::hellos`] alone.
//!
//! The server has a socket that waits for a hello, and the client a connection that it believes in: both are ended. One frame
//! can be sent on or sent back, not both, so the second end waits for the client's next packet.

use super::{Context, Tables, Taken, pass, work::Work};
use crate::{
    answer::{self, Answer, alert},
    flow::{Followed, Kind, Opening, Place, slot::Phase},
    headers::{Headers, tcp},
    packet::Packet,
    reason::{DropReason, PassReason},
    settings::refusal,
};

/// Where the legacy version lies in a record that begins with a hello: behind both headers, in bytes.
const LEGACY_VERSION: usize = 5 + 4;

/// Ends the connection as configured; the verdict is the drop for `reason`, or that the server refuses by itself.
#[inline(always)]
pub(super) fn refuse<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    work: &Work,
    reason: DropReason,
) -> DropReason {
    let Work { headers, followed, segment, .. } = work;
    if headers.opens() || !followed.begins || followed.disputed {
        // There is no connection yet that could be ended; a client repeats its SYN without data (RFC 7413 section 4.2.1).
        // Or its SYN was not seen, or more than one: whoever forges one segment, or two, must not end another's connection.
        return reason;
    }
    let mode = context.settings.refusal;
    let length = headers.end.wrapping_sub(headers.offset) as u32;
    let mut opening = Opening {
        phase: Phase::Refused,
        begins: false,
        next: followed.value,
        value: headers.acknowledgement,
    };
    if mode == refusal::ALERT {
        opening.value = headers.acknowledgement.wrapping_add(Answer::ALERT_LENGTH);
    } else if mode != refusal::DROP {
        opening.phase = Phase::Ended;
    }
    let room = context.tables.open_flow(segment, &opening) == Place::Found;
    if mode == refusal::ALERT && room {
        let fin = (headers.flags & tcp::FIN != 0) as u32;
        let mut description = alert::PROTOCOL_VERSION;
        if followed.kind == Kind::NotHello {
            description = alert::UNEXPECTED_MESSAGE;
        } else if followed.kind == Kind::Malformed {
            description = alert::DECODE_ERROR;
        } else if reason == DropReason::HelloFingerprint {
            description = alert::ACCESS_DENIED;
        } else if followed.kind == Kind::Accepted {
            description = alert::UNRECOGNIZED_NAME;
        }
        context.tables.answer(Answer {
            sequence: headers.acknowledgement,
            acknowledgement: headers.sequence.wrapping_add(length).wrapping_add(fin),
            detail: alert_version(followed.version) as u32,
            alert: description,
            ..Answer::to(headers, answer::Kind::Alert)
        });
    } else if mode != refusal::DROP || !room {
        // Without room nobody would remember to end the server's socket later.
        let reset = Answer::to(headers, answer::Kind::ResetServer);
        context.tables.answer(Answer { sequence: followed.value, ..reset });
    }
    reason
}

/// Whether the server itself can be made to refuse the hello: it begins with this segment, and its legacy version is what
/// counts. A list of versions would be believed by a server that takes old ones.
#[inline(always)]
pub(super) fn poison<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    headers: &Headers,
    followed: &Followed,
) -> bool {
    let at = headers.offset + LEGACY_VERSION;
    if context.settings.refusal != refusal::POISON
        || followed.kind != Kind::Refused
        || !followed.first
        || followed.listed
        || followed.version == 0
        || headers.opens()
        || context.packet.data::<2>(at).map(u16::from_be_bytes) != Some(followed.version)
    {
        return false;
    }
    context.tables.answer(Answer { detail: at as u32, ..Answer::to(headers, answer::Kind::Poison) });
    true
}

/// The first packet after a refusal: it becomes the reset that the server's socket is waiting for, at the very number that is
/// expected (RFC 5961 section 3.2).
#[inline(always)]
pub(super) fn reset_server<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    headers: &Headers,
    expected: u32,
) -> PassReason {
    let reset = Answer::to(headers, answer::Kind::ResetServer);
    context.tables.answer(Answer { sequence: expected, ..reset });
    PassReason::ServerReset
}

/// Every later packet: dropped, and answered if the client waits for something. `sent` is the sequence number behind what it was
/// sent.
#[inline(always)]
pub(super) fn answer_later<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    headers: &Headers,
    sent: u32,
) -> Taken {
    let Err(reason) = context.refuse(DropReason::RefusedConnection) else { return pass(PassReason::Clean) };
    let length = headers.end.wrapping_sub(headers.offset) as u32;
    if headers.flags & tcp::RST == 0 {
        if context.settings.refusal == refusal::ALERT && headers.flags & tcp::FIN != 0 {
            context.tables.answer(Answer {
                sequence: sent,
                acknowledgement: headers.sequence.wrapping_add(length).wrapping_add(1),
                ..Answer::to(headers, answer::Kind::AcknowledgeFin)
            });
        } else if context.settings.refusal == refusal::RESET || context.settings.refusal == refusal::POISON {
            let reset = Answer::to(headers, answer::Kind::ResetClient);
            context.tables.answer(Answer { sequence: headers.acknowledgement, ..reset });
        }
    }
    Err(reason)
}

/// The version of an alert's record: that of the hello, as clients of old versions demand; at most that of TLS 1.2, as newer ones do
/// (RFC 8446 section 5.1).
#[inline(always)]
const fn alert_version(legacy: u16) -> u16 {
    if legacy < 0x0300 {
        0x0301
    } else if legacy > 0x0303 {
        0x0303
    } else {
        legacy
    }
}
