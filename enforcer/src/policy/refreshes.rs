//! Refresh tokens: good for one exchange each where their server gives another one with it (RFC 9700 section 4.14.2), and bound to the
//! key that they were given to (RFC 9449 section 5).
//!
//! Tokens of which one was exchanged for the next are a line. One that comes back after its exchange says that two have it, and nobody
//! can tell who of them is the thief: the whole line is dead, with its access tokens. It has to be done here, for the server behind
//! never sees the request that is refused. While a token is under way nobody else may exchange it; if that comes to nothing it is as
//! good as before. Bounded by number and time; kept are keyed hashes alone, and for as long as the process lasts. What is good of a line
//! when it dies is handed out to be revoked, because the server behind takes it for good, and so would whoever remembers nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use foldhash::fast::RandomState;

use crate::revoked::{Kind, Mark, Marker};

/// Access tokens that end with a line, at most: the newest ones; those before have ended by themselves.
const MOST_ENDED: usize = 64;

/// What is known of refresh tokens.
pub struct Refreshes {
    marker: Marker,
    most: usize,
    state: Mutex<State>,
}

impl std::fmt::Debug for Refreshes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refreshes").field("entries", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    known: HashMap<Mark, Known, RandomState>,
    /// The same in the order in which they end, each once.
    ends: BTreeSet<(u64, Mark)>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    until: u64,
    stage: Stage,
    /// What it was exchanged for.
    next: Option<Mark>,
    /// The key that it is bound to.
    key: Option<Mark>,
    /// The access token that came with it, as it can be revoked.
    access: Option<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Good,
    UnderWay,
    Used,
    Dead,
}

/// What a request to the token endpoint comes with.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// A refresh token, as it can be revoked.
    pub token: Option<Mark>,
    /// The thumbprint of a key that it has proved to have.
    pub key: Option<&'a str>,
    /// Whether the server gives another refresh token with each exchange.
    pub rotates: bool,
    /// Seconds for which tokens are remembered.
    pub lasts: u64,
}

/// What a server gave.
#[derive(Clone, Copy, Debug)]
pub enum Given {
    /// It cannot be read.
    Unknown,
    /// These.
    Tokens {
        /// A refresh token, as it can be revoked.
        refresh: Option<Mark>,
        /// An access token, likewise.
        access: Option<Mark>,
    },
}

/// What is to be revoked of a line that has died, if that was not known yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Access tokens that came with it.
    pub access: Vec<Mark>,
    /// Refresh tokens that the server behind takes for good.
    pub refresh: Vec<Mark>,
}

/// Why a refresh token cannot be exchanged.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was, or its line is dead.
    Reused(Ended),
    /// It is being exchanged.
    UnderWay,
    /// It is bound to another key.
    OtherKey,
}

/// An exchange under way. Dropped it came to nothing.
#[derive(Debug)]
pub struct Exchange {
    refreshes: Arc<Refreshes>,
    mark: Option<Mark>,
    before: Option<Known>,
    key: Option<Mark>,
    rotates: bool,
    lasts: u64,
    is_tracked: bool,
}

impl Refreshes {
    /// Room for so many.
    pub fn new(most: usize) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { marker: Marker::fresh()?.0, most, state: Mutex::default() }))
    }

    /// An exchange begins at `now`, seconds since 1970.
    pub fn begin(self: &Arc<Self>, asked: Asked<'_>, now: u64) -> Result<Exchange, Refused> {
        let Asked { token, key, rotates, lasts } = asked;
        let key = key.map(|key| self.marker.mark(Kind::Key, key.as_bytes()));
        let mut exchange = Exchange {
            refreshes: Arc::clone(self),
            mark: None,
            before: None,
            key,
            rotates,
            lasts,
            is_tracked: true,
        };
        let Some(mark) = token else { return Ok(exchange) };
        let mut guard = self.state();
        let state = &mut *guard;
        state.sweep(now);
        let has_room = state.known.len() < self.most;
        match state.known.get_mut(&mark) {
            Some(known) => {
                // First of all: who found a token without its key must not be able to end the line of those who have it.
                if known.key.is_some() && known.key != key {
                    return Err(Refused::OtherKey);
                }
                match known.stage {
                    Stage::Dead => return Err(Refused::Reused(Ended::default())),
                    Stage::Used => return Err(Refused::Reused(state.end_line(mark))),
                    Stage::UnderWay => return Err(Refused::UnderWay),
                    Stage::Good => {}
                }
                exchange.before = Some(*known);
                known.stage = Stage::UnderWay;
            }
            None if !has_room => {
                exchange.is_tracked = false;
                return Ok(exchange);
            }
            None => {
                let until = now.saturating_add(lasts);
                let stage = Stage::UnderWay;
                state.insert(mark, Known { until, stage, next: None, key: None, access: None });
            }
        }
        exchange.mark = Some(mark);
        Ok(exchange)
    }

    /// Forgets what has ended.
    pub fn sweep(&self, now: u64) {
        self.state().sweep(now);
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.state().known.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, mark: Mark, known: Known) {
        self.remove(mark);
        self.known.insert(mark, known);
        self.ends.insert((known.until, mark));
    }

    fn remove(&mut self, mark: Mark) {
        if let Some(known) = self.known.remove(&mark) {
            self.ends.remove(&(known.until, mark));
        }
    }

    fn sweep(&mut self, now: u64) {
        while let Some((_, mark)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.remove(mark);
        }
    }

    /// Everything that came of a token is dead.
    fn end_line(&mut self, first: Mark) -> Ended {
        let (mut ended, mut at) = (Ended::default(), Some(first));
        while let Some((mark, known)) = at.and_then(|mark| Some((mark, self.known.get_mut(&mark)?))) {
            match known.stage {
                Stage::Dead => break,
                Stage::Good | Stage::UnderWay => ended.refresh.push(mark),
                Stage::Used => {}
            }
            known.stage = Stage::Dead;
            ended.access.extend(known.access);
            at = known.next;
        }
        ended.access.drain(..ended.access.len().saturating_sub(MOST_ENDED));
        ended
    }
}

impl Exchange {
    /// Its server has answered. Says whether there was room to remember that; an error: the token's line has died meanwhile, and what was given
    /// must not get out.
    pub fn end(mut self, given: Given, now: u64) -> Result<bool, Refused> {
        let refreshes = Arc::clone(&self.refreshes);
        let (next, access) = match given {
            Given::Unknown => (None, None),
            Given::Tokens { refresh, access } => (refresh, access),
        };
        let mark = self.mark.take();
        // The same one again is no other.
        let next = next.filter(|next| Some(*next) != mark);
        let until = now.saturating_add(self.lasts);
        let mut state = refreshes.state();
        let held = mark.and_then(|mark| state.known.get(&mark).copied());
        let is_dead = held.is_some_and(|held| held.stage == Stage::Dead);
        let new = Known { until, stage: Stage::Good, next: None, key: self.key, access };
        if let Some(next) = next
            && (self.key.is_some() || mark.is_some() && self.rotates)
        {
            // The one that is exchanged makes room, or keeps its place for the proof that it was.
            if state.known.len() < refreshes.most || state.known.contains_key(&next) {
                let stage = if is_dead { Stage::Dead } else { Stage::Good };
                state.insert(next, Known { stage, ..new });
            } else {
                self.is_tracked = false;
            }
        }
        if is_dead {
            let refresh = next.into_iter().collect();
            return Err(Refused::Reused(Ended { access: access.into_iter().collect(), refresh }));
        }
        let Some(mark) = mark else { return Ok(self.is_tracked) };
        let before = self.before.or(held);
        let access = before.and_then(|before| before.access);
        let is_used = self.rotates && (next.is_some() || matches!(given, Given::Unknown));
        if is_used {
            state.insert(mark, Known { until, stage: Stage::Used, next, key: self.key, access });
        } else if self.key.is_some() || self.before.is_some() {
            // It goes on, with the key that it came with first.
            let key = before.and_then(|before| before.key).or(self.key);
            state.insert(mark, Known { until, stage: Stage::Good, next: None, key, access });
        } else {
            state.remove(mark);
        }
        Ok(self.is_tracked)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(mark) = self.mark.take() else { return };
        let mut state = self.refreshes.state();
        if state.known.get(&mark).is_none_or(|known| known.stage != Stage::UnderWay) {
            return;
        }
        match self.before {
            Some(before) => state.insert(mark, before),
            None => state.remove(mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn mark(token: &str) -> Mark {
        Marker::of_secret(&[7; 32]).mark(Kind::Token, token.as_bytes())
    }

    fn asked(token: &str) -> Asked<'_> {
        Asked { token: Some(mark(token)), key: None, rotates: true, lasts: 3_600 }
    }

    fn given<'a>(refresh: impl Into<Option<&'a str>>) -> Given {
        Given::Tokens { refresh: refresh.into().map(mark), access: None }
    }

    /// It is dead, and that was known.
    fn reused() -> Refused {
        Refused::Reused(Ended::default())
    }

    /// These were good until now.
    fn ended<const N: usize>(refresh: [&str; N]) -> Refused {
        Refused::Reused(Ended { access: Vec::new(), refresh: refresh.map(mark).to_vec() })
    }

    #[test]
    fn a_token_that_comes_back_ends_its_line_and_no_other() {
        let refreshes = Refreshes::new(100).unwrap();
        let access = |n: u8| Marker::of_secret(&[n; 32]).mark(Kind::Token, b"access");
        let step = |from: &str, to: &str, n: u8| {
            let exchange = refreshes.begin(asked(from), NOW).unwrap();
            exchange.end(Given::Tokens { refresh: Some(mark(to)), access: Some(access(n)) }, NOW)
        };
        for (from, to, n) in [("a", "b", 1), ("b", "c", 2), ("c", "d", 3), ("x", "y", 9)] {
            assert_eq!(step(from, to, n), Ok(true));
        }
        // The second, long exchanged: what came of it is over, with its access tokens.
        let ended = Ended { access: vec![access(1), access(2), access(3)], refresh: vec![mark("d")] };
        assert_eq!(refreshes.begin(asked("b"), NOW).err(), Some(Refused::Reused(ended)));
        for token in ["a", "b", "c", "d"] {
            assert_eq!(refreshes.begin(asked(token), NOW).err(), Some(reused()), "{token}");
        }
        assert_eq!(step("y", "z", 9), Ok(true), "another line");
    }

    #[test]
    fn what_a_dead_line_is_given_meanwhile_is_dead() {
        let refreshes = Refreshes::new(100).unwrap();
        refreshes.begin(asked("a"), NOW).unwrap().end(given("b"), NOW).unwrap();
        let thief = refreshes.begin(asked("b"), NOW).unwrap();
        assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(ended(["b"])));
        assert_eq!(thief.end(given("c"), NOW), Err(ended(["c"])));
        assert_eq!(refreshes.begin(asked("c"), NOW).err(), Some(reused()));
    }

    #[test]
    fn of_two_that_race_one_is_under_way_and_the_other_waits_for_it() {
        let refreshes = Refreshes::new(100).unwrap();
        let first = refreshes.begin(asked("a"), NOW).unwrap();
        assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(Refused::UnderWay));
        // It came to nothing: as good as before.
        drop(first);
        assert!(refreshes.is_empty());
        let second = refreshes.begin(asked("a"), NOW).unwrap();
        assert_eq!(second.end(given("b"), NOW), Ok(true));
        assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(ended(["b"])));
    }

    #[test]
    fn a_token_for_which_there_is_no_other_stays_good() {
        let refreshes = Refreshes::new(100).unwrap();
        for answer in [given(None), given("a")] {
            for _ in 0..2 {
                assert_eq!(refreshes.begin(asked("a"), NOW).unwrap().end(answer, NOW), Ok(true));
            }
        }
        // What cannot be read may have been another one.
        refreshes.begin(asked("a"), NOW).unwrap().end(Given::Unknown, NOW).unwrap();
        assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(reused()));
    }

    #[test]
    fn a_token_is_bound_to_the_key_that_it_was_given_to() {
        let refreshes = Refreshes::new(100).unwrap();
        for rotates in [true, false] {
            let by = |token: Option<&'static str>, key: Option<&'static str>| {
                let token = token.map(mark);
                refreshes.begin(Asked { token, key, rotates, lasts: 3_600 }, NOW)
            };
            // A code that was exchanged with a proof.
            by(None, Some("k1")).unwrap().end(given("a"), NOW).unwrap();
            for key in [None, Some("k2")] {
                assert_eq!(by(Some("a"), key).err(), Some(Refused::OtherKey));
            }
            let next = if rotates { "b" } else { "a" };
            by(Some("a"), Some("k1")).unwrap().end(given(next), NOW).unwrap();
            assert_eq!(by(Some(next), Some("k2")).err(), Some(Refused::OtherKey));
            by(Some(next), Some("k1")).unwrap().end(given(next), NOW).unwrap();
            // One that nobody knows is its first key's.
            by(Some("old"), Some("k1")).unwrap().end(given("old"), NOW).unwrap();
            assert_eq!(by(Some("old"), Some("k2")).err(), Some(Refused::OtherKey));
            refreshes.sweep(NOW + 3_600);
            assert!(refreshes.is_empty());
        }
    }

    #[test]
    fn who_has_an_old_token_and_not_its_key_ends_no_line() {
        let refreshes = Refreshes::new(100).unwrap();
        let by = |token, key| refreshes.begin(Asked { key, ..asked(token) }, NOW);
        by("a", Some("k1")).unwrap().end(given("b"), NOW).unwrap();
        for key in [None, Some("k2")] {
            assert_eq!(by("a", key).err(), Some(Refused::OtherKey));
        }
        by("b", Some("k1")).unwrap().end(given("c"), NOW).unwrap();
        assert_eq!(by("a", Some("k1")).err(), Some(ended(["c"])), "who has the key can");
        assert_eq!(by("c", Some("k2")).err(), Some(Refused::OtherKey));
        assert_eq!(by("c", Some("k1")).err(), Some(reused()));
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let refreshes = Refreshes::new(2).unwrap();
        assert_eq!(refreshes.begin(asked("a"), NOW).unwrap().end(given("b"), NOW), Ok(true));
        assert_eq!(refreshes.begin(asked("c"), NOW).unwrap().end(given("d"), NOW), Ok(false));
        assert_eq!(refreshes.len(), 2);
        assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(ended(["b"])));
        assert_eq!(refreshes.begin(asked("c"), NOW + 3_600).unwrap().end(given("d"), NOW + 3_600), Ok(true));
        assert_eq!(refreshes.len(), 2);
    }

    #[test]
    fn exchanges_that_come_to_nothing_leave_nothing_behind() {
        let refreshes = Refreshes::new(100).unwrap();
        let lengths = || {
            let state = refreshes.state();
            (state.known.len(), state.ends.len())
        };
        refreshes.begin(asked("b"), NOW).unwrap().end(given("a"), NOW).unwrap();
        for later in 0..1_000 {
            drop(refreshes.begin(asked("a"), NOW + later).unwrap());
            drop(refreshes.begin(asked("stranger"), NOW + later).unwrap());
        }
        assert_eq!(lengths(), (2, 2));
        // One that goes on is given more time.
        for later in 0..1_000 {
            refreshes.begin(asked("a"), NOW + later).unwrap().end(given("a"), NOW + later).unwrap();
        }
        assert_eq!(lengths(), (2, 2));
        refreshes.sweep(NOW + 999 + 3_600);
        assert_eq!(lengths(), (0, 0));
    }
}
