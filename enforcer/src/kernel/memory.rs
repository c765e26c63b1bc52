//! The memory of an array that the program and the daemon share: words, changed one by one, without a system call.
//!
//! `lists` writes bans and bits through it while the program reads and charges; every access is atomic. It decides nothing.
#![allow(unsafe_code, reason = "mmap of a map's memory, which the program changes as well")]

use std::{
    os::fd::AsFd as _,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::Map;
use enforcer_common::limiter::{SLOTS, SharedBucket};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The words of an array map with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub(super) struct Words {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: shared memory that is only accessed as atomics, and freed by the last owner.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps the memory of `map`; it stays mapped after the map's descriptor is closed.
    pub(super) fn of(map: &Map, name: &str) -> Result<Self> {
        let Map::Array(data) = map else { bail!("the map {name} is no array") };
        let info = data.info().with_context(|| format!("map {name}: asking for its size"))?;
        // Values lie one behind the other, rounded up to 8 bytes (kernel/bpf/arraymap.c).
        let count = info.max_entries() as usize * (info.value_size() as usize).div_ceil(8);
        let length =
            std::num::NonZeroUsize::new(count * 8).with_context(|| format!("the map {name} is empty"))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, data.fd().as_fd(), 0) }
            .with_context(|| format!("map {name}: sharing its memory"))?;
        Ok(Self { start: start.cast(), count })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long, page-aligned, and lives as long as `self`; everybody accesses it atomically.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }

    /// One word; `None` behind the last.
    pub(super) fn get(&self, index: usize) -> Option<u64> {
        self.words().get(index).map(|word| word.load(SeqCst))
    }

    /// Every word, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = u64> {
        self.words().iter().map(|word| word.load(SeqCst))
    }

    /// Sets bits of a word; nothing happens behind the last.
    pub(super) fn set_bits(&self, index: usize, mask: u64) {
        if let Some(word) = self.words().get(index) {
            word.fetch_or(mask, SeqCst);
        }
    }

    /// Clears bits of a word; nothing happens behind the last.
    pub(super) fn clear_bits(&self, index: usize, mask: u64) {
        if let Some(word) = self.words().get(index) {
            word.fetch_and(!mask, SeqCst);
        }
    }

    /// Bucket `index` of a limiter's table.
    pub(super) fn bucket(&self, index: u32) -> Option<&SharedBucket> {
        let start = index as usize * SLOTS * 2;
        self.words().get(start..start + SLOTS * 2)?.try_into().ok()
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nothing borrows it any more. That it fails would be a bug with no consequence but a leak.
        let _ = unsafe { munmap(self.start.cast(), self.count * 8) };
    }
}
