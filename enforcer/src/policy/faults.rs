//! What cannot be read of the files behind a policy, and what stands in for it.
//!
//! An operator who asks for a reload gets all of it or an error. Files that change by themselves are no fault of each other: where one
//! is bad, what was read of it before goes on, and everything else is taken over.

use anyhow::{Context as _, Error, Result};

/// Decides about what cannot be read, and collects it.
#[derive(Debug)]
pub(super) struct Faults {
    forgiven: bool,
    found: Vec<Error>,
}

impl Faults {
    /// Whatever is bad ends it.
    pub(super) const fn fatal() -> Self {
        Self { forgiven: false, found: Vec::new() }
    }

    /// What is bad is collected as long as there is something that can stand in for it.
    pub(super) const fn forgiven() -> Self {
        Self { forgiven: true, found: Vec::new() }
    }

    /// What was read, or `kept` in its place.
    pub(super) fn or_kept<T>(&mut self, read: Result<T>, kept: Option<T>) -> Result<T> {
        match (read, kept.filter(|_| self.forgiven)) {
            (Err(error), Some(kept)) => {
                self.found.push(error);
                Ok(kept)
            }
            (read, _) => read,
        }
    }

    /// Says of all that is bad in what is read meanwhile where it is.
    pub(super) fn at<T>(
        &mut self,
        place: impl Fn() -> String,
        read: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let before = self.found.len();
        let read = read(self);
        for error in self.found.split_off(before) {
            self.found.push(error.context(place()));
        }
        read.with_context(place)
    }

    /// All that is bad.
    pub(super) fn found(self) -> Vec<Error> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn what_is_bad_is_fatal_unless_something_stands_in_for_it() {
        let bad = || Err::<u8, _>(anyhow!("bad"));
        assert!(Faults::fatal().or_kept(bad(), Some(1)).is_err());
        let mut faults = Faults::forgiven();
        assert!(faults.or_kept(bad(), None).is_err(), "there is nothing");
        assert_eq!(faults.at(|| "here".to_owned(), |faults| faults.or_kept(bad(), Some(1))).unwrap(), 1);
        assert_eq!(faults.or_kept(Ok(2), Some(1)).unwrap(), 2);
        let found: Vec<String> = faults.found().iter().map(|error| format!("{error:#}")).collect();
        assert_eq!(found, ["here: bad"]);
    }
}
