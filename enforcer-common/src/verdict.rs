//! The verdict on a packet: every decision of the program, in the order in which it is taken.
//!
//! Called by the XDP program for every frame, by the daemon to explain itself, and by the tests. What a verdict may look
//! up is [`Tables`]; what it decides is written here and below, and nowhere else.
//!
//! A verdict is reached in steps, see [`work`]: what one leaves for the next lies in [`Work`], so the program can run each as a function
//! of its own.

mod budgets;
mod cookies;
mod further;
mod glance;
mod headers;
mod hellos;
mod quic;
mod refusal;
mod standing;
mod tls;
pub mod work;

use core::cell::Cell;

use self::work::{Next, Step, Work};
use crate::{
    answer::Answer,
    ban::Listing,
    flow::{Followed, Opening, Place, Segment, slot::Phase},
    gcra::Rate,
    headers::Headers,
    hello::marks::Marks,
    limiter::{Charge, Known},
    packet::Packet,
    port::Port,
    reason::{DropReason, PassReason},
    settings::{Limit, SHARED_SLOT, Settings},
    source::SourceKey,
};

pub use self::{
    cookies::{Cookie, Server},
    glance::{awaits_nothing, glance, recall},
};

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
    /// The slot of the interface that the packet came by, see [`Settings::slot`].
    #[inline(always)]
    fn slot(&self) -> u32 {
        SHARED_SLOT
    }
    /// What is known of a destination port.
    fn port(&self, number: u16) -> Port;
    /// What the longest listed prefix around an IPv4 address says; [`Listing::NONE`] if there is none. Not an `Option`,
    /// here and below: LLVM stores the payload of `None` unwritten, and the verifier refuses to read it.
    fn listing_v4(&self, address: [u8; 4]) -> Listing;
    /// What the longest listed prefix around an IPv6 address, given as its two halves in host order, says.
    fn listing_v6(&self, address: [u64; 2]) -> Listing;
    /// [`limiter::charge_known`] of an event, without any other charge; [`Known::Other`] is never wrong.
    ///
    /// [`limiter::charge_known`]: crate::limiter::charge_known
    #[inline(always)]
    fn charge_known(&self, limit: Limit, source: SourceKey, rate: Rate) -> Known {
        let _ = (limit, source, rate);
        Known::Other
    }
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
    /// The cookie with which the kernel would answer the SYN that has these headers.
    fn cookie(&self, headers: &Headers) -> Cookie;
    /// When the latest cookie was made, to within a second; 0: never.
    fn cookies_made(&self) -> u64;
    /// Whether a segment returns such a cookie to the listener that it is for, so that a connection begins with it.
    fn returns_cookie(&self, headers: &Headers) -> bool;
    /// What the server has with the ends of a segment.
    fn server(&self, headers: &Headers) -> Server;
    /// Leaves word of a frame that the program shall write in answer to this packet. Asked once at most, right before the
    /// verdict.
    fn answer(&self, answer: Answer);
    /// How far the flow with this hash is, see [`flow::phase`].
    fn flow(&self, hash: u64) -> Phase;
    /// [`awaits_nothing`].
    #[inline(always)]
    fn awaits_nothing(&self, hash: u64, sequence: u32, length: u32, flags: u8) -> bool
    where
        Self: Sized,
    {
        awaits_nothing(self, hash, sequence, length, flags)
    }
    /// [`flow::has_passed`] for data of `length` bytes.
    fn has_passed(&self, hash: u64, sequence: u32, length: u32, urgent: bool) -> bool;
    /// [`flow::confirm`].
    fn confirm_flow(&self, hash: u64, sequence: u32);
    /// [`flow::open`] for a segment, which is that of [`Work`].
    fn open_flow(&self, segment: &Segment, opening: &Opening) -> Place;
    /// [`flow::follow`] for a segment.
    fn follow_flow<P: Packet>(&self, packet: &P, segment: &Segment, marks: &mut Marks) -> Followed;
    /// What is listed of the name or the fingerprint with this hash, see [`crate::hello::lists`]; 0: nothing.
    fn hello(&self, hash: u64) -> u32;
    /// [`flow::close`] in the hash's bucket.
    fn close_flow(&self, hash: u64);
}

/// Decides about one frame.
pub fn decide<P: Packet, T: Tables>(packet: &P, tables: &T) -> Verdict {
    let mut work = Work::NONE;
    let next = glance(packet, tables);
    if next.follows_first_look() {
        recall(packet, tables, &mut work);
    }
    walk(next, packet, tables, &mut work)
}

/// [`decide`] without a first look: more slowly the same.
pub fn decide_by_steps<P: Packet, T: Tables>(packet: &P, tables: &T) -> Verdict {
    walk(Next::to(Step::Begin), packet, tables, &mut { Work::NONE })
}

/// Takes step after step.
fn walk<P: Packet, T: Tables>(mut next: Next, packet: &P, tables: &T, work: &mut Work) -> Verdict {
    while let Some(step) = next.step() {
        next = take(step, packet, tables, work);
    }
    next.verdict()
}

/// Takes one step. Which one is known where the program is compiled: of the others nothing is left there.
#[inline(always)]
pub fn take<P: Packet, T: Tables>(step: Step, packet: &P, tables: &T, work: &mut Work) -> Next {
    let Some(settings) = tables.settings() else { return Next::end(Verdict::Pass(PassReason::NoSettings)) };
    let context = Context { packet, tables, settings, shared: Cell::new(false) };
    let taken = match step {
        Step::Begin => headers::begin(&context, work),
        Step::Extensions => headers::extensions(&context, work),
        Step::Transport => headers::transport(&context, work),
        Step::Charge => budgets::charge_packet(&context, work),
        Step::Weigh => further::weigh(&context, work),
        Step::Quic => quic::inspect(&context, work),
        Step::Open => cookies::open(&context, work),
        Step::Segment => tls::begin(&context, work),
        Step::Follow => tls::follow(&context, work),
        Step::Stranger => tls::unknown(&context, work),
        Step::Conclude => tls::conclude(&context, work),
        Step::Compare => hellos::compare(&context, work),
    };
    work.shared |= context.shared.get();
    match taken {
        Ok(next) if next == CLEAN && work.shared => Next::end(Verdict::Pass(PassReason::LimiterShared)),
        Ok(next) => next,
        Err(reason) => Next::end(Verdict::Drop(reason)),
    }
}

/// A packet of which there is nothing else to say.
const CLEAN: Next = Next::end(Verdict::Pass(PassReason::Clean));

/// What every step works with.
struct Context<'a, P, T> {
    packet: &'a P,
    tables: &'a T,
    settings: &'a Settings,
    /// Whether this step has charged a budget that sources without a slot share.
    shared: Cell<bool>,
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

    /// Whether the daemon has stayed away for too long.
    #[inline(always)]
    fn lease_is_over(&self) -> bool {
        self.settings.lease_until != 0 && self.tables.now() >= self.settings.lease_until
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
    fn unparsed(&self, reason: DropReason) -> Taken {
        if !self.settings.tolerates(reason) {
            self.refuse(reason)?;
        }
        pass(PassReason::Unparsed)
    }
}

/// What a step comes to: what is next, or a drop.
type Taken = Result<Next, DropReason>;

/// The end of a step that is the end of all.
#[inline(always)]
const fn pass(reason: PassReason) -> Taken {
    Ok(Next::end(Verdict::Pass(reason)))
}

/// The end of a step that leaves the rest to another.
#[inline(always)]
const fn go(step: Step) -> Taken {
    Ok(Next::to(step))
}

/// What a packet is charged to, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    key: SourceKey,
    listing: Listing,
}

impl Source {
    /// Nobody yet.
    pub(crate) const NOBODY: Self = Self { key: SourceKey::v4([0; 4]), listing: Listing::NONE };
}
