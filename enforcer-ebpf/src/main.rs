//! The XDP program: hands a frame and the maps to `enforcer_common::verdict::decide`, counts the verdict, and carries it out.
//!
//! Glue only. It decides nothing; what looks like a decision here belongs into `enforcer-common`, where tests reach it.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(
    internal_features,
    reason = "core::sync::atomic has no read-modify-write for this target, the intrinsics do"
)]

use aya_ebpf::{Global, bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::info;
use enforcer_common::{
    packet::Packet as _,
    reason,
    verdict::{Tables as _, work::Step},
};

mod answer;
mod cookie;
mod events;
mod flows;
mod frame;
mod steps;
mod tables;

/// Whether diagnostics are written. Read-only to the program and 0 unless the loader says otherwise, so the verifier
/// removes what depends on it.
#[unsafe(no_mangle)]
static DIAGNOSTICS: Global<u32> = Global::new(0);

#[xdp(frags)]
pub fn enforcer(context: XdpContext) -> u32 {
    // Diagnostics know of every packet.
    let next = if DIAGNOSTICS.load() == 0 { steps::glance(context.ctx) } else { Step::Begin as u32 };
    if steps::is_finished(next) {
        return next & 0xffff;
    }
    let frame = frame::Frame::new(&context);
    let maps = tables::Maps::new(context.ctx, 0);
    let steps::Judged { reason, answered } = steps::judge(context.ctx, frame.length(), next);
    let mut action = if reason < reason::FIRST_DROP { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP };
    let packets = maps.count(reason, frame.length());
    if (action != xdp_action::XDP_PASS || answered) && maps.shows_events() {
        events::show(context.ctx, reason, 0, maps.now());
    }
    // Last: it overwrites what the others look at.
    if answered {
        action = answer::enforcer_answer(context.ctx);
    }
    // At 1, 2, 4, 8... packets: no flood can flood the log.
    if DIAGNOSTICS.load() != 0 && packets & packets.wrapping_sub(1) == 0 {
        info!(&context, "reason {} counted {} times on this CPU", reason, packets);
    }
    action
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: nothing here can panic, and the verifier would refuse an endless loop.
    loop {}
}

/// "Dual MIT/GPL" is what the kernel calls GPL-compatible; it asks before it lends GPL-only helpers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
