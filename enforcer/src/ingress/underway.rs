//! The requests of one connection that are not fully answered, and since when each of them offers its client something.
//!
//! `connection` asks it which answers nobody takes. Each has a time of its own: what is taken of one says nothing of another.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use tokio::task::{self, AbortHandle};

/// Places that are kept while nothing is under way.
const KEPT: usize = 4;

/// See the module.
#[derive(Default)]
pub(super) struct Underway {
    places: RefCell<Vec<Place>>,
    count: Cell<u32>,
    /// Tasks whose requests have not begun yet.
    spawned: RefCell<Vec<AbortHandle>>,
}

#[derive(Default)]
struct Place {
    taken: bool,
    /// Since when a piece of its answer waits for the client.
    since: Option<Instant>,
    /// Ends this request and nothing else; `None` where a connection carries one at a time.
    task: Option<AbortHandle>,
    was_reset: bool,
}

impl Underway {
    /// A request will begin in this task.
    pub(super) fn spawned(&self, task: AbortHandle) {
        self.spawned.borrow_mut().push(task);
    }

    /// A request begins, in its own task if it has one; its place.
    pub(super) fn begin(&self) -> usize {
        let mut spawned = self.spawned.borrow_mut();
        let own = if spawned.is_empty() { None } else { task::try_id() };
        let own = own.and_then(|own| spawned.iter().position(|task| task.id() == own));
        let task = own.map(|own| spawned.swap_remove(own));
        if spawned.is_empty() && spawned.capacity() > KEPT {
            spawned.shrink_to(0);
        }
        self.count.set(self.count.get() + 1);
        let place = Place { taken: true, since: None, task, was_reset: false };
        let mut places = self.places.borrow_mut();
        match places.iter().position(|place| !place.taken) {
            Some(free) => {
                if let Some(slot) = places.get_mut(free) {
                    *slot = place;
                }
                free
            }
            None => {
                places.push(place);
                places.len() - 1
            }
        }
    }

    /// Since when a piece of a request's answer waits for the client; `None`: none does.
    pub(super) fn offers(&self, place: usize, since: Option<Instant>) {
        if let Some(place) = self.places.borrow_mut().get_mut(place) {
            place.since = since;
        }
    }

    /// A request is over; whether by itself.
    pub(super) fn end(&self, place: usize) -> bool {
        self.count.set(self.count.get().saturating_sub(1));
        let mut places = self.places.borrow_mut();
        let over = places.get_mut(place).map(std::mem::take);
        if self.count.get() == 0 {
            places.clear();
            if places.capacity() > KEPT {
                places.shrink_to(0);
            }
        }
        over.is_none_or(|place| !place.was_reset)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// Since when the oldest piece waits.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        self.places.borrow().iter().filter_map(|place| place.since).min()
    }

    /// Ends the requests of whose answers nothing was taken for so long, whose streams are reset by that (RFC 9113 section 5.4.2);
    /// how many there were. Those that cannot be ended by themselves are left.
    pub(super) fn reset_unread(&self, now: Instant, patience: Duration) -> usize {
        let mut places = self.places.borrow_mut();
        let late = |place: &&mut Place| place.since.is_some_and(|since| since + patience <= now);
        let mut reset = 0;
        for place in places.iter_mut().filter(late) {
            if let Some(task) = place.task.take() {
                task.abort();
                (place.since, place.was_reset) = (None, true);
                reset += 1;
            }
        }
        reset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn each_answer_has_a_time_of_its_own() {
        let start = clock::instant_now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let under_way = Underway::default();
        assert!(under_way.is_empty() && under_way.unread_since().is_none());
        let (first, second) = (under_way.begin(), under_way.begin());
        under_way.offers(first, Some(at(1)));
        under_way.offers(second, Some(at(2)));
        under_way.offers(second, Some(at(9)));
        assert_eq!(under_way.unread_since(), Some(at(1)));
        under_way.offers(first, None);
        assert_eq!(under_way.unread_since(), Some(at(9)));
        assert!(under_way.end(first));
        assert_eq!(under_way.begin(), first, "places are used again");
        assert!(under_way.end(second));
        assert!(under_way.unread_since().is_none() && !under_way.is_empty());
        // Nothing here runs in a task of its own.
        under_way.offers(first, Some(at(1)));
        assert_eq!(under_way.reset_unread(at(100), Duration::from_secs(1)), 0);
        assert!(under_way.end(first));
        assert!(under_way.is_empty() && under_way.unread_since().is_none());
    }
}
