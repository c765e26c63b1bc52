//! Shows the daemon samples of packets that were not passed on as they came, through a ring buffer.
//!
//! Whether a packet is sampled is decided by its verdict and by [`enforcer_common::event::Budget`]; nothing here has any
//! effect on a packet. A ring buffer takes a lock for all CPUs, so the budget is asked first.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::xdp_md,
    btf_maps::RingBuf,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::btf_map,
};
use enforcer_common::event::{Event, HEAD, WHOLE, shows_hello};

use crate::{frame::opaque, tables::charge_event};

/// Room for some 1,500 samples, or 120 whole hellos, until the daemon reads them: it is woken for the first of them. A power of two,
/// and whole pages of up to 64 KiB.
const BYTES: usize = 1 << 18;

#[btf_map]
static EVENTS: RingBuf<Event, BYTES> = RingBuf::new();

/// Shows a packet to the daemon, if the budget allows it.
#[inline(always)]
pub(crate) fn show(context: *mut xdp_md, reason: u32, flags: u32, now: u64) {
    enforcer_event(context, reason, flags, now);
}

/// As a global function, which the verifier checks once (Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_event(context: *mut xdp_md, reason: u32, flags: u32, now: u64) -> u32 {
    let Some(budget) = charge_event(now) else { return 0 };
    // SAFETY: the context is the one that the kernel gave to the program; the helpers take nothing else.
    let event = unsafe {
        Event {
            // The clock that verdicts go by is up to a tick late: too coarse for the order of packets.
            time: bpf_ktime_get_ns(),
            interface: (*context).ingress_ifindex,
            cpu: bpf_get_smp_processor_id(),
            reason,
            flags,
            length: bpf_xdp_get_buff_len(context) as u32,
            captured: 0,
        }
    };
    let written =
        if shows_hello(reason) { write::<WHOLE>(context, event) } else { write::<HEAD>(context, event) };
    if written {
        budget.sampled += 1;
    } else {
        budget.full += 1;
    }
    0
}

#[repr(C)]
struct Record<const N: usize> {
    event: Event,
    bytes: [u8; N],
}

/// Writes one sample of up to `N` bytes, a power of two; `false` if there was no room.
#[inline(always)]
fn write<const N: usize>(context: *mut xdp_md, mut event: Event) -> bool {
    let Some(mut entry) = EVENTS.reserve_untyped::<Record<N>>(0) else { return false };
    let length = if event.length as usize > N { N } else { event.length as usize };
    // What stands for a number from 1 to N in a form that every verifier follows; no frame is empty.
    let captured = opaque(length.wrapping_sub(1) & (N - 1)) + 1;
    event.captured = captured as u32;
    let record: *mut Record<N> = MaybeUninit::as_mut_ptr(&mut entry);
    // SAFETY: the record lies in memory that was reserved for it, and `captured` is at most the length of its bytes.
    let failed = unsafe {
        (&raw mut (*record).event).write(event);
        bpf_xdp_load_bytes(context, 0, (&raw mut (*record).bytes).cast(), captured as u32)
    };
    if failed != 0 {
        entry.discard(0);
        return false;
    }
    // The daemon is woken if it has read everything before: at most as often as the budget allows.
    entry.submit(0);
    true
}
