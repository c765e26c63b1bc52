//! Keeps the daemon small: no huge pages, and what only the start has needed goes back to the kernel.
#![allow(unsafe_code, reason = "the allocator's own call")]

use tracing::warn;

/// Asks the kernel for pages of 4 KiB only. Where it gives huge ones unasked (`always` in
/// `/sys/kernel/mm/transparent_hugepage/enabled`, as Debian has it), each part of the heap that is touched once would keep 2 MiB; the
/// allocator's own switch only keeps it from asking. To be called before there are threads. A kernel without huge pages needs no asking.
pub(super) fn refuse_huge_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        warn!(%error, "huge pages cannot be refused: idle connections may take more memory");
    }
}

/// Gives back what only the start has needed: reading the program and its types takes some 20 MB for a moment, which the allocator
/// would keep, because this thread asks for nothing afterwards.
pub(super) fn give_back() {
    // SAFETY: it touches only what nobody holds, and may be called at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
