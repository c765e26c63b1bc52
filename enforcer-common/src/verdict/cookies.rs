//! Whether a SYN to a protected port gets through to the network stack, or a SYN cookie for an answer. [`open`] is a
//! step of [`super::take`], [`spend`] the beginning of another one.
//!
//! A flood of SYNs from ever new sources stays below every limit of a source. Above a budget that all of them share, the answer
//! is written here: it costs no memory, and who completes the handshake has an address of his own.

use super::{
    Context, Tables, Taken, budgets, go, pass,
    work::{Step, Work},
};
use crate::{
    answer::{Answer, Kind},
    budget::shared,
    headers::{Headers, tcp},
    limiter::Charge,
    packet::Packet,
    port::Port,
    reason::{DropReason, PassReason},
    settings::Limit,
};

/// The largest segment that a client may send on a connection that began with a cookie, in bytes. What the route to it can carry
/// is not known here; this much fits into every link that IPv6 runs on (RFC 8200 section 5).
const SEGMENT_SIZE: u32 = 1220;

/// The SYN cookie that the kernel would answer a SYN with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cookie {
    /// Whether it would: there is a listener, and it may.
    pub made: bool,
    /// The sequence number that the cookie is.
    pub sequence: u32,
}

impl Cookie {
    /// The kernel makes none.
    pub const NONE: Self = Self { made: false, sequence: 0 };
}

/// What the server has with two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Server {
    /// That cannot be told: nobody listens there, as this namespace sees it.
    #[default]
    Unknown,
    /// No connection: a listener, or one that is over (TIME-WAIT).
    Free,
    /// A connection, or the making of one.
    Taken,
}

/// How long after a cookie was made the kernel takes it back, in nanoseconds (MAX_SYNCOOKIE_AGE, linux/tcp.h).
const RETURNS: u64 = 2 * 60 * 1_000_000_000;

/// Whether a connection may begin with a segment that is no SYN, since cookies are out. Such a segment has an acknowledgement.
#[inline(always)]
pub(super) fn may_return<T: Tables>(tables: &T, flags: u8) -> bool {
    if flags & (tcp::SYN | tcp::ACK | tcp::RST) != tcp::ACK {
        return false;
    }
    let made = tables.cookies_made();
    // The clock of another CPU may be ahead by a tick.
    made != 0 && tables.now().saturating_sub(made) < RETURNS
}

/// A SYN: one connection at its source's expense.
#[inline(always)]
pub(super) fn open<P: Packet, T: Tables>(context: &Context<'_, P, T>, work: &mut Work) -> Taken {
    budgets::charge(context, work, Limit::Connections, DropReason::ConnectionLimit)?;
    if work.port.is(Port::PROTECTED) { go(Step::Segment) } else { pass(PassReason::Clean) }
}

/// And one of everybody's where TLS is served. `Ok`: the SYN goes on, for that reason if nothing else is found.
#[inline(always)]
pub(super) fn spend<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    headers: &Headers,
) -> Result<PassReason, DropReason> {
    let rate = context.settings.syn_budget;
    if !rate.is_limited()
        || context.tables.charge_shared(shared::SYNS, context.tables.now(), rate) == Charge::Within
    {
        return Ok(PassReason::Clean);
    }
    let cookie = context.tables.cookie(headers);
    if !cookie.made {
        return Ok(PassReason::CookieDeclined);
    }
    context.refuse_with(
        DropReason::SynCookie,
        Answer {
            sequence: cookie.sequence,
            acknowledgement: headers.sequence.wrapping_add(1),
            detail: SEGMENT_SIZE,
            ..Answer::to(headers, Kind::SynCookie)
        },
    )?;
    Ok(PassReason::Clean)
}
