//! The steps of a verdict, each a global function, which the verifier checks by itself and once (Linux 5.6).
//!
//! What one leaves for the next lies in a map of one value per CPU. They are called one after the other, not one by the other: so
//! the stack of each ends with it, and what each may meet is not multiplied by the ways that lead there.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    btf_maps::PerCpuArray,
    macros::btf_map,
    programs::XdpContext,
};
use enforcer_common::{
    answer::Answer,
    flow::Segment,
    packet::Packet as _,
    reason::{DropReason, FIRST_DROP},
    verdict::{
        self,
        work::{Next, Step, Work},
    },
};

use crate::{frame::Frame, tables::Maps};

/// What steps leave for each other, and for whoever carries the verdict out.
#[repr(C)]
struct Desk {
    work: Work,
    answer: Answer,
    /// Length of the frame in bytes.
    length: usize,
    /// 0 until somebody asks for the time.
    now: u64,
}

#[btf_map]
static DESK: PerCpuArray<Desk, 1> = PerCpuArray::new();

/// Beside the number of what comes next: an answer has been asked for.
const ANSWERED: u32 = 1 << 16;

/// A verdict.
#[derive(Clone, Copy)]
pub(crate) struct Judged {
    /// The number of its reason.
    pub(crate) reason: u32,
    /// Whether an answer goes with it.
    pub(crate) answered: bool,
}

/// What comes next after a first look at a packet, or what [`is_finished`] says. A function of its own, since what it keeps on the stack is
/// needed no longer when steps are taken.
#[inline(always)]
pub(crate) fn glance(context: *mut xdp_md) -> u32 {
    enforcer_glance(context)
}

/// Beside an action: the packet has been counted, and nothing is left to do.
const FINISHED: u32 = 1 << 17;

/// Whether nothing is left to do but to return the number's lower half.
#[inline(always)]
pub(crate) const fn is_finished(next: u32) -> bool {
    next & FINISHED != 0
}

/// [`verdict::glance`], to the end if that is near: nobody else looks at the packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_glance(context: *mut xdp_md) -> u32 {
    let xdp = XdpContext::new(context);
    // It says nothing of a frame that is longer.
    let (frame, maps) = (Frame::linear(&xdp), Maps::new(context, 0));
    let next = verdict::glance(&frame, &maps);
    if !next.is_end() {
        return next.number();
    }
    let drops = next.number() >= FIRST_DROP;
    // Nearly all that a flood consists of is beyond what is shown.
    if drops && !maps.refuses_event() {
        return next.number();
    }
    // What lies behind linear memory is counted too.
    maps.count(next.number(), Frame::new(&xdp).length());
    FINISHED | if drops { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// The verdict that a first look has come to, or the one that step after step comes to.
#[inline(always)]
pub(crate) fn judge(context: *mut xdp_md, length: usize, first: u32) -> Judged {
    let mut next = first;
    if next < Step::Begin as u32 {
        return Judged { reason: next, answered: false };
    }
    if let Some(desk) = DESK.get_ptr_mut(0) {
        // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other on one.
        unsafe {
            (*desk).length = length;
            (*desk).now = 0;
        }
    }
    if next > Step::Begin as u32 {
        enforcer_recall(context);
    } else {
        next = enforcer_begin(context);
    }
    if next == Step::Extensions as u32 {
        next = enforcer_extensions(context);
    }
    if next == Step::Transport as u32 {
        next = enforcer_transport(context);
    }
    if next == Step::Charge as u32 {
        next = enforcer_charge_packet(context);
    }
    if next == Step::Weigh as u32 {
        next = enforcer_weigh(context);
    }
    if next == Step::Quic as u32 {
        next = enforcer_quic(context);
    }
    if next == Step::Open as u32 {
        next = enforcer_open(context);
    }
    if next == Step::Segment as u32 {
        next = enforcer_segment(context);
    }
    if next == Step::Follow as u32 {
        next = enforcer_follow(context);
    }
    if next == Step::Stranger as u32 {
        next = enforcer_stranger(context);
        if next == Step::Follow as u32 {
            next = enforcer_follow(context);
        }
    }
    if next == Step::Conclude as u32 {
        next = enforcer_conclude(context);
    }
    if next == Step::Compare as u32 {
        next = enforcer_compare(context);
    }
    Judged { reason: next & !ANSWERED, answered: next & ANSWERED != 0 }
}

/// [`verdict::recall`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_recall(context: *mut xdp_md) -> u32 {
    let Some(desk) = DESK.get_ptr_mut(0) else { return 0 };
    let xdp = XdpContext::new(context);
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other on one.
    unsafe {
        let frame = Frame::ending(&xdp, (*desk).length);
        verdict::recall(&frame, &Maps::new(context, 0), &mut (*desk).work);
    }
    0
}

/// Takes a step; answers what comes next. Without a desk nothing is known of the packet, which cannot happen.
#[inline(always)]
fn take(step: Step, context: *mut xdp_md) -> u32 {
    let Some(desk) = DESK.get_ptr_mut(0) else { return DropReason::MalformedTcp.number() };
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other on one. Whoever else is called meanwhile
    // reads the segment, or writes the answer.
    let (work, length, now) = unsafe { (&mut (*desk).work, (*desk).length, (*desk).now) };
    let maps = Maps::new(context, now);
    let xdp = XdpContext::new(context);
    let next: Next = verdict::take(step, &Frame::ending(&xdp, length), &maps, work);
    // SAFETY: as above.
    unsafe { (*desk).now = maps.read_now() };
    if maps.answered() { next.number() | ANSWERED } else { next.number() }
}

macro_rules! steps {
    ($($name:ident = $step:ident,)+) => {
        $(
            #[doc = concat!("[`Step::", stringify!($step), "`]")]
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(context: *mut xdp_md) -> u32 {
                take(Step::$step, context)
            }
        )+
    };
}

steps! {
    enforcer_begin = Begin,
    enforcer_extensions = Extensions,
    enforcer_transport = Transport,
    enforcer_charge_packet = Charge,
    enforcer_weigh = Weigh,
    enforcer_quic = Quic,
    enforcer_open = Open,
    enforcer_segment = Segment,
    enforcer_follow = Follow,
    enforcer_stranger = Stranger,
    enforcer_conclude = Conclude,
    enforcer_compare = Compare,
}

/// The segment that steps are about.
#[inline(always)]
pub(crate) fn segment() -> Option<&'static Segment> {
    // SAFETY: the value belongs to this CPU; no step writes the segment while it has something called that reads it.
    DESK.get_ptr(0).map(|desk| unsafe { &(*desk).work.segment })
}

/// Leaves word of what is to be written.
#[inline(always)]
pub(crate) fn ask(answer: Answer) {
    if let Some(desk) = DESK.get_ptr_mut(0) {
        // SAFETY: as above; nobody else holds the answer.
        unsafe { (*desk).answer = answer };
    }
}

/// What the verdict asked to be written. It does not travel by the stack, which is small.
#[inline(always)]
pub(crate) fn asked() -> Option<Answer> {
    // SAFETY: as above.
    DESK.get_ptr(0).map(|desk| unsafe { (*desk).answer })
}
