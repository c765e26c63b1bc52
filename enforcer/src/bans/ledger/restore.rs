//! How the ledger begins: with what was remembered, and with what the kernel's lists hold already.
//!
//! What was remembered is the truth. A ban that only the kernel knows of is kept, for it was made when there was no time
//! left to write it down, or the memory is lost; an allowance that only the kernel knows of is not.

use std::collections::HashSet;

use enforcer_common::ban::{Listing, class};

use super::{Actions, Ledger, Save, Settings};
use crate::{
    bans::{
        memory::Memory,
        projection::{Place, Places},
        record::{Allowance, Ban, Cause},
    },
    clock::KernelTime,
    kernel::{Held, program::PREFIX_BANS},
    prefix::Prefix,
};

/// What a beginning is made from.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The configuration in force.
    pub settings: Settings,
    /// What was remembered.
    pub memory: Memory,
    /// Whether all of it must be written again.
    pub stale: bool,
    /// What the lists of an earlier daemon hold.
    pub held: Held,
    /// Whether those lists are the ones that will be written; otherwise they are empty.
    pub live: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Bans that were remembered and still hold.
    pub bans: usize,
    /// Bans that only the kernel knew of.
    pub kept: usize,
    /// Operators' allowances that were remembered.
    pub allowances: usize,
    /// Bans for which there is no room any more: those that would have ended first.
    pub dropped: usize,
}

impl Ledger {
    /// For a ledger that holds nothing yet.
    pub(super) fn restore(&mut self, now: KernelTime, restore: Restore, actions: &mut Actions) -> Restored {
        let Restore { settings, memory, stale, held, live } = restore;
        let mut restored = Restored::default();
        self.settings = settings;
        for prefix in &self.settings.allow {
            self.allowances.insert(*prefix, Allowance { configured: true, operator: None, since: now });
        }
        for (prefix, allowed) in memory.allowances {
            let configured = self.allowances.get(&prefix).is_some();
            if stale {
                actions.saves.push(Save::Allowance(prefix, Some(allowed.clone())));
            }
            let operator = Some(allowed.reason);
            self.allowances.insert(prefix, Allowance { configured, operator, since: allowed.since });
            restored.allowances += 1;
        }
        for (prefix, tiered) in memory.tiers {
            if stale {
                actions.saves.push(Save::Tier(prefix, Some(tiered.clone())));
            }
            self.tiers.insert(prefix, tiered);
        }
        for (source, history) in memory.histories {
            self.scores.recall(now, source, history);
            if stale && let Some(history) = self.scores.history(&source) {
                actions.saves.push(Save::History(source, Some(history)));
            }
        }
        let remembered: HashSet<Prefix> = memory.bans.iter().map(|ban| ban.prefix).collect();
        let kept = known_to_the_kernel(&held, now).filter(|ban| !remembered.contains(&ban.prefix));
        let kept: Vec<Ban> = kept.collect();
        let mut bans = memory.bans;
        bans.extend(kept.iter().cloned());
        // The longest first: where room has shrunk, those go that would have ended soonest.
        // Of those that end together the widest first: what only the kernel knows is found inside it.
        bans.sort_by_key(|ban| (std::cmp::Reverse(ban.until), ban.prefix.net().prefix_len()));
        // The projection is made for all of them at once.
        let mut writes = Actions::default();
        for ban in bans {
            let prefix = ban.prefix;
            let room = self.has_room() && (!self.is_wide(&prefix) || self.wide < PREFIX_BANS as usize);
            if ban.until <= now || !room {
                restored.dropped += usize::from(ban.until > now);
                actions.saves.push(Save::Ban(prefix, None));
                continue;
            }
            let known = remembered.contains(&prefix);
            // The kernel's tables tell of a source the latest end of all bans that cover it. That end is the wider ban's own, and
            // lifting that one must not leave it behind.
            if !known && self.bans.covering(&prefix).any(|(_, wider)| wider.until == ban.until) {
                continue;
            }
            restored.bans += usize::from(known);
            restored.kept += usize::from(!known);
            if stale || !known {
                actions.saves.push(Save::Ban(prefix, Some(ban.clone())));
            }
            self.keep_ban(ban, &mut writes);
        }
        let length = self.settings.ipv6_prefix;
        let found = if live { places(&held, length) } else { Places::default() };
        self.mark_all();
        let (projection, truth) = self.projection();
        projection.rebuild(found, truth, &mut actions.writes);
        restored
    }
}

/// The bans that hold by the kernel's lists.
fn known_to_the_kernel(held: &Held, now: KernelTime) -> impl Iterator<Item = Ban> {
    let sources = held.sources.iter().map(|(prefix, ban)| (*prefix, ban.until));
    let prefixes = held.prefixes.iter().filter(|(_, listing)| listing.class == class::BAN);
    let all = sources.chain(prefixes.map(|(prefix, listing)| (*prefix, listing.until)));
    all.filter(move |(_, until)| now.0 < *until).map(move |(prefix, until)| Ban {
        prefix,
        cause: Cause::Kept,
        since: now,
        until: KernelTime(until),
        offences: 0,
    })
}

/// The places in the lists that are taken.
fn places(held: &Held, v6_length: u8) -> Places {
    let sources = held.sources.iter().filter_map(|(prefix, ban)| {
        Some((Place::Source(prefix.source_key(v6_length)?), Listing::banned(ban.until)))
    });
    let prefixes = held.prefixes.iter().map(|(prefix, listing)| (Place::Prefix(*prefix), *listing));
    sources.chain(prefixes).collect()
}
