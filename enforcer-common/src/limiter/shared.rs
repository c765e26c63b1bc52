//! A bucket in memory that others charge too: a map of the kernel's where it is mapped, or a table of the daemon's own.
//!
//! Not for the program, whose compare-and-set is an instruction of its own.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::{Bucket, SLOTS};

/// Its words.
pub type SharedBucket = [AtomicU64; SLOTS * 2];

impl Bucket for SharedBucket {
    fn key(&self, slot: usize) -> u64 {
        self[slot * 2].load(SeqCst)
    }

    fn tat(&self, slot: usize) -> u64 {
        self[slot * 2 + 1].load(SeqCst)
    }

    fn swap_key(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self[slot * 2].compare_exchange(old, new, SeqCst, SeqCst).map(drop)
    }

    fn swap_tat(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self[slot * 2 + 1].compare_exchange(old, new, SeqCst, SeqCst).map(drop)
    }
}
