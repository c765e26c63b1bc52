//! The tables in plain memory: what [`decide`](enforcer_common::verdict::decide) runs on where there is no kernel.
//!
//! `enforcer explain` judges captures by it, the tests their packet cases. It charges and counts as the maps do; time moves
//! only when [`Model::set_now`] says so.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
};

use enforcer_common::{
    answer::Answer,
    ban::{Ban, Listing, class},
    flow::{self, Entry, Followed, Opening, Place, SLOTS, Segment, kept::Kept, slot::Phase},
    gcra::Rate,
    headers::{Headers, tcp},
    hello::marks::Marks,
    limiter::{self, Bucket, Charge, Known, RawBucket, debt},
    packet::Packet,
    port::Port,
    reason::DropReason,
    settings::{Limit, Settings},
    source::SourceKey,
    verdict::{Cookie, Server, Tables},
};

use super::{program::Sizes, settings};
use crate::{
    config::{self, Mark},
    prefix::Prefix,
};

/// One state of every table.
#[derive(Clone, Debug, Default)]
pub struct Model {
    settings: Option<Settings>,
    ports: HashMap<u16, Port>,
    /// Exact bans that found no slot.
    spilled: HashMap<SourceKey, Ban>,
    listed: HashMap<Prefix, Listing>,
    /// Buckets that were touched, by limit and index; all others are empty.
    buckets: RefCell<HashMap<(Limit, u32), RawBucket>>,
    /// The same of the further budgets, by index, and of the shared ones, by place.
    budgets: RefCell<HashMap<u32, RawBucket>>,
    shared: RefCell<HashMap<u32, RawBucket>>,
    rehearsed: RefCell<Vec<DropReason>>,
    answer: Cell<Answer>,
    /// Buckets of the flow table that were touched, by index; all others are empty.
    flows: RefCell<HashMap<u32, Flows>>,
    listening: HashMap<u16, Cookie>,
    /// When a cookie was made last, and what the server has by that.
    cookies_made: Cell<u64>,
    server: Cell<Server>,
    hellos: HashMap<u64, u32>,
    now: Cell<u64>,
}

impl Model {
    /// Empty tables under these settings; `None`: the daemon has written none.
    pub fn new(settings: Option<Settings>) -> Self {
        Self { settings, ..Self::default() }
    }

    /// What the program would find under this configuration when it has just been started: no bans, and limits of which
    /// nothing is used.
    pub fn of(config: &config::Kernel) -> Self {
        let sizes = Sizes::new(0, config.limits.max_sources);
        let mut model = Self::new(Some(settings::settings(config, sizes, 0, &settings::Means::of(config))));
        for (number, port) in (0..=u16::MAX).zip(settings::ports(config)) {
            if port != Port::UNKNOWN {
                model.mark(number, port);
            }
        }
        for (hash, bits) in super::hellos::entries(&config.hellos, 0) {
            model.list_hello(hash, bits);
        }
        let marks = config.marks();
        for prefix in marks.keys() {
            let around =
                (0..=prefix.net().prefix_len()).filter_map(|length| marks.get(&prefix.widened(length)));
            let mark = around.fold(Mark::default(), |wider, mark| mark.within(wider));
            model.list(
                *prefix,
                Listing { tier: mark.tier.unwrap_or_default(), doors: mark.doors, ..Listing::NONE },
            );
        }
        for prefix in &config.allow {
            // What is allowed is allowed whatever else is said of a part of it.
            model.listed.retain(|inner, _| !prefix.covers(inner));
            model.list(*prefix, Listing::ALLOWED);
        }
        model
    }

    /// Bans a prefix as the ledger would that knows of nothing else but what the configuration lists.
    pub fn ban_prefix(&mut self, prefix: Prefix, until: u64) {
        let mut around = (0..=prefix.net().prefix_len()).rev();
        let mark = around.find_map(|length| self.listed.get(&prefix.widened(length)));
        let mark = mark.copied().unwrap_or(Listing::NONE);
        self.list(prefix, Listing { tier: mark.tier, doors: mark.doors, ..Listing::banned(until) });
        for (inner, listing) in &mut self.listed {
            if prefix.covers(inner) && listing.class == class::NONE {
                (listing.class, listing.until) = (class::BAN, until);
            }
        }
    }

    /// Adds what is known of a port.
    pub fn mark(&mut self, number: u16, port: Port) {
        let known = self.ports.entry(number).or_default();
        *known = known.with(port);
    }

    /// Bans one source, as a debt if its bucket has room.
    pub fn set_ban(&mut self, source: SourceKey, ban: Ban) {
        let now = self.now.get();
        let index = self.index(Limit::Packets, source);
        let bucket = self.buckets.get_mut().entry((Limit::Packets, index)).or_default();
        if !debt::ban(&Slots(RefCell::new(bucket)), source.get(), ban.until, now) {
            self.spill(source, ban);
        }
    }

    /// Bans one source, as if its bucket had no room.
    pub fn spill(&mut self, source: SourceKey, ban: Ban) {
        self.spilled.insert(source, ban);
    }

    /// Lists a prefix.
    pub fn list(&mut self, prefix: Prefix, listing: Listing) {
        self.listed.insert(prefix, listing);
    }

    /// Fills one bucket of a limit.
    pub fn fill(&mut self, limit: Limit, index: u32, bucket: RawBucket) {
        self.buckets.get_mut().insert((limit, index), bucket);
    }

    /// Fills one bucket of the further budgets.
    pub fn fill_budgets(&mut self, index: u32, bucket: RawBucket) {
        self.budgets.get_mut().insert(index, bucket);
    }

    /// Fills one of the shared budgets.
    pub fn fill_shared(&mut self, place: u32, bucket: RawBucket) {
        self.shared.get_mut().insert(place, bucket);
    }

    /// Fills the words of one bucket of the flow table.
    pub fn fill_flows(&mut self, index: u32, words: flow::RawBucket) {
        self.flows.get_mut().insert(index, Flows { words: Cell::new(words), ..Flows::default() });
    }

    /// One bucket of a limit.
    pub fn bucket(&self, limit: Limit, index: u32) -> RawBucket {
        self.buckets.borrow().get(&(limit, index)).copied().unwrap_or_default()
    }

    /// Everything that packets have left in the tables, in a form that can be compared.
    pub fn traces(&self) -> BTreeSet<String> {
        let empty = [0; SLOTS];
        let own = self.buckets.borrow();
        let own = own.iter().map(|((limit, index), bucket)| (format!("{limit:?} {index}"), *bucket));
        let (budgets, shared) = (self.budgets.borrow(), self.shared.borrow());
        let budgets = budgets.iter().map(|(index, bucket)| (format!("budgets {index}"), *bucket));
        let shared = shared.iter().map(|(place, bucket)| (format!("shared {place}"), *bucket));
        let buckets = own.chain(budgets).chain(shared).filter(|(_, bucket)| *bucket != empty);
        let flows = self.flows.borrow();
        let flows = flows.iter().filter(|(_, flows)| flows.words.get() != empty);
        buckets
            .map(|(name, bucket)| format!("{name}: {bucket:?}"))
            .chain(flows.map(|(index, flows)| format!("flows {index}: {flows:?}")))
            .collect()
    }

    fn index(&self, limit: Limit, source: SourceKey) -> u32 {
        let settings = self.settings.unwrap_or(Settings::PERMISSIVE);
        limiter::bucket_index(source.get(), settings.seed, settings.mask(limit))
    }

    /// Has a listener at a port, which answers SYNs with this cookie.
    pub fn listen(&mut self, port: u16, cookie: Cookie) {
        self.listening.insert(port, cookie);
    }

    /// Says what the server has with the ends of every segment.
    pub fn serve(&self, server: Server) {
        self.server.set(server);
    }

    /// Lists the hash of a name, or a fingerprint, see [`enforcer_common::hello::lists`].
    pub fn list_hello(&mut self, hash: u64, bits: u32) {
        self.hellos.insert(hash, bits);
    }

    /// Moves the time, in nanoseconds.
    pub fn set_now(&self, now: u64) {
        self.now.set(now);
    }

    /// The reasons for which packets would have been dropped but for a dry run, in the order in which they were found, since
    /// this was asked last.
    pub fn take_rehearsed(&self) -> Vec<DropReason> {
        self.rehearsed.take()
    }

    /// The frame that a verdict asked for since this was asked last; [`Answer::NONE`] if none did.
    pub fn take_answer(&self) -> Answer {
        self.answer.take()
    }

    /// The longest listed prefix around an address, and what it says.
    pub fn listing(&self, address: IpAddr) -> Option<(Prefix, Listing)> {
        let host = Prefix::host(address);
        (0..=host.net().prefix_len()).rev().find_map(|length| {
            let prefix = host.widened(length);
            self.listed.get(&prefix).map(|listing| (prefix, *listing))
        })
    }

    fn with_flows<R>(&self, hash: u64, work: impl FnOnce(&mut Flows) -> R) -> R {
        let mask = self.settings.as_ref().map_or(0, |settings| settings.flow_mask);
        work(self.flows.borrow_mut().entry(hash as u32 & mask).or_default())
    }

    fn listed(&self, address: IpAddr) -> Listing {
        self.listing(address).map_or(Listing::NONE, |(_, listing)| listing)
    }
}

impl Tables for Model {
    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn port(&self, number: u16) -> Port {
        self.ports.get(&number).copied().unwrap_or_default()
    }

    fn would_drop(&self, reason: DropReason, _: usize) {
        self.rehearsed.borrow_mut().push(reason);
    }

    fn charge_budget(&self, key: u64, now: u64, rate: Rate) -> Charge {
        let settings = self.settings.unwrap_or(Settings::PERMISSIVE);
        let index = limiter::bucket_index(key, settings.seed, settings.budget_mask());
        let mut buckets = self.budgets.borrow_mut();
        limiter::charge(&Slots(RefCell::new(buckets.entry(index).or_default())), key, now, rate)
    }

    fn charge_shared(&self, place: u32, now: u64, rate: Rate) -> Charge {
        let mut buckets = self.shared.borrow_mut();
        let bucket = buckets.entry(place).or_default();
        limiter::charge(&Slots(RefCell::new(bucket)), limiter::SHARED, now, rate)
    }

    fn cookie(&self, headers: &Headers) -> Cookie {
        // The kernel makes none where a SYN comes with another flag of a connection's state.
        let alone = headers.flags & (tcp::FIN | tcp::RST) == 0;
        let cookie = self.listening.get(&headers.port).filter(|_| alone).copied().unwrap_or_default();
        if cookie.made {
            self.cookies_made.set(self.now.get());
        }
        cookie
    }

    fn cookies_made(&self) -> u64 {
        self.cookies_made.get()
    }

    fn returns_cookie(&self, headers: &Headers) -> bool {
        self.listening
            .get(&headers.port)
            .is_some_and(|cookie| headers.acknowledgement == cookie.sequence.wrapping_add(1))
    }

    fn server(&self, _: &Headers) -> Server {
        self.server.get()
    }

    fn answer(&self, answer: Answer) {
        self.answer.set(answer);
    }

    fn listing_v4(&self, address: [u8; 4]) -> Listing {
        self.listed(IpAddr::from(address))
    }

    fn listing_v6(&self, [upper, lower]: [u64; 2]) -> Listing {
        self.listed(IpAddr::V6(Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower))))
    }

    fn charge(&self, limit: Limit, _: u8, source: SourceKey, now: u64, rate: Rate) -> Charge {
        if limit == Limit::Packets
            && let Some(ban) = self.spilled.get(&source).filter(|ban| ban.holds(now))
        {
            return Charge::Banned(ban.until);
        }
        let index = self.index(limit, source);
        let mut buckets = self.buckets.borrow_mut();
        let bucket = buckets.entry((limit, index)).or_default();
        limiter::charge(&Slots(RefCell::new(bucket)), source.get(), now, rate)
    }

    fn charge_known(&self, limit: Limit, source: SourceKey, rate: Rate) -> Known {
        let index = self.index(limit, source);
        let mut buckets = self.buckets.borrow_mut();
        let bucket = buckets.entry((limit, index)).or_default();
        let spilled = || limit == Limit::Packets && self.spilled.contains_key(&source);
        limiter::charge_known(&Slots(RefCell::new(bucket)), source.get(), rate, || self.now.get(), spilled)
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn flow(&self, hash: u64) -> Phase {
        self.with_flows(hash, |flows| flow::phase(flows, hash))
    }

    fn has_passed(&self, hash: u64, sequence: u32, length: u32, urgent: bool) -> bool {
        self.with_flows(hash, |flows| flow::has_passed(flows, hash, sequence, length, urgent))
    }

    fn confirm_flow(&self, hash: u64, sequence: u32) {
        self.with_flows(hash, |flows| flow::confirm(flows, hash, sequence));
    }

    fn open_flow(&self, segment: &Segment, opening: &Opening) -> Place {
        self.with_flows(segment.hash, |flows| flow::open(flows, segment, opening))
    }

    fn follow_flow<P: Packet>(&self, packet: &P, segment: &Segment, marks: &mut Marks) -> Followed {
        self.with_flows(segment.hash, |flows| flow::follow(flows, segment, packet, marks))
    }

    fn hello(&self, hash: u64) -> u32 {
        self.hellos.get(&hash).copied().unwrap_or(0)
    }

    fn close_flow(&self, hash: u64) {
        self.with_flows(hash, |flows| flow::close(flows, hash));
    }
}

/// One bucket of the flow table.
#[derive(Clone, Debug, Default)]
struct Flows {
    words: Cell<flow::RawBucket>,
    entries: [Entry; SLOTS],
    /// What has passed of hellos that go on.
    kept: BTreeMap<u64, Box<Kept>>,
}

impl flow::Bucket for Flows {
    fn word(&self, slot: usize) -> u64 {
        self.words.get().get(slot).copied().unwrap_or_default()
    }

    fn swap(&self, slot: usize, old: u64, new: u64) -> bool {
        let mut words = self.words.get();
        let Some(word) = words.get_mut(slot).filter(|word| **word == old) else { return false };
        *word = new;
        self.words.set(words);
        true
    }

    fn entry(&mut self, slot: usize) -> Option<&mut Entry> {
        self.entries.get_mut(slot)
    }

    fn kept(&mut self, key: u64, anew: bool) -> Option<&mut Kept> {
        if anew {
            self.kept.insert(key, Box::new(Kept::NONE));
        }
        self.kept.get_mut(&key).map(|kept| &mut **kept)
    }

    fn forget(&mut self, key: u64, _: bool) {
        self.kept.remove(&key);
    }
}

/// A bucket that nobody else writes.
struct Slots<'a>(RefCell<&'a mut RawBucket>);

impl Slots<'_> {
    fn swap(&self, word: usize, old: u64, new: u64) -> Result<(), u64> {
        let found = std::mem::replace(&mut self.0.borrow_mut()[word], new);
        debug_assert_eq!(found, old, "nobody else writes");
        Ok(())
    }
}

impl Bucket for Slots<'_> {
    fn key(&self, slot: usize) -> u64 {
        self.0.borrow()[slot * 2]
    }

    fn tat(&self, slot: usize) -> u64 {
        self.0.borrow()[slot * 2 + 1]
    }

    fn swap_key(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.swap(slot * 2, old, new)
    }

    fn swap_tat(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.swap(slot * 2 + 1, old, new)
    }
}
