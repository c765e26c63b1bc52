//! Gives back what only the start has needed: reading the program and its types takes some 20 MB for a moment, which the allocator
//! would keep, because this thread asks for nothing afterwards.
#![allow(unsafe_code, reason = "the allocator's own call")]

/// Has the allocator return free memory of this thread to the kernel.
pub(super) fn give_back() {
    // SAFETY: it touches only what nobody holds, and may be called at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
