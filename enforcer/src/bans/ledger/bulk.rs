//! Many bans at once, as an imported blocklist has them: the rules for one ban, applied to each, and one account of it.
//!
//! The ledger calls it for [`Input::BanMany`](super::Input::BanMany) and [`Input::BanDelMany`](super::Input::BanDelMany).
//! The work is linear in the entries: the tables are compared once for all that come together, which of an import are some at a time.
//! An entry that is refused never keeps the others from being done.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::{Actions, Event, Ledger, Outcome, Refusal, Terms};
use crate::{
    bans::{
        memory::Save,
        record::{Ban, Cause, Text},
    },
    clock::KernelTime,
    prefix::Prefix,
};

/// Bans that end in one go and are still told one by one; of more than that only their number is told.
const TOLD_SINGLY: usize = 64;

/// Bans that are taken off at once when they end: the kernel has ended them already, and offences wait meanwhile.
const ENDED_AT_ONCE: usize = 16_384;

/// What came of many bans, or of many that were to be lifted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bans that began.
    pub banned: usize,
    /// Bans that replaced one on the same prefix.
    pub replaced: usize,
    /// Of both, those that have no effect while a prefix around them is allowed.
    pub shadowed: usize,
    /// Bans that were lifted.
    pub lifted: usize,
    /// Prefixes without a ban of their own that could have been lifted.
    pub not_banned: usize,
    /// Entries that were named before.
    pub repeated: usize,
    /// Entries that were refused, by kind.
    pub refused: Vec<Refused>,
}

/// Entries that were refused for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How many.
    pub count: usize,
    /// Which was the first.
    pub prefix: Prefix,
    /// Why that one was.
    pub refusal: Refusal,
}

impl Tally {
    fn refuse(&mut self, prefix: Prefix, refusal: Refusal) {
        let kind = refusal.kind();
        match self.refused.iter_mut().find(|refused| refused.refusal.kind() == kind) {
            Some(refused) => refused.count += 1,
            None => self.refused.push(Refused { count: 1, prefix, refusal }),
        }
    }

    /// How many were refused, for whatever reason.
    pub fn refusals(&self) -> usize {
        self.refused.iter().map(|refused| refused.count).sum()
    }

    /// Adds numbers of another part of the same import.
    pub(in crate::bans) fn add(&mut self, other: Self) {
        self.banned += other.banned;
        self.replaced += other.replaced;
        self.shadowed += other.shadowed;
        self.lifted += other.lifted;
        self.not_banned += other.not_banned;
        self.repeated += other.repeated;
        for refused in other.refused {
            let kind = refused.refusal.kind();
            match self.refused.iter_mut().find(|own| own.refusal.kind() == kind) {
                Some(own) => own.count += refused.count,
                None => self.refused.push(refused),
            }
        }
    }
}

/// Each of `prefixes` once, in their order, and how many were named again.
pub(in crate::bans) fn distinct(mut prefixes: Vec<Prefix>) -> (Vec<Prefix>, usize) {
    // As the command line sends them.
    if prefixes.is_sorted_by(|one, next| one < next) {
        return (prefixes, 0);
    }
    let named = prefixes.len();
    let mut seen = HashSet::with_capacity_and_hasher(named, RandomState::default());
    prefixes.retain(|prefix| seen.insert(*prefix));
    let repeated = named - prefixes.len();
    (prefixes, repeated)
}

impl Ledger {
    /// Bans each of `prefixes`.
    pub(super) fn ban_many(
        &mut self,
        now: KernelTime,
        prefixes: Vec<Prefix>,
        terms: &Terms,
        more: bool,
        actions: &mut Actions,
    ) -> Result<Outcome, Refusal> {
        let until = self.until(now, terms.end)?;
        let cause = Cause::Operator(Text::new(&terms.reason));
        let (prefixes, repeated) = distinct(prefixes);
        let mut tally = Tally { repeated, ..Tally::default() };
        let mut changed = Vec::with_capacity(prefixes.len());
        actions.saves.reserve(prefixes.len());
        for prefix in prefixes {
            if let Err(refusal) = self.admit(prefix, terms) {
                tally.refuse(prefix, refusal);
                continue;
            }
            let mut ban = Ban { prefix, cause: cause.clone(), since: now, until, offences: 0 };
            match self.place_ban(ban.clone()) {
                Some(old) => {
                    tally.replaced += 1;
                    ban.offences = old.offences;
                    if let Some(placed) = self.bans.get_mut(&prefix).filter(|_| old.offences > 0) {
                        placed.offences = old.offences;
                    }
                }
                None => tally.banned += 1,
            }
            actions.saves.push(Save::Ban(prefix, Some(ban)));
            tally.shadowed += usize::from(self.shadow(&prefix).is_some());
            changed.push(prefix);
        }
        self.refresh_many(changed, actions);
        actions.events.push(Event::Many { tally: tally.clone(), more });
        Ok(Outcome::Many(tally))
    }

    /// Lifts the bans of exactly these prefixes.
    pub(super) fn ban_del_many(&mut self, prefixes: &[Prefix], more: bool, actions: &mut Actions) -> Outcome {
        let mut tally = Tally::default();
        let mut changed = Vec::with_capacity(prefixes.len());
        for &prefix in prefixes {
            if self.take_ban(&prefix).is_none() {
                tally.not_banned += 1;
                continue;
            }
            self.scores.forget(&prefix);
            actions.saves.push(Save::Ban(prefix, None));
            tally.lifted += 1;
            changed.push(prefix);
        }
        self.refresh_many(changed, actions);
        actions.events.push(Event::Many { tally: tally.clone(), more });
        Outcome::Many(tally)
    }

    /// Takes off what has ended; of very many some are left for the next time.
    pub(super) fn expire(&mut self, now: KernelTime, actions: &mut Actions) {
        let mut ended = Vec::new();
        while let Some((until, prefix)) = self.ends.first().copied()
            && until <= now
            && ended.len() < ENDED_AT_ONCE
        {
            match self.take_ban(&prefix) {
                Some(ban) => ended.push(ban),
                None => debug_assert!(false, "an end without a ban: {prefix}"),
            }
            self.ends.remove(&(until, prefix));
        }
        if ended.is_empty() {
            return;
        }
        let prefixes: Vec<Prefix> = ended.iter().map(|ban| ban.prefix).collect();
        actions.saves.extend(prefixes.iter().map(|prefix| Save::Ban(*prefix, None)));
        self.refresh_many(prefixes, actions);
        if ended.len() > TOLD_SINGLY {
            actions.events.push(Event::EndedMany(ended.len()));
        } else {
            actions.events.extend(ended.into_iter().map(Event::Ended));
        }
    }

    fn refresh_many(&mut self, changed: Vec<Prefix>, actions: &mut Actions) {
        let (projection, truth) = self.projection();
        projection.refresh_many(changed, truth, &mut actions.writes);
    }
}
