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

/// Tokens of one line that are known, at most: the first and the newest ones, so that nobody fills the memory with one line.
const MOST_IN_LINE: usize = 1_000;

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
    /// By number.
    lines: HashMap<u64, Line, RandomState>,
    /// Lines that have begun.
    begun: u64,
}

/// Tokens of which each was exchanged for the next.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// The first one that is known.
    first: Mark,
    /// How many are known.
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    until: u64,
    stage: Stage,
    /// The number of its line.
    line: u64,
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
                let (stage, line) = (Stage::UnderWay, state.begin_line());
                state.insert(mark, Known { until, stage, line, next: None, key: None, access: None });
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
    fn begin_line(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    fn insert(&mut self, mark: Mark, known: Known) {
        match self.known.get_mut(&mark).filter(|old| old.line == known.line) {
            Some(old) => {
                self.ends.remove(&(old.until, mark));
                *old = known;
            }
            None => {
                self.remove(mark);
                self.known.insert(mark, known);
                self.lines.entry(known.line).or_insert(Line { first: mark, count: 0 }).count += 1;
            }
        }
        self.ends.insert((known.until, mark));
        self.shorten(known.line);
    }

    fn remove(&mut self, mark: Mark) {
        let Some(known) = self.known.remove(&mark) else { return };
        self.ends.remove(&(known.until, mark));
        let Some(line) = self.lines.get_mut(&known.line) else { return };
        line.count -= 1;
        if line.count == 0 {
            self.lines.remove(&known.line);
        } else if let Some(next) = known.next.filter(|_| line.first == mark) {
            line.first = next;
        }
    }

    /// Forgets the second of a line that is too long.
    fn shorten(&mut self, line: u64) {
        let Some(line) = self.lines.get(&line).filter(|line| line.count > MOST_IN_LINE) else { return };
        let first = line.first;
        let next = |mark: Mark| self.known.get(&mark).and_then(|known| known.next);
        let Some(second) = next(first) else { return };
        let Some(third) = next(second) else { return };
        self.remove(second);
        if let Some(first) = self.known.get_mut(&first) {
            first.next = Some(third);
        }
    }

    fn sweep(&mut self, now: u64) {
        while let Some((_, mark)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.ends.pop_first();
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
        let line = match held.or(self.before) {
            Some(known) => known.line,
            None => state.begin_line(),
        };
        let new = Known { until, stage: Stage::Good, line, next: None, key: self.key, access };
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
            state.insert(mark, Known { until, stage: Stage::Used, line, next, key: self.key, access });
        } else if self.key.is_some() || self.before.is_some() {
            // It goes on, with the key that it came with first.
            let key = before.and_then(|before| before.key).or(self.key);
            let next = next.or(before.and_then(|before| before.next));
            state.insert(mark, Known { until, stage: Stage::Good, line, next, key, access });
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
mod tests;
