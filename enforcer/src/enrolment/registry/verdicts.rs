//! What Google Play has said of devices, and what follows from that for how good they are: the last word of each, beside what its hardware
//! says.

use super::{DeviceId, Registry, Standing, Unfit};
use crate::{config::Level, enrolment::Provider};

/// Seconds of which one verdict of a device is written, unless it changes something: a crash may make it look so much older.
const KEPT_EVERY: u64 = 60;

impl Registry {
    /// A device has shown that it has its key, at `now` (seconds since 1970), in answer to a challenge of its own and so without a counter;
    /// and how good it is, if Google was asked.
    pub fn vouch(&self, id: DeviceId, verdict: Option<Level>, now: u64) -> Result<Standing, Unfit> {
        let mut shard = self.shard(id);
        let device = shard.get_mut(&id).ok_or(Unfit::Unknown)?;
        if device.blocked.is_some() {
            return Err(Unfit::Blocked);
        }
        device.seen = device.seen.max(now);
        let before = (device.level, device.verdict.map(|at| at / KEPT_EVERY));
        if let Some(level) = verdict {
            device.verdict = Some(now);
            device.level = match device.provider {
                Provider::Play => level,
                // What Google says now counts, but it makes nothing better than what the hardware has said.
                Provider::AndroidKey | Provider::AppAttest => {
                    device.hardware.unwrap_or(device.level).min(level)
                }
            };
        }
        let standing = device.standing();
        // Where each request brings a verdict, not every one of them is worth a write.
        if verdict.is_none() || before != (device.level, device.verdict.map(|at| at / KEPT_EVERY)) {
            self.write(id, Some(device));
        }
        Ok(standing)
    }

    /// Google Play has said of a device that it is not well: what he said before counts no longer.
    pub fn distrust(&self, id: DeviceId) {
        let mut shard = self.shard(id);
        let Some(device) = shard.get_mut(&id) else { return };
        if device.verdict.take().is_some() {
            self.write(id, Some(device));
        }
    }

    /// When Google Play said last that a device is well, seconds since 1970.
    pub fn verdict(&self, id: DeviceId) -> Option<u64> {
        self.shard(id).get(&id)?.verdict
    }
}
