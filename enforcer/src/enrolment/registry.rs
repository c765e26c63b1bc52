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
    time::Duration,
};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::{
    device::{Blocked, Device, DeviceId, Standing},
    evidence::Distributed,
    pace::Pace,
    receipts::Receipts,
};
use crate::store::Store;

/// A power of two, so that a shard is chosen by bits; far more than workers.
const SHARDS: usize = 64;

type Devices = HashMap<DeviceId, Known, RandomState>;

/// A device, and which policy has found it good last: while that is in force, it need not be judged again.
pub(super) struct Known {
    pub(super) device: Device,
    judged: u64,
}

impl From<Device> for Known {
    fn from(device: Device) -> Self {
        // No policy has this number.
        Self { device, judged: 0 }
    }
}

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
    /// Names whose rows in the store cannot be understood: they are refused, and the rows stay.
    pub unreadable: usize,
    /// Devices that were not seen for long and are still known, because no more are forgotten at once.
    pub overdue: usize,
    /// Seconds by which the wall clock has leapt ahead since the start: by so much less are devices taken for old.
    pub leapt: u64,
}

/// What becomes of a change on its way to the disk.
#[derive(Debug)]
pub struct Receipt(Option<oneshot::Receiver<()>>);

impl Receipt {
    /// Where nothing is written.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Whether it is in the file, for at most so long; where there is no store, nothing is waited for.
    pub async fn is_written(self, patience: Duration) -> bool {
        match self.0 {
            None => true,
            Some(written) => matches!(tokio::time::timeout(patience, written).await, Ok(Ok(()))),
        }
    }
}

struct Sweep {
    /// The shard that is swept next.
    next: usize,
    pace: Pace,
    /// Devices of each shard that should have been forgotten when it was swept last.
    overdue: [usize; SHARDS],
}

/// Everything that is known of devices.
pub struct Registry {
    pub(super) shards: Box<[Mutex<Devices>]>,
    most: usize,
    count: AtomicUsize,
    blocked: AtomicUsize,
    refused: AtomicU64,
    forgotten: AtomicU64,
    sweep: Mutex<Sweep>,
    /// Names whose rows in the store cannot be understood, and how many those are.
    unreadable: Mutex<BTreeSet<DeviceId>>,
    unreadable_count: AtomicUsize,
    /// Policies that have judged devices so far.
    policies: AtomicU64,
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
            sweep: Mutex::new(Sweep { next: 0, pace: Pace::default(), overdue: [0; SHARDS] }),
            unreadable: Mutex::default(),
            unreadable_count: AtomicUsize::new(0),
            policies: AtomicU64::new(0),
            journal: OnceLock::new(),
            receipts: Receipts::default(),
        }
    }

    /// Takes a device up; whether it was known. One that was keeps its counter, which never goes back, and stays refused if it is.
    pub fn enrol(&self, id: DeviceId, device: Device) -> Result<bool, Unfit> {
        let mut shard = self.shard(id);
        if let Some(known) = shard.get_mut(&id) {
            let before = &known.device;
            if before.blocked.is_some() {
                return Err(Unfit::Blocked);
            }
            let (counter, enrolled) = (before.counter.max(device.counter), before.enrolled);
            *known = Device { counter, enrolled, ..device }.into();
            self.write(id, Some(&known.device));
            return Ok(true);
        }
        if self.missing(id) == Unfit::Blocked {
            return Err(Unfit::Blocked);
        }
        let room = |count| (count < self.most).then_some(count + 1);
        if self.count.fetch_update(Relaxed, Relaxed, room).is_err() {
            self.refused.fetch_add(1, Relaxed);
            return Err(Unfit::Full);
        }
        self.write(id, Some(&device));
        shard.insert(id, device.into());
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
        shard.insert(id, device.into());
        true
    }

    /// A row of the store that cannot be understood: whoever it was is refused until it is forgotten, since it may have been blocked.
    pub(super) fn seal(&self, id: DeviceId) {
        let mut unreadable = lock(&self.unreadable);
        unreadable.insert(id);
        self.unreadable_count.store(unreadable.len(), Relaxed);
    }

    /// Whether the store has a row of this name that cannot be understood.
    pub fn is_unreadable(&self, id: DeviceId) -> bool {
        self.unreadable_count.load(Relaxed) > 0 && lock(&self.unreadable).contains(&id)
    }

    /// Why a device cannot be found.
    pub fn missing(&self, id: DeviceId) -> Unfit {
        if self.is_unreadable(id) { Unfit::Blocked } else { Unfit::Unknown }
    }

    /// The number of another policy that judges devices: no two have one, and none has 0.
    pub fn policy(&self) -> u64 {
        self.policies.fetch_add(1, Relaxed) + 1
    }

    /// What is known of a device.
    pub fn find(&self, id: DeviceId) -> Option<Device> {
        self.shard(id).get(&id).map(|known| known.device.clone())
    }

    /// What requests of a device are judged by, under the policy with this number ([`Registry::policy`]). `judge`: whether that finds the
    /// device good, by what it has shown; it is asked once for each policy, and must not take long.
    pub fn standing<E: From<Unfit>>(
        &self,
        id: DeviceId,
        policy: u64,
        judge: impl FnOnce(&Device) -> Result<(), E>,
    ) -> Result<Standing, E> {
        let mut shard = self.shard(id);
        let known = shard.get_mut(&id).ok_or_else(|| self.missing(id))?;
        if known.device.blocked.is_some() {
            return Err(Unfit::Blocked.into());
        }
        if known.judged != policy {
            judge(&known.device)?;
            known.judged = policy;
        }
        Ok(known.device.standing())
    }

    /// What the system of a device says now of its app.
    pub fn learn(&self, id: DeviceId, distributed: Distributed) {
        let mut shard = self.shard(id);
        let Some(known) = shard.get_mut(&id) else { return };
        if known.device.evidence.distributed.as_deref() != Some(&distributed) {
            known.device.evidence.distributed = Some(Box::new(distributed));
            known.judged = 0;
            self.write(id, Some(&known.device));
        }
    }

    /// A device has shown what it is, by an assertion with this counter, at `now` (seconds since 1970). Of two with one counter one
    /// is the first, and the other is refused.
    pub fn advance(&self, id: DeviceId, counter: u32, now: u64) -> Result<Standing, Unfit> {
        let mut shard = self.shard(id);
        let Known { device, .. } = shard.get_mut(&id).ok_or_else(|| self.missing(id))?;
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

    /// Refuses a device from now on; `None`: it is not known.
    pub fn block(&self, id: DeviceId, reason: &str, now: u64) -> Option<Receipt> {
        let mut shard = self.shard(id);
        let device = &mut shard.get_mut(&id)?.device;
        let since = device.blocked.as_ref().map_or(now, |blocked| blocked.since);
        self.blocked.fetch_add(usize::from(device.blocked.is_none()), Relaxed);
        device.blocked = Some(Blocked { since, reason: reason.into() });
        Some(self.write_now(id, Some(device)))
    }

    /// Takes that back; `None`: it was not refused.
    pub fn unblock(&self, id: DeviceId) -> Option<Receipt> {
        let mut shard = self.shard(id);
        let device = &mut shard.get_mut(&id)?.device;
        device.blocked.take()?;
        self.blocked.fetch_sub(1, Relaxed);
        Some(self.write_now(id, Some(device)))
    }

    /// Knows a device no longer; `None`: it did not. One that is refused could come back then.
    pub fn forget(&self, id: DeviceId) -> Option<Receipt> {
        let mut shard = self.shard(id);
        match shard.remove(&id) {
            Some(known) => self.uncount(&known.device),
            None => {
                let mut unreadable = lock(&self.unreadable);
                unreadable.remove(&id).then_some(())?;
                self.unreadable_count.store(unreadable.len(), Relaxed);
            }
        }
        self.drop_receipt(id);
        Some(self.write_now(id, None))
    }

    /// Forgets devices of one shard, another one with each call, that were not seen for so long. Those that are refused stay. `now`: the wall
    /// clock, seconds since 1970; `machine`: the machine's own, since whenever. See [`Pace`] for what holds it up.
    pub fn sweep(&self, now: u64, machine: Duration, forget_after: Duration) {
        let mut sweep = lock(&self.sweep);
        let number = sweep.next % SHARDS;
        sweep.next = number + 1;
        let (now, may) = sweep.pace.look(now, machine, forget_after, self.count.load(Relaxed));
        let (Some(shard), Some(overdue)) = (self.shards.get(number), sweep.overdue.get_mut(number)) else {
            return;
        };
        let mut shard = lock(shard);
        let over = |device: &Device| {
            device.blocked.is_none() && device.seen.saturating_add(forget_after.as_secs()) < now
        };
        let gone: Vec<DeviceId> =
            shard.iter().filter(|(_, known)| over(&known.device)).map(|(id, _)| *id).collect();
        let count = gone.len().min(may);
        *overdue = gone.len() - count;
        for id in gone.into_iter().take(may) {
            if let Some(known) = shard.remove(&id) {
                self.uncount(&known.device);
                self.write(id, None);
                self.drop_receipt(id);
                self.forgotten.fetch_add(1, Relaxed);
            }
        }
        sweep.pace.took(count, forget_after);
    }

    /// How it is.
    pub fn look(&self) -> Look {
        let sweep = lock(&self.sweep);
        Look {
            devices: self.count.load(Relaxed),
            blocked: self.blocked.load(Relaxed),
            most: self.most,
            refused: self.refused.load(Relaxed),
            forgotten: self.forgotten.load(Relaxed),
            is_kept: self.journal.get().is_some(),
            unreadable: self.unreadable_count.load(Relaxed),
            overdue: sweep.overdue.iter().sum(),
            leapt: sweep.pace.leapt(),
        }
    }

    fn uncount(&self, device: &Device) {
        self.count.fetch_sub(1, Relaxed);
        self.blocked.fetch_sub(usize::from(device.blocked.is_some()), Relaxed);
    }

    /// Changes what is known of a device, if it is.
    pub(super) fn change(&self, id: DeviceId, change: impl FnOnce(&mut Device)) {
        let mut shard = self.shard(id);
        let Some(Known { device, .. }) = shard.get_mut(&id) else { return };
        change(device);
        self.write(id, Some(device));
    }

    /// While the device's shard is locked, so that what is written last is what happened last.
    fn write(&self, id: DeviceId, device: Option<&Device>) {
        if let Some(journal) = self.journal.get() {
            lock(journal).write([super::keeping::change(id, device)]);
        }
    }

    /// The same for whoever waits for it.
    fn write_now(&self, id: DeviceId, device: Option<&Device>) -> Receipt {
        let journal = self.journal.get();
        Receipt(journal.map(|journal| lock(journal).write_now([super::keeping::change(id, device)])))
    }

    fn shard(&self, id: DeviceId) -> MutexGuard<'_, Devices> {
        let [.., last] = id.bytes();
        lock(&self.shards[usize::from(*last) % SHARDS])
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
