//! Every order in which the accesses of two charges, or of a charge and a change of a ban, can follow each other, and what must
//! hold after each.
//!
//! What is done is a function of what its accesses answered. So it is moved on by one access by running it again on the answers so
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

/// What is done to a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Deed {
    Charge,
    /// [`charge_known`], and a charge if that does not say.
    Look,
    Ban,
    Lift,
}

impl Deed {
    /// Whether it charges.
    fn charges(self) -> bool {
        matches!(self, Self::Charge | Self::Look)
    }
}

/// Deeds to a source, done one after the other, and the answers that they got.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Caller {
    key: u64,
    deed: Deed,
    events: usize,
    admitted: u64,
    /// The source's ban was there when the deed began.
    late: bool,
    answers: Vec<Result<u64, u64>>,
}

const NOW: u64 = 1_000_000;
const RATE: Rate = Rate { increment: 100, tolerance: 200 };
/// The end of bans.
const UNTIL: u64 = NOW + 5_000;

impl Caller {
    fn new(key: u64, events: usize) -> Self {
        Self::doing(Deed::Charge, key, events)
    }

    fn doing(deed: Deed, key: u64, events: usize) -> Self {
        Self { key, deed, events, admitted: 0, late: false, answers: Vec::new() }
    }

    /// Whether it has banned its source.
    fn has_banned(&self) -> bool {
        self.deed == Deed::Ban && self.admitted > 0
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
            assert!(!self.late || charge == Charge::Banned(UNTIL), "charged after the ban: {charge:?}");
            self.answers.clear();
        }
    }

    fn run(&self) -> (Charge, Option<Access>) {
        let replay = Replay { answers: &self.answers, used: Cell::new(0), next: RefCell::new(None) };
        let done = match self.deed {
            Deed::Charge => charge(&replay, self.key, NOW, RATE),
            Deed::Look => match charge_known(&replay, self.key, RATE, || NOW, || false) {
                Known::Within => Charge::Within,
                Known::Banned => Charge::Banned(UNTIL),
                Known::Exceeded => Charge::Exceeded(RATE.increment),
                Known::New | Known::Other => charge(&replay, self.key, NOW, RATE),
            },
            Deed::Ban if debt::ban(&replay, self.key, UNTIL, NOW) => Charge::Within,
            Deed::Ban => Charge::Full,
            Deed::Lift => {
                debt::lift(&replay, self.key, NOW);
                Charge::Within
            }
        };
        (done, replay.next.into_inner())
    }
}

/// What a source owes, in events, over all slots that are its own.
fn owed(memory: &RawBucket, key: u64) -> u64 {
    let own = memory.chunks_exact(2).filter(|slot| slot[0] == key && slot[1] & BAN == 0);
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
            let other = &callers[1 - at];
            if callers[at].answers.is_empty() && callers[at].deed.charges() {
                callers[at].late = other.has_banned() && other.key == callers[at].key;
            }
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
        let banned = memory.chunks_exact(2).any(|slot| slot == [caller.key, BAN | UNTIL]);
        if caller.has_banned() {
            assert!(banned, "the ban of {} is lost: {memory:?}", caller.key);
        }
        if banned || !caller.deed.charges() {
            continue;
        }
        let sent = |one: &&Caller| one.key == caller.key && one.deed.charges();
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

#[test]
fn a_first_look_beside_whatever_else_is_done() {
    let look = |key, events| Caller::doing(Deed::Look, key, events);
    for memory in [[0; 8], with_others([7, NOW]), with_others([7, NOW + 100]), with_others([7, BAN | UNTIL])]
    {
        let outcomes = explore(memory, [look(7, 2), look(7, 1)]);
        assert!(outcomes.iter().all(|[first, second]| first + second <= 2), "{outcomes:?}");
        explore(memory, [look(7, 2), Caller::new(7, 1)]);
        explore(memory, [look(7, 2), Caller::new(8, 1)]);
        explore(memory, [look(7, 2), Caller::doing(Deed::Ban, 7, 1)]);
        explore(memory, [look(7, 2), Caller::doing(Deed::Lift, 7, 1)]);
    }
}

#[test]
fn a_ban_of_a_new_source_that_sends() {
    let outcomes = explore([0; 8], [Caller::new(7, 2), Caller::doing(Deed::Ban, 7, 1)]);
    assert!(outcomes.contains(&[0, 1]) && outcomes.contains(&[2, 1]), "{outcomes:?}");
    // The ban that meets a claim at every attempt goes into the map for those that spill over.
    assert!(outcomes.contains(&[2, 0]), "{outcomes:?}");
}

#[test]
fn a_ban_of_a_source_that_owes_and_sends() {
    let outcomes = explore(with_others([7, NOW + 100]), [Caller::new(7, 2), Caller::doing(Deed::Ban, 7, 1)]);
    assert_eq!(outcomes, HashSet::from([[0, 1], [1, 1]]));
}

#[test]
fn a_ban_of_a_source_whose_expired_slot_is_taken_over() {
    let outcomes = explore(with_others([7, NOW]), [Caller::new(8, 1), Caller::doing(Deed::Ban, 7, 1)]);
    // Whoever comes first has the slot; for the other there is none.
    assert_eq!(outcomes, HashSet::from([[1, 0], [0, 1]]));
}

#[test]
fn a_ban_and_another_new_source_and_one_slot() {
    let outcomes = explore(with_others([6, NOW - 50]), [Caller::new(8, 1), Caller::doing(Deed::Ban, 7, 1)]);
    assert!(outcomes.contains(&[1, 0]) && outcomes.contains(&[0, 1]), "{outcomes:?}");
    assert!(!outcomes.contains(&[1, 1]), "{outcomes:?}");
}

#[test]
fn a_ban_that_is_lifted_while_its_source_and_another_send() {
    for key in [7, 8] {
        let memory = with_others([7, BAN | UNTIL]);
        let outcomes = explore(memory, [Caller::new(key, 1), Caller::doing(Deed::Lift, 7, 1)]);
        assert_eq!(outcomes, HashSet::from([[0, 1], [1, 1]]), "source {key}");
    }
}

#[test]
fn a_ban_that_has_ended_is_charged_like_any_other_slot() {
    let memory = with_others([7, BAN | (NOW - 1)]);
    assert_eq!(explore(memory, [Caller::new(7, 1), Caller::new(7, 1)]), HashSet::from([[1, 1]]));
    let outcomes = explore(memory, [Caller::new(7, 1), Caller::new(8, 1)]);
    assert!(outcomes.contains(&[1, 0]) && outcomes.contains(&[0, 1]), "{outcomes:?}");
}

#[test]
fn bans_leave_a_slot_for_limits_and_are_not_evicted() {
    let mut memory = [0; 8];
    for (slot, pair) in memory.chunks_exact_mut(2).take(3).enumerate() {
        pair.copy_from_slice(&[20 + slot as u64, BAN | UNTIL]);
    }
    let outcomes = explore(memory, [Caller::doing(Deed::Ban, 7, 1), Caller::new(8, 1)]);
    assert_eq!(outcomes, HashSet::from([[0, 1]]));
    // A source that has the fourth slot keeps it as it is.
    memory[6..].copy_from_slice(&[7, NOW + 100]);
    assert_eq!(explore(memory, [Caller::doing(Deed::Ban, 7, 1), Caller::new(7, 1)]), HashSet::from([[0, 1]]));
}
