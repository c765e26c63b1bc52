//! What a TCP segment to a protected port is worth as part of a ClientHello. Called by [`super::judge`] alone.
//!
//! A flow that is known from its SYN is followed through its hello, however that is cut. Of a flow that is not known
//! (established, or the table had no room), what looks like a hello is inspected, and followed if it goes on.

use super::{Context, Source, Tables, budgets, refusal};
use crate::{
    flow::{Ends, Followed, Kind, Opening, Segment, slot::Phase},
    headers::{Headers, Link, tcp},
    hello::Hello,
    packet::Packet,
    reason::{DropReason, PassReason},
    settings::{Limit, flag},
};

#[inline(always)]
pub(super) fn inspect<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    headers: &Headers,
) -> Result<PassReason, DropReason> {
    if context.settings.minimum_tls == 0 {
        return limit(context, source, headers);
    }
    let hash = ends(context, headers).hash(context.settings.seed);
    let has_data = headers.offset != headers.end;
    if headers.opens() {
        hold(context, headers, hash);
        let opening = Opening { begins: true, ..beginning(headers) };
        if !context.tables.open_flow(&opening) {
            return unfollowed(context);
        }
    }
    let known = context.tables.flow(hash);
    if !has_data && known != Phase::Refused && known != Phase::Ended {
        return Ok(PassReason::Clean);
    }
    let mut followed = Followed::UNKNOWN;
    if known != Phase::Free {
        if known.awaits() {
            verify(context, headers)?;
        }
        hold(context, headers, hash);
        followed = context.tables.follow_flow(context.packet);
    }
    if followed.kind == Kind::Unknown {
        if !has_data {
            return Ok(PassReason::Clean);
        }
        followed = unknown(context, headers, hash)?;
    }
    conclude(context, source, headers, hash, &followed)
}

/// Hellos are not judged, but limited.
#[inline(always)]
fn limit<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    headers: &Headers,
) -> Result<PassReason, DropReason> {
    if headers.offset == headers.end
        || context.packet.inspect_hello(headers.offset, headers.end, 0).hello == Hello::Absent
    {
        return Ok(PassReason::Clean);
    }
    budgets::charge(context, source, Limit::Hellos, DropReason::HelloLimit)?;
    Ok(PassReason::HelloAccepted)
}

/// The two ends of the packet's connection. Read anew wherever they are needed: the program's stack is small.
#[inline(always)]
fn ends<P: Packet, T: Tables>(context: &Context<'_, P, T>, headers: &Headers) -> Ends {
    let mut ends = Ends {
        source: headers.source,
        destination: [0; 2],
        ports: (headers.source_port as u32) << 16 | headers.port as u32,
        family: 4,
    };
    // The header was read before, so its addresses are there.
    if headers.link == Link::Ipv4 {
        ends.destination[0] = context.packet.u32(headers.network + 16).unwrap_or(0) as u64;
    } else {
        ends.family = 6;
        ends.destination[0] = context.packet.bytes(headers.network + 24).map_or(0, u64::from_be_bytes);
        ends.destination[1] = context.packet.bytes(headers.network + 32).map_or(0, u64::from_be_bytes);
    }
    ends
}

/// Sequence number of the segment's first byte of data: a SYN takes one number (RFC 9293 section 3.4), data that comes with it
/// follows (RFC 7413 section 2).
#[inline(always)]
const fn sequence(headers: &Headers) -> u32 {
    headers.sequence.wrapping_add((headers.flags & tcp::SYN != 0) as u32)
}

/// A flow that seems to begin with this segment.
#[inline(always)]
const fn beginning(headers: &Headers) -> Opening {
    Opening { phase: Phase::Opened, begins: false, next: sequence(headers), value: 0 }
}

/// Lays the segment down as the flow table sees it.
#[inline(always)]
fn hold<P: Packet, T: Tables>(context: &Context<'_, P, T>, headers: &Headers, hash: u64) {
    context.tables.hold(&Segment {
        ends: ends(context, headers),
        hash,
        now: context.tables.now(),
        sequence: sequence(headers),
        offset: headers.offset as u32,
        end: headers.end as u32,
        minimum: context.settings.minimum_tls,
        reserved: 0,
    });
}

/// What data of a flow means that is not in the table.
#[inline(always)]
fn unknown<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    headers: &Headers,
    hash: u64,
) -> Result<Followed, DropReason> {
    let seen = context.packet.inspect_hello(headers.offset, headers.end, context.settings.minimum_tls);
    let mut followed = Followed {
        kind: Kind::Behind,
        first: true,
        begins: false,
        listed: seen.listed,
        version: seen.version,
        value: sequence(headers),
    };
    if seen.hello == Hello::Absent {
        return Ok(followed);
    }
    verify(context, headers)?;
    hold(context, headers, hash);
    followed.kind = match seen.hello {
        Hello::Accepted => Kind::Accepted,
        Hello::Refused => Kind::Refused,
        Hello::Malformed => Kind::Malformed,
        Hello::Incomplete | Hello::Absent => Kind::Unfollowed,
    };
    if matches!(seen.hello, Hello::Incomplete | Hello::Malformed)
        && context.tables.open_flow(&beginning(headers))
    {
        let next = context.tables.follow_flow(context.packet);
        if next.kind != Kind::Unknown {
            return Ok(next);
        }
        if seen.hello == Hello::Incomplete {
            followed.kind = Kind::Behind;
        }
    }
    Ok(followed)
}

/// The verdict, once it is known what the segment means.
#[inline(always)]
fn conclude<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
    headers: &Headers,
    hash: u64,
    followed: &Followed,
) -> Result<PassReason, DropReason> {
    let reason = match followed.kind {
        Kind::Unknown | Kind::Behind => return Ok(PassReason::Clean),
        Kind::Ahead => {
            context.refuse(DropReason::HelloAhead)?;
            // Nothing that follows would fit what has been inspected.
            context.tables.close_flow(hash);
            return Ok(PassReason::HelloUnfollowed);
        }
        Kind::Refusal => return Ok(refusal::reset_server(context, headers, followed.value)),
        Kind::Ended => return refusal::answer_later(context, headers, followed.value),
        Kind::Malformed => DropReason::MalformedHello,
        Kind::NotHello => DropReason::NotHello,
        Kind::Part | Kind::Accepted | Kind::Refused | Kind::Unfollowed => {
            if followed.first
                && let Err(over) = budgets::charge(context, source, Limit::Hellos, DropReason::HelloLimit)
            {
                // The sender will repeat it. Until then nothing behind it passes, or it would pass without having been seen.
                context.tables.close_flow(hash);
                if followed.begins {
                    let next = followed.value;
                    context.tables.open_flow(&Opening { phase: Phase::Opened, begins: true, next, value: 0 });
                }
                return Err(over);
            }
            if followed.kind == Kind::Part {
                return Ok(PassReason::HelloIncomplete);
            }
            if followed.kind == Kind::Unfollowed {
                return unfollowed(context);
            }
            if followed.kind == Kind::Accepted {
                return Ok(PassReason::HelloAccepted);
            }
            DropReason::TlsVersion
        }
    };
    let Err(reason) = context.refuse(reason) else { return Ok(PassReason::HelloAccepted) };
    if refusal::poison(context, headers, followed) {
        return Ok(PassReason::HelloPoisoned);
    }
    Err(refusal::refuse(context, headers, followed, reason))
}

/// A hello that cannot be followed to its end.
#[inline(always)]
fn unfollowed<P: Packet, T: Tables>(context: &Context<'_, P, T>) -> Result<PassReason, DropReason> {
    if context.settings.flags & flag::STRICT_CONNECTIONS != 0 {
        context.refuse(DropReason::UnknownConnection)?;
    }
    Ok(PassReason::HelloUnfollowed)
}

/// Drops a segment that the server would ignore for its checksum, so that it cannot be mistaken for part of the hello.
#[inline(always)]
fn verify<P: Packet, T: Tables>(context: &Context<'_, P, T>, headers: &Headers) -> Result<(), DropReason> {
    if context.settings.flags & flag::VERIFY_CHECKSUMS == 0 {
        return Ok(());
    }
    // The pseudo-header: addresses, protocol, length (RFC 9293 section 3.1, RFC 8200 section 8.1).
    let ends = ends(context, headers);
    let length = headers.end.wrapping_sub(headers.segment) as u64;
    let words = spread(ends.source[0])
        + spread(ends.source[1])
        + spread(ends.destination[0])
        + spread(ends.destination[1])
        + 6
        + spread(length);
    let pseudo = fold(words).to_be() as u64;
    let sum = context.packet.sum(headers.segment, headers.end) as u64;
    if fold(pseudo + sum) != 0xffff {
        context.refuse(DropReason::BadChecksum)?;
    }
    Ok(())
}

/// The sum of a number's four 16-bit words.
#[inline(always)]
const fn spread(number: u64) -> u64 {
    (number & 0xffff) + (number >> 16 & 0xffff) + (number >> 32 & 0xffff) + (number >> 48)
}

/// A sum of 16-bit words with its carries added (RFC 1071 section 4.1).
#[inline(always)]
const fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}
