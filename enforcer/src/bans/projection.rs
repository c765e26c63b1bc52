//! What the kernel's tables must hold so that its look-up order gives the ledger's answer.
//!
//! The program asks the prefix trie first (an allowance passes), then the table of exact sources, then takes the
//! trie's ban. The ledger's truth is: an address in any allowed prefix is never banned; any other is banned until
//! the latest end of the bans that cover it. From this follow the rules here:
//!
//! - every allowance is listed;
//! - a ban or a mark that lies in an allowed prefix is *shadowed*: not listed, for it would be the longer prefix;
//! - every other one is listed with the latest end of all bans that cover it, and with what all marks around it say together,
//!   for it hides the shorter ones.
//!
//! The ledger calls [`Projection::refresh`] for every prefix that changed. Nothing here calls the kernel.

use std::collections::{HashMap, HashSet};

use enforcer_common::{ban::Listing, source::SourceKey};
use foldhash::fast::RandomState;

use super::{
    prefixes::PrefixMap,
    record::{Allowance, Ban},
};
use crate::{config::Mark, prefix::Prefix};

/// A place in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In the trie of its family.
    Prefix(Prefix),
    /// In the table of exact sources, which holds bans only.
    Source(SourceKey),
}

/// One change of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub place: Place,
    /// What shall be there; `None`: nothing.
    pub listing: Option<Listing>,
}

/// What the tables are made from.
#[derive(Clone, Copy, Debug)]
pub struct Truth<'a> {
    /// Bans.
    pub bans: &'a PrefixMap<Ban>,
    /// Allowances.
    pub allowances: &'a PrefixMap<Allowance>,
    /// Marks.
    pub marks: &'a PrefixMap<Mark>,
    /// Bits of an IPv6 source.
    pub v6_length: u8,
}

/// Places that are taken, and by what.
#[derive(Debug, Default)]
pub struct Places {
    prefixes: HashMap<Prefix, Listing, RandomState>,
    /// The ends of bans. There may be a million of these, and few of the others.
    sources: HashMap<SourceKey, u64, RandomState>,
}

impl Places {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.prefixes.len() + self.sources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&mut self, place: Place, listing: Option<Listing>) -> Option<Listing> {
        match (place, listing) {
            (Place::Prefix(prefix), Some(listing)) => self.prefixes.insert(prefix, listing),
            (Place::Prefix(prefix), None) => self.prefixes.remove(&prefix),
            (Place::Source(key), Some(listing)) => {
                self.sources.insert(key, listing.until).map(Listing::banned)
            }
            (Place::Source(key), None) => self.sources.remove(&key).map(Listing::banned),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Place, Listing)> {
        let sources = self.sources.iter().map(|(key, until)| (Place::Source(*key), Listing::banned(*until)));
        self.prefixes.iter().map(|(prefix, listing)| (Place::Prefix(*prefix), *listing)).chain(sources)
    }
}

impl FromIterator<(Place, Listing)> for Places {
    fn from_iter<I: IntoIterator<Item = (Place, Listing)>>(listed: I) -> Self {
        let mut places = Self::default();
        for (place, listing) in listed {
            places.put(place, Some(listing));
        }
        places
    }
}

/// What the tables hold once every [`Write`] is done.
#[derive(Debug, Default)]
pub struct Projection {
    held: Places,
}

impl Projection {
    /// Notes the writes that make the tables right again after the ban or the allowance of `prefix` changed.
    pub fn refresh(&mut self, prefix: &Prefix, truth: Truth<'_>, writes: &mut Vec<Write>) {
        self.correct(prefix, truth, writes);
        if prefix.is_host() {
            return;
        }
        let inside = truth.bans.covered(prefix).map(|(inner, _)| inner);
        let marked = truth.marks.covered(prefix).map(|(inner, _)| inner);
        for inner in inside.chain(marked).filter(|inner| inner != prefix) {
            self.correct(&inner, truth, writes);
        }
    }

    /// The same for many prefixes at once: whatever lies in several of them is looked at once.
    pub fn refresh_many(&mut self, mut changed: Vec<Prefix>, truth: Truth<'_>, writes: &mut Vec<Write>) {
        // A prefix comes before all that lies inside.
        changed.sort_unstable();
        let mut widest: Option<Prefix> = None;
        for prefix in changed {
            if widest.is_some_and(|widest| widest.covers(&prefix)) {
                // If it is banned or marked, that was done with the wider one.
                self.correct(&prefix, truth, writes);
            } else {
                self.refresh(&prefix, truth, writes);
                widest = Some(prefix);
            }
        }
    }

    /// Notes the writes that make tables right that hold `found`, whatever made them so.
    pub fn rebuild(&mut self, found: Places, truth: Truth<'_>, writes: &mut Vec<Write>) {
        let mut stale: HashSet<Place, RandomState> = found.iter().map(|(place, _)| place).collect();
        self.held = found;
        let banned = truth.bans.iter().map(|(prefix, _)| prefix);
        let allowed = truth.allowances.iter().map(|(prefix, _)| prefix);
        let marked = truth.marks.iter().map(|(prefix, _)| prefix);
        for prefix in banned.chain(allowed).chain(marked) {
            self.correct(prefix, truth, writes);
            stale.remove(&Place::Prefix(*prefix));
            if let Some(key) = prefix.source_key(truth.v6_length) {
                stale.remove(&Place::Source(key));
            }
        }
        for place in stale {
            self.put(place, None, writes);
        }
    }

    /// Every place that is taken, and by what.
    pub fn places(&self) -> impl Iterator<Item = (Place, Listing)> {
        self.held.iter()
    }

    /// How many places are taken.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether the tables are empty.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Notes the removal of everything: what a source is has changed, all is written anew.
    pub fn clear(&mut self, writes: &mut Vec<Write>) {
        let held = std::mem::take(&mut self.held);
        writes.extend(held.iter().map(|(place, _)| Write { place, listing: None }));
    }

    fn correct(&mut self, prefix: &Prefix, truth: Truth<'_>, writes: &mut Vec<Write>) {
        let key = prefix.source_key(truth.v6_length);
        self.put(Place::Prefix(*prefix), truth.listing(prefix, key.is_some()), writes);
        if let Some(key) = key {
            self.put(Place::Source(key), truth.ban(prefix), writes);
        }
    }

    fn put(&mut self, place: Place, listing: Option<Listing>, writes: &mut Vec<Write>) {
        if self.held.put(place, listing) != listing {
            writes.push(Write { place, listing });
        }
    }
}

impl Truth<'_> {
    /// What the ban of exactly `prefix` must be listed as; `None` where there is none or where it is shadowed.
    fn ban(&self, prefix: &Prefix) -> Option<Listing> {
        let mut covering = self.bans.covering(prefix);
        // The longest comes first: itself, if there is one.
        let (_, own) = covering.next().filter(|(longest, _)| longest == prefix)?;
        if self.is_shadowed(prefix) {
            return None;
        }
        Some(Listing::banned(covering.map(|(_, ban)| ban.until.0).fold(own.until.0, u64::max)))
    }

    /// What `prefix` must be listed as in the trie. Where it is exactly a source (`exact`), its own ban is not there.
    fn listing(&self, prefix: &Prefix, exact: bool) -> Option<Listing> {
        if self.allowances.get(prefix).is_some() {
            return Some(Listing::ALLOWED);
        }
        let marked = self.marks.get(prefix).is_some();
        let banned = !exact && self.bans.get(prefix).is_some();
        if !marked && !banned || self.is_shadowed(prefix) {
            return None;
        }
        let around = self.bans.covering(prefix).filter(|(wider, _)| !exact || wider != prefix);
        let ban = around.map(|(_, ban)| ban.until.0).max().map_or(Listing::NONE, Listing::banned);
        let mark = self.marks.covering(prefix).fold(Mark::default(), |mark, (_, wider)| mark.within(*wider));
        Some(Listing { tier: mark.tier.unwrap_or_default(), doors: mark.doors, ..ban })
    }

    fn is_shadowed(&self, prefix: &Prefix) -> bool {
        self.allowances.covering(prefix).next().is_some()
    }
}
