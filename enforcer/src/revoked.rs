//! Which tokens are good no longer, although nothing is wrong with them: what operators, an authorization server and a file have
//! taken back.
//!
//! Every request with a token asks [`Revoked::covers`], without a lock. A change is in force for whatever is asked after it, also
//! of tokens that workers know: they are asked about anew when [`Revoked::generation`] is another. Bounded: what finds no room is
//! refused, never forgotten. Time is an argument; what is kept on disk goes through a [`Journal`].

pub mod keeping;
pub mod mark;
pub mod table;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use anyhow::Result;
use arc_swap::ArcSwap;

pub use mark::{Kind, Mark, Marker};
pub use table::{FOREVER, Terms, WHENEVER};
use table::{Put, SLOT, Table};

/// Slots of an empty table.
const FEWEST: usize = 256;
/// Seconds between two tables that are made because entries have ended.
const SWEEP: u32 = 60;

/// Where changes are kept: a file, or a store that several nodes share. Whoever learns of a change elsewhere calls
/// [`Revoked::learn`].
pub trait Journal: Send {
    /// A mark has these terms from now on, or none.
    fn write(&mut self, mark: Mark, terms: Option<Terms>);
}

/// What a token is known by.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// When it was issued, if it says so.
    pub issued: Option<u64>,
    /// Everything that it is known by.
    pub all: Vec<(Kind, Mark)>,
}

/// There is no room for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What a file lists.
#[derive(Debug)]
pub struct Listed {
    table: Table,
    /// How many they are.
    pub count: usize,
    /// SHA-256 of the file and of what its names meant, so that the same one is not read again.
    pub digest: Vec<u8>,
}

impl Listed {
    /// Of these entries; the wider one of two for the same thing.
    pub fn new(entries: &[(Mark, Terms)], digest: Vec<u8>) -> Self {
        let table = Table::new(slots(entries.len()));
        let mut count = 0;
        for (mark, terms) in entries {
            let terms = table.find(*mark).map_or(*terms, |known| known.and(*terms));
            count += usize::from(table.put(*mark, terms) == Put::New);
        }
        Self { table, count, digest }
    }
}

/// How it is, for people and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Entries; those among them that have ended are gone within a minute.
    pub entries: usize,
    /// Entries of the file.
    pub listed: usize,
    /// Most entries.
    pub most: usize,
    /// Bytes of both tables.
    pub bytes: usize,
    /// Entries that were refused for want of room.
    pub refused: u64,
    /// Whether they outlive the daemon.
    pub is_kept: bool,
}

struct Writer {
    /// Slots that are taken.
    used: usize,
    /// Entries among them that were taken back.
    ended: usize,
    /// When the first of the entries ends, at the earliest.
    earliest: u32,
    swept: u32,
    journal: Option<Box<dyn Journal>>,
}

/// Everything that is revoked.
pub struct Revoked {
    marker: Marker,
    live: ArcSwap<Table>,
    listed: ArcSwap<Listed>,
    generation: AtomicU64,
    writer: Mutex<Writer>,
    entries: AtomicUsize,
    refused: AtomicU64,
    most: usize,
}

impl std::fmt::Debug for Revoked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.look().fmt(f)
    }
}

impl Revoked {
    /// Room for so many, none of which outlives the daemon.
    pub fn new(most: usize) -> Result<Arc<Self>> {
        Ok(Arc::new(Self::with(Marker::fresh()?.0, most, None)))
    }

    fn with(marker: Marker, most: usize, journal: Option<Box<dyn Journal>>) -> Self {
        let writer = Writer { used: 0, ended: 0, earliest: FOREVER, swept: 0, journal };
        Self {
            marker,
            live: ArcSwap::from_pointee(Table::new(FEWEST)),
            listed: ArcSwap::from_pointee(Listed::new(&[], Vec::new())),
            generation: AtomicU64::new(0),
            writer: Mutex::new(writer),
            entries: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            most,
        }
    }

    /// Makes the marks that are compared with those here.
    pub const fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Another one after every change that takes something back. To be read before [`Revoked::covers`] is asked.
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// Whether a token of an issuer is revoked, and by what it is known.
    pub fn covers(&self, marks: &Marks, issuer: Mark, now: u64) -> Option<Kind> {
        let (live, listed) = (self.live.load(), self.listed.load());
        let hit = |mark: Mark| {
            let covers = |terms: Option<Terms>| terms.is_some_and(|terms| terms.covers(marks.issued, now));
            covers(live.find(mark)) || covers(listed.table.find(mark))
        };
        marks.all.iter().find(|(_, mark)| hit(*mark) || hit(mark.of(issuer))).map(|(kind, _)| *kind)
    }

    /// Whether nothing is, so that nobody needs to ask.
    pub fn is_empty(&self) -> bool {
        self.entries.load(Relaxed) == 0 && self.listed.load().count == 0
    }

    /// Whether what has these marks, and no issuer, is revoked.
    pub fn covers_any(&self, marks: &Marks, now: u64) -> bool {
        let covers = |terms: Option<Terms>| terms.is_some_and(|terms| terms.covers(marks.issued, now));
        let (live, listed) = (self.live.load(), self.listed.load());
        marks.all.iter().any(|(_, mark)| covers(live.find(*mark)) || covers(listed.table.find(*mark)))
    }

    /// The terms that hold for a mark, and those that the file gives it.
    pub fn terms(&self, mark: Mark, now: u64) -> (Option<Terms>, Option<Terms>) {
        let holds = |terms: &Terms| terms.holds(now);
        (self.live.load().find(mark).filter(holds), self.listed.load().table.find(mark).filter(holds))
    }

    /// Revokes; what was revoked already gets the wider terms of both. In force when this returns.
    pub fn revoke(&self, mark: Mark, terms: Terms, now: u64) -> Result<(), Full> {
        let mut writer = self.writer();
        let terms = self.insert(&mut writer, mark, terms, now)?;
        if let Some(journal) = &mut writer.journal {
            journal.write(mark, Some(terms));
        }
        Ok(())
    }

    /// The same for what users bring about by themselves: for that there is half of the room, so that operators find some.
    pub fn revoke_for_users(&self, mark: Mark, terms: Terms, now: u64) -> Result<(), Full> {
        if self.entries.load(Relaxed) >= self.most.div_ceil(2) {
            self.refused.fetch_add(1, Relaxed);
            return Err(Full);
        }
        self.revoke(mark, terms, now)
    }

    /// Takes over what was decided elsewhere, or before a restart: it is not written again.
    pub fn learn(&self, mark: Mark, terms: Terms, now: u64) -> Result<(), Full> {
        self.insert(&mut self.writer(), mark, terms, now).map(drop)
    }

    /// Takes a revocation back; whether there was one. Not one of the file.
    pub fn restore(&self, mark: Mark, now: u64) -> bool {
        let mut writer = self.writer();
        let Some(terms) = self.live.load().end(mark) else { return false };
        writer.ended += 1;
        self.entries.store(writer.used - writer.ended, Relaxed);
        if let Some(journal) = &mut writer.journal {
            journal.write(mark, None);
        }
        terms.holds(now)
    }

    /// What the file lists from now on.
    pub fn list(&self, listed: Listed) {
        self.listed.store(Arc::new(listed));
        self.generation.fetch_add(1, Release);
    }

    /// What it lists.
    pub fn listed(&self) -> Arc<Listed> {
        self.listed.load_full()
    }

    /// Forgets what has ended, at most once a minute.
    pub fn sweep(&self, now: u64) {
        let mut writer = self.writer();
        let second = u32::try_from(now).unwrap_or(FOREVER - 1);
        if writer.earliest <= second && writer.swept.saturating_add(SWEEP) <= second {
            self.rebuild(&mut writer, 0, now);
        }
    }

    /// How it is.
    pub fn look(&self) -> Look {
        let listed = self.listed.load();
        Look {
            entries: self.entries.load(Relaxed),
            listed: listed.count,
            most: self.most,
            bytes: (self.live.load().slots() + listed.table.slots()) * SLOT,
            refused: self.refused.load(Relaxed),
            is_kept: self.writer().journal.is_some(),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, writer: &mut Writer, mark: Mark, terms: Terms, now: u64) -> Result<Terms, Full> {
        let mut table = self.live.load_full();
        let known = table.find(mark);
        let terms = known.filter(|known| known.holds(now)).map_or(terms, |known| known.and(terms));
        if known.is_none() && writer.used >= room(table.slots()).min(self.most) {
            let may_help = writer.ended > 0 || u64::from(writer.earliest) <= now;
            if writer.used < self.most || may_help {
                self.rebuild(writer, 1, now);
                table = self.live.load_full();
            }
            if writer.used >= self.most {
                self.refused.fetch_add(1, Relaxed);
                return Err(Full);
            }
        }
        match table.put(mark, terms) {
            Put::New => writer.used += 1,
            Put::Known => writer.ended -= usize::from(known.is_none()).min(writer.ended),
            Put::NoSlot => {
                self.refused.fetch_add(1, Relaxed);
                return Err(Full);
            }
        }
        writer.earliest = writer.earliest.min(terms.until);
        self.entries.store(writer.used - writer.ended, Relaxed);
        self.generation.fetch_add(1, Release);
        Ok(terms)
    }

    /// A table without what has ended, and with room for `more`.
    fn rebuild(&self, writer: &mut Writer, more: usize, now: u64) {
        let old = self.live.load_full();
        let count = old.entries().filter(|(_, terms)| terms.holds(now)).count();
        // Twice the room, so that this happens seldom, but never more than the most entries need.
        let wanted = ((count + more) * 2).min(self.most.max(1));
        let table = Table::new(slots(wanted));
        writer.earliest = FOREVER;
        for (mark, terms) in old.entries() {
            if terms.holds(now) {
                table.put(mark, terms);
                writer.earliest = writer.earliest.min(terms.until);
            } else if let Some(journal) = &mut writer.journal {
                journal.write(mark, None);
            }
        }
        (writer.used, writer.ended) = (count, 0);
        writer.swept = u32::try_from(now).unwrap_or(FOREVER - 1);
        self.entries.store(count, Relaxed);
        self.live.store(Arc::new(table));
    }
}

/// Slots for so many entries: three of four may be taken.
fn slots(entries: usize) -> usize {
    (entries.saturating_mul(4) / 3 + 8).max(FEWEST)
}

/// The opposite.
const fn room(slots: usize) -> usize {
    slots / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_half_of_the_room() -> Result<()> {
        let revoked = Revoked::new(3)?;
        let mark = |n: u8| revoked.marker().mark(Kind::Token, &[n]);
        let terms = Terms { until: FOREVER, before: WHENEVER };
        let by_users = [1, 2, 3].map(|n| revoked.revoke_for_users(mark(n), terms, 1).is_ok());
        assert_eq!(by_users, [true, true, false]);
        assert_eq!(revoked.look().refused, 1);
        assert_eq!(revoked.revoke(mark(3), terms, 1), Ok(()), "an operator has all of it");
        Ok(())
    }
}
