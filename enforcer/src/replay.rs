//! What may be used once: proofs, nonces, challenges. Of two uses, however close, one is the first.
//!
//! A use is remembered by a digest of what it is and whose, until what was used has run out by itself; it is never forgotten
//! before, so a set that is full refuses. Shards by digest: workers meet in one only by chance, for the time of one look-up in
//! memory. Time is an argument; a clock that steps back revives nothing, because whatever could have been forgotten is refused.
//!
//! Two kinds of memory. [`Replay::spend`] lasts as long as the process; its callers see to it that nothing made before the start
//! is taken (see [`Replay::began`]). [`Replay::spend_for_good`] is for what nobody can ask for anew: the use is in the
//! embedded store before anybody acts on it. Without a store it refuses what may have been made, and used, before the start.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Result;
use aws_lc_rs::digest::{Context, SHA256};
use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use crate::store::{self, Change, Gauges, Store, Table};

/// The table in the store.
const USES: Table = "uses";
/// A power of two, so that a shard is chosen by bits; far more than workers.
const SHARDS: usize = 64;
/// Of the room, one part in so many is for uses by strangers.
const STRANGERS: usize = 4;
/// Bytes of a digest that are kept: two things of one digest are not found within the age of the world.
const KEPT: usize = 16;

/// Names something that may be used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token([u8; KEPT]);

impl Token {
    /// Of a kind of thing, and what tells it from others of its kind. No two lists of parts are one.
    pub fn of(kind: &str, parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in std::iter::once(kind.as_bytes()).chain(parts.iter().copied()) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut kept = [0; KEPT];
        kept.copy_from_slice(&context.finish().as_ref()[..KEPT]);
        Self(kept)
    }

    fn shard(self) -> usize {
        usize::from(self.0[KEPT - 1]) % SHARDS
    }
}

/// Why something cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It was.
    Before,
    /// It has run out, or nobody can tell any more whether it was.
    Late,
    /// There is no room to remember that it was.
    Full,
}

/// A use that is good once it is written down.
#[derive(Debug)]
pub struct Receipt(Option<oneshot::Receiver<()>>);

impl Receipt {
    /// Waits for the disk; false: it could not be written.
    pub async fn is_kept(self) -> bool {
        match self.0 {
            Some(written) => written.await.is_ok(),
            None => true,
        }
    }
}

/// When something was made, and until when it could be used, seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// When it says that it was made.
    pub made: u64,
    /// By how much clocks may be ahead of ours.
    pub ahead: u64,
    /// From then on it is refused anyway.
    pub until: u64,
    /// Whether anybody can make such things, by a key that nobody has given out: they have a quarter of the room, so that they cannot
    /// shut out those who were let in.
    pub by_stranger: bool,
}

/// What is remembered of a use besides its end.
#[derive(Clone, Copy, Debug)]
struct How {
    /// The store has it too.
    kept: bool,
    /// See [`Life::by_stranger`].
    by_stranger: bool,
}

/// Everything that was used and could be used again.
pub struct Replay {
    shards: Box<[Mutex<Shard>]>,
    /// Of one shard.
    most: usize,
    began: u64,
    /// What was made until then may have been used without our knowing.
    unknown_until: AtomicU64,
    journal: OnceLock<Mutex<Store>>,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("entries", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shard {
    /// Until when each is remembered.
    uses: HashMap<Token, (u64, How), RandomState>,
    /// How many of them are by strangers.
    strange: usize,
    /// The same in the order in which they end.
    ends: BTreeMap<u64, Vec<Token>>,
    /// Everything that ended until then may be forgotten.
    swept: u64,
}

impl Shard {
    /// Forgets what has run out; returns what the store has of it.
    fn sweep(&mut self, now: u64) -> Vec<(u64, Token)> {
        let mut kept = Vec::new();
        while let Some(end) = self.ends.first_entry().filter(|end| *end.key() <= now) {
            let (end, tokens) = end.remove_entry();
            self.swept = self.swept.max(end);
            for token in tokens {
                // A store may have it with an earlier end, too, which is all that goes.
                if let Some((_, how)) = self.uses.get(&token).copied().filter(|(until, _)| *until == end) {
                    self.uses.remove(&token);
                    self.strange -= usize::from(how.by_stranger);
                    if !how.kept {
                        continue;
                    }
                }
                kept.push((end, token));
            }
        }
        kept
    }

    fn insert(&mut self, token: Token, until: u64, how: How) {
        let old = self.uses.insert(token, (until, how));
        self.strange += usize::from(how.by_stranger);
        self.strange -= usize::from(old.is_some_and(|(_, old)| old.by_stranger));
        self.ends.entry(until).or_default().push(token);
    }

    fn spend(&mut self, token: Token, until: u64, now: u64, most: usize, how: How) -> Result<(), Spent> {
        if until <= now || until <= self.swept {
            return Err(Spent::Late);
        }
        if self.uses.contains_key(&token) {
            return Err(Spent::Before);
        }
        if self.uses.len() >= most || how.by_stranger && self.strange >= most.div_ceil(STRANGERS) {
            return Err(Spent::Full);
        }
        self.insert(token, until, how);
        Ok(())
    }
}

impl Replay {
    /// Room for about so many; `began`: now, seconds since 1970.
    pub fn new(most: u32, began: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most: (most as usize).div_ceil(SHARDS),
            began,
            unknown_until: AtomicU64::new(began),
            journal: OnceLock::new(),
        }
    }

    /// Opens the store at `path` and remembers what it has: before the first use. A store that had to be set aside for being broken
    /// is as good as none for whatever was made before `now`.
    pub fn keep(&self, path: &Path, gauges: Gauges, now: u64) -> Result<()> {
        let store::Opened { store, set_aside } = store::open("replay.store", path, gauges)?;
        for (key, value) in store.read(USES)? {
            let Some((until, token)) = read_key(&key) else { continue };
            // What has run out is swept away with the first use of its shard.
            self.shard(token).insert(token, until, How { kept: true, by_stranger: !value.is_empty() });
        }
        self.unknown_until.store(if set_aside.is_some() { now } else { 0 }, Relaxed);
        // A second store is none: what is open goes on.
        drop(self.journal.set(Mutex::new(store)));
        Ok(())
    }

    /// When the process began: whatever was made before may have been used in one before it.
    pub const fn began(&self) -> u64 {
        self.began
    }

    /// Whether something that says that it was made then may have been used, for good, without our knowing; `ahead`: by how much clocks
    /// may be ahead of ours.
    pub fn is_from_before(&self, made: u64, ahead: u64) -> bool {
        let unknown = self.unknown_until.load(Relaxed);
        unknown > 0 && made <= unknown.saturating_add(ahead)
    }

    /// Uses `token`, which is refused anyway from `until` on. Once for as long as the process lasts.
    pub fn spend(&self, token: Token, until: u64, now: u64) -> Result<(), Spent> {
        self.enter(token, until, now, How { kept: false, by_stranger: false })
    }

    /// Uses `token`, once for good. Whoever acts on it waits for the receipt before.
    pub fn spend_for_good(&self, token: Token, life: Life, now: u64) -> Result<Receipt, Spent> {
        if self.is_from_before(life.made, life.ahead) {
            return Err(Spent::Late);
        }
        let Some(journal) = self.journal.get() else {
            let how = How { kept: false, by_stranger: life.by_stranger };
            return self.enter(token, life.until, now, how).map(|()| Receipt(None));
        };
        self.enter(token, life.until, now, How { kept: true, by_stranger: life.by_stranger })?;
        let value = if life.by_stranger { vec![1] } else { Vec::new() };
        let change = Change { table: USES, key: key(life.until, token), value: Some(value) };
        Ok(Receipt(Some(lock(journal).write_now([change]))))
    }

    fn enter(&self, token: Token, until: u64, now: u64, how: How) -> Result<(), Spent> {
        let mut shard = self.shard(token);
        let ended = shard.sweep(now);
        let outcome = shard.spend(token, until, now, self.most, how);
        drop(shard);
        if let Some(journal) = self.journal.get().filter(|_| !ended.is_empty()) {
            let gone = |(until, token)| Change { table: USES, key: key(until, token), value: None };
            lock(journal).write(ended.into_iter().map(gone));
        }
        outcome
    }

    fn shard(&self, token: Token) -> MutexGuard<'_, Shard> {
        lock(&self.shards[token.shard()])
    }

    /// How many are remembered; counted shard by shard.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).uses.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Sorted by the end, so that what comes together and goes together lies together.
fn key(until: u64, token: Token) -> String {
    format!("{until:016x}{:032x}", u128::from_be_bytes(token.0))
}

fn read_key(key: &str) -> Option<(u64, Token)> {
    let (until, token) = key.split_at_checked(16)?;
    let token = u128::from_str_radix(token, 16).ok().filter(|_| token.len() == 32)?;
    Some((u64::from_str_radix(until, 16).ok()?, Token(token.to_be_bytes())))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use prometheus::{IntCounter, IntGauge};

    const NOW: u64 = 1_800_000_000;

    fn gauges() -> Gauges {
        Gauges {
            pending: IntGauge::new("pending", "x").unwrap(),
            errors: IntCounter::new("errors", "x").unwrap(),
        }
    }

    fn token(n: u32) -> Token {
        Token::of("test", &[&n.to_be_bytes()])
    }

    /// A signature of now that is taken for ten minutes.
    fn life(made: u64) -> Life {
        Life { made, ahead: 300, until: made + 601, by_stranger: false }
    }

    fn use_up(replay: &Replay, n: u32, now: u64) -> Result<bool, Spent> {
        let receipt = replay.spend_for_good(token(n), life(now), now)?;
        Ok(receipt.0.is_none_or(|written| written.blocking_recv().is_ok()))
    }

    #[test]
    fn parts_are_not_run_together() {
        let one = Token::of("a", &[b"bc", b"d"]);
        for other in [
            Token::of("a", &[b"b", b"cd"]),
            Token::of("a", &[b"bcd"]),
            Token::of("ab", &[b"c", b"d"]),
            Token::of("a", &[b"bc", b"d", b""]),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(one, Token::of("a", &[b"bc", b"d"]));
    }

    #[test]
    fn a_use_is_remembered_until_it_has_run_out_and_room_is_never_made() {
        let replay = Replay::new(64, NOW - 1_000);
        assert_eq!(replay.spend(token(1), NOW + 10, NOW), Ok(()));
        assert_eq!(replay.spend(token(1), NOW + 10, NOW + 9), Err(Spent::Before));
        assert_eq!(replay.spend(token(1), NOW + 10, NOW + 10), Err(Spent::Late));
        assert_eq!(replay.len(), 0, "swept");
        // A clock that steps back: nobody can tell any more whether it was used.
        assert_eq!(replay.spend(token(1), NOW + 10, NOW), Err(Spent::Late));
        let replay = Replay::new(64, NOW);
        let outcomes: Vec<_> = (0..10_000).map(|n| replay.spend(token(n), NOW + 10, NOW)).collect();
        let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!((taken, replay.len()), (SHARDS, SHARDS));
        for (n, outcome) in (0..).zip(&outcomes) {
            let again = if outcome.is_ok() { Spent::Before } else { Spent::Full };
            assert_eq!(replay.spend(token(n), NOW + 10, NOW), Err(again), "{n}");
        }
        assert_eq!(replay.spend(token(10_000), NOW + 30, NOW + 11), Ok(()));
    }

    #[test]
    fn strangers_do_not_fill_the_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replay.redb");
        let strange = |replay: &Replay, n: u32, now: u64| -> Result<bool, Spent> {
            let receipt = replay.spend_for_good(token(n), Life { by_stranger: true, ..life(now) }, now)?;
            Ok(receipt.0.is_none_or(|written| written.blocking_recv().is_ok()))
        };
        let most = SHARDS as u32 * 4;
        let replay = Replay::new(most, NOW - 1_000);
        let taken = (0..10_000).filter(|n| strange(&replay, *n, NOW).is_ok()).count();
        assert_eq!(taken, SHARDS, "a quarter");
        // The store tells them apart, too.
        let replay = Replay::new(most, NOW - 1_000);
        replay.keep(&path, gauges(), NOW).unwrap();
        let first = (0..).find(|n| strange(&replay, *n, NOW) == Ok(true)).unwrap();
        drop(replay);
        let replay = Replay::new(most, NOW - 1_000);
        replay.keep(&path, gauges(), NOW).unwrap();
        assert_eq!(strange(&replay, first, NOW), Err(Spent::Before));
        let beside =
            (0..).map(token).find(|other| other.shard() == token(first).shard() && *other != token(first));
        let beside = beside.unwrap();
        let by_stranger = Life { by_stranger: true, ..life(NOW) };
        assert_eq!(replay.spend_for_good(beside, by_stranger, NOW).err(), Some(Spent::Full));
        assert_eq!(replay.spend(beside, NOW + 601, NOW), Ok(()), "there is room for others");
        // Room comes back when they have run out.
        assert_eq!(strange(&replay, first, NOW + 1_000), Ok(true));
    }

    #[test]
    fn of_many_that_race_one_is_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let replay = Replay::new(1 << 16, NOW - 1_000);
        replay.keep(&folder.path().join("replay.redb"), gauges(), NOW).unwrap();
        for n in 0..100 {
            let start = Barrier::new(4);
            let wins = std::thread::scope(|scope| {
                let race = |good: bool| {
                    let (start, replay) = (&start, &replay);
                    scope.spawn(move || {
                        start.wait();
                        if good {
                            replay.spend_for_good(token(n), life(NOW), NOW).is_ok()
                        } else {
                            replay.spend(token(n), NOW + 601, NOW).is_ok()
                        }
                    })
                };
                let racers = [race(true), race(false), race(true), race(false)];
                racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
            });
            assert_eq!(wins, 1, "{n}");
        }
    }

    #[test]
    fn a_use_for_good_outlives_the_process_however_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replay.redb");
        let first = Replay::new(1 << 16, NOW - 1_000);
        first.keep(&path, gauges(), NOW).unwrap();
        assert_eq!(use_up(&first, 1, NOW), Ok(true));
        // As the disk has it while the process is in the middle of its work: what is left after a crash.
        let crashed = folder.path().join("crashed.redb");
        std::fs::copy(&path, &crashed).unwrap();
        drop(first);
        for path in [&path, &crashed] {
            let next = Replay::new(1 << 16, NOW + 1);
            next.keep(path, gauges(), NOW + 1).unwrap();
            assert_eq!(use_up(&next, 1, NOW + 1), Err(Spent::Before));
            assert_eq!(use_up(&next, 2, NOW + 1), Ok(true));
            assert_eq!(next.len(), 2);
        }
        // What has run out goes, from the file as well.
        let later = NOW + 10_000;
        let last = Replay::new(1 << 16, later);
        last.keep(&path, gauges(), later).unwrap();
        for n in 10..1_000 {
            assert_eq!(last.spend(token(n), later + 1, later), Ok(()));
        }
        drop(last);
        let empty = Replay::new(1 << 16, later);
        empty.keep(&path, gauges(), later).unwrap();
        assert_eq!(empty.len(), 0);
    }

    #[test]
    fn of_two_ends_in_the_store_the_later_one_counts() {
        let mut shard = Shard::default();
        let how = How { kept: true, by_stranger: false };
        shard.insert(token(1), NOW + 10, how);
        shard.insert(token(1), NOW + 20, how);
        assert_eq!(shard.sweep(NOW + 10), [(NOW + 10, token(1))]);
        assert_eq!(shard.spend(token(1), NOW + 30, NOW + 10, 10, how), Err(Spent::Before));
        assert_eq!(shard.sweep(NOW + 20), [(NOW + 20, token(1))]);
        assert_eq!(shard.spend(token(1), NOW + 30, NOW + 20, 10, How { kept: false, ..how }), Ok(()));
        assert_eq!(shard.sweep(NOW + 30), [], "the store has nothing of it");
    }

    #[test]
    fn without_a_store_nothing_counts_that_may_have_been_used_before_the_start() {
        let replay = Replay::new(1 << 16, NOW);
        assert_eq!(use_up(&replay, 1, NOW), Err(Spent::Late));
        assert_eq!(use_up(&replay, 1, NOW + 300), Err(Spent::Late), "a clock may have been ahead so far");
        assert_eq!(use_up(&replay, 1, NOW + 301), Ok(true));
        assert_eq!(use_up(&replay, 1, NOW + 301), Err(Spent::Before));
        // A store that is broken tells nothing either.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replay.redb");
        std::fs::write(&path, "no store at all, but long enough to be one".repeat(1_000)).unwrap();
        let replay = Replay::new(1 << 16, NOW);
        replay.keep(&path, gauges(), NOW).unwrap();
        assert_eq!(use_up(&replay, 1, NOW + 300), Err(Spent::Late));
        assert_eq!(use_up(&replay, 1, NOW + 301), Ok(true));
    }
}
