//! What has passed of a hello, in map memory: kept, compared, read again, forgotten. Global functions, as all that [`super`] has.
//!
//! Whatever is decided is decided in `enforcer_common::flow::kept`.

use core::ptr::null_mut;

use aya_ebpf::{
    bindings::xdp_md,
    btf_maps::Array,
    cty::c_void,
    helpers::{bpf_loop, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use enforcer_common::{
    flow::{
        Bucket, Entry, RawBucket, SLOTS,
        kept::{self, Kept},
        slot::{self, Phase},
    },
    hello::automaton,
};

use super::{FLOWS, Slots};
use crate::{
    frame::{Frame, opaque},
    steps::segment,
};

#[btf_map]
static KEPT_WORDS: Array<RawBucket, { kept::GROUPS }> = Array::new();
#[btf_map]
static KEPT: Array<Kept, { kept::VALUES }> = Array::new();

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
pub(super) extern "C" fn enforcer_flow_forget(key: u64, loose: u32) -> u32 {
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
pub(super) extern "C" fn enforcer_flow_same(context: *mut xdp_md, index: u32) -> u32 {
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
pub(super) extern "C" fn enforcer_flow_keep(context: *mut xdp_md, index: u32) -> u32 {
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

/// What has passed, and the frame that it is compared with or taken from. Pointers alone, as in [`super::Work`].
#[repr(C)]
struct Compared {
    context: *mut xdp_md,
    kept: *mut Kept,
}

/// [`Bucket::replay`] as a global function, of the segment that steps are about.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn enforcer_flow_replay(index: u32) -> u32 {
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

/// A flow, and what has passed of its hello. Pointers alone, as in [`super::Work`].
#[repr(C)]
struct Replayed {
    entry: *mut Entry,
    kept: *mut Kept,
}
