//! Between devices and the store: reads at the start what was kept, and puts into words what is to be.

use std::{path::Path, sync::Mutex};

use anyhow::{Result, bail};
use tracing::{error, info, warn};

use super::{
    Device, DeviceId, Registry,
    receipts::{Held, RECEIPTS},
};
use crate::store::{self, Change, Gauges, Table};

/// Devices by their names, as JSON.
const DEVICES: Table = "devices";

/// What is to be written of a device.
pub(super) fn change(id: DeviceId, device: Option<&Device>) -> Change {
    // Nothing in there can fail to be written as JSON.
    let value = device.map(|device| serde_json::to_vec(device).unwrap_or_default());
    Change { table: DEVICES, key: id.to_string(), value }
}

impl Registry {
    /// Opens the store at `path`, or makes it, and takes up the devices in there: before the first request.
    pub fn keep(&self, path: &Path, gauges: Gauges) -> Result<()> {
        let store::Opened { store, set_aside } = store::open("attestation.store", path, gauges)?;
        let (mut nameless, mut without_room, mut count) = (0_usize, 0_usize, 0_usize);
        let mut unreadable: Option<(DeviceId, String)> = None;
        store.each(DEVICES, |key, value| match (DeviceId::parse(key), serde_json::from_slice(value)) {
            (Some(id), Ok(device)) => match self.restore(id, device) {
                true => count += 1,
                false => without_room += 1,
            },
            // Nobody has such a name, so nobody is refused by it.
            (None, _) => nameless += 1,
            (Some(id), Err(problem)) => {
                self.seal(id);
                unreadable = Some((id, problem.to_string()));
            }
        })?;
        if without_room > 0 {
            bail!(
                "attestation.max_devices has no room for {without_room} of the devices in {}: raise it, or devices that were blocked could come back",
                path.display()
            );
        }
        store.each(RECEIPTS, |key, value| {
            // Of a device that is not known any more, it is of no use; one that cannot be read is fetched by nobody.
            if let Some(id) = DeviceId::parse(key)
                && (self.find(id).is_some() || self.is_unreadable(id))
                && let Some(held) = Held::read(value)
            {
                self.receipts.put(id, held, usize::MAX);
            }
        })?;
        if set_aside.is_some() {
            error!(
                "it is not known which devices have enrolled, and which were blocked: all have to enrol anew"
            );
        }
        if let Some((last, problem)) = unreadable {
            error!(
                devices = self.look().unreadable,
                last = %last,
                problem,
                "DEVICES IN attestation.store CANNOT BE UNDERSTOOD: as any of them may have been blocked, all are refused, and stay in the file; `enforcer device forget NAME` takes one out"
            );
        }
        if nameless > 0 {
            warn!(rows = nameless, "rows of attestation.store name no device: they are left alone");
        }
        if count > 0 {
            info!(devices = count, "devices that have enrolled are known still");
        }
        // A second store is none: what is open goes on.
        drop(self.journal.set(Mutex::new(store)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prometheus::{IntCounter, IntGauge};
    use serde_json::json;

    use super::*;
    use crate::{
        config::Level,
        enrolment::{Standing, Unfit, device::Point},
    };

    const NOW: u64 = 1_800_000_000;

    fn gauges() -> Gauges {
        Gauges {
            pending: IntGauge::new("pending", "x").unwrap(),
            errors: IntCounter::new("errors", "x").unwrap(),
        }
    }

    fn standing(registry: &Registry, id: DeviceId) -> Result<Standing, Unfit> {
        registry.standing(id, 1, |_| Ok(()))
    }

    /// As versions before wrote it.
    fn old(blocked: bool) -> serde_json::Value {
        let mut row = json!({
            "key": Point([4; 65]),
            "platform": "android", "provider": "android-key", "environment": "production",
            "app": "com.example.app", "level": "strong", "counter": 0, "enrolled": NOW, "seen": NOW,
        });
        if blocked {
            row["blocked"] = json!({ "since": NOW, "reason": "stolen" });
        }
        row
    }

    #[test]
    fn rows_say_all_that_each_version_has_written() {
        let mut row = old(false);
        let read = |row: &serde_json::Value| -> Device { serde_json::from_value(row.clone()).unwrap() };
        let first = read(&row);
        assert_eq!((first.risk, first.verdict, first.hardware), (None, None, None));
        row["risk"] = 3.into();
        row["verdict"] = NOW.into();
        let second = read(&row);
        assert_eq!((second.risk, second.verdict), (Some(3), Some(NOW)));
        assert!(second.evidence.is_empty());
        row["hardware"] = "strong".into();
        row["evidence"] = json!({ "play_version": 7 });
        let third = read(&row);
        assert_eq!((third.hardware, third.evidence.play_version), (Some(Level::Strong), Some(7)));
        for device in [first, second, third] {
            let written =
                serde_json::from_slice(&change(DeviceId::of_key(b"x"), Some(&device)).value.unwrap());
            assert_eq!(written.ok(), Some(device), "as it is written now");
        }
    }

    #[test]
    fn rows_of_before_are_read_and_what_cannot_be_read_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.redb");
        let id = |name: &[u8]| DeviceId::of_key(name);
        let row = |name: &[u8], value: Vec<u8>| Change {
            table: DEVICES,
            key: id(name).to_string(),
            value: Some(value),
        };
        let receipt = |name: &[u8]| {
            let value = [&[0; 8][..], &[255; 8], b"a receipt"].concat();
            Change { table: RECEIPTS, ..row(name, value) }
        };
        let mut strange = old(true);
        strange["platform"] = "fuchsia".into();
        let mut store = store::open("attestation.store", &path, gauges()).unwrap().store;
        store.write([
            row(b"old", old(false).to_string().into()),
            row(b"blocked", old(true).to_string().into()),
            row(b"strange", strange.to_string().into()),
            row(b"cut", old(true).to_string().into_bytes()[..80].to_vec()),
            Change { table: DEVICES, key: "nobody".to_owned(), value: Some(b"{}".to_vec()) },
            receipt(b"cut"),
            receipt(b"unknown"),
        ]);
        drop(store);
        let registry = Registry::new(10);
        registry.keep(&path, gauges()).unwrap();
        assert!(standing(&registry, id(b"old")).is_ok());
        assert!(registry.find(id(b"old")).unwrap().evidence.is_empty());
        for name in [&b"blocked"[..], b"strange", b"cut"] {
            assert_eq!(standing(&registry, id(name)), Err(Unfit::Blocked), "{name:?}");
        }
        let look = registry.look();
        assert_eq!((look.devices, look.blocked, look.unreadable), (2, 1, 2));
        // Enrolling anew does not take the block away, and the next start knows it still.
        let device = registry.find(id(b"old")).unwrap();
        assert_eq!(registry.enrol(id(b"strange"), device.clone()), Err(Unfit::Blocked));
        assert_eq!(registry.advance(id(b"strange"), 1, NOW), Err(Unfit::Blocked));
        assert_eq!(registry.vouch(id(b"cut"), None, NOW), Err(Unfit::Blocked));
        assert_eq!(registry.receipts(), 1, "of who cannot be read, and of nobody else");
        assert_eq!((registry.due_receipt(NOW), registry.receipts()), (None, 1), "kept, and not exchanged");
        assert!(registry.forget(id(b"cut")).is_some());
        assert_eq!(registry.receipts(), 0);
        assert_eq!(registry.enrol(id(b"cut"), device), Ok(false), "an operator has said so");
        drop(registry);
        let copy = folder.path().join("copy.redb");
        fs::copy(&path, &copy).unwrap();
        let rows = store::open("attestation.store", &copy, gauges()).unwrap().store.read(DEVICES).unwrap();
        let kept = rows.iter().find(|(key, _)| *key == id(b"strange").to_string()).unwrap();
        assert_eq!(kept.1, strange.to_string().into_bytes(), "as it was");
        let registry = Registry::new(10);
        registry.keep(&path, gauges()).unwrap();
        assert_eq!((registry.look().devices, registry.look().unreadable), (3, 1));
        assert_eq!(standing(&registry, id(b"strange")), Err(Unfit::Blocked));
    }
}
