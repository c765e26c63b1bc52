//! How many may speak to the daemon at once, so that nobody who may use the socket can keep an operator out.
//!
//! The server takes a place for every connection. Root and the daemon's own user always find some: others get fewer in
//! all, and fewer still each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections at once: operators and a few scripts.
const PLACES: usize = 16;

/// Of these, kept for root and the daemon's own user.
const RESERVED: usize = 4;

/// What one other user may have.
const PER_USER: usize = 4;

/// While fewer are free, idle connections are ended soon.
const SCARCE: usize = 4;

/// The places, and who has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Vec<Holder>>>);

/// Who has a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) uid: u32,
    /// Root, or the daemon's own user.
    pub(super) own: bool,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    holder: Holder,
}

impl Places {
    /// A place for `holder`, if there is one.
    pub(super) fn take(&self, holder: Holder) -> Option<Place> {
        let mut held = self.held();
        if free(&held, holder) == 0 {
            return None;
        }
        held.push(holder);
        drop(held);
        Some(Place { places: self.clone(), holder })
    }

    fn held(&self) -> MutexGuard<'_, Vec<Holder>> {
        // Nothing panics while it is locked, and a list of numbers is never half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether the next one like its holder finds none, or somebody could soon.
    pub(super) fn is_scarce(&self) -> bool {
        let held = self.places.held();
        PLACES.saturating_sub(held.len()) < SCARCE || free(&held, self.holder) == 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        if let Some(position) = held.iter().position(|one| *one == self.holder) {
            held.swap_remove(position);
        }
    }
}

/// Places that are left for `holder`.
fn free(held: &[Holder], holder: Holder) -> usize {
    let left = PLACES.saturating_sub(held.len());
    if holder.own {
        return left;
    }
    let others = held.iter().filter(|one| !one.own).count();
    let same = held.iter().filter(|one| **one == holder).count();
    left.min((PLACES - RESERVED).saturating_sub(others)).min(PER_USER.saturating_sub(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places_and_root_always_finds_one() {
        let places = Places::default();
        let (user, root) = (|uid| Holder { uid, own: false }, Holder { uid: 0, own: true });
        assert!(!places.take(user(1000)).unwrap().is_scarce());
        let mut held: Vec<Place> = (0..4).map(|_| places.take(user(1000)).unwrap()).collect();
        assert!(places.take(user(1000)).is_none(), "a fifth of one user");
        assert!(held[0].is_scarce());
        held.extend((0..8).map(|n| places.take(user(1001 + n / 4)).unwrap()));
        assert!(places.take(user(2000)).is_none(), "the rest is reserved");
        let own: Vec<Place> = (0..4).map(|_| places.take(root).unwrap()).collect();
        assert!(places.take(root).is_none());
        drop(held);
        assert!(!own[0].is_scarce());
        assert!(places.take(user(1000)).is_some());
    }
}
