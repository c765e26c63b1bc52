//! The verdict on a packet: every decision of the program, in the order in which it is taken.
//!
//! Called by the XDP program for every frame, by the daemon to explain itself, and by the tests. What a verdict may look
//! up is [`Tables`]; what it decides is written here and below, and nowhere else.

mod budgets;
mod cookies;
mod quic;
mod refusal;
mod standing;
mod tls;

use crate::{
    answer::Answer,
    ban::Listing,
    flow::{Followed, Opening, Segment, slot::Phase},
    gcra::Rate,
    headers::{Headers, Link, Transport},
    limiter::Charge,
    packet::Packet,
    port::{Port, door},
    reason::{DropReason, PassReason},
    settings::{ABI, Limit, Settings, flag},
    source::SourceKey,
};

pub use cookies::Cookie;

/// What becomes of a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on to the network stack.
    Pass(PassReason),
    /// It ends here.
    Drop(DropReason),
}

#[allow(unused_imports, reason = "named in the documentation")]
use crate::flow;

/// What a verdict may look up, and what it leaves behind.
pub trait Tables {
    /// The daemon's settings, if it has written any.
    fn settings(&self) -> Option<&Settings>;
    /// What is known of a destination port.
    fn port(&self, number: u16) -> Port;
    /// What the longest listed prefix around an IPv4 address says; [`Listing::NONE`] if there is none. Not an `Option`,
    /// here and below: LLVM stores the payload of `None` unwritten, and the verifier refuses to read it.
    fn listing_v4(&self, address: [u8; 4]) -> Listing;
    /// What the longest listed prefix around an IPv6 address, given as its two halves in host order, says.
    fn listing_v6(&self, address: [u64; 2]) -> Listing;
    /// Charges one event to a source that has the budgets of a tier; `rate` is what [`Settings::limit`] says of both. With
    /// [`Limit::Packets`] it also says whether exactly this source is banned, limited or not.
    fn charge(&self, limit: Limit, tier: u8, source: SourceKey, now: u64, rate: Rate) -> Charge;
    /// Charges one event to the budget with this key, see [`crate::budget`].
    fn charge_budget(&self, key: u64, now: u64, rate: Rate) -> Charge;
    /// Charges one event to the budget at this place, which many sources share, see [`crate::budget::shared`].
    fn charge_shared(&self, place: u32, now: u64, rate: Rate) -> Charge;
    /// Nanoseconds of `CLOCK_MONOTONIC`, the same for the whole packet. Asked only when something depends on it.
    fn now(&self) -> u64;
    /// Counts a packet of `bytes` bytes that would have been dropped if its reason were not under a dry run.
    fn would_drop(&self, reason: DropReason, bytes: usize);
    /// Charges one SYN to the budget that all sources share; `rate` is [`Settings::syn_budget`].
    fn charge_syn(&self, now: u64, rate: Rate) -> Charge;
    /// The cookie with which the kernel would answer the SYN that has these headers.
    fn cookie(&self, headers: &Headers) -> Cookie;
    /// Leaves word of a frame that the program shall write in answer to this packet. Asked once at most, right before the
    /// verdict.
    fn answer(&self, answer: Answer);
    /// [`inspect`], which the program puts behind a function that the verifier checks by itself.
    #[inline(always)]
    fn inspect<P: Packet>(&self, packet: &P, source: &Source, headers: &Headers, clean: PassReason) -> Verdict
    where
        Self: Sized,
    {
        inspect(packet, self, source, headers, clean)
    }
    /// How far the flow with this hash is, see [`flow::phase`].
    fn flow(&self, hash: u64) -> Phase;
    /// Lays the segment down for the calls below: the program hands numbers to functions that the verifier checks by themselves.
    fn hold(&self, segment: &Segment);
    /// [`flow::open`] for the segment that was laid down.
    fn open_flow(&self, opening: &Opening) -> bool;
    /// [`flow::follow`] for the segment that was laid down.
    fn follow_flow<P: Packet>(&self, packet: &P) -> Followed;
    /// [`flow::close`] in the hash's bucket.
    fn close_flow(&self, hash: u64);
}

/// Decides about one frame.
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(packet: &P, tables: &T) -> Verdict {
    match judge(packet, tables) {
        Ok(reason) => Verdict::Pass(reason),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// What every step works with.
struct Context<'a, P, T> {
    packet: &'a P,
    tables: &'a T,
    settings: &'a Settings,
}

impl Verdict {
    /// As one number, for a function that the verifier checks by itself: that of the reason.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        match self {
            Self::Pass(reason) => reason.number(),
            Self::Drop(reason) => reason.number(),
        }
    }

    /// The opposite of [`Verdict::number`]; what has no number is dropped as malformed.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        if let Some(reason) = PassReason::from_number(number) {
            return Self::Pass(reason);
        }
        match DropReason::from_number(number) {
            Some(reason) => Self::Drop(reason),
            None => Self::Drop(DropReason::MalformedTcp),
        }
    }
}

impl<P: Packet, T: Tables> Context<'_, P, T> {
    /// The one way to drop a packet: under a dry run of `reason` it is only counted, and the next step has its say.
    #[inline(always)]
    fn refuse(&self, reason: DropReason) -> Result<(), DropReason> {
        if self.settings.is_dry(reason) {
            self.tables.would_drop(reason, self.packet.length());
            return Ok(());
        }
        Err(reason)
    }

    /// [`Context::refuse`], with an answer.
    #[inline(always)]
    fn refuse_with(&self, reason: DropReason, answer: Answer) -> Result<(), DropReason> {
        let refused = self.refuse(reason);
        if refused.is_err() {
            self.tables.answer(answer);
        }
        refused
    }

    /// What becomes of a packet that cannot be parsed: no further step could say anything about it.
    #[inline(always)]
    fn unparsed(&self, reason: DropReason) -> Result<PassReason, DropReason> {
        if !self.settings.tolerates(reason) {
            self.refuse(reason)?;
        }
        Ok(PassReason::Unparsed)
    }
}

/// What a packet is charged to, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    key: SourceKey,
    listing: Listing,
}

impl Source {
    /// The same with only what a charge depends on.
    #[inline(always)]
    #[must_use]
    pub const fn charged(&self) -> Self {
        Self { key: self.key, listing: Listing { tier: self.listing.tier, ..Listing::NONE } }
    }
}

#[inline(always)]
fn judge<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<PassReason, DropReason> {
    let settings = match tables.settings() {
        Some(settings) if settings.abi == ABI => settings,
        Some(_) | None => return Ok(PassReason::NoSettings),
    };
    if settings.lease_until != 0 && tables.now() >= settings.lease_until {
        return Ok(PassReason::LeaseExpired);
    }
    let context = Context { packet, tables, settings };
    let mut headers = Headers::UNREAD;
    if let Err(reason) = headers.read_link(packet) {
        return context.unparsed(reason);
    }
    match headers.link {
        Link::Control => return Ok(PassReason::LinkControl),
        Link::Other => {
            if settings.flags & flag::DROP_NOT_IP != 0 {
                context.refuse(DropReason::NotIpRefused)?;
            }
            return Ok(PassReason::NotIp);
        }
        Link::Ipv4 => {
            if let Err(reason) = headers.read_ipv4(packet) {
                return context.unparsed(reason);
            }
        }
        Link::Ipv6 => {
            if let Err(reason) = headers.read_ipv6(packet) {
                return context.unparsed(reason);
            }
            if headers.is_neighbour_discovery(packet) {
                return Ok(PassReason::NeighbourDiscovery);
            }
        }
    }
    let source = standing::find(&context, &headers);
    if source.is_allowed() {
        return Ok(PassReason::Allowed);
    }
    let form = headers.read_transport(packet);
    let mut port = Port::UNKNOWN;
    if matches!(headers.transport, Transport::Tcp | Transport::Udp) {
        port = tables.port(headers.port);
    }
    // Who bans himself must still get in.
    let doors = port.doors() & source.listing.doors;
    if headers.transport == Transport::Tcp && (port.is(Port::MANAGEMENT) || doors & door::MANAGEMENT != 0) {
        return Ok(PassReason::Management);
    }
    if doors & !door::MANAGEMENT != 0 {
        return Ok(PassReason::Allowed);
    }
    standing::refuse_banned_prefix(&context, &source)?;
    budgets::charge_packet(&context, &source)?;
    if let Err(reason) = form {
        return context.unparsed(reason);
    }
    if headers.transport == Transport::Tcp && headers.fragment && port.is(Port::PROTECTED) {
        context.refuse(DropReason::TcpFragment)?;
    }
    match headers.transport {
        Transport::Tcp => {}
        Transport::LaterFragment => return Ok(PassReason::Fragment),
        Transport::Udp if port.is(Port::QUIC) => return quic::inspect(&context, &source, &headers),
        Transport::Udp | Transport::Other => return Ok(PassReason::Clean),
    }
    let mut clean = PassReason::Clean;
    if headers.opens() {
        budgets::charge(&context, &source, Limit::Connections, DropReason::ConnectionLimit)?;
        if port.is(Port::PROTECTED) {
            clean = cookies::spend(&context, &headers)?;
        }
    }
    if !port.is(Port::PROTECTED) {
        return Ok(clean);
    }
    match tables.inspect(packet, &source, &headers, clean) {
        Verdict::Pass(reason) => Ok(reason),
        Verdict::Drop(reason) => Err(reason),
    }
}

/// The last step of [`decide`]: what a TCP segment to a protected port means to its connection. `clean` is why a SYN passes that is as it
/// should be.
#[inline(always)]
pub fn inspect<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    source: &Source,
    headers: &Headers,
    clean: PassReason,
) -> Verdict {
    let Some(settings) = tables.settings() else { return Verdict::Pass(PassReason::NoSettings) };
    match tls::inspect(&Context { packet, tables, settings }, source, headers) {
        Ok(PassReason::Clean) => Verdict::Pass(clean),
        Ok(reason) => Verdict::Pass(reason),
        Err(reason) => Verdict::Drop(reason),
    }
}
