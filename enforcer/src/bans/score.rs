//! How much each source has offended lately, and how often it was banned before.
//!
//! The ledger asks; nothing here bans. A score is a debt of time in the arithmetic of [`gcra`]: an offence of
//! weight `w` costs `w x window / threshold`, and the debt fades as time passes. Memory is bounded: a source that
//! finds no room is reported to the caller, never silently forgotten.
//!
//! One IPv6 site (a /48) has a 16th of the slots, because it has 65,536 prefixes of 64 bits to offend from. Its further
//! sources share one score: whoever tips it is banned, for the first duration.

use std::{collections::HashMap, time::Duration};

use enforcer_common::gcra::{self, Rate};

use super::memory::History;
use crate::{clock::KernelTime, config, denial::Denial, prefix::Prefix};

/// Sources whose offences are remembered at once: about 6 MB.
pub const TRACKED_SOURCES: usize = 65_536;

/// What an IPv6 site has at most of the slots: one part of so many.
const SITE_SHARE: usize = 16;

/// Bits of the prefix that a site is given (RFC 6177 section 2: /48 at the most in practice).
const SITE_BITS: u8 = 48;

/// How long after the end of a ban the next one counts as a further one, seconds.
const MEMORY_SECONDS: u64 = 24 * 60 * 60;

/// Between two searches for faded entries while the table is full, seconds: a flood must not buy one per offence.
const SWEEP_SECONDS: u64 = 1;

/// What is remembered of a source.
#[derive(Clone, Debug)]
struct Track {
    /// Time at which the score is back at zero.
    tat: u64,
    /// Offences since the score was last zero.
    offences: u32,
    /// Bans so far, each within [`MEMORY_SECONDS`] of the end of the one before.
    strikes: u8,
    /// End of the last ban.
    last_end: KernelTime,
    /// The last offence.
    last: Denial,
}

/// What became of an offence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Below the threshold.
    Within,
    /// The threshold is reached: the source deserves a ban.
    Reached {
        /// Offences that led here, this one included.
        offences: u32,
        /// How long the ban should last.
        duration: Duration,
    },
    /// There is no room to remember this source.
    NoRoom,
}

/// What is known of a source's behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// Points now; a part of a point counts as one.
    pub points: u32,
    /// Offences since the score was last zero.
    pub offences: u32,
    /// Bans within the last day.
    pub bans: u8,
    /// The last offence.
    pub last: Denial,
}

/// The scores of all sources that have one.
#[derive(Debug)]
pub struct Scores {
    tracks: HashMap<Prefix, Track>,
    /// Sources with a score by IPv6 site.
    sites: HashMap<Prefix, usize>,
    /// Sources with earlier bans that were forgotten, since somebody last asked.
    forgotten: Vec<Prefix>,
    capacity: usize,
    next_sweep: KernelTime,
}

impl Scores {
    /// For at most `capacity` sources.
    pub fn new(capacity: usize) -> Self {
        Self {
            tracks: HashMap::new(),
            sites: HashMap::new(),
            forgotten: Vec::new(),
            capacity,
            next_sweep: KernelTime(0),
        }
    }

    /// Charges an offence to `source`. The score stays when the threshold is reached, until [`Scores::banned`].
    pub fn charge(&mut self, now: KernelTime, source: Prefix, denial: Denial, bans: &config::Bans) -> Charge {
        let Some(source) = self.place(now, source) else { return Charge::NoRoom };
        if !self.tracks.contains_key(&source)
            && let Some(site) = site(&source)
        {
            *self.sites.entry(site).or_default() += 1;
        }
        let track = self.tracks.entry(source).or_insert(Track {
            tat: 0,
            offences: 0,
            strikes: 0,
            last_end: KernelTime(0),
            last: denial,
        });
        if track.tat <= now.0 {
            track.offences = 0;
        }
        track.offences = track.offences.saturating_add(1);
        track.last = denial;
        match gcra::step(track.tat, now.0, rate(bans, denial.weight())) {
            Ok(tat) => {
                track.tat = tat;
                Charge::Within
            }
            Err(_) => {
                if !track.remembers(now) {
                    track.strikes = 0;
                }
                let doubled =
                    bans.duration.saturating_mul(1u32.checked_shl(track.strikes.into()).unwrap_or(u32::MAX));
                Charge::Reached { offences: track.offences, duration: doubled.min(bans.max_duration) }
            }
        }
    }

    /// `source` was banned until `end`: it starts from zero afterwards, and the ban counts towards the next one.
    pub fn banned(&mut self, source: &Prefix, end: KernelTime) {
        self.spared(source);
        if let Some(track) = self.tracks.get_mut(source) {
            track.strikes = track.strikes.saturating_add(1);
            track.last_end = end;
        }
    }

    /// `source` would have been banned: it starts from zero, and nothing counts towards a later ban.
    pub fn spared(&mut self, source: &Prefix) {
        let owner = if self.tracks.contains_key(source) { Some(*source) } else { site(source) };
        if let Some(track) = owner.and_then(|owner| self.tracks.get_mut(&owner)) {
            track.tat = 0;
            track.offences = 0;
        }
    }

    /// Forgets whatever lies in `prefix`: an operator's pardon is complete.
    pub fn forget(&mut self, prefix: &Prefix) {
        self.keep(|source, _| !prefix.covers(source));
    }

    /// Forgets everybody: what a source is has changed.
    pub fn clear(&mut self) {
        self.keep(|_, _| false);
    }

    /// The earlier bans of a source, if it has any.
    pub fn history(&self, source: &Prefix) -> Option<History> {
        let track = self.tracks.get(source).filter(|track| track.strikes > 0)?;
        Some(History { strikes: track.strikes, last_end: track.last_end, last: track.last })
    }

    /// Remembers the earlier bans of a source again, if they still count and there is room.
    pub fn recall(&mut self, now: KernelTime, source: Prefix, history: History) {
        let History { strikes, last_end, last } = history;
        let track = Track { tat: 0, offences: 0, strikes, last_end, last };
        let room = self.tracks.len() < self.capacity && !self.tracks.contains_key(&source);
        if track.faded(now) || !room {
            self.forgotten.push(source);
            return;
        }
        if let Some(site) = site(&source) {
            *self.sites.entry(site).or_default() += 1;
        }
        self.tracks.insert(source, track);
    }

    /// Sources whose earlier bans were forgotten since this was last called.
    pub fn take_forgotten(&mut self) -> Vec<Prefix> {
        std::mem::take(&mut self.forgotten)
    }

    /// What is known of `source`, unless it has faded.
    pub fn get(&self, now: KernelTime, source: &Prefix, bans: &config::Bans) -> Option<Score> {
        let track = self.tracks.get(source).filter(|track| !track.faded(now))?;
        let debt = track.tat.saturating_sub(now.0);
        Some(Score {
            points: u32::try_from(debt.div_ceil(unit(bans))).unwrap_or(u32::MAX),
            offences: if debt == 0 { 0 } else { track.offences },
            bans: if track.remembers(now) { track.strikes } else { 0 },
            last: track.last,
        })
    }

    /// How many sources are remembered.
    pub fn len(&self) -> usize {
        self.tracks.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Forgets what has faded.
    pub fn sweep(&mut self, now: KernelTime) {
        self.keep(|_, track| !track.faded(now));
    }

    /// Whose score an offence of `source` counts for: its own, or its site's; `None` where there is no room.
    fn place(&mut self, now: KernelTime, source: Prefix) -> Option<Prefix> {
        if self.tracks.contains_key(&source) {
            return Some(source);
        }
        let site = site(&source);
        let crowded = |scores: &Self| {
            site.is_some_and(|site| scores.sites.get(&site).is_some_and(|count| *count >= scores.share()))
        };
        if (crowded(self) || self.tracks.len() >= self.capacity) && now >= self.next_sweep {
            self.next_sweep = now.plus_seconds(SWEEP_SECONDS);
            self.make_room(now, site.filter(|_| crowded(self)));
        }
        let owner = if crowded(self) { site? } else { source };
        (self.tracks.contains_key(&owner) || self.tracks.len() < self.capacity).then_some(owner)
    }

    /// Forgets what has faded; if that is not enough, the history of sources that owe nothing now: those of the crowded
    /// site, or everybody's.
    fn make_room(&mut self, now: KernelTime, crowded: Option<Prefix>) {
        self.sweep(now);
        if let Some(crowded) = crowded {
            self.keep(|source, track| track.tat > now.0 || !crowded.covers(source));
        }
        if self.tracks.len() >= self.capacity {
            self.keep(|_, track| track.tat > now.0);
        }
    }

    /// Slots that one site may have.
    const fn share(&self) -> usize {
        self.capacity.div_ceil(SITE_SHARE)
    }

    /// Forgets every source but those that `wanted` holds for.
    fn keep(&mut self, wanted: impl Fn(&Prefix, &Track) -> bool) {
        let (sites, forgotten) = (&mut self.sites, &mut self.forgotten);
        self.tracks.retain(|source, track| {
            let kept = wanted(source, track);
            if !kept && track.strikes > 0 {
                forgotten.push(*source);
            }
            if !kept
                && let Some(site) = site(source)
                && let Some(count) = sites.get_mut(&site)
            {
                *count -= 1;
                if *count == 0 {
                    sites.remove(&site);
                }
            }
            kept
        });
    }
}

impl Track {
    fn remembers(&self, now: KernelTime) -> bool {
        self.strikes > 0 && now < self.last_end.plus_seconds(MEMORY_SECONDS)
    }

    fn faded(&self, now: KernelTime) -> bool {
        self.tat <= now.0 && !self.remembers(now)
    }
}

/// The site that an IPv6 source is a part of; IPv4 sources are addresses and have none.
fn site(source: &Prefix) -> Option<Prefix> {
    Some(source.widened(SITE_BITS)).filter(|site| source.net().addr().is_ipv6() && site != source)
}

/// Nanoseconds in which one point fades.
fn unit(bans: &config::Bans) -> u64 {
    (nanos(bans.window) / u64::from(bans.threshold.max(1))).max(1)
}

/// What an offence of `weight` costs. The tolerance is one point below the threshold, so that reaching it counts,
/// and so that a fraction of a point that faded between two offences does not buy a further one.
fn rate(bans: &config::Bans, weight: u32) -> Rate {
    let unit = unit(bans);
    Rate {
        increment: unit.saturating_mul(weight.into()),
        tolerance: unit.saturating_mul(bans.threshold.saturating_sub(1).into()),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bans() -> config::Bans {
        config::Bans {
            threshold: 100,
            window: Duration::from_secs(60),
            duration: Duration::from_secs(600),
            max_duration: Duration::from_secs(86_400),
            max_entries: 100,
            dry_run: false,
            store: None,
        }
    }

    fn source(n: u8) -> Prefix {
        Prefix::host([198, 18, 0, n].into())
    }

    #[test]
    fn four_forged_tokens_reach_the_threshold_and_slow_ones_never_do() {
        let mut scores = Scores::new(10);
        for n in 0..3 {
            let now = KernelTime(SECOND + n);
            assert_eq!(scores.charge(now, source(1), Denial::TokenBadSignature, &bans()), Charge::Within);
        }
        assert_eq!(scores.get(KernelTime(SECOND), &source(1), &bans()).unwrap().points, 75);
        let reached = scores.charge(KernelTime(SECOND + 9), source(1), Denial::TokenBadSignature, &bans());
        assert_eq!(reached, Charge::Reached { offences: 4, duration: Duration::from_secs(600) });
        for n in 0..1000 {
            let now = KernelTime(n * 15 * SECOND);
            assert_eq!(scores.charge(now, source(2), Denial::TokenBadSignature, &bans()), Charge::Within);
        }
    }

    #[test]
    fn each_further_ban_within_a_day_lasts_twice_as_long_up_to_the_most() {
        let mut scores = Scores::new(10);
        let heavy = config::Bans { threshold: 1, ..bans() };
        let mut now = KernelTime(SECOND);
        for minutes in [10u64, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440] {
            let Charge::Reached { duration, .. } =
                scores.charge(now, source(1), Denial::TokenMissing, &heavy)
            else {
                panic!("not reached")
            };
            assert_eq!(duration.as_secs(), minutes * 60);
            now = now.plus_seconds(duration.as_secs());
            scores.banned(&source(1), now);
        }
        now = now.plus_seconds(MEMORY_SECONDS);
        let Charge::Reached { duration, .. } = scores.charge(now, source(1), Denial::TokenMissing, &heavy)
        else {
            panic!("not reached")
        };
        assert_eq!(duration.as_secs(), 600, "a day later it is a first ban again");
    }

    #[test]
    fn one_ipv6_site_cannot_fill_the_table_and_its_rest_shares_a_score() {
        let mut scores = Scores::new(160);
        let now = KernelTime(SECOND);
        let client = |n: u16| Prefix::of_source([0x2001, 0xdb8, 7, n, 0, 0, 0, 1].into(), 64);
        for n in 0..10 {
            assert_eq!(scores.charge(now, client(n), Denial::TokenBadSignature, &bans()), Charge::Within);
        }
        for n in 10..13 {
            assert_eq!(scores.charge(now, client(n), Denial::TokenBadSignature, &bans()), Charge::Within);
            assert_eq!(scores.len(), 11, "the rest has one score");
        }
        let reached = |offences| Charge::Reached { offences, duration: Duration::from_secs(600) };
        assert_eq!(scores.charge(now, client(13), Denial::TokenBadSignature, &bans()), reached(4));
        scores.banned(&client(13), now.plus_seconds(600));
        assert_eq!(scores.charge(now, client(14), Denial::TokenBadSignature, &bans()), Charge::Within);
        assert_eq!(scores.charge(now, source(1), Denial::TokenMissing, &bans()), Charge::Within);
        assert_eq!(scores.len(), 12, "everybody else finds room");
        // Who owes nothing any more gives way, history or not.
        scores.banned(&client(0), now.plus_seconds(600));
        let later = now.plus_seconds(2);
        assert_eq!(scores.charge(later, client(20), Denial::TokenMissing, &bans()), Charge::Within);
        assert!(scores.get(later, &client(20), &bans()).is_some());
        scores.sweep(later.plus_seconds(100_000));
        assert!(scores.is_empty() && scores.sites.is_empty());
    }

    #[test]
    fn a_full_table_makes_room_for_the_present_and_never_forgets_who_still_owes() {
        let mut scores = Scores::new(2);
        let now = KernelTime(SECOND);
        scores.charge(now, source(1), Denial::TokenMissing, &bans());
        scores.charge(now, source(2), Denial::TokenMissing, &bans());
        assert_eq!(scores.charge(now, source(3), Denial::TokenMissing, &bans()), Charge::NoRoom);
        assert!(scores.get(now, &source(1), &bans()).is_some());
        let later = now.plus_seconds(60);
        assert_eq!(scores.charge(later, source(3), Denial::TokenMissing, &bans()), Charge::Within);
        assert_eq!(scores.len(), 1);
        scores.banned(&source(3), later.plus_seconds(1));
        scores.charge(later.plus_seconds(2), source(4), Denial::TokenMissing, &bans());
        assert_eq!(
            scores.charge(later.plus_seconds(2), source(5), Denial::TokenMissing, &bans()),
            Charge::Within
        );
        assert!(scores.get(later.plus_seconds(2), &source(3), &bans()).is_none(), "history gives way");
    }
}
