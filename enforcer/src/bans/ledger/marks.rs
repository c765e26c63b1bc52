//! Which prefixes are marked, and with what: the configuration's tiers and doors. The ledger asks for it when that changes.

use super::{Ledger, Projection, Truth};
use crate::prefix::Prefix;

impl Ledger {
    /// Makes the marks what the settings say, and answers which of them have changed.
    pub(super) fn mark(&mut self) -> Vec<Prefix> {
        let wanted = &self.settings.marks;
        let gone = self.marks.iter().map(|(prefix, _)| *prefix).filter(|prefix| !wanted.contains_key(prefix));
        let mut changed: Vec<Prefix> = gone.collect();
        for prefix in &changed {
            self.marks.remove(prefix);
        }
        for (prefix, mark) in wanted {
            if self.marks.insert(*prefix, *mark) != Some(*mark) {
                changed.push(*prefix);
            }
        }
        changed
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
}
