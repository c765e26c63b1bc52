//! The maps, and what a verdict looks up in them. Who writes which map is said in `enforcer_common::maps`.
//!
//! Sizes given here are placeholders of the object file: the loader sets them from the configuration.

use core::{
    cell::Cell,
    intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg},
    ptr::{null_mut, read_volatile},
};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, xdp_md},
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::btf_map,
};
use enforcer_common::{
    answer::Answer,
    ban::{Ban, Listing},
    budget::shared,
    event::{self, Budget},
    flow::{Followed, Opening, Place, Segment, slot::Phase},
    gcra::Rate,
    headers::Headers,
    hello::{lists, marks::Marks},
    limiter::{self, Bucket, Charge, Known, RawBucket},
    listed,
    maps::Counter,
    packet::Packet,
    port::{PORTS as PORT_COUNT, Port},
    reason::{self, DropReason},
    settings::{INTERFACES, Limit, SHARED_SLOT, Settings, flag},
    source::SourceKey,
    verdict::{self, Cookie, Server, Tables},
};

use crate::{cookie, events, flows, steps};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static LISTED_BITS_V4: Array<u64, { listed::V4_WORDS }, MMAPABLE> = Array::new();
#[btf_map]
static LISTED_BITS_V6: Array<u64, { listed::V6_WORDS }, MMAPABLE> = Array::new();
#[btf_map]
static PORTS: Array<u32, PORT_COUNT> = Array::new();
#[btf_map]
static BANS: HashMap<u64, Ban, 1024, NO_PREALLOC> = HashMap::new();
#[btf_map]
static LISTED_V4: LpmTrie<[u8; 4], [u32; 4], 1024> = LpmTrie::new();
#[btf_map]
static LISTED_V6: LpmTrie<[u64; 2], [u32; 4], 1024> = LpmTrie::new();
#[btf_map]
static HELLOS: HashMap<u64, u32, { lists::ENTRIES }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static SOURCES: Array<RawBucket, 256, MMAPABLE> = Array::new();
#[btf_map]
static SPILLED: Array<u64, 4, MMAPABLE> = Array::new();
#[btf_map]
static LIMIT_CONNS: Array<RawBucket, 256, MMAPABLE> = Array::new();
#[btf_map]
static LIMIT_HELLOS: Array<RawBucket, 256, MMAPABLE> = Array::new();
#[btf_map]
static LIMIT_QUIC: Array<RawBucket, 256, MMAPABLE> = Array::new();
#[btf_map]
static LIMIT_BYTES: Array<RawBucket, 256, MMAPABLE> = Array::new();
#[btf_map]
static BUDGETS: Array<RawBucket, 512, MMAPABLE> = Array::new();
#[btf_map]
static SHARED_BUDGETS: Array<RawBucket, { shared::PLACES }, MMAPABLE> = Array::new();
#[btf_map]
static EVENT_BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counter, { reason::COUNTERS as usize * INTERFACES }> = PerCpuArray::new();

/// The daemon's settings.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// Counts a packet on this CPU; answers how many it has counted for this number.
#[inline(always)]
fn count(slot: u32, number: u32, bytes: usize) -> u64 {
    let Some(counter) = COUNTERS.get_ptr_mut(reason::counter(slot, number)) else { return 0 };
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other on one.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += bytes as u64;
        (*counter).packets
    }
}

/// The maps as one packet sees them.
pub(crate) struct Maps {
    context: *mut xdp_md,
    /// Read in place: a packet that comes while the daemon writes may see old and new values mixed. Each of them is sound
    /// by itself, and what the maps depend on (seed, mask, IPv6 prefix) never changes while the program is loaded.
    settings: Option<&'static Settings>,
    /// 0 until somebody asks: the clock costs as much as a lookup.
    now: Cell<u64>,
    /// Whether the verdict asked for something to be written: see [`steps::asked`].
    answered: Cell<bool>,
}

impl Maps {
    /// `now` is what another step has read, or 0.
    #[inline(always)]
    pub(crate) fn new(context: *mut xdp_md, now: u64) -> Self {
        Self { context, settings: SETTINGS.get(0), now: Cell::new(now), answered: Cell::new(false) }
    }

    /// The instant, if somebody has asked for it; else 0.
    #[inline(always)]
    pub(crate) fn read_now(&self) -> u64 {
        self.now.get()
    }

    /// Counts the verdict; answers how many this CPU has counted for this reason.
    #[inline(always)]
    pub(crate) fn count(&self, reason: u32, bytes: usize) -> u64 {
        count(slot(self.settings, self.context), reason, bytes)
    }

    /// Whether the daemon wants samples.
    #[inline(always)]
    pub(crate) fn shows_events(&self) -> bool {
        self.settings.is_some_and(|settings| settings.events.is_limited())
    }

    /// Whether the daemon wants no sample of a packet that is dropped, or has had as many as it wants by now.
    #[inline(always)]
    pub(crate) fn refuses_event(&self) -> bool {
        let Some(settings) = self.settings.filter(|settings| settings.events.is_limited()) else {
            return true;
        };
        event_budget().is_none_or(|budget| budget.refuses(self.now(), settings.events))
    }

    /// Whether the verdict asked for something to be written.
    #[inline(always)]
    pub(crate) fn answered(&self) -> bool {
        self.answered.get()
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        self.settings
    }

    #[inline(always)]
    fn slot(&self) -> u32 {
        slot(self.settings, self.context)
    }

    #[inline(always)]
    fn port(&self, number: u16) -> Port {
        PORTS.get(number as u32).map_or(Port::UNKNOWN, |word| Port::from_word(*word))
    }

    #[inline(always)]
    fn would_drop(&self, reason: DropReason, bytes: usize) {
        enforcer_rehearse(self.context, reason.number(), reason.dry_number(), bytes as u32, self.now());
    }

    #[inline(always)]
    fn cookie(&self, headers: &Headers) -> Cookie {
        cookie::make(self.context, headers, self.now())
    }

    #[inline(always)]
    fn cookies_made(&self) -> u64 {
        cookie::last_made()
    }

    #[inline(always)]
    fn returns_cookie(&self, headers: &Headers) -> bool {
        cookie::is_returned(self.context, headers)
    }

    #[inline(always)]
    fn server(&self, headers: &Headers) -> Server {
        cookie::server(self.context, headers)
    }

    #[inline(always)]
    fn answer(&self, answer: Answer) {
        steps::ask(answer);
        self.answered.set(true);
    }

    #[inline(always)]
    fn listing_v4(&self, address: [u8; 4]) -> Listing {
        if !is_set(&LISTED_BITS_V4, listed::v4(address)) {
            return Listing::NONE;
        }
        LISTED_V4.get(&Key::new(32, address)).map_or(Listing::NONE, |words| Listing::from_words(*words))
    }

    #[inline(always)]
    fn listing_v6(&self, [upper, lower]: [u64; 2]) -> Listing {
        if !is_set(&LISTED_BITS_V6, listed::V6_WIDE)
            && !is_set(&LISTED_BITS_V6, listed::v6_network(upper))
            && !is_set(&LISTED_BITS_V6, listed::v6_site(upper))
        {
            return Listing::NONE;
        }
        // The trie compares bytes in network order.
        LISTED_V6
            .get(&Key::new(128, [upper.to_be(), lower.to_be()]))
            .map_or(Listing::NONE, |words| Listing::from_words(*words))
    }

    #[inline(always)]
    fn charge_known(&self, limit: Limit, source: SourceKey, rate: Rate) -> Known {
        let Some(settings) = self.settings else { return Known::Other };
        let index = limiter::bucket_index(source.get(), settings.seed, settings.mask(limit));
        // Where the program is compiled it is known which one.
        let bucket = match limit {
            Limit::Packets => SOURCES.get_ptr_mut(index),
            Limit::Connections => LIMIT_CONNS.get_ptr_mut(index),
            Limit::Hellos | Limit::Quic | Limit::Bytes => None,
        };
        let Some(bucket) = bucket else { return Known::Other };
        let spilled = || limit == Limit::Packets && is_set(&SPILLED, index);
        limiter::charge_known(&Slots(bucket.cast()), source.get(), rate, || self.now(), spilled)
    }

    #[inline(always)]
    fn charge(&self, limit: Limit, tier: u8, source: SourceKey, now: u64, rate: Rate) -> Charge {
        // A function that the verifier checks by itself takes numbers only, and five of them.
        charged(match limit {
            Limit::Packets => enforcer_source(source.get(), now, tier as u32),
            Limit::Connections | Limit::Hellos | Limit::Quic | Limit::Bytes => {
                enforcer_charge(limit as u32, source.get(), now, rate.increment, rate.tolerance)
            }
        })
    }

    #[inline(always)]
    fn charge_budget(&self, key: u64, now: u64, rate: Rate) -> Charge {
        charged(enforcer_charge_budget(key, now, rate.increment, rate.tolerance))
    }

    #[inline(always)]
    fn charge_shared(&self, place: u32, now: u64, rate: Rate) -> Charge {
        charged(enforcer_charge_shared(place, now, rate.increment, rate.tolerance))
    }

    #[inline(always)]
    fn flow(&self, hash: u64) -> Phase {
        flows::phase(hash)
    }

    #[inline(always)]
    fn awaits_nothing(&self, hash: u64, sequence: u32, length: u32, flags: u8) -> bool {
        enforcer_awaits_nothing(hash, sequence, length, flags as u32) != 0
    }

    #[inline(always)]
    fn has_passed(&self, hash: u64, sequence: u32, length: u32, urgent: bool) -> bool {
        flows::has_passed(hash, sequence, length, urgent)
    }

    #[inline(always)]
    fn confirm_flow(&self, hash: u64, sequence: u32) {
        flows::confirm(hash, sequence);
    }

    #[inline(always)]
    fn open_flow(&self, _: &Segment, opening: &Opening) -> Place {
        flows::open(opening)
    }

    #[inline(always)]
    fn follow_flow<P: Packet>(&self, packet: &P, segment: &Segment, marks: &mut Marks) -> Followed {
        flows::follow(self.context, packet, segment, marks)
    }

    #[inline(always)]
    fn hello(&self, hash: u64) -> u32 {
        // SAFETY: as of bans: an entry that is replaced meanwhile may show its successor, at worst one wrong verdict.
        unsafe { HELLOS.get(hash) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn close_flow(&self, hash: u64) {
        flows::close(hash);
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        if self.now.get() == 0 {
            let fine = self.settings.is_some_and(|settings| settings.flags & flag::FINE_CLOCK != 0);
            // SAFETY: both take nothing and always succeed (the coarse one since Linux 5.11). They count the same time; the
            // coarse one lags by up to a tick, see `enforcer_common::gcra`.
            self.now.set(unsafe { if fine { bpf_ktime_get_ns() } else { bpf_ktime_get_coarse_ns() } });
        }
        self.now.get()
    }
}

/// [`verdict::awaits_nothing`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_awaits_nothing(hash: u64, sequence: u32, length: u32, flags: u32) -> u32 {
    verdict::awaits_nothing(&Maps::new(null_mut(), 0), hash, sequence, length, flags as u8) as u32
}

/// The slot in which the interface of the packet is counted.
#[inline(always)]
fn slot(settings: Option<&Settings>, context: *mut xdp_md) -> u32 {
    // SAFETY: the context is the one that the kernel gave to the program.
    let interface = unsafe { (*context).ingress_ifindex };
    settings.map_or(SHARED_SLOT, |settings| settings.slot(interface))
}

/// Counts and shows a packet that would have been dropped, as a global function: it is called wherever a packet can be
/// dropped, and verified once (Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_rehearse(context: *mut xdp_md, reason: u32, number: u32, bytes: u32, now: u64) -> u32 {
    let settings = SETTINGS.get(0);
    count(slot(settings, context), number, bytes as usize);
    if settings.is_some_and(|settings| settings.events.is_limited()) {
        events::show(context, reason, event::flag::WOULD_DROP, now);
    }
    0
}

/// Charges one sample to this CPU; whether it may be made.
#[inline(always)]
pub(crate) fn charge_event(now: u64) -> Option<&'static mut Budget> {
    let (settings, budget) = (SETTINGS.get(0)?, event_budget()?);
    if budget.take(now, settings.events) { Some(budget) } else { None }
}

/// The samples of this CPU.
#[inline(always)]
fn event_budget() -> Option<&'static mut Budget> {
    // SAFETY: the value belongs to this CPU, and XDP programs do not interrupt each other on one.
    EVENT_BUDGET.get_ptr_mut(0).map(|budget| unsafe { &mut *budget })
}

/// Whether a bit is set; those that an array does not have are not.
#[inline(always)]
fn is_set<const N: usize>(bits: &Array<u64, N, MMAPABLE>, bit: u32) -> bool {
    let (word, mask) = listed::place(bit);
    bits.get(word).is_some_and(|word| word & mask != 0)
}

const WITHIN: u32 = 0;
const EXCEEDED: u32 = 1;
const FULL: u32 = 2;
const BANNED: u32 = 3;

/// How long the source would have to wait, or is banned, is of no use to the program.
#[inline(always)]
const fn number(charge: Charge) -> u32 {
    match charge {
        Charge::Within => WITHIN,
        Charge::Exceeded(_) => EXCEEDED,
        Charge::Full => FULL,
        Charge::Banned(_) => BANNED,
    }
}

/// The opposite of [`number`].
#[inline(always)]
const fn charged(number: u32) -> Charge {
    match number {
        WITHIN => Charge::Within,
        EXCEEDED => Charge::Exceeded(0),
        BANNED => Charge::Banned(0),
        _ => Charge::Full,
    }
}

/// Whether a source is banned, and one packet at its expense, as a global function, which the verifier checks once (Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_source(source: u64, now: u64, tier: u32) -> u32 {
    let Some(settings) = SETTINGS.get(0) else { return FULL };
    let index = limiter::bucket_index(source, settings.seed, settings.source_mask);
    if is_set(&SPILLED, index) && is_spilled(source, now) {
        return BANNED;
    }
    let Some(bucket) = SOURCES.get_ptr_mut(index) else { return FULL };
    number(limiter::charge(&Slots(bucket.cast()), source, now, settings.limit(Limit::Packets, tier as u8)))
}

/// Whether a source is banned for which its bucket had no room.
#[inline(always)]
fn is_spilled(source: u64, now: u64) -> bool {
    // SAFETY: an entry that is replaced meanwhile may show its successor, at worst one wrong verdict; memory of
    // entries without preallocation is freed only after the program's RCU section.
    unsafe { BANS.get(source) }.is_some_and(|ban| ban.holds(now))
}

/// [`limiter::charge`] for the limits besides packets, as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_charge(limit: u32, source: u64, now: u64, increment: u64, tolerance: u64) -> u32 {
    let Some(settings) = SETTINGS.get(0) else { return FULL };
    let index = limiter::bucket_index(source, settings.seed, settings.bucket_mask);
    let bucket = if limit == Limit::Connections as u32 {
        LIMIT_CONNS.get_ptr_mut(index)
    } else if limit == Limit::Hellos as u32 {
        LIMIT_HELLOS.get_ptr_mut(index)
    } else if limit == Limit::Quic as u32 {
        LIMIT_QUIC.get_ptr_mut(index)
    } else {
        LIMIT_BYTES.get_ptr_mut(index)
    };
    charge(bucket, source, now, Rate { increment, tolerance })
}

/// The same for budgets besides those.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_charge_budget(key: u64, now: u64, increment: u64, tolerance: u64) -> u32 {
    let Some(settings) = SETTINGS.get(0) else { return FULL };
    let index = limiter::bucket_index(key, settings.seed, settings.budget_mask());
    charge(BUDGETS.get_ptr_mut(index), key, now, Rate { increment, tolerance })
}

/// The same for budgets that many sources share.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_charge_shared(place: u32, now: u64, increment: u64, tolerance: u64) -> u32 {
    charge(SHARED_BUDGETS.get_ptr_mut(place), limiter::SHARED, now, Rate { increment, tolerance })
}

#[inline(always)]
fn charge(bucket: Option<*mut RawBucket>, key: u64, now: u64, rate: Rate) -> u32 {
    let Some(bucket) = bucket else { return FULL };
    number(limiter::charge(&Slots(bucket.cast()), key, now, rate))
}

/// One bucket in map memory.
struct Slots(*mut u64);

impl Slots {
    /// Compare-and-set. Sequentially consistent because LLVM 22 turns a relaxed one whose result is used into an
    /// operation that returns nothing (llvm-project issue 210280); a test guards it.
    #[inline(always)]
    fn swap(&self, word: usize, old: u64, new: u64) -> Result<(), u64> {
        // SAFETY: `word` is below 8, the words of a bucket; all access is atomic.
        match unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(self.0.add(word), old, new) } {
            (_, true) => Ok(()),
            (found, false) => Err(found),
        }
    }

    #[inline(always)]
    fn load(&self, word: usize) -> u64 {
        // SAFETY: as above. Aligned 64-bit loads are single on every machine that runs BPF's JIT; the atomic load
        // that Rust has does not compile for this target.
        unsafe { read_volatile(self.0.add(word)) }
    }
}

impl Bucket for Slots {
    #[inline(always)]
    fn key(&self, slot: usize) -> u64 {
        self.load(slot * 2)
    }

    #[inline(always)]
    fn tat(&self, slot: usize) -> u64 {
        self.load(slot * 2 + 1)
    }

    #[inline(always)]
    fn swap_key(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.swap(slot * 2, old, new)
    }

    #[inline(always)]
    fn swap_tat(&self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        self.swap(slot * 2 + 1, old, new)
    }
}
