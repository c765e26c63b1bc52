//! Apple's receipts of devices, and when each is to be exchanged for a newer one: what the risk metric comes from.
//!
//! In memory, because they are used again within days, and in the store of devices. Bounded: where there is no room for another one its
//! device keeps the metric that it has.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;

use super::{DeviceId, Registry};
use crate::store::{Change, Table};

/// Receipts by the names of their devices: two times, eight bytes each, and the receipt.
pub(super) const RECEIPTS: Table = "receipts";

/// Seconds between two looks at a device that is refused.
const DAY: u64 = 86_400;

/// A receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// When Apple is asked for a newer one, seconds since 1970.
    pub due: u64,
    /// From then on Apple gives none for it.
    pub until: u64,
    /// As Apple signed it.
    pub receipt: Arc<[u8]>,
}

impl Held {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (due, rest) = bytes.split_first_chunk()?;
        let (until, receipt) = rest.split_first_chunk()?;
        let [due, until] = [due, until].map(|time| u64::from_be_bytes(*time));
        (!receipt.is_empty()).then(|| Self { due, until, receipt: receipt.into() })
    }

    fn written(&self) -> Vec<u8> {
        [&self.due.to_be_bytes()[..], &self.until.to_be_bytes(), &self.receipt].concat()
    }
}

/// Receipts of all devices.
#[derive(Default)]
pub(super) struct Receipts(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    held: HashMap<DeviceId, Held, RandomState>,
    /// The same in the order in which they are due.
    due: BTreeSet<(u64, DeviceId)>,
}

impl Receipts {
    /// Takes one in the place of the one before, if there are fewer than `most` besides.
    pub(super) fn put(&self, id: DeviceId, held: Held, most: usize) -> bool {
        let mut inner = self.lock();
        let before = inner.held.get(&id).map(|before| before.due);
        if before.is_none() && inner.held.len() >= most {
            return false;
        }
        if let Some(before) = before {
            inner.due.remove(&(before, id));
        }
        inner.due.insert((held.due, id));
        inner.held.insert(id, held);
        true
    }

    fn take(&self, id: DeviceId) -> bool {
        let mut inner = self.lock();
        let Some(held) = inner.held.remove(&id) else { return false };
        inner.due.remove(&(held.due, id))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Keeps a device's newest receipt; false: there is no room for another one.
    pub fn keep_receipt(&self, id: DeviceId, held: Held, most: u32) -> bool {
        let written = held.written();
        let is_kept = self.receipts.put(id, held, most as usize);
        if is_kept {
            self.write_receipt(id, Some(written));
        }
        is_kept
    }

    /// The same for one that was given in exchange, with when it is due and when it ends.
    pub fn renew_receipt(&self, id: DeviceId, (due, until): (u64, u64), receipt: &[u8], most: u32) {
        self.keep_receipt(id, Held { due, until, receipt: receipt.into() }, most);
    }

    /// One that is due, the longest first, if its device is known and not refused. One that has ended is let go.
    pub fn due_receipt(&self, now: u64) -> Option<(DeviceId, Held)> {
        loop {
            let (id, held) = {
                let inner = self.receipts.lock();
                let (due, id) = inner.due.first().copied().filter(|(due, _)| *due <= now)?;
                (id, inner.held.get(&id).filter(|held| held.due == due)?.clone())
            };
            let is_refused = match self.find(id) {
                Some(device) => Some(device.blocked.is_some()),
                None => self.is_unreadable(id).then_some(true),
            };
            match is_refused.filter(|_| held.until > now) {
                Some(false) => return Some((id, held)),
                Some(true) => self.postpone_receipt(id, now.saturating_add(DAY)),
                // Whoever enrols anew brings another one.
                None => self.drop_receipt(id),
            }
        }
    }

    /// Has a receipt be due later, unless there is another one by now. Only in memory: it is a pause, and not worth a write.
    pub fn postpone_receipt(&self, id: DeviceId, due: u64) {
        let mut inner = self.receipts.lock();
        let Some(held) = inner.held.get_mut(&id) else { return };
        let before = std::mem::replace(&mut held.due, due);
        inner.due.remove(&(before, id));
        inner.due.insert((due, id));
    }

    /// What Apple says of a device now: how many keys it had attested within 30 days.
    pub fn assess(&self, id: DeviceId, risk: u32) {
        self.change(id, |device| device.risk = Some(risk));
    }

    /// Receipts that are kept.
    pub fn receipts(&self) -> usize {
        self.receipts.lock().held.len()
    }

    pub(super) fn drop_receipt(&self, id: DeviceId) {
        if self.receipts.take(id) {
            self.write_receipt(id, None);
        }
    }

    fn write_receipt(&self, id: DeviceId, value: Option<Vec<u8>>) {
        if let Some(journal) = self.journal.get() {
            let change = Change { table: RECEIPTS, key: id.to_string(), value };
            journal.lock().unwrap_or_else(PoisonError::into_inner).write([change]);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounter, IntGauge};

    use super::*;
    use crate::{
        config::{Environment, Level, Platform},
        enrolment::{
            Device, Evidence, Provider,
            device::{POINT, Point},
        },
        store::Gauges,
    };

    const NOW: u64 = 1_800_000_000;

    fn id(n: u8) -> DeviceId {
        DeviceId::of_key(&[n])
    }

    fn held(due: u64, text: &str) -> Held {
        Held { due, until: NOW + 1_000, receipt: text.as_bytes().into() }
    }

    fn registry(count: u8) -> Registry {
        let registry = Registry::new(100);
        for n in 0..count {
            let device = Device {
                key: Point([4; POINT]),
                platform: Platform::Ios,
                provider: Provider::AppAttest,
                environment: Environment::Production,
                app: "ABCDE12345.com.example.app".into(),
                level: Level::Strong,
                counter: 0,
                enrolled: NOW,
                seen: NOW,
                risk: None,
                hardware: None,
                verdict: None,
                blocked: None,
                evidence: Evidence::default(),
            };
            registry.enrol(id(n), device).unwrap();
        }
        registry
    }

    #[test]
    fn receipts_are_due_in_their_order_and_never_of_those_who_are_gone() {
        let registry = registry(6);
        for (n, due) in [(0, NOW + 5), (1, NOW + 1), (2, NOW + 3), (3, NOW), (4, NOW), (9, NOW)] {
            assert!(registry.keep_receipt(id(n), held(due, "x"), 10));
        }
        registry.keep_receipt(id(5), Held { until: NOW, ..held(NOW - 9, "ended") }, 10);
        registry.block(id(3), "", NOW);
        registry.forget(id(4));
        let due = |at| registry.due_receipt(at).map(|(id, _)| id);
        assert_eq!(
            (due(NOW), registry.receipts()),
            (None, 4),
            "forgotten, unknown, ended: let go; blocked: later"
        );
        assert_eq!((due(NOW + 4), due(NOW + 4)), (Some(id(1)), Some(id(1))), "until it is settled");
        registry.postpone_receipt(id(1), NOW + 50);
        assert_eq!(due(NOW + 4), Some(id(2)));
        registry.keep_receipt(id(2), held(NOW + 60, "newer"), 10);
        assert_eq!(due(NOW + 4), None);
        assert_eq!((due(NOW + 49), due(NOW + 5)), (Some(id(0)), Some(id(0))));
        registry.postpone_receipt(id(7), NOW);
        assert_eq!(due(NOW + 4), None, "of nobody");
    }

    #[test]
    fn there_is_room_for_so_many_and_for_newer_ones() {
        let registry = registry(3);
        assert!(
            registry.keep_receipt(id(0), held(NOW, "a"), 2)
                && registry.keep_receipt(id(1), held(NOW, "b"), 2)
        );
        assert!(!registry.keep_receipt(id(2), held(NOW, "c"), 2), "no room");
        assert!(registry.keep_receipt(id(1), held(NOW, "newer"), 2));
        registry.forget(id(0));
        assert!(registry.keep_receipt(id(2), held(NOW, "c"), 2));
        assert_eq!(registry.receipts(), 2);
    }

    #[test]
    fn receipts_and_what_they_say_survive_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.redb");
        let gauges = || Gauges {
            pending: IntGauge::new("pending", "x").unwrap(),
            errors: IntCounter::new("errors", "x").unwrap(),
        };
        let before = registry(0);
        before.keep(&path, gauges()).unwrap();
        let device = registry(1).find(id(0)).unwrap();
        for n in 0..3 {
            before.enrol(id(n), device.clone()).unwrap();
            before.keep_receipt(id(n), held(NOW, "first"), 10);
        }
        before.keep_receipt(id(0), held(NOW + 7, "second"), 10);
        before.assess(id(0), 4);
        before.forget(id(1));
        before.assess(id(1), 4);
        drop(before);
        let after = Registry::new(100);
        after.keep(&path, gauges()).unwrap();
        assert_eq!((after.receipts(), after.find(id(0)).unwrap().risk), (2, Some(4)));
        assert_eq!(after.due_receipt(NOW), Some((id(2), held(NOW, "first"))));
        after.forget(id(2));
        assert_eq!(after.due_receipt(NOW + 7), Some((id(0), held(NOW + 7, "second"))));
        for bad in [&b""[..], &[0; 15], &[0; 16]] {
            assert_eq!(Held::read(bad), None, "{}", bad.len());
        }
    }
}
