//! What follows from a configuration: allowances of its own, marks, and which bans are exact; and how a change reaches the
//! projection. Called by the ledger's other parts.

use std::collections::BTreeSet;

use super::{Actions, Ledger, Projection, Settings, Truth};
use crate::{bans::record::Allowance, clock::KernelTime, config::Mark, prefix::Prefix};

impl Ledger {
    pub(super) fn reconfigure(&mut self, now: KernelTime, settings: Settings, actions: &mut Actions) {
        let mut changed = Vec::new();
        for (prefix, allowance) in self.allowances.iter() {
            if allowance.configured && !settings.allow.contains(prefix) {
                changed.push(*prefix);
            }
        }
        for prefix in &changed {
            if let Some(allowance) = self.allowances.get_mut(prefix) {
                allowance.configured = false;
                if allowance.operator.is_none() {
                    self.allowances.remove(prefix);
                }
            }
        }
        for prefix in &settings.allow {
            if let Some(allowance) = self.allowances.get_mut(prefix) {
                allowance.configured = true;
            } else {
                self.allowances.insert(*prefix, Allowance { configured: true, operator: None, since: now });
                changed.push(*prefix);
            }
        }
        let units_changed = settings.ipv6_prefix != self.settings.ipv6_prefix;
        self.settings = settings;
        changed.extend(self.mark_all());
        if units_changed {
            // Which bans are exact depends on it, and so does whom a score belongs to.
            self.scores.clear();
            self.projection.clear(&mut actions.writes);
            self.wide = self.bans.iter().filter(|(prefix, _)| self.is_wide(prefix)).count();
            changed = self.allowances.iter().map(|(prefix, _)| *prefix).collect();
            changed.extend(self.bans.iter().map(|(prefix, _)| *prefix));
            changed.extend(self.marks.iter().map(|(prefix, _)| *prefix));
        }
        for prefix in changed {
            self.refresh(&prefix, actions);
        }
    }

    /// Brings the mark of a prefix up to what is said of it now.
    pub(super) fn remark(&mut self, prefix: Prefix, actions: &mut Actions) {
        if self.mark(prefix) {
            self.refresh(&prefix, actions);
        }
    }

    /// Brings every mark up to what settings and operators say, and answers which of them have changed.
    pub(super) fn mark_all(&mut self) -> Vec<Prefix> {
        let known = self.marks.iter().map(|(prefix, _)| *prefix);
        let said = self.settings.marks.keys().chain(self.tiers.keys()).copied();
        let all: BTreeSet<Prefix> = known.chain(said).collect();
        all.into_iter().filter(|prefix| self.mark(*prefix)).collect()
    }

    /// Makes a mark what settings and operators say; whether it has changed.
    fn mark(&mut self, prefix: Prefix) -> bool {
        let configured = self.settings.marks.get(&prefix).copied();
        let tier = self.tiers.get(&prefix).and_then(|tiered| self.tier_number(tiered.tier.as_str()));
        let mark = match tier {
            Some(_) => Some(Mark { tier, ..configured.unwrap_or_default() }),
            None => configured,
        };
        let before = match mark {
            Some(mark) => self.marks.insert(prefix, mark),
            None => self.marks.remove(&prefix),
        };
        before != mark
    }

    /// The projection, and what it is made from.
    pub(super) const fn projection(&mut self) -> (&mut Projection, Truth<'_>) {
        let truth = Truth {
            bans: &self.bans,
            allowances: &self.allowances,
            marks: &self.marks,
            v6_length: self.settings.ipv6_prefix,
        };
        (&mut self.projection, truth)
    }

    /// Notes what the kernel's tables need after something about `prefix` has changed.
    pub(super) fn refresh(&mut self, prefix: &Prefix, actions: &mut Actions) {
        let (projection, truth) = self.projection();
        projection.refresh(prefix, truth, &mut actions.writes);
    }
}
