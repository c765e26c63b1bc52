//! Packet access over the pointers of an XDP context, in the form that the verifier follows.
//!
//! Linear memory is read directly; what lies behind it (multi-buffer frames) through `bpf_xdp_load_bytes` (Linux 5.18).

use aya_ebpf::{
    bindings::xdp_md,
    btf_maps::PerCpuArray,
    cty::c_void,
    helpers::{bpf_csum_diff, bpf_loop, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use enforcer_common::{
    answer::{self, Options},
    hello::{self, Seen},
    packet::Packet,
};

/// Offsets up to which loads are made, in bytes. The verifier refuses packet pointers whose variable part may exceed 65,535
/// less the access (MAX_PACKET_OFF); a ClientHello record and all headers in front of it end well below this.
pub(crate) const REACH: usize = 0x7fff;

/// The frame of one run of the program.
pub(crate) struct Frame<'a> {
    pub(crate) context: &'a XdpContext,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) length: usize,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        // SAFETY: the context is the one that the kernel gave to the program.
        let length = unsafe { bpf_xdp_get_buff_len(context.ctx) } as usize;
        Self { context, start: context.data(), end: context.data_end(), length }
    }

    /// The same without asking for a length: that of linear memory.
    #[inline(always)]
    pub(crate) fn linear(context: &'a XdpContext) -> Self {
        let (start, end) = (context.data(), context.data_end());
        Self { context, start, end, length: end - start }
    }

    /// The same where nobody asks for its length: the last byte that is of interest stands in front of `end`.
    #[inline(always)]
    pub(crate) fn ending(context: &'a XdpContext, end: usize) -> Self {
        Self { context, start: context.data(), end: context.data_end(), length: end }
    }

    /// Reads linear memory; `offset` is within [`REACH`] and has just come out of [`opaque`].
    #[inline(always)]
    fn direct<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let pointer = self.start + offset;
        if opaque(pointer + N) > self.end {
            return None;
        }
        // SAFETY: the bytes lie between the start and the end of the frame, as just compared; alignment is 1.
        Some(unsafe { *(pointer as *const [u8; N]) })
    }

    /// Loads what direct access cannot reach.
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the buffer has the length that the helper is told; the helper checks the offset against the frame.
        let failed = unsafe {
            bpf_xdp_load_bytes(self.context.ctx, offset as u32, bytes.as_mut_ptr().cast(), N as u32)
        };
        if failed == 0 { Some(bytes) } else { None }
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn linear(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn forget(&self, mut number: usize) -> usize {
        // SAFETY: flips bits of a register and flips them back. The verifier knows nothing of the length, so it knows
        // nothing of the result; it does not see that both steps cancel out.
        unsafe {
            core::arch::asm!(
                "{number} ^= {unknown}",
                "{number} ^= {unknown}",
                number = inout(reg) number,
                unknown = in(reg) self.length,
                options(nomem, nostack, preserves_flags)
            );
        }
        number
    }

    #[inline(always)]
    fn inspect_hello(&self, start: usize, end: usize, minimum: u16) -> Seen {
        Seen::unpack(enforcer_hello(self.context.ctx, start as u32, end as u32, minimum as u32))
    }

    #[inline(always)]
    fn sum(&self, start: usize, end: usize) -> u32 {
        enforcer_sum(self.context.ctx, start as u32, end as u32)
    }

    #[inline(always)]
    fn timestamps(&self, segment: usize) -> usize {
        enforcer_timestamps(self.context.ctx, segment as u32) as usize
    }

    #[inline(always)]
    fn signed(&self, segment: usize) -> bool {
        enforcer_signed(self.context.ctx, segment as u32) != 0
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let offset = opaque(offset);
        if offset > REACH {
            return None;
        }
        self.direct(offset)
    }

    #[inline(always)]
    fn first<const N: usize>(&self) -> Option<&[u8; N]> {
        if opaque(self.start + N) > self.end {
            return None;
        }
        // SAFETY: the bytes lie between the start and the end of the frame, as just compared; alignment is 1.
        Some(unsafe { &*(self.start as *const [u8; N]) })
    }

    #[inline(always)]
    fn data<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let offset = opaque(offset);
        if offset > REACH {
            return None;
        }
        match self.direct(offset) {
            None => self.load(offset),
            found => found,
        }
    }
}

/// The walk through a ClientHello as a global function: the verifier checks it once, for all arguments, instead of once for
/// every way that leads to it (Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_hello(context: *mut xdp_md, start: u32, end: u32, minimum: u32) -> u64 {
    let context = XdpContext::new(context);
    hello::inspect(&Frame::new(&context), start as usize, end as usize, minimum as u16).pack()
}

/// Bytes that are summed at once: the most that `bpf_csum_diff` takes.
const STRETCH: usize = 512;
/// Stretches of the longest packet.
const STRETCHES: usize = (1 << 16) / STRETCH;

/// A sum that is being made. It lies in a map for the verifier, which knows nothing of what is in maps: what it knew of a number on the
/// stack, it would take for true in every step of a loop.
#[repr(C)]
struct Sum {
    bytes: [u8; STRETCH],
    offset: u32,
    end: u32,
    sum: u32,
}

#[btf_map]
static SUM: PerCpuArray<Sum, 1> = PerCpuArray::new();

/// The sum of 16-bit words as a global function, with `bpf_loop` (Linux 5.17) for its stretches.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_sum(context: *mut xdp_md, start: u32, end: u32) -> u32 {
    let Some(sum) = SUM.get_ptr_mut(0) else { return 0 };
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other on one; the callback is given the context,
    // which outlives the call.
    unsafe {
        (*sum).offset = start;
        (*sum).end = end;
        (*sum).sum = 0;
        let mut context = context;
        bpf_loop(STRETCHES as u32, enforcer_sum_step as *mut c_void, (&raw mut context).cast(), 0);
        (*sum).sum
    }
}

/// Adds one stretch. Bytes are copied first: they need not lie in linear memory, and a length that varies is easier to believe there.
unsafe extern "C" fn enforcer_sum_step(_: u64, context: *mut c_void) -> i64 {
    let Some(state) = SUM.get_ptr_mut(0) else { return 1 };
    // SAFETY: the pointer that `enforcer_sum` has given.
    let context = unsafe { *context.cast::<*mut xdp_md>() };
    // SAFETY: as there.
    let (offset, end, sum) = unsafe { ((*state).offset, (*state).end, (*state).sum) };
    if offset >= end {
        return 1;
    }
    let bytes = state.cast::<u8>();
    let mut length = end - offset;
    if length > STRETCH as u32 {
        length = STRETCH as u32;
    }
    // 1 to 512, in a form that Linux 6.1 follows.
    let length = (opaque((length as usize - 1) & (STRETCH - 1))) + 1;
    if length < STRETCH {
        // What pads the last word: the three bytes behind, or fewer.
        let last = opaque((length - 1) & (STRETCH - 4));
        // SAFETY: at most 4 bytes from 508 on.
        unsafe { bytes.add(last).cast::<u32>().write_unaligned(0) };
    }
    // SAFETY: the buffer has at least the length that the helper is told.
    if unsafe { bpf_xdp_load_bytes(context, offset, bytes.cast(), length as u32) } != 0 {
        // SAFETY: as above.
        unsafe { (*state).sum = 0 };
        return 1;
    }
    let words = (opaque((length - 1) & (STRETCH - 4))) + 4;
    // SAFETY: at most 512 bytes of the buffer, a multiple of 4.
    unsafe {
        (*state).sum = bpf_csum_diff(core::ptr::null_mut(), 0, bytes.cast(), words as u32, sum) as u32;
        (*state).offset = offset + length as u32;
    }
    0
}

#[btf_map]
static OPTIONS: PerCpuArray<Options, 1> = PerCpuArray::new();

/// The walk through TCP options, likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_timestamps(context: *mut xdp_md, segment: u32) -> u32 {
    let Some(options) = OPTIONS.get_ptr_mut(0) else { return 0 };
    let xdp = XdpContext::new(context);
    // SAFETY: as in `enforcer_sum`.
    unsafe {
        (*options).begin(&Frame::new(&xdp), segment as usize);
        let mut context = context;
        bpf_loop(
            answer::OPTIONS as u32,
            enforcer_timestamps_step as *mut c_void,
            (&raw mut context).cast(),
            0,
        );
        (*options).found
    }
}

/// What else the same walk finds.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_signed(context: *mut xdp_md, segment: u32) -> u32 {
    enforcer_timestamps(context, segment);
    let Some(options) = OPTIONS.get_ptr(0) else { return 0 };
    // SAFETY: as in `enforcer_sum`.
    unsafe { (*options).signed }
}

unsafe extern "C" fn enforcer_timestamps_step(_: u64, context: *mut c_void) -> i64 {
    let Some(options) = OPTIONS.get_ptr_mut(0) else { return 1 };
    // SAFETY: the pointer that `enforcer_timestamps` has given.
    let context = XdpContext::new(unsafe { *context.cast::<*mut xdp_md>() });
    // SAFETY: as in `enforcer_sum`. Nobody asks for the frame's length.
    unsafe { (*options).step(&Frame::ending(&context, 0)) as i64 }
}

/// Hides a value's origin from LLVM, so that the very register that is compared is the one that is used: Linux 6.1 does not
/// link a copy to its bound, and no kernel takes a range from `p >= end`, into which LLVM would turn `p + 1 > end`. The
/// template emits an instruction; an empty one would leave two line records at one address, which the kernel refuses.
#[inline(always)]
pub(crate) fn opaque(mut value: usize) -> usize {
    // SAFETY: moves a register onto itself.
    unsafe { core::arch::asm!("{0} = {0}", inlateout(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
