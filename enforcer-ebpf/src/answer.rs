//! Carries out what a verdict asks to be written: see `enforcer_common::answer`.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::bpf_xdp_adjust_tail,
    programs::XdpContext,
};
use enforcer_common::{answer, packet::PacketMut};

use crate::{
    frame::{Frame, REACH, opaque},
    steps::asked,
};

/// Carries out what was asked for, as a global function, which the verifier checks once (Linux 5.6); answers what becomes of the
/// frame. What cannot be written is dropped: nothing passes that should have been another packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn enforcer_answer(context: *mut xdp_md) -> u32 {
    let Some(asked) = asked() else { return xdp_action::XDP_DROP };
    let context = XdpContext::new(context);
    if answer::write(&mut Frame::new(&context), &asked).is_none() {
        xdp_action::XDP_DROP
    } else if asked.kind.goes_on() {
        xdp_action::XDP_PASS
    } else {
        xdp_action::XDP_TX
    }
}

impl PacketMut for Frame<'_> {
    #[inline(always)]
    fn resize(&mut self, length: usize) -> Option<()> {
        let change = length as i32 - self.length as i32;
        // SAFETY: the context is the kernel's own. The helper moves the end, and every pointer into the frame with it.
        if unsafe { bpf_xdp_adjust_tail(self.context.ctx, change) } != 0 {
            return None;
        }
        self.start = self.context.data();
        self.end = self.context.data_end();
        self.length = length;
        Some(())
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let offset = opaque(offset);
        if offset > REACH {
            return None;
        }
        let pointer = self.start + offset;
        if opaque(pointer + N) > self.end {
            return None;
        }
        // SAFETY: the bytes lie between the start and the end of the frame, as just compared; alignment is 1.
        unsafe { (pointer as *mut [u8; N]).write(bytes) };
        Some(())
    }
}
