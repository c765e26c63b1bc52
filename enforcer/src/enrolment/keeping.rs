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
        let (mut unreadable, mut without_room, mut count) = (0_usize, 0_usize, 0_usize);
        store.each(DEVICES, |key, value| match (DeviceId::parse(key), serde_json::from_slice(value)) {
            (Some(id), Ok(device)) => match self.restore(id, device) {
                true => count += 1,
                false => without_room += 1,
            },
            (_, _) => unreadable += 1,
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
                && self.find(id).is_some()
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
        if unreadable > 0 {
            warn!(
                devices = unreadable,
                "devices in attestation.store cannot be understood: they have to enrol anew"
            );
        }
        if count > 0 {
            info!(devices = count, "devices that have enrolled are known still");
        }
        // A second store is none: what is open goes on.
        drop(self.journal.set(Mutex::new(store)));
        Ok(())
    }
}
