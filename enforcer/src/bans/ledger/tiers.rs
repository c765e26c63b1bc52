//! What operators say of tiers: whose budgets are others than the configuration's, until that is taken back.
//!
//! An operator's word on a prefix is stronger than the configuration's on the same one. A tier that a reload takes away leaves
//! the word without effect, until a tier of that name exists again.

use super::{Actions, Ledger, Outcome, Refusal};
use crate::{
    bans::{
        memory::Save,
        record::{Text, Tiered},
    },
    clock::KernelTime,
    config::DEFAULT_TIER,
    kernel::program::OPERATOR_TIERS,
    prefix::Prefix,
};

/// A prefix in a tier: by the configuration, or by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierEntry {
    /// Whose.
    pub prefix: Prefix,
    /// Which.
    pub tier: String,
    /// The operator's word, if it is his.
    pub operator: Option<Tiered>,
    /// Whether it counts: the tier exists, and nobody has a stronger word on the same prefix.
    pub holds: bool,
}

impl Ledger {
    pub(super) fn tier_set(
        &mut self,
        now: KernelTime,
        prefix: Prefix,
        tier: &str,
        reason: &str,
        actions: &mut Actions,
    ) -> Result<Outcome, Refusal> {
        if self.tier_number(tier).is_none() {
            return Err(Refusal::NoTier(tier.to_owned(), self.settings.tiers.clone()));
        }
        let source = Prefix::of_source(prefix.net().addr(), self.settings.ipv6_prefix);
        if source != prefix && source.covers(&prefix) {
            return Err(Refusal::PartOfSource(prefix, source));
        }
        if !self.tiers.contains_key(&prefix) && self.tiers.len() >= OPERATOR_TIERS as usize {
            return Err(Refusal::FullTiers);
        }
        let tiered = Tiered { tier: Text::new(tier), reason: Text::new(reason), since: now };
        actions.saves.push(Save::Tier(prefix, Some(tiered.clone())));
        let replaced = self.tiers.insert(prefix, tiered).map(|old| old.tier);
        self.remark(prefix, actions);
        Ok(Outcome::TierSet { tier: tier.to_owned(), replaced, allowed_by: self.shadow(&prefix) })
    }

    pub(super) fn tier_del(&mut self, prefix: Prefix, actions: &mut Actions) -> Result<Outcome, Refusal> {
        if self.tiers.remove(&prefix).is_none() {
            return Err(Refusal::NotTiered(prefix));
        }
        actions.saves.push(Save::Tier(prefix, None));
        self.remark(prefix, actions);
        Ok(Outcome::TierDeleted { now: self.tier_name(self.tier_of(prefix)).to_owned() })
    }

    /// Everything that is said of tiers, in the order of addresses.
    pub fn tiers(&self) -> Vec<TierEntry> {
        let configured = self.settings.marks.iter().filter_map(|(prefix, mark)| {
            let tier = self.tier_name(mark.tier?).to_owned();
            let stronger =
                self.tiers.get(prefix).is_some_and(|other| self.tier_number(other.tier.as_str()).is_some());
            Some(TierEntry { prefix: *prefix, tier, operator: None, holds: !stronger })
        });
        let operators = self.tiers.iter().map(|(prefix, tiered)| TierEntry {
            prefix: *prefix,
            tier: tiered.tier.as_str().to_owned(),
            operator: Some(tiered.clone()),
            holds: self.tier_number(tiered.tier.as_str()).is_some(),
        });
        let mut entries: Vec<TierEntry> = configured.chain(operators).collect();
        entries.sort_by_key(|entry| entry.prefix);
        entries
    }

    /// The number of a tier; `None` if there is none of that name.
    pub(super) fn tier_number(&self, name: &str) -> Option<u8> {
        if name == DEFAULT_TIER {
            return Some(0);
        }
        (1..).zip(&self.settings.tiers).find(|(_, other)| *other == name).map(|(number, _)| number)
    }

    fn tier_name(&self, number: u8) -> &str {
        let named = usize::from(number).checked_sub(1).and_then(|at| self.settings.tiers.get(at));
        named.map_or(DEFAULT_TIER, String::as_str)
    }

    /// The tier of all of a prefix.
    fn tier_of(&self, prefix: Prefix) -> u8 {
        self.marks.covering(&prefix).find_map(|(_, mark)| mark.tier).unwrap_or_default()
    }
}
