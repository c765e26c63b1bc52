//! Between the ban task and the store: reads at the start what was kept, and hands over what is to be kept.

use anyhow::{Context as _, Result};
use tracing::warn;

use super::memory::{self, Memory, Rows, Save, Scribe};
use crate::{clock::Calendar, store::Store};

/// Entries that are put into words at once: what is in words takes more memory.
const PART: usize = 16_384;

/// A store of bans that is open.
pub struct Keeping {
    store: Store,
    calendar: Calendar,
    /// Whether the store says that its times are of this run of the machine.
    marked: bool,
}

/// What was kept.
#[derive(Debug)]
pub struct Kept {
    /// Everything that could be understood.
    pub memory: Memory,
    /// Whether all of it must be written again: its times are of an earlier run of the machine.
    pub stale: bool,
}

impl Keeping {
    /// Reads everything that is in `store`.
    pub fn begin(store: Store) -> Result<(Self, Kept)> {
        let calendar = Calendar::read().context("asking for the time")?;
        let rows = Rows {
            bans: store.read(memory::BANS)?,
            allowances: store.read(memory::ALLOWANCES)?,
            tiers: store.read(memory::TIERS)?,
            histories: store.read(memory::HISTORIES)?,
            meta: store.read(memory::META)?,
        };
        let memory = memory::recall(&rows, &calendar);
        if memory.unreadable > 0 {
            warn!(
                entries = memory.unreadable,
                "entries of the store that cannot be understood are forgotten"
            );
        }
        let marked = rows.is_of(&calendar);
        Ok((Self { store, calendar, marked }, Kept { memory, stale: !marked }))
    }

    /// Has `saves` written. They are put into words where they are written: of an import there are a million, and offences wait here.
    pub(super) fn save(&mut self, saves: Vec<Save>) {
        if saves.is_empty() {
            return;
        }
        self.calendar.renew();
        if !std::mem::replace(&mut self.marked, true) {
            self.store.write([Scribe::new(&self.calendar).boot()]);
        }
        let mut rest = saves;
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(PART));
            let part = std::mem::replace(&mut rest, after);
            let calendar = self.calendar.clone();
            self.store.write_later(part.len(), move || {
                let scribe = Scribe::new(&calendar);
                part.iter().map(|save| scribe.change(save)).collect()
            });
        }
    }
}
