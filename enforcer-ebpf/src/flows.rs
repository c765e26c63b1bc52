//! The flow table's maps, and the global functions that the verifier checks once each: taking a flow up, following its hello, forgetting it.
//!
//! Whatever is decided is decided in `enforcer_common::flow`. The segment is that of [`crate::steps`], since such functions take
//! numbers only.

use core::{
    intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg},
    ptr::{null_mut, read_volatile},
};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_md},
    btf_maps::Array,
    cty::c_void,
    helpers::{bpf_loop, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use enforcer_common::{
    flow::{
        self, Bucket, Entry, Followed, Opening, Place, RawBucket, SLOTS, Segment,
        kept::{self, Kept},
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
#[btf_map]
static KEPT_WORDS: Array<RawBucket, { kept::GROUPS }> = Array::new();
#[btf_map]
static KEPT: Array<Kept, { kept::VALUES }> = Array::new();

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
pub(crate) fn has_passed(hash: u64, sequence: u32, length: u32) -> bool {
    enforcer_flow_has_passed(hash, sequence, length) != 0
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
extern "C" fn enforcer_flow_has_passed(hash: u64, sequence: u32, length: u32) -> u32 {
    match Slots::of(hash, null_mut()) {
        Some(mut bucket) => flow::has_passed(&mut bucket, hash, sequence, length) as u32,
        None => 0,
    }
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

/// There is no value.
const NO_VALUE: u32 = u32::MAX;

/// The value with a key; if nothing has passed yet, `anew` is the time, and a value is taken for it if there is room; else that is 0.
#[inline(always)]
fn value(key: u64, loose: bool, anew: u64) -> Option<*mut Kept> {
    let value = KEPT.get_ptr_mut(enforcer_flow_value(key, loose as u32, anew))?;
    if anew != 0 {
        // SAFETY: the value's word has just been taken; whoever had it before did half a second ago at least.
        unsafe { (*value).length = 0 };
    }
    Some(value)
}

/// The index of such a value, as a global function: what is done with it the verifier would otherwise walk once for every place in the group.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_value(key: u64, loose: u32, anew: u64) -> u32 {
    let group = kept::group(key, loose != 0);
    let Some(words) = KEPT_WORDS.get_ptr_mut(group) else { return NO_VALUE };
    let bucket = Slots { words: words.cast(), context: null_mut(), first: 0 };
    let mut slot = kept::find(|slot| bucket.word(slot), key);
    if anew != 0 {
        if slot == SLOTS {
            slot = kept::choose(|slot| bucket.word(slot), anew);
        }
        if slot == SLOTS {
            return NO_VALUE;
        }
        let word = bucket.word(slot);
        // Between the search and here somebody may have come first.
        let free = slot::is(word, key) || slot::age_of_settled(word, anew) != 0;
        if !free || !bucket.swap(slot, word, slot::word(key, Phase::Opened, anew)) {
            return NO_VALUE;
        }
    }
    if slot == SLOTS { NO_VALUE } else { group.wrapping_mul(SLOTS as u32).wrapping_add(slot as u32) }
}

/// [`Bucket::forget`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_forget(key: u64, loose: u32) -> u32 {
    let group = kept::group(key, loose != 0);
    let Some(words) = KEPT_WORDS.get_ptr_mut(group) else { return 0 };
    let bucket = Slots { words: words.cast(), context: null_mut(), first: 0 };
    let slot = kept::find(|slot| bucket.word(slot), key);
    if slot < SLOTS {
        let word = bucket.word(slot);
        // Somebody else's stays.
        if slot::is(word, key) {
            let _ = bucket.swap(slot, word, 0);
        }
    }
    0
}

/// [`Bucket::same`] as a global function, of the segment that steps are about.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_same(context: *mut xdp_md, index: u32) -> u32 {
    let (Some(entry), Some(segment)) = (FLOWS.get_ptr_mut(index), segment()) else { return 0 };
    // SAFETY: the entry's word is claimed.
    let entry = unsafe { &*entry };
    let stretch = entry.repeated(segment);
    if stretch.length == 0 {
        return 1;
    }
    let key = kept::key(segment.hash, entry.start);
    let Some(kept) = value(key, entry.is_loose(), 0) else { return 0 };
    // SAFETY: the value belongs to the entry, whose word is claimed, so nobody else asks for it. Should it give way to another flow right now,
    // bytes differ that did not, and what is repeated is dropped, here or there.
    if !unsafe { &mut *kept }.begin(stretch) {
        return 0;
    }
    let mut work = Compared { context, kept };
    // SAFETY: the callback is given the work, which outlives the call; of the value as above.
    unsafe {
        bpf_loop(kept::STEPS, enforcer_flow_same_step as *mut c_void, (&raw mut work).cast(), 0);
        (*kept).is_same() as u32
    }
}

unsafe extern "C" fn enforcer_flow_same_step(_: u64, work: *mut c_void) -> i64 {
    let work = work.cast::<Compared>();
    // SAFETY: the pointers are those that `enforcer_flow_same` has just stored.
    let (context, kept) = unsafe { ((*work).context, &mut *(*work).kept) };
    // Nobody asks for the frame's length.
    kept.step(&Frame::ending(&XdpContext::new(context), 0)) as i64
}

/// [`Bucket::keep`] as a global function, of the segment that steps are about.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_keep(context: *mut xdp_md, index: u32) -> u32 {
    let (Some(entry), Some(segment)) = (FLOWS.get_ptr_mut(index), segment()) else { return 0 };
    // SAFETY: the entry's word is claimed.
    let entry = unsafe { &mut *entry };
    let stretch = entry.added(segment);
    let key = kept::key(segment.hash, entry.start);
    let anew = if entry.passed() == 0 { segment.now } else { 0 };
    let loose = entry.is_loose();
    entry.pass(stretch);
    let Some(kept) = value(key, loose, anew) else { return 0 };
    // SAFETY: as in `enforcer_flow_same`.
    unsafe { &mut *kept }.append(stretch);
    let mut work = Compared { context, kept };
    // SAFETY: as in `enforcer_flow_same`.
    unsafe {
        bpf_loop(kept::STRETCHES, enforcer_flow_keep_step as *mut c_void, (&raw mut work).cast(), 0);
    }
    1
}

unsafe extern "C" fn enforcer_flow_keep_step(_: u64, work: *mut c_void) -> i64 {
    let work = work.cast::<Compared>();
    // SAFETY: the pointers are those that `enforcer_flow_keep` has just stored.
    let (context, kept) = unsafe { ((*work).context, &mut *(*work).kept) };
    if kept.left == 0 {
        return 1;
    }
    let mut length = kept.left;
    if length > kept::STRETCH as u32 {
        length = kept::STRETCH as u32;
    }
    // 1 to 256, in a form that Linux 6.1 follows.
    let length = (opaque((length as usize - 1) & (kept::STRETCH - 1))) + 1;
    let at = opaque(kept.at as usize & (kept::BYTES - 1));
    let bytes = (&raw mut *kept).cast::<u8>();
    // SAFETY: behind the index, which is masked, the value has as many bytes as are loaded at most.
    let loaded = unsafe {
        bpf_xdp_load_bytes(context, kept.offset, bytes.add(Kept::FIRST).add(at).cast(), length as u32)
    };
    if loaded != 0 {
        // Then nothing is known: what is repeated does not pass.
        kept.length = 0;
        return 1;
    }
    kept.offset += length as u32;
    kept.at += length as u32;
    kept.left = kept.left.wrapping_sub(length as u32);
    0
}

/// What has passed, and the frame that it is compared with or taken from. Pointers alone, as in [`Work`].
#[repr(C)]
struct Compared {
    context: *mut xdp_md,
    kept: *mut Kept,
}

/// [`Bucket::replay`] as a global function, of the segment that steps are about.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_flow_replay(index: u32) -> u32 {
    let (Some(entry), Some(segment)) = (FLOWS.get_ptr_mut(index), segment()) else { return 0 };
    // SAFETY: the entry's word is claimed.
    let flow = unsafe { &mut *entry };
    let key = kept::key(segment.hash, flow.start);
    let Some(kept) = value(key, flow.is_loose(), 0) else { return 0 };
    // SAFETY: as in `enforcer_flow_same`.
    if !flow.rewind(unsafe { &*kept }, segment) {
        return 0;
    }
    let mut work = Replayed { entry, kept };
    // SAFETY: as in `enforcer_flow_run`.
    unsafe {
        bpf_loop(
            automaton::STEPS as u32 + 1,
            enforcer_flow_replay_step as *mut c_void,
            (&raw mut work).cast(),
            0,
        );
    }
    flow.resume();
    1
}

unsafe extern "C" fn enforcer_flow_replay_step(_: u64, work: *mut c_void) -> i64 {
    let work = work.cast::<Replayed>();
    // SAFETY: the pointers are those that `enforcer_flow_replay` has just stored; the entry's word is claimed.
    let (entry, kept) = unsafe { (&mut *(*work).entry, &*(*work).kept) };
    automaton::step(&mut entry.parser, kept) as i64
}

/// A flow, and what has passed of its hello. Pointers alone, as in [`Work`].
#[repr(C)]
struct Replayed {
    entry: *mut Entry,
    kept: *mut Kept,
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
        enforcer_flow_forget(key, loose as u32);
    }

    #[inline(always)]
    fn same<P: Packet>(&mut self, slot: usize, _: &Segment, _: &P) -> bool {
        enforcer_flow_same(self.context, self.first.wrapping_add(slot as u32)) != 0
    }

    #[inline(always)]
    fn keep<P: Packet>(&mut self, slot: usize, _: &Segment, _: &P) {
        enforcer_flow_keep(self.context, self.first.wrapping_add(slot as u32));
    }

    #[inline(always)]
    fn replay(&mut self, slot: usize, _: &Segment) {
        enforcer_flow_replay(self.first.wrapping_add(slot as u32));
    }

    #[inline(always)]
    fn run<P: Packet>(&mut self, slot: usize, _: &P) {
        enforcer_flow_run(self.context, self.first.wrapping_add(slot as u32));
    }
}
