//! What a TCP segment to a protected port is worth as part of a ClientHello: four steps of [`super::take`].
//!
//! A flow that is known from its SYN, or from the cookie that was returned, is followed through its hello, however that is cut. Of a flow that
//! is not known (established, or the table had no room), what looks like a hello is inspected, and followed if it goes on.

use super::{
    Context, Server, Tables, Taken, budgets, cookies, go, pass, refusal,
    work::{Step, Work},
};
use crate::{
    flow::{Ends, Followed, Kind, Opening, Place, Segment, slot::Phase},
    headers::{Headers, IPV4_LENGTH, IPV6_LENGTH, Link, TCP_LENGTH, tcp},
    hello::Hello,
    packet::Packet,
    reason::{DropReason, PassReason},
    settings::{Limit, flag},
};

/// What is known of the segment's flow, which is taken up with its SYN.
#[inline(always)]
pub(super) fn begin<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    let inspects = context.settings.minimum_tls != 0;
    let mut known = Phase::Free;
    if inspects {
        work.guessed = false;
        work.followed = Followed::UNKNOWN;
        fill(context, &work.headers, &mut work.segment);
        known = context.tables.flow(work.segment.hash);
    }
    let opens = work.headers.opens();
    if opens && known == Phase::Refused {
        // The server's socket still waits for a hello, and would take the SYN for a part of its connection: the SYN ends it, and its
        // sender repeats it.
        return go(Step::Follow);
    }
    // A SYN that is answered with a cookie takes no flow up, or a flood of them would wash out all others; but one that is there
    // has another beginning by it, or the hello of a connection from a port that is used again would be held back.
    if opens && known == Phase::Free {
        work.clean = cookies::spend(context, &work.headers)?;
    }
    // A cookie that comes back says that the connection begins here. Whoever makes one up has odds of 1 in 2^24 or less, and no others
    // wash flows out. What was made up without a SYN meanwhile does not hide it.
    let begins = opens
        || (inspects
            && matches!(known, Phase::Free | Phase::Loose)
            && cookies::may_return(context.tables, work.headers.flags)
            && context.tables.returns_cookie(&work.headers));
    if inspects && begins {
        if open(context, work)? == Place::Full && opens {
            return unfollowed(context);
        }
        if opens && known != Phase::Free {
            work.clean = cookies::spend(context, &work.headers)?;
        }
        known = context.tables.flow(work.segment.hash);
    }
    if !inspects {
        return limit(context, work);
    }
    if !has_data(&work.headers) && !known.is_refused() {
        if known != Phase::Free && work.headers.flags & (tcp::URG | tcp::SYN | tcp::RST) == tcp::URG {
            // Servers do not read the byte that it calls urgent, in whichever segment that comes.
            context.refuse(DropReason::HelloUnusual)?;
        }
        return clean(work);
    }
    if known == Phase::Free {
        return go(Step::Stranger);
    }
    if known == Phase::Passed {
        let (segment, length) = (&work.segment, work.headers.end.wrapping_sub(work.headers.offset) as u32);
        let urgent = work.headers.flags & tcp::URG != 0;
        if context.tables.has_passed(segment.hash, segment.sequence, length, urgent) {
            return clean(work);
        }
    }
    if !known.is_refused() {
        verify(context, work)?;
    }
    go(Step::Follow)
}

/// Takes a flow up with its SYN, or notes that it may have begun with this one.
#[inline(always)]
fn open<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &Work) -> Result<Place, DropReason> {
    let opening = Opening { phase: Phase::Opened, begins: true, ..beginning(&work.segment) };
    let mut place = context.tables.open_flow(&work.segment, &opening);
    if place == Place::Disputed && context.tables.server(&work.headers) == Server::Free {
        // What is known is of connections that there are no more.
        let opening = Opening { value: Opening::FRESH, ..opening };
        place = context.tables.open_flow(&work.segment, &opening);
    }
    if place == Place::Disputed {
        context.refuse(DropReason::SynDisputed)?;
    }
    Ok(place)
}

/// Follows the flow through the segment.
#[inline(always)]
pub(super) fn follow<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    let followed = context.tables.follow_flow(context.packet, &work.segment, &mut work.marks);
    if work.guessed {
        // Else what has been guessed stands.
        if followed.kind != Kind::Unknown {
            work.followed = followed;
        }
        return go(Step::Conclude);
    }
    work.followed = followed;
    if !matches!(followed.kind, Kind::Unknown | Kind::Elsewhere) {
        return go(Step::Conclude);
    }
    if work.headers.opens() {
        // Of a refusal so old that it has been forgotten.
        open(context, work)?;
    }
    if has_data(&work.headers) { go(Step::Stranger) } else { clean(work) }
}

/// The segment is as it should be.
#[inline(always)]
fn clean(work: &Work) -> Taken {
    pass(if work.headers.opens() { work.clean } else { PassReason::Clean })
}

/// Whether there is something that a server would read; of a reset it reads nothing.
#[inline(always)]
const fn has_data(headers: &Headers) -> bool {
    headers.offset != headers.end && headers.flags & tcp::RST == 0
}

/// Hellos are not judged, but limited.
#[inline(always)]
fn limit<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &Work) -> Taken {
    let headers = &work.headers;
    if !has_data(headers)
        || context.packet.inspect_hello(headers.offset, headers.end, 0).hello == Hello::Absent
    {
        return clean(work);
    }
    budgets::charge(context, work, Limit::Hellos, DropReason::HelloLimit)?;
    pass(PassReason::HelloAccepted)
}

/// A flow that seems to begin with this segment.
#[inline(always)]
const fn beginning(segment: &Segment) -> Opening {
    Opening { phase: Phase::Loose, begins: false, next: segment.sequence, value: 0 }
}

/// The segment as the flow table sees it.
#[inline(always)]
fn fill<P: Packet, T: Tables>(context: &Context<'_, P, T>, headers: &Headers, segment: &mut Segment) {
    let ends = Ends::of(headers);
    *segment = Segment {
        hash: ends.hash(context.settings.seed),
        ends,
        now: context.tables.now(),
        // A SYN takes one number (RFC 9293 section 3.4), data that comes with it follows (RFC 7413 section 2).
        sequence: headers.sequence.wrapping_add((headers.flags & tcp::SYN != 0) as u32),
        offset: headers.offset as u32,
        end: headers.end as u32,
        minimum: context.settings.minimum_tls,
        whole: (context.settings.flags & flag::HELLO_LISTS != 0) as u16,
        key: context.settings.seed,
        opens: headers.opens() as u64,
    };
}

/// What data of a flow means that is not in the table, or there with other numbers.
#[inline(always)]
pub(super) fn unknown<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    let headers = &work.headers;
    let known = work.followed.kind;
    let seen = context.packet.inspect_hello(headers.offset, headers.end, context.settings.minimum_tls);
    if seen.hello == Hello::Absent {
        return clean(work);
    }
    verify(context, work)?;
    work.followed = Followed {
        kind: match seen.hello {
            Hello::Accepted => Kind::Accepted,
            Hello::Refused => Kind::Refused,
            Hello::Malformed => Kind::Malformed,
            Hello::Incomplete | Hello::Absent => Kind::Unfollowed,
        },
        first: true,
        begins: false,
        disputed: false,
        listed: seen.listed,
        whole: false,
        kept: false,
        version: seen.version,
        value: work.segment.sequence,
    };
    let incomplete = seen.hello == Hello::Incomplete;
    // Good, but something is listed: it has to be followed to its end like one that goes on.
    let unread = seen.hello == Hello::Accepted && work.segment.whole != 0;
    if unread {
        work.followed.kind = Kind::Unfollowed;
    }
    if known == Kind::Elsewhere {
        if incomplete || unread {
            // One flow of a connection is followed, and which of the two the server takes is not known.
            work.followed.kind = Kind::Ahead;
        }
    } else if (incomplete || unread || seen.hello == Hello::Malformed)
        && context.tables.open_flow(&work.segment, &beginning(&work.segment)) == Place::Found
    {
        if incomplete {
            work.followed.kind = Kind::Behind;
        }
        work.guessed = true;
        return go(Step::Follow);
    }
    go(Step::Conclude)
}

/// The verdict, once it is known what the segment means.
#[inline(always)]
pub(super) fn conclude<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    let Work { headers, segment, followed, .. } = &*work;
    let reason = match followed.kind {
        Kind::Unknown | Kind::Elsewhere | Kind::Behind => return clean(work),
        Kind::Ahead | Kind::Changed => {
            let changed = followed.kind == Kind::Changed;
            context.refuse(if changed { DropReason::HelloChanged } else { DropReason::HelloAhead })?;
            // Nothing that follows would fit what has been inspected.
            context.tables.close_flow(segment.hash);
            return pass(PassReason::HelloUnfollowed);
        }
        Kind::Refusal => return pass(refusal::reset_server(context, headers, followed.value)),
        Kind::Ended => return refusal::answer_later(context, headers, followed.value),
        // One byte tells it.
        Kind::NotHello => DropReason::NotHello,
        Kind::Part | Kind::Accepted | Kind::Refused | Kind::Unfollowed | Kind::Malformed => {
            if followed.first
                && let Err(over) = budgets::charge(context, work, Limit::Hellos, DropReason::HelloLimit)
            {
                // The sender will repeat it. Until then nothing behind it passes, or it would pass without having been seen; and of what was kept of
                // it nothing is left.
                if followed.begins {
                    let (next, value) = (followed.value, Opening::ANEW);
                    context
                        .tables
                        .open_flow(segment, &Opening { phase: Phase::Opened, begins: true, next, value });
                } else {
                    context.tables.close_flow(segment.hash);
                }
                return Err(over);
            }
            if followed.kind == Kind::Part {
                return pass(PassReason::HelloIncomplete);
            }
            if followed.kind == Kind::Unfollowed {
                return unfollowed(context);
            }
            if followed.kind == Kind::Accepted {
                return if followed.whole { go(Step::Compare) } else { pass(PassReason::HelloAccepted) };
            }
            if followed.kind == Kind::Malformed { DropReason::MalformedHello } else { DropReason::TlsVersion }
        }
    };
    let Err(reason) = context.refuse(reason) else { return pass(PassReason::HelloAccepted) };
    if refusal::poison(context, headers, followed) {
        if followed.begins && !followed.disputed {
            // The server may not have taken it, and gets nothing else.
            context.tables.open_flow(
                segment,
                &Opening { phase: Phase::Opened, begins: true, next: followed.value, value: 0 },
            );
        }
        return pass(PassReason::HelloPoisoned);
    }
    Err(refusal::refuse(context, work, reason))
}

/// A hello that cannot be followed to its end.
#[inline(always)]
fn unfollowed<P: Packet, T: Tables>(context: &Context<'_, P, T>) -> Taken {
    if context.settings.flags & flag::STRICT_CONNECTIONS != 0 {
        context.refuse(DropReason::UnknownConnection)?;
    }
    pass(PassReason::HelloUnfollowed)
}

/// Whether a segment is such as TLS clients send: with an acknowledgement, or a SYN, nothing urgent, no signature of TCP's, right behind an
/// IP header without options and extensions. Whatever is not may be ignored by the server, which tells nobody.
#[inline(always)]
fn is_usual<P: Packet>(packet: &P, headers: &Headers) -> bool {
    let flags = headers.flags & (tcp::SYN | tcp::ACK | tcp::URG);
    let network = if matches!(headers.link, Link::Ipv4) { IPV4_LENGTH } else { IPV6_LENGTH };
    (flags == tcp::ACK || flags == tcp::SYN)
        // What this machine's stack has put together may have the option that tells its length (RFC 2675).
        && (headers.segment.wrapping_sub(headers.network) == network
            || headers.end.wrapping_sub(headers.network) > u16::MAX as usize)
        && (headers.offset.wrapping_sub(headers.segment) == TCP_LENGTH || !packet.signed(headers.segment))
}

/// Drops a segment that the server would ignore for its form or its checksums, so that it cannot be mistaken for part of the hello.
#[inline(always)]
fn verify<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &Work) -> Result<(), DropReason> {
    if !is_usual(context.packet, &work.headers) {
        context.refuse(DropReason::HelloUnusual)?;
    }
    if !context.settings.verifies(context.tables.slot()) {
        return Ok(());
    }
    // The pseudo-header: addresses, protocol, length (RFC 9293 section 3.1, RFC 8200 section 8.1).
    let Work { headers, segment: Segment { ends, .. }, .. } = work;
    let length = headers.end.wrapping_sub(headers.segment) as u64;
    let words = spread(ends.source[0])
        + spread(ends.source[1])
        + spread(ends.destination[0])
        + spread(ends.destination[1])
        + 6
        + spread(length);
    let pseudo = fold(words).to_be() as u64;
    let sum = context.packet.sum(headers.segment, headers.end) as u64;
    let mut right = fold(pseudo + sum) == 0xffff;
    if right && matches!(headers.link, Link::Ipv4) {
        right = fold(context.packet.sum(headers.network, headers.segment) as u64) == 0xffff;
    }
    if !right {
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
