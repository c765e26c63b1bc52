//! What Google Play has said of devices, and what follows from that for how good they are: the last word of each, beside what its hardware
//! says.

use super::{Device, DeviceId, Known, Registry, Standing, Unfit};
use crate::enrolment::{Provider, Verdict};

/// Seconds of which one verdict of a device is written, unless it changes something: a crash may make it look so much older.
const KEPT_EVERY: u64 = 60;

impl Registry {
    /// A device has shown that it has its key, at `now` (seconds since 1970), in answer to a challenge of its own and so without a counter;
    /// and how good it is, if Google was asked.
    pub fn vouch(&self, id: DeviceId, verdict: Option<Verdict>, now: u64) -> Result<Standing, Unfit> {
        let mut shard = self.shard(id);
        let Known { device, judged } = shard.get_mut(&id).ok_or_else(|| self.missing(id))?;
        if device.blocked.is_some() {
            return Err(Unfit::Blocked);
        }
        device.seen = device.seen.max(now);
        let seen = |device: &Device| {
            (device.level, device.evidence.play_version, device.verdict.map(|at| at / KEPT_EVERY))
        };
        let before = seen(device);
        if let Some(Verdict { level, at, version }) = verdict {
            // What was kept back is no younger for that, and makes nothing older. A clock that stepped back makes nothing younger.
            let before = device.verdict.filter(|before| *before <= now).unwrap_or(0);
            device.verdict = Some(before.max(at.min(now)));
            if device.evidence.play_version.replace(version) != Some(version) {
                *judged = 0;
            }
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
        if verdict.is_none() || before != seen(device) {
            self.write(id, Some(device));
        }
        Ok(standing)
    }

    /// Google Play has said of a device that it is not well: what he said before counts no longer.
    pub fn distrust(&self, id: DeviceId) {
        let mut shard = self.shard(id);
        let Some(Known { device, .. }) = shard.get_mut(&id) else { return };
        if device.verdict.take().is_some() {
            self.write(id, Some(device));
        }
    }

    /// When Google Play said last that a device is well, seconds since 1970.
    pub fn verdict(&self, id: DeviceId) -> Option<u64> {
        self.shard(id).get(&id)?.device.verdict
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounter, IntGauge};

    use super::*;
    use crate::{
        config::{Environment, Level, Platform},
        enrolment::{Evidence, device::Point},
        store::Gauges,
    };

    /// The beginning of a minute.
    const NOW: u64 = 1_800_000_000;

    fn device(provider: Provider, hardware: Option<Level>) -> Device {
        Device {
            key: Point([4; 65]),
            platform: Platform::Android,
            provider,
            environment: Environment::Production,
            app: "com.example.app".into(),
            level: Level::Strong,
            counter: 0,
            enrolled: NOW,
            seen: NOW,
            risk: None,
            hardware,
            verdict: None,
            blocked: None,
            evidence: Evidence::default(),
        }
    }

    fn said_at(level: Level, at: u64) -> Option<Verdict> {
        Some(Verdict { level, at, version: 7 })
    }

    #[test]
    fn the_last_word_counts_and_is_never_more_than_the_hardware_says() {
        let registry = Registry::new(10);
        let levels = |provider, hardware| {
            let id = DeviceId::of_key(format!("{provider:?} {hardware:?}").as_bytes());
            registry.enrol(id, device(provider, hardware)).unwrap();
            [Level::Device, Level::Strong]
                .map(|said| registry.vouch(id, said_at(said, NOW), NOW).unwrap().level)
        };
        assert_eq!(levels(Provider::Play, None), [Level::Device, Level::Strong]);
        assert_eq!(levels(Provider::AndroidKey, Some(Level::Strong)), [Level::Device, Level::Strong]);
        assert_eq!(levels(Provider::AndroidKey, Some(Level::Device)), [Level::Device, Level::Device]);
        // What enrolled before this was kept is lowered for good.
        assert_eq!(levels(Provider::AndroidKey, None), [Level::Device, Level::Device]);
    }

    #[test]
    fn of_words_that_change_nothing_one_a_minute_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.redb");
        let id = DeviceId::of_key(b"key");
        let open = || {
            let registry = Registry::new(10);
            let gauges = Gauges {
                pending: IntGauge::new("pending", "x").unwrap(),
                errors: IntCounter::new("errors", "x").unwrap(),
            };
            registry.keep(&path, gauges).unwrap();
            registry
        };
        let registry = open();
        registry.enrol(id, device(Provider::Play, None)).unwrap();
        for later in [0, 1, 59] {
            registry.vouch(id, said_at(Level::Strong, NOW + later), NOW + later).unwrap();
            assert_eq!(registry.verdict(id), Some(NOW + later), "here it is known at once");
        }
        drop(registry);
        let registry = open();
        assert_eq!(registry.verdict(id), Some(NOW));
        registry.vouch(id, said_at(Level::Device, NOW + 2), NOW + 2).unwrap();
        drop(registry);
        let registry = open();
        assert_eq!((registry.verdict(id), registry.find(id).unwrap().level), (Some(NOW + 2), Level::Device));
        registry.vouch(id, said_at(Level::Device, NOW + 60), NOW + 60).unwrap();
        drop(registry);
        let registry = open();
        assert_eq!(registry.verdict(id), Some(NOW + 60));
        registry.distrust(id);
        drop(registry);
        assert_eq!(open().verdict(id), None);
    }
}
