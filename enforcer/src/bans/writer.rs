//! Carries out what the ledger says in the kernel's lists, and keeps what they refuse for another try.
//!
//! The ban task owns the only one.

use std::collections::BTreeMap;

use anyhow::Result;
use enforcer_common::ban::{Ban, Listing, class};

use super::projection::{Place, Write};
use crate::{kernel::SourceLists, metrics::Metrics};

/// The kernel's lists, and what they do not show yet.
pub(super) struct Writer {
    lists: Box<dyn SourceLists>,
    pending: BTreeMap<Place, Option<Listing>>,
    metrics: Metrics,
}

impl Writer {
    /// Over lists that show everything so far.
    pub(super) const fn new(lists: Box<dyn SourceLists>, metrics: Metrics) -> Self {
        Self { lists, pending: BTreeMap::new(), metrics }
    }

    /// Changes that the kernel has refused so far.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Tries what was refused again, allowances first. `None`: nothing was; else the first error, if there still is one.
    pub(super) fn again(&mut self) -> Option<Option<String>> {
        if self.pending.is_empty() {
            return None;
        }
        let pending = std::mem::take(&mut self.pending);
        let mut writes: Vec<Write> =
            pending.into_iter().map(|(place, listing)| Write { place, listing }).collect();
        writes.sort_by_key(|write| write.listing != Some(Listing::ALLOWED));
        Some(self.write(writes))
    }

    /// Carries out `writes`; what fails stays pending. Returns the first error.
    pub(super) fn write(&mut self, writes: Vec<Write>) -> Option<String> {
        let mut first = None;
        let mut bans = Vec::with_capacity(writes.len());
        // Single sources come last, all at once: allowances are in place by then.
        for write in writes {
            match (write.place, write.listing) {
                (Place::Source(key), Some(listing)) => bans.push((key, Ban { until: listing.until })),
                _ => self.write_one(write, &mut first),
            }
        }
        if self.lists.ban_many(&bans).is_ok() {
            if !self.pending.is_empty() {
                for (key, _) in &bans {
                    self.pending.remove(&Place::Source(*key));
                }
            }
        } else {
            // Some may be done, which does not hurt; each by itself tells which cannot be.
            for (key, ban) in bans {
                let listing = Some(Listing::banned(ban.until));
                self.write_one(Write { place: Place::Source(key), listing }, &mut first);
            }
        }
        self.metrics.kernel_writes_pending.set(i64::try_from(self.pending.len()).unwrap_or(i64::MAX));
        first
    }

    fn write_one(&mut self, write: Write, first: &mut Option<String>) {
        match carry_out(self.lists.as_mut(), write) {
            Ok(()) => {
                self.pending.remove(&write.place);
            }
            Err(error) => {
                self.metrics.kernel_write_errors.inc();
                self.pending.insert(write.place, write.listing);
                first.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// The lists themselves say in their errors whom it was about.
fn carry_out(lists: &mut dyn SourceLists, write: Write) -> Result<()> {
    match (write.place, write.listing) {
        (Place::Prefix(prefix), Some(listing)) => lists.list(prefix, listing),
        (Place::Prefix(prefix), None) => lists.unlist(prefix),
        (Place::Source(key), Some(listing)) => {
            debug_assert_eq!(listing.class, class::BAN);
            lists.ban(key, Ban { until: listing.until })
        }
        (Place::Source(key), None) => lists.unban(key),
    }
}
