//! Every order in which the accesses of two charges can follow each other, and what must hold after each.
//!
//! A charge is a function of what its accesses answered. So it is moved on by one access by running it again on the answers so
//! far: no threads, no chance.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
};

use super::*;

/// One access to the bucket.
#[derive(Clone, Copy, Debug)]
enum Access {
    Load(usize),
    Swap(usize, u64, u64),
}

/// A bucket that gives the recorded answers and notes the first access behind them.
struct Replay<'a> {
    answers: &'a [Result<u64, u64>],
    used: Cell<usize>,
    next: RefCell<Option<Access>>,
}

impl Replay<'_> {
    fn answer(&self, access: Access) -> Result<u64, u64> {
        let at = self.used.replace(self.used.get() + 1);
        self.answers.get(at).copied().unwrap_or_else(|| {
            self.next.borrow_mut().get_or_insert(access);
            // What follows from this answer is thrown away.
            Err(0)
        })
    }

    fn load(&self, word: usize) -> u64 {
        self.answer(Access::Load(word)).unwrap_or(0)
    }

    fn swap(&self, word: usize, old: u64, new: u64) -> Result<(), u64> {
        self.answer(Access::Swap(word, old, new)).map(drop)
    }
}

impl Bucket for Replay<'_> {
    fn key(&self, slot: usize) -> u64 {
        self.load(slot * 2)
    }
    fn tat(&self, slot: usize) -> u64 {
        self.load(slot * 2 + 1)
    }
    fn swap_key(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.swap(slot * 2, old, new)
    }
    fn swap_tat(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.swap(slot * 2 + 1, old, new)
    }
}

/// Events of a source, charged one after the other, and the answers that they got.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Caller {
    key: u64,
    events: usize,
    admitted: u64,
    answers: Vec<Result<u64, u64>>,
}

const NOW: u64 = 1_000_000;
const RATE: Rate = Rate { increment: 100, tolerance: 200 };

impl Caller {
    fn new(key: u64, events: usize) -> Self {
        Self { key, events, admitted: 0, answers: Vec::new() }
    }

    /// Moves on by one access.
    fn step(&mut self, memory: &mut RawBucket) {
        let Some(access) = self.run().1 else { unreachable!("an ended charge was folded away") };
        self.answers.push(match access {
            Access::Load(word) => Ok(memory[word]),
            Access::Swap(word, old, new) if memory[word] == old => {
                memory[word] = new;
                Ok(old)
            }
            Access::Swap(word, ..) => Err(memory[word]),
        });
        if let (charge, None) = self.run() {
            self.events -= 1;
            self.admitted += u64::from(charge == Charge::Within);
            self.answers.clear();
        }
    }

    fn run(&self) -> (Charge, Option<Access>) {
        let replay = Replay { answers: &self.answers, used: Cell::new(0), next: RefCell::new(None) };
        let charge = charge(&replay, self.key, NOW, RATE);
        (charge, replay.next.into_inner())
    }
}

/// What a source owes, in events, over all slots that are its own.
fn owed(memory: &RawBucket, key: u64) -> u64 {
    let own = memory.chunks_exact(2).filter(|slot| slot[0] == key);
    own.map(|slot| slot[1].saturating_sub(NOW) / RATE.increment).sum()
}

/// Walks through every order; answers the outcomes: events admitted, by caller.
fn explore(memory: RawBucket, callers: [Caller; 2]) -> HashSet<[u64; 2]> {
    let before = callers.each_ref().map(|caller| owed(&memory, caller.key));
    let mut outcomes = HashSet::new();
    let mut seen = HashSet::new();
    let mut open = vec![(memory, callers)];
    while let Some((memory, callers)) = open.pop() {
        if callers.iter().all(|caller| caller.events == 0) {
            check(&memory, &callers, before);
            outcomes.insert(callers.each_ref().map(|caller| caller.admitted));
            continue;
        }
        for at in (0..2).filter(|at| callers[*at].events > 0) {
            let (mut memory, mut callers) = (memory, callers.clone());
            callers[at].step(&mut memory);
            if seen.insert((memory, callers.clone())) {
                open.push((memory, callers));
            }
        }
    }
    outcomes
}

/// The guarantee of [`charge`].
fn check(memory: &RawBucket, callers: &[Caller; 2], before: [u64; 2]) {
    let keys: Vec<u64> = memory.iter().step_by(2).copied().filter(|key| *key != 0).collect();
    assert!(!keys.contains(&CLAIMED), "a claim is left behind: {memory:?}");
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len(), "two slots of one source: {memory:?}");
    for (at, caller) in callers.iter().enumerate() {
        let sent = |one: &&Caller| one.key == caller.key;
        let admitted: u64 = callers.iter().filter(sent).map(|one| one.admitted).sum();
        assert_eq!(owed(memory, caller.key), before[at] + admitted, "source {}: {memory:?}", caller.key);
    }
}

/// Slots of others that owe.
const OTHERS: [u64; 6] = [101, NOW + 100, 102, NOW + 100, 103, NOW + 100];

fn with_others(first: [u64; 2]) -> RawBucket {
    let mut memory = [0; SLOTS * 2];
    memory[..2].copy_from_slice(&first);
    memory[2..].copy_from_slice(&OTHERS);
    memory
}

#[test]
fn two_events_of_a_new_source() {
    let outcomes = explore([0; 8], [Caller::new(7, 1), Caller::new(7, 1)]);
    assert!(outcomes.contains(&[1, 1]));
}

#[test]
fn more_events_of_one_source_than_its_burst() {
    let outcomes = explore([0; 8], [Caller::new(7, 2), Caller::new(7, 1)]);
    assert!(outcomes.contains(&[2, 0]) && outcomes.contains(&[1, 1]));
    assert!(outcomes.iter().all(|[first, second]| first + second <= 2), "{outcomes:?}");
}

#[test]
fn two_new_sources() {
    let outcomes = explore([0; 8], [Caller::new(7, 1), Caller::new(8, 1)]);
    assert!(outcomes.contains(&[1, 1]));
}

#[test]
fn a_source_that_comes_back_while_its_expired_slot_is_taken_over() {
    let outcomes = explore(with_others([7, NOW]), [Caller::new(7, 1), Caller::new(8, 1)]);
    assert!(outcomes.contains(&[1, 0]) && outcomes.contains(&[0, 1]), "{outcomes:?}");
    assert!(!outcomes.contains(&[1, 1]), "there is one slot only: {outcomes:?}");
}

#[test]
fn two_new_sources_and_one_slot() {
    let outcomes = explore(with_others([6, NOW - 50]), [Caller::new(7, 1), Caller::new(8, 1)]);
    assert!(outcomes.contains(&[1, 0]) && outcomes.contains(&[0, 1]), "{outcomes:?}");
    assert!(!outcomes.contains(&[1, 1]), "{outcomes:?}");
}

#[test]
fn a_source_with_debt_and_a_new_one() {
    let outcomes = explore(with_others([7, NOW + 100]), [Caller::new(7, 2), Caller::new(8, 1)]);
    assert_eq!(outcomes, HashSet::from([[1, 0]]));
}
