//! What apps have reported of pins that did not fit. Anybody can send such a report, so it is a count and nothing more: by source and
//! host, for a while.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    clock::KernelTime,
    config::{self, ServerName},
    pins::Pin,
    policy::{limiter::RequestLimiter, pins::Set},
};

/// Between two looks for entries that have run out, while there is no room.
const SWEEP: Duration = Duration::from_secs(1);

/// Which key an app was shown, as far as its report says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// One that is served here: the app does not know it, and nobody stands between.
    Ours,
    /// Another one.
    Other,
    /// It does not say.
    Unknown,
}

impl Key {
    /// The label that counts it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }
}

/// What a report says that an app was shown.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'r> {
    /// A certificate in PEM form.
    Certificate(&'r str),
    /// A pin as it is written.
    Pin(&'r str),
    /// Nothing.
    Nothing,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It is counted.
    Counted(Key),
    /// It is about no host that is served here.
    Foreign,
    /// It is counted, and there was no room to remember its source.
    Full(Key),
}

/// Reports, and who has sent how many.
#[derive(Debug)]
pub struct Reports {
    config: config::Reports,
    max_sources: u32,
    /// How many each source may send.
    pub limiter: RequestLimiter,
    hasher: RandomState,
    table: Mutex<Table>,
    /// Entries, those that have run out included.
    length: AtomicUsize,
    counts: Mutex<HashMap<(Box<str>, &'static str), u64>>,
    foreign: AtomicU64,
    full: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    /// When an entry has run out, by source and host.
    entries: HashMap<(u64, u64), u64>,
    swept: u64,
}

impl Reports {
    pub(super) fn new(config: &config::Reports, max_sources: u32) -> Self {
        Self {
            config: config.clone(),
            max_sources,
            limiter: RequestLimiter::new(config.limit, max_sources),
            hasher: RandomState::new(),
            table: Mutex::default(),
            length: AtomicUsize::new(0),
            counts: Mutex::default(),
            foreign: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    pub(super) fn serves(&self, config: &config::Reports, max_sources: u32) -> bool {
        self.config == *config && self.max_sources == max_sources
    }

    /// Takes a report of `source` about a host that is in a set, or is served all the same.
    pub fn note(
        &self,
        sets: &[Set],
        is_served: impl Fn(&str) -> bool,
        (source, host): (u64, &str),
        shown: Shown<'_>,
        now: KernelTime,
    ) -> Noted {
        let host = ServerName::plain(host);
        let found = covering(sets, &host);
        if found.is_none() && !is_served(&host) {
            self.foreign.fetch_add(1, Relaxed);
            return Noted::Foreign;
        }
        let pin = match shown {
            Shown::Certificate(pem) => Pin::of_pem(pem.as_bytes()),
            Shown::Pin(text) => text.parse().ok(),
            Shown::Nothing => None,
        };
        let key = match (pin, found) {
            (Some(pin), Some((set, _))) if set.served.iter().any(|served| served.pin == pin) => Key::Ours,
            (Some(_), Some(_)) => Key::Other,
            // Which keys are served without a set is not known here.
            (None, _) | (_, None) => Key::Unknown,
        };
        let set = found.map_or("", |(set, _)| set.name.as_str());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((set.into(), key.name())).or_default() += 1;
        drop(counts);
        // Whoever was shown our own key had nobody in the middle.
        if key == Key::Ours || self.remember((source, self.mark(sets, &host)), now) {
            Noted::Counted(key)
        } else {
            self.full.fetch_add(1, Relaxed);
            Noted::Full(key)
        }
    }

    /// Whether a source has reported a host lately.
    pub fn has(&self, sets: &[Set], source: u64, host: Option<&str>, now: KernelTime) -> bool {
        if self.length.load(Relaxed) == 0 {
            return false;
        }
        let host = ServerName::plain(host.unwrap_or_default());
        let key = (source, self.mark(sets, &host));
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entries.get(&key).is_some_and(|until| now.0 < *until)
    }

    /// Hosts as they are configured: a name is one of few whatever clients write. Those without a set are one.
    fn mark(&self, sets: &[Set], host: &str) -> u64 {
        covering(sets, host).map_or(0, |(_, name)| self.hasher.hash_one((name.below, &name.name)))
    }

    fn remember(&self, key: (u64, u64), now: KernelTime) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let until = now.0.saturating_add(nanos(self.config.remember));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.config.max_entries as usize;
        if table.entries.len() >= most && now.0.saturating_sub(table.swept) >= nanos(SWEEP) {
            table.swept = now.0;
            table.entries.retain(|_, until| now.0 < *until);
        }
        let has_room = table.entries.contains_key(&key) || table.entries.len() < most;
        if has_room {
            table.entries.insert(key, until);
        }
        self.length.store(table.entries.len(), Relaxed);
        has_room
    }

    /// Pairs of a source and a host that are remembered, those that have run out included.
    pub fn remembered(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// Reports by set (empty: none) and key.
    pub fn counts(&self) -> Vec<(Box<str>, &'static str, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((set, key), count)| (set.clone(), *key, *count)).collect()
    }

    /// Reports that are not counted there, or whose source is not remembered, by why.
    pub fn dropped(&self) -> [(&'static str, u64); 2] {
        [("foreign", self.foreign.load(Relaxed)), ("full", self.full.load(Relaxed))]
    }
}

/// The set that a host is in, and under which name.
fn covering<'s>(sets: &'s [Set], host: &str) -> Option<(&'s Set, &'s ServerName)> {
    // The name itself before one that it is below.
    let names = sets.iter().flat_map(|set| set.hosts.iter().map(move |name| (set, name)));
    names.filter(|(_, name)| name.covers(host)).min_by_key(|(_, name)| name.below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RateLimit;

    fn reports(max_entries: u32) -> Reports {
        let limit = RateLimit { events: 1, period: Duration::from_secs(1), burst: 1 };
        let remember = Duration::from_secs(3_600);
        Reports::new(&config::Reports { path: "/r".to_owned(), remember, limit, max_entries }, 1_024)
    }

    #[test]
    fn a_report_speaks_against_its_source_and_host_for_a_while() {
        let reports = reports(16);
        let at = |seconds: u64| KernelTime(seconds * 1_000_000_000);
        let served = |host: &str| host == "api.example.com";
        let note = |source, host, now| reports.note(&[], served, (source, host), Shown::Nothing, now);
        assert!(!reports.has(&[], 7, Some("api.example.com"), at(1)));
        assert_eq!(note(7, "API.example.com.", at(1)), Noted::Counted(Key::Unknown));
        assert!(reports.has(&[], 7, Some("api.example.com"), at(2)));
        assert!(!reports.has(&[], 8, Some("api.example.com"), at(2)), "another source");
        assert!(!reports.has(&[], 7, Some("api.example.com"), at(3_601)), "it has run out");
        assert_eq!(note(7, "www.example.org", at(1)), Noted::Foreign);
        assert_eq!(reports.dropped(), [("foreign", 1), ("full", 0)]);
    }

    #[test]
    fn a_full_table_forgets_nobody_whose_time_has_not_come() {
        let reports = reports(16);
        let at = |seconds: u64| KernelTime(seconds * 1_000_000_000);
        let note = |source, now| reports.note(&[], |_| true, (source, "a"), Shown::Nothing, now);
        for source in 0..16 {
            assert_eq!(note(source, at(10)), Noted::Counted(Key::Unknown));
        }
        assert_eq!(note(16, at(11)), Noted::Full(Key::Unknown));
        assert_eq!(note(3, at(11)), Noted::Counted(Key::Unknown), "it is there already");
        assert!(reports.has(&[], 0, Some("a"), at(12)));
        assert_eq!(note(16, at(3_611)), Noted::Counted(Key::Unknown), "others have run out");
        assert!(!reports.has(&[], 0, Some("a"), at(3_611)) && reports.has(&[], 16, Some("a"), at(3_611)));
        assert_eq!(reports.counts(), [("".into(), "unknown", 19)]);
    }
}
