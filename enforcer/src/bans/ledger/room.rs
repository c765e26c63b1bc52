//! For how many bans there is room, and how many of them offences may take. Asked by the ledger's other parts.

use super::Ledger;
use crate::bans::record::Origin;

impl Ledger {
    pub(super) fn has_room(&self) -> bool {
        self.bans.len() < self.settings.bans.max_entries as usize
    }

    /// Offences must not take the room that operators need to act against them.
    pub(super) fn has_room_for_offence(&self) -> bool {
        let most = self.settings.bans.max_entries as usize;
        self.has_room() && self.active(Origin::Offence) < most - reserve(most)
    }
}

/// Of `most` entries, those that offences leave to operators: a tenth and at least 1,000, but never more than half.
fn reserve(most: usize) -> usize {
    (most / 10).max(1_000).min(most / 2)
}
