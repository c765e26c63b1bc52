//! The flow table's maps, and the global functions that the verifier checks once each: taking a flow up, following its hello, forgetting it.
//!
//! Whatever is decided is decided in `enforcer_common::flow`. The segment is that of [`crate::steps`], since such functions take
//! numbers only.

mod passed;

use core::{
    intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg},
    ptr::{null_mut, read_volatile},
};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_md},
    btf_maps::Array,
    cty::c_void,
    helpers::bpf_loop,
    macros::btf_map,
    programs::XdpContext,
};
use enforcer_common::{
    flow::{
        self, Bucket, Entry, Followed, Opening, Place, RawBucket, SLOTS, Segment,
        kept::Kept,
        slot::{self, Phase},
    },
    hello::{automaton, marks::Marks},
    packet::Packet,
};

use crate::{
    frame::{Frame, opaque},
    steps::segment,
    tables::settings,
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
static FLOW_WORDS: Array<RawBucket, 256, MMAPABLE> = Array::new();
#[btf_map]
static FLOWS: Array<Entry, 2048> = Array::new();

/// How far a flow is.
#[inline(always)]
pub(crate) fn phase(hash: u64) -> Phase {
    Phase::from_number(enforcer_flow_phase(hash) as u8)
}

/// [`flow::phase`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_phase(hash: u64) -> u32 {
    match Slots::of(hash, null_mut()) {
        Some(bucket) => flow::phase(&bucket, hash) as u32,
        None => 0,
    }
}

/// Takes a flow up.
#[inline(always)]
pub(crate) fn open(opening: &Opening) -> Place {
    let (phase, numbers) = opening.pack();
    Place::from_number(enforcer_flow_open(phase, numbers))
}

/// Follows a flow.
#[inline(always)]
pub(crate) fn follow<P: Packet>(
    context: *mut xdp_md,
    packet: &P,
    segment: &Segment,
    marks: &mut Marks,
) -> Followed {
    match Slots::of(segment.hash, context) {
        Some(mut bucket) => flow::follow(&mut bucket, segment, packet, marks),
        None => Followed::UNKNOWN,
    }
}

/// Whether data lies beyond an accepted hello.
#[inline(always)]
pub(crate) fn has_passed(hash: u64, sequence: u32, length: u32, urgent: bool) -> bool {
    enforcer_flow_has_passed(hash, sequence, length, urgent as u32) != 0
}

/// The lists let a hello pass.
#[inline(always)]
pub(crate) fn confirm(hash: u64, sequence: u32) {
    enforcer_flow_confirm(hash, sequence);
}

/// Forgets a flow.
#[inline(always)]
pub(crate) fn close(hash: u64) {
    enforcer_flow_close(hash);
}

/// [`flow::open`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_open(phase: u32, numbers: u64) -> u32 {
    let Some(segment) = segment() else { return 0 };
    match Slots::of(segment.hash, null_mut()) {
        Some(mut bucket) => flow::open(&mut bucket, segment, &Opening::unpack(phase, numbers)) as u32,
        None => 0,
    }
}

/// [`flow::choose`] as a global function: the slots' worths would otherwise be walked in every combination.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_choose(hash: u64, now: u64) -> u32 {
    Slots::of(hash, null_mut()).map_or(SLOTS, |bucket| flow::choose(&bucket, now)) as u32
}

/// [`slot::worth`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_worth(word: u64, now: u64) -> u32 {
    slot::worth(word, now)
}

/// [`flow::close`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_close(hash: u64) -> u32 {
    if let Some(mut bucket) = Slots::of(hash, null_mut()) {
        flow::close(&mut bucket, hash);
    }
    0
}

/// [`flow::has_passed`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_has_passed(hash: u64, sequence: u32, length: u32, urgent: u32) -> u32 {
    match Slots::of(hash, null_mut()) {
        Some(mut bucket) => flow::has_passed(&mut bucket, hash, sequence, length, urgent != 0) as u32,
        None => 0,
    }
}

/// [`flow::confirm`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_confirm(hash: u64, sequence: u32) -> u32 {
    if let Some(mut bucket) = Slots::of(hash, null_mut()) {
        flow::confirm(&mut bucket, hash, sequence);
    }
    0
}

/// [`automaton::run`] as a global function, with `bpf_loop` (Linux 5.17) in place of the loop: the verifier walks one step instead
/// of every sequence of steps.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_run(context: *mut xdp_md, index: u32) -> u32 {
    let Some(entry) = FLOWS.get_ptr_mut(index) else { return 0 };
    let mut work = Work { context, entry };
    // SAFETY: the callback is given the work, which outlives the call.
    unsafe {
        bpf_loop(automaton::STEPS as u32 + 1, enforcer_flow_step as *mut c_void, (&raw mut work).cast(), 0);
    }
    1
}

/// [`Entry::meet`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_meet(index: u32, sequence: u32, length: u32) -> u32 {
    let Some(entry) = FLOWS.get_ptr_mut(index) else { return 0 };
    // SAFETY: the entry's word is claimed.
    unsafe { &mut *entry }.meet(sequence, length)
}

/// [`Entry::settle`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_settle(index: u32, how: u32) -> u32 {
    let Some(entry) = FLOWS.get_ptr_mut(index) else { return 0 };
    // SAFETY: the entry's word is claimed.
    unsafe { &mut *entry }.settle(how)
}

/// [`Entry::take_up`] as a global function, of the segment that steps are about.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_take_up(index: u32, phase: u32, numbers: u64, word: u64) -> u32 {
    let (Some(entry), Some(segment)) = (FLOWS.get_ptr_mut(index), segment()) else { return 0 };
    // SAFETY: the entry's word is claimed.
    unsafe { &mut *entry }.take_up(segment, &Opening::unpack(phase, numbers), word)
}

/// [`Entry::place`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_place(index: u32, sequence: u32, length: u32, how: u32) -> u32 {
    let Some(entry) = FLOWS.get_ptr(index) else { return 0 };
    // SAFETY: the entry's word is claimed.
    unsafe { &*entry }.place(sequence, length, how)
}

/// [`Entry::weigh`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_weigh(index: u32, how: u32, decided: u32) -> u32 {
    let Some(entry) = FLOWS.get_ptr(index) else { return 0 };
    // SAFETY: the entry's word is claimed.
    unsafe { &*entry }.weigh(how, decided)
}

/// What a step works on. Pointers alone: what the verifier knew of a number here it would take for true in every step.
#[repr(C)]
struct Work {
    context: *mut xdp_md,
    entry: *mut Entry,
}

unsafe extern "C" fn enforcer_flow_step(_: u64, work: *mut c_void) -> i64 {
    let work = work.cast::<Work>();
    // SAFETY: the pointers are those that `enforcer_flow_run` has just stored; the entry's word is claimed.
    let (context, entry) = unsafe { ((*work).context, &mut *(*work).entry) };
    let context = XdpContext::new(context);
    let end = entry.parser.end as usize;
    automaton::step(&mut entry.parser, &Frame::ending(&context, end)) as i64
}

/// One bucket in map memory.
struct Slots {
    words: *mut u64,
    /// For following; nothing else asks for it.
    context: *mut xdp_md,
    /// The index of the bucket's first entry.
    first: u32,
}

impl Slots {
    #[inline(always)]
    fn of(hash: u64, context: *mut xdp_md) -> Option<Self> {
        let index = hash as u32 & settings()?.flow_mask;
        let words = FLOW_WORDS.get_ptr_mut(index)?.cast();
        Some(Self { words, context, first: index.wrapping_mul(SLOTS as u32) })
    }

    #[inline(always)]
    fn at(&self, slot: usize) -> *mut u64 {
        // SAFETY: the mask keeps the slot inside the bucket; the verifier believes masks only.
        unsafe { self.words.add(opaque(slot) & (SLOTS - 1)) }
    }
}

impl Bucket for Slots {
    #[inline(always)]
    fn word(&self, slot: usize) -> u64 {
        // SAFETY: inside the bucket. Aligned 64-bit loads are single on every machine that runs BPF's JIT.
        unsafe { read_volatile(self.at(slot)) }
    }

    #[inline(always)]
    fn swap(&self, slot: usize, old: u64, new: u64) -> bool {
        // SAFETY: as above; sequentially consistent for the reason given in `tables`.
        unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(self.at(slot), old, new) }.1
    }

    #[inline(always)]
    fn entry(&mut self, slot: usize) -> Option<&mut Entry> {
        let entry = FLOWS.get_ptr_mut(self.first.wrapping_add(slot as u32))?;
        // SAFETY: who writes to an entry has claimed the slot's word; who only reads without that (`flow::has_passed`) looks at the word again
        // before what was read is believed.
        Some(unsafe { &mut *entry })
    }

    #[inline(always)]
    fn worth(&self, word: u64, now: u64) -> u32 {
        enforcer_flow_worth(word, now)
    }

    #[inline(always)]
    fn choose(&self, hash: u64, now: u64) -> usize {
        // No more than that, which the verifier cannot know.
        (enforcer_flow_choose(hash, now) as usize).min(SLOTS)
    }

    #[inline(always)]
    fn meet(&mut self, slot: usize, sequence: u32, length: u32) -> u32 {
        enforcer_flow_meet(self.first.wrapping_add(slot as u32), sequence, length)
    }

    #[inline(always)]
    fn settle(&mut self, slot: usize, how: u32) -> u32 {
        enforcer_flow_settle(self.first.wrapping_add(slot as u32), how)
    }

    #[inline(always)]
    fn take_up(&mut self, slot: usize, _: &Segment, opening: &Opening, word: u64) -> u32 {
        let (phase, numbers) = opening.pack();
        enforcer_flow_take_up(self.first.wrapping_add(slot as u32), phase, numbers, word)
    }

    #[inline(always)]
    fn place(&mut self, slot: usize, sequence: u32, length: u32, how: u32) -> u32 {
        enforcer_flow_place(self.first.wrapping_add(slot as u32), sequence, length, how)
    }

    #[inline(always)]
    fn weigh(&mut self, slot: usize, how: u32, decided: u32) -> u32 {
        enforcer_flow_weigh(self.first.wrapping_add(slot as u32), how, decided)
    }

    /// Nobody asks: the functions below do without.
    #[inline(always)]
    fn kept(&mut self, _: u64, _: bool) -> Option<&mut Kept> {
        None
    }

    #[inline(always)]
    fn forget(&mut self, key: u64, loose: bool) {
        passed::enforcer_flow_forget(key, loose as u32);
    }

    #[inline(always)]
    fn same<P: Packet>(&mut self, slot: usize, _: &Segment, _: &P) -> bool {
        passed::enforcer_flow_same(self.context, self.first.wrapping_add(slot as u32)) != 0
    }

    #[inline(always)]
    fn keep<P: Packet>(&mut self, slot: usize, _: &Segment, _: &P) {
        passed::enforcer_flow_keep(self.context, self.first.wrapping_add(slot as u32));
    }

    #[inline(always)]
    fn replay(&mut self, slot: usize, _: &Segment) {
        passed::enforcer_flow_replay(self.first.wrapping_add(slot as u32));
    }

    #[inline(always)]
    fn run<P: Packet>(&mut self, slot: usize, _: &P) {
        enforcer_flow_run(self.context, self.first.wrapping_add(slot as u32));
    }
}
