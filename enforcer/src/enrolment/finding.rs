//! Devices as operators look for them: by what they are and by what they have shown, page by page; and blocked together, as one leaked key made
//! them all.

use std::collections::BTreeSet;

use super::{
    Device, DeviceId, Registry,
    registry::{Known, Receipt, lock},
};
use crate::config::{Level, Platform};

/// Which devices are meant: those of which all of this is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only blocked ones.
    pub blocked: bool,
    /// Of this platform.
    pub platform: Option<Platform>,
    /// Of this level.
    pub level: Option<Level>,
    /// Of this app.
    pub app: Option<String>,
    /// Vouched for through a certificate with this serial number, as lists of what is revoked have it (`revocation::normal`).
    pub serial: Option<Box<str>>,
    /// Not seen since this time, seconds since 1970.
    pub seen_before: Option<u64>,
}

impl Wanted {
    fn means(&self, device: &Device) -> bool {
        let hardware = device.evidence.hardware.as_deref();
        (!self.blocked || device.blocked.is_some())
            && self.platform.is_none_or(|platform| platform == device.platform)
            && self.level.is_none_or(|level| level == device.level)
            && self.app.as_ref().is_none_or(|app| **app == *device.app)
            && self.seen_before.is_none_or(|before| device.seen < before)
            && self
                .serial
                .as_ref()
                .is_none_or(|serial| hardware.is_some_and(|shown| shown.has_serial(serial)))
    }
}

/// Some of the devices, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most as many as were asked for.
    pub rows: Vec<(DeviceId, Device)>,
    /// Whether others follow.
    pub more: bool,
}

impl Registry {
    /// At most so many of those that are wanted whose names come after `after`.
    pub fn page(&self, after: Option<DeviceId>, most: usize, wanted: &Wanted) -> Page {
        let mut first = BTreeSet::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let is_meant = |(id, known): &(&DeviceId, &Known)| {
                after.is_none_or(|after| **id > after) && wanted.means(&known.device)
            };
            for (id, _) in shard.iter().filter(is_meant) {
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

    /// Refuses all that are wanted and are not refused yet, from now on: how many those are. Where there are more than `most`, none is, and
    /// the error says how many there are.
    pub fn block_all(
        &self,
        wanted: &Wanted,
        (reason, now): (&str, u64),
        most: usize,
    ) -> Result<(usize, Receipt), usize> {
        let mut meant = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let is_meant = |known: &Known| known.device.blocked.is_none() && wanted.means(&known.device);
            meant.extend(shard.iter().filter(|(_, known)| is_meant(known)).map(|(id, _)| *id));
        }
        if meant.len() > most {
            return Err(meant.len());
        }
        // What was handed to the store before the last one is written with it, or before.
        let receipts = meant.iter().filter_map(|id| self.block(*id, reason, now));
        let (count, last) = receipts.fold((0, Receipt::none()), |(count, _), receipt| (count + 1, receipt));
        Ok((count, last))
    }
}
