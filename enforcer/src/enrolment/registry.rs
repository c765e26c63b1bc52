//! Every device that has enrolled, by its name: in memory, and in the embedded store where there is one.
//!
//! Bounded: what finds no room is refused, and nothing that is known gives way but devices that were not seen for long. Shards by
//! name: workers meet in one only by chance, for the time of one look-up in memory. What changes is handed to the store in the
//! order in which it changed, and written soon, with whatever else has come together. A crash may lose the last of it: a counter
//! that went on, which nobody can use, because the challenges that went with it are good for nothing in another process; a device
//! that enrolled, which does so again; or an operator's word of the last moment before it.

mod verdicts;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use foldhash::fast::RandomState;

use super::{
    device::{Blocked, Device, DeviceId, Standing},
    receipts::Receipts,
};
use crate::store::Store;

/// A power of two, so that a shard is chosen by bits; far more than workers.
const SHARDS: usize = 64;

type Devices = HashMap<DeviceId, Device, RandomState>;

/// Why something cannot be done for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is not known.
    Unknown,
    /// It is refused.
    Blocked,
    /// It has shown this counter before, or a larger one.
    Replayed,
    /// There is no room for another one.
    Full,
}

/// How it is, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Devices, blocked ones among them.
    pub devices: usize,
    /// Blocked ones.
    pub blocked: usize,
    /// Most devices.
    pub most: usize,
    /// Devices that were refused for want of room.
    pub refused: u64,
    /// Devices that were forgotten because they were not seen for long.
    pub forgotten: u64,
    /// Whether they outlive the daemon.
    pub is_kept: bool,
}

/// Some of the devices, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most as many as were asked for.
    pub rows: Vec<(DeviceId, Device)>,
    /// Whether others follow.
    pub more: bool,
}

/// Everything that is known of devices.
pub struct Registry {
    shards: Box<[Mutex<Devices>]>,
    most: usize,
    count: AtomicUsize,
    blocked: AtomicUsize,
    refused: AtomicU64,
    forgotten: AtomicU64,
    /// The shard that is swept next.
    sweeping: AtomicUsize,
    pub(super) journal: OnceLock<Mutex<Store>>,
    pub(super) receipts: Receipts,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.look().fmt(f)
    }
}

impl Registry {
    /// Room for so many.
    pub fn new(most: u32) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most: most as usize,
            count: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            sweeping: AtomicUsize::new(0),
            journal: OnceLock::new(),
            receipts: Receipts::default(),
        }
    }

    /// Takes a device up; whether it was known. One that was keeps its counter, which never goes back, and stays refused if it is.
    pub fn enrol(&self, id: DeviceId, device: Device) -> Result<bool, Unfit> {
        let mut shard = self.shard(id);
        if let Some(known) = shard.get_mut(&id) {
            if known.blocked.is_some() {
                return Err(Unfit::Blocked);
            }
            let (counter, enrolled) = (known.counter.max(device.counter), known.enrolled);
            *known = Device { counter, enrolled, ..device };
            self.write(id, Some(known));
            return Ok(true);
        }
        let room = |count| (count < self.most).then_some(count + 1);
        if self.count.fetch_update(Relaxed, Relaxed, room).is_err() {
            self.refused.fetch_add(1, Relaxed);
            return Err(Unfit::Full);
        }
        self.write(id, Some(&device));
        shard.insert(id, device);
        Ok(false)
    }

    /// Takes up what was kept; false: there is no room. Before anything else.
    pub(super) fn restore(&self, id: DeviceId, device: Device) -> bool {
        let mut shard = self.shard(id);
        let room = |count| (count < self.most).then_some(count + 1);
        if self.count.fetch_update(Relaxed, Relaxed, room).is_err() {
            return false;
        }
        self.blocked.fetch_add(usize::from(device.blocked.is_some()), Relaxed);
        shard.insert(id, device);
        true
    }

    /// What is known of a device.
    pub fn find(&self, id: DeviceId) -> Option<Device> {
        self.shard(id).get(&id).cloned()
    }

    /// What requests of a device are judged by.
    pub fn standing(&self, id: DeviceId) -> Result<Standing, Unfit> {
        let shard = self.shard(id);
        let device = shard.get(&id).ok_or(Unfit::Unknown)?;
        if device.blocked.is_some() { Err(Unfit::Blocked) } else { Ok(device.standing()) }
    }

    /// A device has shown what it is, by an assertion with this counter, at `now` (seconds since 1970). Of two with one counter one
    /// is the first, and the other is refused.
    pub fn advance(&self, id: DeviceId, counter: u32, now: u64) -> Result<Standing, Unfit> {
        let mut shard = self.shard(id);
        let device = shard.get_mut(&id).ok_or(Unfit::Unknown)?;
        if device.blocked.is_some() {
            return Err(Unfit::Blocked);
        }
        if counter <= device.counter {
            return Err(Unfit::Replayed);
        }
        device.counter = counter;
        device.seen = device.seen.max(now);
        let standing = device.standing();
        self.write(id, Some(device));
        Ok(standing)
    }

    /// Refuses a device from now on; false: it is not known.
    pub fn block(&self, id: DeviceId, reason: &str, now: u64) -> bool {
        let mut shard = self.shard(id);
        let Some(device) = shard.get_mut(&id) else { return false };
        let since = device.blocked.as_ref().map_or(now, |blocked| blocked.since);
        self.blocked.fetch_add(usize::from(device.blocked.is_none()), Relaxed);
        device.blocked = Some(Blocked { since, reason: reason.into() });
        self.write(id, Some(device));
        true
    }

    /// Takes that back; whether it was refused.
    pub fn unblock(&self, id: DeviceId) -> bool {
        let mut shard = self.shard(id);
        let Some(device) = shard.get_mut(&id) else { return false };
        let was = device.blocked.take().is_some();
        if was {
            self.blocked.fetch_sub(1, Relaxed);
            self.write(id, Some(device));
        }
        was
    }

    /// Knows a device no longer; whether it did. One that is refused could come back then.
    pub fn forget(&self, id: DeviceId) -> bool {
        let mut shard = self.shard(id);
        let Some(device) = shard.remove(&id) else { return false };
        self.gone(id, &device);
        true
    }

    /// At most so many devices whose names come after `after`.
    pub fn page(&self, after: Option<DeviceId>, most: usize, blocked_only: bool) -> Page {
        let mut first = BTreeSet::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let wanted = |(id, device): &(&DeviceId, &Device)| {
                after.is_none_or(|after| **id > after) && (!blocked_only || device.blocked.is_some())
            };
            for (id, _) in shard.iter().filter(wanted) {
                first.insert(*id);
                if first.len() > most + 1 {
                    first.pop_last();
                }
            }
        }
        let more = first.len() > most;
        let rows = first.into_iter().take(most).filter_map(|id| Some((id, self.find(id)?))).collect();
        Page { rows, more }
    }

    /// Forgets devices of one shard, another one with each call, that were not seen for so many seconds. Those that are refused stay.
    pub fn sweep(&self, now: u64, forget_after: u64) {
        let number = self.sweeping.fetch_add(1, Relaxed) % SHARDS;
        let Some(shard) = self.shards.get(number) else { return };
        let mut shard = lock(shard);
        let over =
            |device: &Device| device.blocked.is_none() && device.seen.saturating_add(forget_after) < now;
        let gone: Vec<DeviceId> =
            shard.iter().filter(|(_, device)| over(device)).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(device) = shard.remove(&id) {
                self.gone(id, &device);
                self.forgotten.fetch_add(1, Relaxed);
            }
        }
    }

    /// How it is.
    pub fn look(&self) -> Look {
        Look {
            devices: self.count.load(Relaxed),
            blocked: self.blocked.load(Relaxed),
            most: self.most,
            refused: self.refused.load(Relaxed),
            forgotten: self.forgotten.load(Relaxed),
            is_kept: self.journal.get().is_some(),
        }
    }

    fn gone(&self, id: DeviceId, device: &Device) {
        self.count.fetch_sub(1, Relaxed);
        self.blocked.fetch_sub(usize::from(device.blocked.is_some()), Relaxed);
        self.write(id, None);
        self.drop_receipt(id);
    }

    /// Changes what is known of a device, if it is.
    pub(super) fn change(&self, id: DeviceId, change: impl FnOnce(&mut Device)) {
        let mut shard = self.shard(id);
        let Some(device) = shard.get_mut(&id) else { return };
        change(device);
        self.write(id, Some(device));
    }

    /// While the device's shard is locked, so that what is written last is what happened last.
    fn write(&self, id: DeviceId, device: Option<&Device>) {
        if let Some(journal) = self.journal.get() {
            lock(journal).write([super::keeping::change(id, device)]);
        }
    }

    fn shard(&self, id: DeviceId) -> MutexGuard<'_, Devices> {
        let [.., last] = id.bytes();
        lock(&self.shards[usize::from(*last) % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use prometheus::{IntCounter, IntGauge};

    use super::*;
    use crate::{
        config::{Environment, Level, Platform},
        enrolment::{Provider, device::Point},
        store::Gauges,
    };

    const NOW: u64 = 1_800_000_000;

    fn gauges() -> Gauges {
        Gauges {
            pending: IntGauge::new("pending", "x").unwrap(),
            errors: IntCounter::new("errors", "x").unwrap(),
        }
    }

    fn id(n: u32) -> DeviceId {
        DeviceId::of_key(&n.to_be_bytes())
    }

    fn device() -> Device {
        Device {
            key: Point([4; 65]),
            platform: Platform::Ios,
            provider: Provider::AppAttest,
            environment: Environment::Production,
            app: "ABCDE12345.com.example.app".into(),
            level: Level::Strong,
            counter: 0,
            enrolled: NOW,
            seen: NOW,
            risk: Some(2),
            hardware: None,
            verdict: None,
            blocked: None,
        }
    }

    #[test]
    fn a_counter_only_grows_and_of_two_with_one_counter_one_is_the_first() {
        let registry = Registry::new(1_000);
        assert_eq!(registry.advance(id(1), 1, NOW), Err(Unfit::Unknown));
        assert_eq!(registry.enrol(id(1), device()), Ok(false));
        assert_eq!(registry.advance(id(1), 0, NOW), Err(Unfit::Replayed), "the first one is 1");
        for (counter, good) in
            [(1, true), (1, false), (7, true), (6, false), (7, false), (u32::MAX, true), (0, false)]
        {
            assert_eq!(registry.advance(id(1), counter, NOW + 5).is_ok(), good, "{counter}");
        }
        registry.enrol(id(2), device()).unwrap();
        let barrier = Barrier::new(8);
        let wins = std::thread::scope(|scope| {
            let race = || {
                barrier.wait();
                registry.advance(id(2), 9, NOW).is_ok()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|won| *won).count()
        });
        assert_eq!(wins, 1);
    }

    #[test]
    fn who_enrols_again_keeps_its_counter_and_its_block() {
        let registry = Registry::new(1_000);
        registry.enrol(id(1), device()).unwrap();
        registry.advance(id(1), 5, NOW).unwrap();
        let again = Device { enrolled: NOW + 9, seen: NOW + 9, ..device() };
        assert_eq!(registry.enrol(id(1), again.clone()), Ok(true));
        let known = registry.find(id(1)).unwrap();
        assert_eq!((known.counter, known.enrolled, known.seen), (5, NOW, NOW + 9));
        assert!(registry.block(id(1), "stolen", NOW) && registry.block(id(1), "stolen twice", NOW + 1));
        assert_eq!(registry.enrol(id(1), again), Err(Unfit::Blocked));
        assert_eq!(registry.advance(id(1), 6, NOW), Err(Unfit::Blocked));
        assert_eq!(registry.standing(id(1)), Err(Unfit::Blocked));
        let blocked = registry.find(id(1)).unwrap().blocked.unwrap();
        assert_eq!((blocked.since, &*blocked.reason), (NOW, "stolen twice"));
        assert_eq!(registry.look().blocked, 1);
        assert!(registry.unblock(id(1)) && !registry.unblock(id(1)) && registry.standing(id(1)).is_ok());
        assert!(!registry.block(id(2), "", NOW) && !registry.unblock(id(2)) && !registry.forget(id(2)));
        assert!(registry.forget(id(1)));
        assert_eq!((registry.look().devices, registry.look().blocked), (0, 0));
    }

    #[test]
    fn it_is_bounded_and_refuses_what_finds_no_room() {
        let registry = Registry::new(3);
        let outcomes: Vec<_> = (0..5).map(|n| registry.enrol(id(n), device())).collect();
        assert_eq!(outcomes, [Ok(false), Ok(false), Ok(false), Err(Unfit::Full), Err(Unfit::Full)]);
        assert_eq!(registry.enrol(id(0), device()), Ok(true), "who is known needs no room");
        assert_eq!((registry.look().devices, registry.look().refused), (3, 2));
        assert!(registry.forget(id(1)));
        assert_eq!(registry.enrol(id(4), device()), Ok(false));
    }

    #[test]
    fn who_is_not_seen_for_long_is_forgotten_unless_it_is_blocked() {
        let registry = Registry::new(1_000);
        for n in 0..100 {
            registry.enrol(id(n), device()).unwrap();
        }
        registry.block(id(1), "", NOW);
        registry.advance(id(2), 1, NOW + 500).unwrap();
        let sweep = |now| (0..SHARDS).for_each(|_| registry.sweep(now, 1_000));
        sweep(NOW + 1_000);
        assert_eq!(registry.look().devices, 100);
        sweep(NOW + 1_001);
        assert_eq!((registry.look().devices, registry.look().forgotten), (2, 98));
        assert!(registry.find(id(1)).is_some() && registry.find(id(2)).is_some());
    }

    #[test]
    fn pages_show_each_device_once() {
        let registry = Registry::new(1_000);
        for n in 0..250 {
            registry.enrol(id(n), device()).unwrap();
        }
        registry.block(id(17), "", NOW);
        let (mut after, mut seen, mut sizes) = (None, Vec::new(), Vec::new());
        loop {
            let page = registry.page(after, 100, false);
            sizes.push(page.rows.len());
            seen.extend(page.rows.iter().map(|(id, _)| *id));
            after = seen.last().copied();
            if !page.more {
                break;
            }
        }
        assert_eq!(sizes, [100, 100, 50]);
        assert!(seen.is_sorted() && seen.iter().collect::<std::collections::HashSet<_>>().len() == 250);
        let blocked = registry.page(None, 100, true);
        assert_eq!((blocked.rows.len(), blocked.rows[0].0, blocked.more), (1, id(17), false));
        assert!(registry.page(seen.last().copied(), 1, false).rows.is_empty());
    }

    #[test]
    fn what_is_known_survives_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.redb");
        let registry = Registry::new(1_000);
        registry.keep(&path, gauges()).unwrap();
        for n in 0..4 {
            registry.enrol(id(n), device()).unwrap();
        }
        for counter in 1..50 {
            registry.advance(id(0), counter, NOW + u64::from(counter)).unwrap();
        }
        registry.block(id(1), "stolen", NOW);
        registry.forget(id(2));
        let before = registry.page(None, 10, false);
        drop(registry);
        let registry = Registry::new(1_000);
        registry.keep(&path, gauges()).unwrap();
        assert_eq!(registry.page(None, 10, false), before);
        let look = registry.look();
        assert_eq!((look.devices, look.blocked, look.is_kept), (3, 1, true));
        assert_eq!(registry.advance(id(0), 49, NOW), Err(Unfit::Replayed));
        drop(registry);
        let small = Registry::new(2);
        let error = small.keep(&path, gauges()).unwrap_err().to_string();
        assert!(error.contains("max_devices") && error.contains("1 of the devices"), "{error}");
    }

    #[test]
    fn a_store_that_is_broken_is_set_aside_and_nobody_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.redb");
        std::fs::write(&path, "no store at all, but long enough to be one".repeat(1000)).unwrap();
        let registry = Registry::new(1_000);
        registry.keep(&path, gauges()).unwrap();
        assert_eq!((registry.look().devices, registry.look().is_kept), (0, true));
        assert_eq!(registry.standing(id(1)), Err(Unfit::Unknown));
    }
}
