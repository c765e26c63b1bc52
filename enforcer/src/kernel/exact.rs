//! Bans of exact sources: as debts in the table of sources, or, where a bucket has no room, in the map for those that spill over.
//!
//! `lists` owns the only one. Every change holds from the next packet on.

use std::{
    collections::{HashMap as Index, HashSet},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use enforcer_common::{
    ban::Ban,
    limiter::{self, Bucket as _, SLOTS, debt},
    listed, maps,
    settings::Settings,
    source::SourceKey,
};
use foldhash::fast::RandomState;
use tracing::warn;

use super::{lists::absent_is_fine, memory::Words};
use crate::clock;

/// The writer of exact bans.
pub(super) struct ExactBans {
    sources: Words,
    spilled: Words,
    bans: HashMap<MapData, u64, Ban>,
    seed: u64,
    mask: u32,
    /// The keys in `bans`.
    outside: HashSet<u64, RandomState>,
    /// By bucket: how many of those it has. Its bit is set as long as it has any.
    counts: Index<u32, u32, RandomState>,
}

/// How long a claim lasts at most while the one who made it lives: the program's takes microseconds, and its processor may be taken
/// from it by a hypervisor for some milliseconds.
const CLAIM: Duration = Duration::from_millis(50);

/// Buckets that are read before the first of them is written: they lie far apart, and memory brings several at once, which writes, one
/// after the other, would each wait for.
const FETCHED: usize = 32;

/// Frees the slots that a daemon had claimed when it was killed. There is no other one now that could claim any.
fn release_claims(table: &Words) {
    let claims = |index: u32| {
        let bucket = table.bucket(index)?;
        Some((0..SLOTS).filter(move |slot| debt::is_claimed(bucket, *slot)).map(move |slot| (index, slot)))
    };
    let claimed: Vec<(u32, usize)> = (0..).map_while(claims).flatten().collect();
    if claimed.is_empty() {
        return;
    }
    thread::sleep(CLAIM);
    let now = clock::kernel_now().0;
    let release = |(index, slot): &&(u32, usize)| {
        table.bucket(*index).is_some_and(|bucket| debt::release(bucket, *slot, now))
    };
    let released = claimed.iter().filter(release).count();
    if released > 0 {
        warn!(slots = released, "an earlier daemon was killed while it wrote: its claims are released");
    }
}

impl ExactBans {
    /// Over the maps of a program, which may hold bans already.
    pub(super) fn open(map: &dyn Fn(&str) -> Result<Map>, settings: &Settings) -> Result<Self> {
        let words = |name| Words::of(&map(name)?, name);
        for name in maps::LIMITERS.into_iter().chain([maps::BUDGETS]) {
            release_claims(&words(name)?);
        }
        let mut made = Self {
            sources: words(maps::SOURCES)?,
            spilled: words(maps::SPILLED)?,
            bans: HashMap::try_from(map(maps::BANS)?)?,
            seed: settings.seed,
            mask: settings.source_mask,
            outside: HashSet::default(),
            counts: Index::default(),
        };
        let keys = made.bans.keys().collect::<Result<Vec<_>, _>>().context("reading the map of bans")?;
        for key in keys {
            made.note_outside(key);
        }
        Ok(made)
    }

    /// Bans sources, or moves the ends of their bans; stops at the first that finds no room.
    pub(super) fn ban(&mut self, bans: &[(SourceKey, Ban)]) -> Result<()> {
        let now = clock::kernel_now().0;
        for some in bans.chunks(FETCHED) {
            let keys = some.iter().map(|(source, _)| source.get());
            let fetched = keys.filter_map(|key| self.sources.bucket(self.index(key))).map(|one| one.key(0));
            std::hint::black_box(fetched.fold(0, u64::wrapping_add));
            for (source, ban) in some {
                let key = source.get();
                let index = self.index(key);
                let bucket = self
                    .sources
                    .bucket(index)
                    .context("the table of sources is shorter than it should be")?;
                if debt::ban(bucket, key, ban.until, now) {
                    self.remove_outside(key)?;
                } else {
                    self.bans
                        .insert(key, *ban, 0)
                        .with_context(|| format!("banning {}", source.address()))?;
                    self.note_outside(key);
                }
            }
        }
        Ok(())
    }

    /// Lifts the ban of one source, wherever it is.
    pub(super) fn lift(&mut self, source: SourceKey) -> Result<()> {
        let key = source.get();
        if let Some(bucket) = self.sources.bucket(self.index(key)) {
            debt::lift(bucket, key, clock::kernel_now().0);
        }
        self.remove_outside(key).with_context(|| format!("unbanning {}", source.address()))
    }

    fn index(&self, key: u64) -> u32 {
        limiter::bucket_index(key, self.seed, self.mask)
    }

    fn note_outside(&mut self, key: u64) {
        if !self.outside.insert(key) {
            return;
        }
        let index = self.index(key);
        *self.counts.entry(index).or_default() += 1;
        // After the ban itself: who sees the bit finds the ban.
        let (word, mask) = listed::place(index);
        self.spilled.set_bits(word as usize, mask);
    }

    fn remove_outside(&mut self, key: u64) -> Result<()> {
        if !self.outside.contains(&key) {
            return Ok(());
        }
        absent_is_fine(self.bans.remove(&key))?;
        self.outside.remove(&key);
        let index = self.index(key);
        let Some(count) = self.counts.get_mut(&index) else { return Ok(()) };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&index);
            let (word, mask) = listed::place(index);
            self.spilled.clear_bits(word as usize, mask);
        }
        Ok(())
    }
}
