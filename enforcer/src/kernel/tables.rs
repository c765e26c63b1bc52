//! The live maps as user space sees them.
//!
//! `lists` writes through it, `view` reads; the settings are shared by whoever changes a part of them. [`Snapshot`] lets
//! `decide` run over the maps without charging anybody.

use std::{
    cell::RefCell,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key};
use enforcer_common::{
    answer::Answer,
    ban::{Ban, Listing},
    event::Budget,
    flow::{Followed, Opening, Place, Segment, slot::Phase},
    gcra::Rate,
    headers::Headers,
    hello::marks::Marks,
    limiter::{self, Bucket, Charge, RawBucket},
    maps::{self, Counter},
    packet::Packet,
    port::{PORTS, Port},
    reason::DropReason,
    settings::{LIMITS, Limit, Settings},
    source::SourceKey,
    verdict::{Cookie, Server, Tables},
};

use crate::clock::KernelTime;

/// The settings in the map, and the copy from which the next ones are made.
pub(super) struct SettingsMap {
    map: Array<MapData, Settings>,
    current: Settings,
}

/// Shared by the lists, which set flags, and by reloads.
pub(super) type SharedSettings = Arc<Mutex<SettingsMap>>;

impl SettingsMap {
    /// The map with what is in it; nothing is written.
    pub(super) fn open(map: Map) -> Result<SharedSettings> {
        let map = Array::try_from(map)?;
        let current = map.get(&0, 0).context("reading the settings map")?;
        Ok(Arc::new(Mutex::new(Self { map, current })))
    }

    /// Replaces the settings if `change` changed any.
    pub(super) fn change(shared: &SharedSettings, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let mut this = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = this.current;
        change(&mut next);
        if next == this.current { Ok(()) } else { this.write(next) }
    }

    pub(super) fn current(shared: &SharedSettings) -> Settings {
        shared.lock().unwrap_or_else(PoisonError::into_inner).current
    }

    fn write(&mut self, settings: Settings) -> Result<()> {
        self.map.set(0, settings, 0).context("writing the settings map")?;
        self.current = settings;
        Ok(())
    }
}

/// What the program knows of ports, and the copy that says which of them have changed.
pub(super) struct PortsMap {
    map: Array<MapData, u32>,
    current: Vec<Port>,
}

impl PortsMap {
    /// The map with what is in it; nothing is written.
    pub(super) fn open(map: Map) -> Result<Self> {
        let map: Array<MapData, u32> = Array::try_from(map)?;
        let word = |number| map.get(&number, 0).map(Port::from_word);
        let current =
            (0..PORTS as u32).map(word).collect::<Result<_, _>>().context("reading the map of ports")?;
        Ok(Self { map, current })
    }

    /// Writes the entries that differ.
    pub(super) fn write(&mut self, ports: &[Port]) -> Result<()> {
        for ((number, current), port) in (0..).zip(&mut self.current).zip(ports) {
            if current != port {
                self.map.set(number, port.word(), 0).context("writing the map of ports")?;
                *current = *port;
            }
        }
        Ok(())
    }
}

/// Handles on every map but the settings.
pub(super) struct LiveMaps {
    ports: Array<MapData, u32>,
    pub(super) bans: HashMap<MapData, u64, Ban>,
    pub(super) listed_v4: LpmTrie<MapData, [u8; 4], Listing>,
    pub(super) listed_v6: LpmTrie<MapData, [u8; 16], Listing>,
    pub(super) limiters: [Array<MapData, RawBucket>; LIMITS],
    budgets: Array<MapData, RawBucket>,
    shared: Array<MapData, RawBucket>,
    pub(super) counters: PerCpuArray<MapData, Counter>,
    pub(super) event_budget: PerCpuArray<MapData, Budget>,
}

impl LiveMaps {
    /// From wherever `map` finds them by name.
    pub(super) fn open(map: &dyn Fn(&str) -> Result<Map>) -> Result<Self> {
        let limiter = |name| Ok::<_, anyhow::Error>(Array::try_from(map(name)?)?);
        let [packets, connections, hellos, quic, bytes] = maps::LIMITERS;
        Ok(Self {
            ports: Array::try_from(map(maps::PORTS)?)?,
            bans: HashMap::try_from(map(maps::BANS)?)?,
            listed_v4: LpmTrie::try_from(map(maps::LISTED_V4)?)?,
            listed_v6: LpmTrie::try_from(map(maps::LISTED_V6)?)?,
            limiters: [
                limiter(packets)?,
                limiter(connections)?,
                limiter(hellos)?,
                limiter(quic)?,
                limiter(bytes)?,
            ],
            budgets: limiter(maps::BUDGETS)?,
            shared: limiter(maps::SHARED)?,
            counters: PerCpuArray::try_from(map(maps::COUNTERS)?)?,
            event_budget: PerCpuArray::try_from(map(maps::EVENT_BUDGET)?)?,
        })
    }

    /// The bucket that a source falls into.
    pub(super) fn bucket(
        &self,
        limit: Limit,
        source: SourceKey,
        settings: &Settings,
    ) -> Result<BucketCopy, MapError> {
        let index = limiter::bucket_index(source.get(), settings.seed, settings.mask(limit));
        self.limiters[limit as usize].get(&index, 0).map(BucketCopy)
    }
}

impl LiveMaps {
    /// The bucket that one of the further budgets falls into.
    pub(super) fn budget(&self, key: u64, settings: &Settings) -> Result<BucketCopy, MapError> {
        let index = limiter::bucket_index(key, settings.seed, settings.budget_mask());
        self.budgets.get(&index, 0).map(BucketCopy)
    }

    /// The bucket of a shared budget.
    pub(super) fn shared(&self, place: u32) -> Result<BucketCopy, MapError> {
        self.shared.get(&place, 0).map(BucketCopy)
    }
}

/// A copy of a bucket: good for looking, not for charging.
pub(super) struct BucketCopy(RawBucket);

impl Bucket for BucketCopy {
    fn key(&self, slot: usize) -> u64 {
        self.0[slot * 2]
    }

    fn tat(&self, slot: usize) -> u64 {
        self.0[slot * 2 + 1]
    }

    fn swap_key(&self, slot: usize, _: u64, _: u64) -> Result<(), u64> {
        Err(self.key(slot))
    }

    fn swap_tat(&self, slot: usize, _: u64, _: u64) -> Result<(), u64> {
        Err(self.tat(slot))
    }
}

/// The maps at one moment, for one verdict.
pub(super) struct Snapshot<'a> {
    maps: &'a LiveMaps,
    settings: Settings,
    now: KernelTime,
    rehearsed: RefCell<Vec<DropReason>>,
    /// The first lookup that failed for another reason than that nothing is there.
    failure: RefCell<Option<MapError>>,
}

impl<'a> Snapshot<'a> {
    pub(super) fn new(maps: &'a LiveMaps, settings: Settings, now: KernelTime) -> Self {
        Self { maps, settings, now, rehearsed: RefCell::default(), failure: RefCell::new(None) }
    }

    /// What the longest listed prefix around an address says.
    pub(super) fn listing(&self, address: IpAddr) -> Listing {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.listing_v4(v4.octets()),
            IpAddr::V6(v6) => self.listing_v6([(v6.to_bits() >> 64) as u64, v6.to_bits() as u64]),
        }
    }

    /// What would have dropped the packet but for a dry run.
    pub(super) fn rehearsed(&self) -> Vec<DropReason> {
        self.rehearsed.borrow().clone()
    }

    /// The lookup that failed, if one did: then the verdict means nothing.
    pub(super) fn failure(self) -> Option<MapError> {
        self.failure.into_inner()
    }

    fn found<T>(&self, result: Result<T, MapError>, absent: T) -> T {
        match result {
            Ok(value) => value,
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => absent,
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                absent
            }
        }
    }
}

impl Tables for Snapshot<'_> {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn port(&self, number: u16) -> Port {
        Port::from_word(self.found(self.maps.ports.get(&u32::from(number), 0), 0))
    }

    /// Explaining counts nothing.
    fn would_drop(&self, reason: DropReason, _: usize) {
        self.rehearsed.borrow_mut().push(reason);
    }

    fn charge_budget(&self, key: u64, now: u64, rate: Rate) -> Charge {
        let charge = self.maps.budget(key, &self.settings);
        self.found(charge.map(|bucket| limiter::peek(&bucket, key, now, rate)), Charge::Within)
    }

    fn charge_shared(&self, place: u32, now: u64, rate: Rate) -> Charge {
        let charge = self.maps.shared(place);
        self.found(charge.map(|bucket| limiter::peek(&bucket, limiter::SHARED, now, rate)), Charge::Within)
    }

    /// Only the program can ask the kernel for one.
    fn cookie(&self, _: &Headers) -> Cookie {
        Cookie::NONE
    }

    fn cookies_made(&self) -> u64 {
        0
    }

    fn returns_cookie(&self, _: &Headers) -> bool {
        false
    }

    fn server(&self, _: &Headers) -> Server {
        Server::Unknown
    }

    /// Nor does it write.
    fn answer(&self, _: Answer) {}

    fn listing_v4(&self, address: [u8; 4]) -> Listing {
        self.found(self.maps.listed_v4.get(&Key::new(32, address), 0), Listing::NONE)
    }

    fn listing_v6(&self, [upper, lower]: [u64; 2]) -> Listing {
        let address = (u128::from(upper) << 64 | u128::from(lower)).to_be_bytes();
        self.found(self.maps.listed_v6.get(&Key::new(128, address), 0), Listing::NONE)
    }

    fn charge(&self, limit: Limit, _: u8, source: SourceKey, now: u64, rate: Rate) -> Charge {
        if limit == Limit::Packets {
            let ban = self.found(self.maps.bans.get(&source.get(), 0), Ban::NONE);
            if ban.holds(now) {
                return Charge::Banned(ban.until);
            }
        }
        let charge = self
            .maps
            .bucket(limit, source, &self.settings)
            .map(|bucket| limiter::peek(&bucket, source.get(), now, rate));
        self.found(charge, Charge::Within)
    }

    fn now(&self) -> u64 {
        self.now.0
    }

    /// Nothing is followed by explaining a packet: it is taken for one of a flow that is not known.
    fn flow(&self, _: u64) -> Phase {
        Phase::Free
    }

    fn has_passed(&self, _: u64, _: u32, _: u32, _: bool) -> bool {
        false
    }

    fn confirm_flow(&self, _: u64, _: u32) {}

    fn open_flow(&self, _: &Segment, _: &Opening) -> Place {
        Place::Found
    }

    fn follow_flow<P: Packet>(&self, _: &P, _: &Segment, _: &mut Marks) -> Followed {
        Followed::default()
    }

    /// So no hello is ever read to its end.
    fn hello(&self, _: u64) -> u32 {
        0
    }

    fn close_flow(&self, _: u64) {}
}
