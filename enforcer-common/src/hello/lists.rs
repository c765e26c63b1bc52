//! What is listed of ClientHellos: names and fingerprints by their hashes, in one map that the daemon writes.
//!
//! Called by the step that compares a hello which has been read to its end. A name is exact, or stands for every name below it.

use super::marks::{LABELS, Marks};
use crate::{packet::Packet, reason::DropReason};

/// What is known of a hash: bits of the map's value.
pub mod entry {
    /// This very name is refused.
    pub const REFUSED: u32 = 1 << 0;
    /// Every name below it is.
    pub const REFUSED_BELOW: u32 = 1 << 1;
    /// This very name is served, where only such are.
    pub const SERVED: u32 = 1 << 2;
    /// Every name below it is.
    pub const SERVED_BELOW: u32 = 1 << 3;
    /// The hash is a fingerprint, which is refused.
    pub const FINGERPRINT: u32 = 1 << 4;

    /// Those of exact names; those of names below them are one to the left of each.
    pub(super) const EXACT: u32 = REFUSED | SERVED;
}

/// Hashes in the map at most: what a configuration lists, twice, since a reload writes the new ones before it takes off the old ones.
pub const ENTRIES: usize = 8_192;

/// What is listed of a name, as if it were listed itself: bits of [`entry`]. `packet` is the one that the hello has ended in.
#[inline(always)]
pub fn of_name<P: Packet>(packet: &P, marks: &Marks, look: impl Fn(u64) -> u32) -> u32 {
    let mut found = 0;
    let mut suffix = marks.root();
    let mut taken = 0;
    while taken < LABELS as u32 {
        if taken >= marks.labels() {
            break;
        }
        suffix = marks.wider(suffix, taken);
        taken += 1;
        let listed = look(suffix);
        found |= if taken == marks.labels() { listed } else { listed >> 1 } & entry::EXACT;
        found = packet.forget(found as usize) as u32;
    }
    found
}

/// Whether the fingerprint is listed. Names and fingerprints share the map: bits tell them apart, should hashes meet.
#[inline(always)]
pub fn of_fingerprint(marks: &Marks, look: impl Fn(u64) -> u32) -> bool {
    look(marks.fingerprint()) & entry::FINGERPRINT != 0
}

/// What a name is refused for, if it is. `only`: whatever is not listed as served is refused.
#[inline(always)]
pub const fn refusal(found: u32, only: bool) -> Option<DropReason> {
    if found & entry::REFUSED != 0 {
        Some(DropReason::HelloName)
    } else if only && found & entry::SERVED == 0 {
        Some(DropReason::HelloUnlisted)
    } else {
        None
    }
}
