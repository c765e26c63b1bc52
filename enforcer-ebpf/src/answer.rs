//! Carries out what a verdict asks to be written: see `enforcer_common::answer`.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::bpf_xdp_adjust_tail,
    programs::XdpContext,
};
use enforcer_common::{
    answer::{self, Answer, Kind},
    packet::PacketMut,
};

use crate::frame::{Frame, REACH, opaque};

/// What becomes of the frame. What cannot be written is dropped: nothing passes that should have been another packet.
#[inline(always)]
pub(crate) fn carry_out(context: *mut xdp_md, answer: &Answer) -> u32 {
    let what = answer.kind as u64 | (answer.alert as u64) << 8 | (answer.detail as u64) << 32;
    let numbers = (answer.sequence as u64) << 32 | answer.acknowledgement as u64;
    let places = (answer.segment as u64) << 32 | answer.network as u64;
    if enforcer_answer(context, what, numbers, places) == 0 {
        xdp_action::XDP_DROP
    } else if answer.kind.goes_on() {
        xdp_action::XDP_PASS
    } else {
        xdp_action::XDP_TX
    }
}

/// [`answer::write`] as a global function, which the verifier checks once (Linux 5.6). Answers 0 if it could not be done.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_answer(context: *mut xdp_md, what: u64, numbers: u64, places: u64) -> u32 {
    let context = XdpContext::new(context);
    let answer = Answer {
        kind: Kind::from_number(what as u8 as u32),
        sequence: (numbers >> 32) as u32,
        acknowledgement: numbers as u32,
        detail: (what >> 32) as u32,
        alert: (what >> 8) as u8,
        network: places as u32 as usize,
        segment: (places >> 32) as usize,
    };
    answer::write(&mut Frame::new(&context), &answer).is_some() as u32
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
