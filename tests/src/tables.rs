//! What a packet case finds in the tables: for [`FakeTables`], and for the maps of the loaded program.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv6Addr},
};

use enforcer::prefix::Prefix;
use enforcer_common::{
    ban::{Ban, Listing},
    gcra::Rate,
    limiter::{self, Bucket, Charge, RawBucket},
    port::Port,
    reason::DropReason,
    settings::{Limit, Settings, flag},
    source::SourceKey,
    verdict::Tables,
};

/// The port that cases protect.
pub const PROTECTED: u16 = 443;
/// The port that cases manage the machine by.
pub const MANAGEMENT: u16 = 22;

/// The state of the tables when the packet comes. One bucket per limit, so that a case can fill it.
#[derive(Clone, Debug)]
pub struct State {
    /// `None`: the daemon has written none yet.
    pub settings: Option<Settings>,
    /// What is known of ports.
    pub ports: Vec<(u16, Port)>,
    /// Exact bans.
    pub bans: Vec<(SourceKey, Ban)>,
    /// Listed prefixes.
    pub listed: Vec<(Prefix, Listing)>,
    /// By [`Limit`].
    pub buckets: [RawBucket; 3],
}

impl Default for State {
    /// Nothing listed, nothing limited, one protected port and one for management.
    fn default() -> Self {
        let mut settings = Settings::PERMISSIVE;
        settings.flags = flag::LISTED_V4 | flag::LISTED_V6;
        let ports =
            vec![(8443, Port::PROTECTED), (PROTECTED, Port::PROTECTED), (MANAGEMENT, Port::MANAGEMENT)];
        Self { settings: Some(settings), ports, bans: vec![], listed: vec![], buckets: [[0; 8]; 3] }
    }
}

impl State {
    /// With the settings changed.
    pub fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(self.settings.get_or_insert(Settings::PERMISSIVE));
        self
    }

    /// With one event per hour admitted at most: the length of a test plays no part.
    pub fn limited(self, limit: Limit) -> Self {
        self.set(|settings| settings.limits[0][limit as usize] = Rate::new(1, 3_600_000_000_000, 1))
    }

    /// With a limit that the source has used up for good.
    pub fn exhausted(mut self, limit: Limit, source: SourceKey) -> Self {
        self.buckets[limit as usize][..2].copy_from_slice(&[source.get(), u64::MAX]);
        self.limited(limit)
    }

    /// With a limit whose bucket is full of sources that owe.
    pub fn full(mut self, limit: Limit) -> Self {
        for (slot, pair) in self.buckets[limit as usize].chunks_exact_mut(2).enumerate() {
            pair.copy_from_slice(&[slot as u64 + 1, u64::MAX]);
        }
        self.limited(limit)
    }

    /// With a banned source.
    pub fn banned(mut self, source: SourceKey, until: u64) -> Self {
        self.bans.push((source, Ban { until }));
        self
    }

    /// With a listed prefix.
    pub fn listing(mut self, prefix: Prefix, listing: Listing) -> Self {
        self.listed.push((prefix, listing));
        self
    }
}

/// The tables in plain memory.
#[derive(Debug)]
pub struct FakeTables {
    state: State,
    buckets: RefCell<[RawBucket; 3]>,
    dry: RefCell<Vec<DropReason>>,
    now: u64,
}

impl FakeTables {
    /// Tables in this state at this time.
    pub fn new(state: State, now: u64) -> Self {
        Self { buckets: RefCell::new(state.buckets), dry: RefCell::default(), state, now }
    }

    /// What would have been dropped but for a dry run, in the order in which it was found.
    pub fn dry(&self) -> Vec<DropReason> {
        self.dry.borrow().clone()
    }

    fn longest(&self, address: IpAddr) -> Listing {
        let around = self.state.listed.iter().filter(|(prefix, _)| prefix.contains(address));
        around
            .max_by_key(|(prefix, _)| prefix.net().prefix_len())
            .map_or(Listing::NONE, |(_, listing)| *listing)
    }
}

impl Tables for FakeTables {
    fn settings(&self) -> Option<&Settings> {
        self.state.settings.as_ref()
    }

    fn port(&self, number: u16) -> Port {
        let known = self.state.ports.iter().filter(|(port, _)| *port == number);
        known.fold(Port::UNKNOWN, |all, (_, port)| all.with(*port))
    }

    fn would_drop(&self, reason: DropReason, _: usize) {
        self.dry.borrow_mut().push(reason);
    }

    fn listing_v4(&self, address: [u8; 4]) -> Listing {
        self.longest(IpAddr::from(address))
    }

    fn listing_v6(&self, [upper, lower]: [u64; 2]) -> Listing {
        self.longest(IpAddr::V6(Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower))))
    }

    fn ban(&self, source: SourceKey) -> Ban {
        self.state.bans.iter().find(|(key, _)| *key == source).map_or(Ban::NONE, |(_, ban)| *ban)
    }

    fn charge(&self, limit: Limit, _: u8, source: SourceKey, now: u64, rate: Rate) -> Charge {
        limiter::charge(&Slots(&self.buckets, limit as usize), source.get(), now, rate)
    }

    fn now(&self) -> u64 {
        self.now
    }
}

struct Slots<'a>(&'a RefCell<[RawBucket; 3]>, usize);

impl Slots<'_> {
    fn swap(&self, word: usize, old: u64, new: u64) -> Result<(), u64> {
        let found = std::mem::replace(&mut self.0.borrow_mut()[self.1][word], new);
        debug_assert_eq!(found, old, "nobody else writes");
        Ok(())
    }
}

impl Bucket for Slots<'_> {
    fn key(&self, slot: usize) -> u64 {
        self.0.borrow()[self.1][slot * 2]
    }

    fn tat(&self, slot: usize) -> u64 {
        self.0.borrow()[self.1][slot * 2 + 1]
    }

    fn swap_key(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.swap(slot * 2, old, new)
    }

    fn swap_tat(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.swap(slot * 2 + 1, old, new)
    }
}
