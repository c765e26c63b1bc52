//! Which interface is counted in which slot, see [`Settings::slot`](enforcer_common::settings::Settings::slot).
//!
//! `plane` assigns the slots at the start. Counters outlive the daemon, so an interface keeps the slot that it had, wherever the
//! configuration names it now; whoever gets a slot of another one begins at 0.

use enforcer_common::settings::{INTERFACES, SHARED_SLOT};

/// Interfaces by their slots; the one that is shared is nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots([Option<String>; SHARED_SLOT as usize]);

impl Slots {
    /// Slots for interfaces by name and index. `before` says which indices were counted where; 0 is none.
    pub(super) fn assign(before: &[u32; INTERFACES], interfaces: &[(String, u32)]) -> Self {
        let mut slots: [Option<String>; SHARED_SLOT as usize] = Default::default();
        let mut others = Vec::new();
        for (name, index) in interfaces {
            let had = before.iter().zip(&mut slots).find(|(old, _)| **old == *index && *index != 0);
            match had {
                Some((_, slot)) => *slot = Some(name.clone()),
                None => others.push(name),
            }
        }
        for (slot, name) in slots.iter_mut().filter(|slot| slot.is_none()).zip(others) {
            *slot = Some(name.clone());
        }
        Self(slots)
    }

    /// The slots that have an owner.
    pub(super) fn taken(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..).zip(&self.0).filter_map(|(slot, name)| Some((slot, name.as_deref()?)))
    }

    /// What the program is to know, if interfaces have these indices now.
    pub(super) fn numbers(&self, interfaces: &[(String, u32)]) -> [u32; INTERFACES] {
        let index =
            |name: &str| interfaces.iter().find(|(other, _)| other == name).map_or(0, |(_, index)| *index);
        let mut numbers = [0; INTERFACES];
        for (slot, name) in self.taken() {
            numbers[slot as usize] = index(name);
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(interfaces: &[(&str, u32)]) -> Vec<(String, u32)> {
        interfaces.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect()
    }

    #[test]
    fn an_interface_keeps_its_slot_and_a_new_one_gets_one_that_is_free() {
        let first = named(&[("a", 3), ("b", 4), ("c", 5)]);
        let fresh = Slots::assign(&[0; INTERFACES], &first);
        assert_eq!(fresh.taken().collect::<Vec<_>>(), [(0, "a"), (1, "b"), (2, "c")]);
        let before = fresh.numbers(&first);
        assert_eq!(before, [3, 4, 5, 0, 0, 0, 0, 0]);

        let next = named(&[("d", 9), ("c", 5), ("a", 3), ("gone", 0)]);
        let slots = Slots::assign(&before, &next);
        assert_eq!(slots.taken().collect::<Vec<_>>(), [(0, "a"), (1, "d"), (2, "c"), (3, "gone")]);
        assert_eq!(slots.numbers(&next), [3, 9, 5, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn those_for_whom_there_is_none_are_counted_together() {
        let many: Vec<(String, u32)> = (1..=9).map(|n| (format!("i{n}"), n)).collect();
        let slots = Slots::assign(&[0; INTERFACES], &many);
        assert_eq!(slots.taken().count(), SHARED_SLOT as usize);
        assert_eq!(slots.numbers(&many), [1, 2, 3, 4, 5, 6, 7, 0]);
    }
}
