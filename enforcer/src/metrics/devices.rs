//! How many devices there are, as metrics, read at each scrape.

use anyhow::Result;
use prometheus::{
    IntCounter, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::policy::SharedPolicy;

/// Registers `enforcer_devices{status}` (`active`, `blocked`), `enforcer_devices_refused_total`, `enforcer_devices_forgotten_total` and
/// `enforcer_challenges_spent`, `enforcer_device_receipts`. Without `[attestation]` they show nothing.
pub fn register(registry: &Registry, policy: SharedPolicy) -> Result<()> {
    registry.register(Box::new(Devices { policy, descriptions: families()? }))?;
    Ok(())
}

type Families = (IntGaugeVec, IntCounter, IntCounter, IntGauge, IntGauge);

struct Devices {
    policy: SharedPolicy,
    descriptions: Families,
}

impl Collector for Devices {
    fn desc(&self) -> Vec<&Desc> {
        let (devices, refused, forgotten, spent, receipts) = &self.descriptions;
        [devices.desc(), refused.desc(), forgotten.desc(), spent.desc(), receipts.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let policy = self.policy.load();
        let Some(attestation) = policy.attestation() else { return Vec::new() };
        let Ok((devices, refused, forgotten, spent, receipts)) = families() else { return Vec::new() };
        let look = attestation.enrolment.devices.look();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        devices.with_label_values(&["active"]).set(number(look.devices.saturating_sub(look.blocked)));
        devices.with_label_values(&["blocked"]).set(number(look.blocked));
        refused.inc_by(look.refused);
        forgotten.inc_by(look.forgotten);
        spent.set(number(attestation.enrolment.challenges.spent()));
        receipts.set(number(attestation.enrolment.devices.receipts()));
        [devices.collect(), refused.collect(), forgotten.collect(), spent.collect(), receipts.collect()]
            .concat()
    }
}

fn families() -> Result<Families> {
    Ok((
        IntGaugeVec::new(Opts::new("enforcer_devices", "Devices that have enrolled"), &["status"])?,
        IntCounter::new(
            "enforcer_devices_refused_total",
            "Devices that could not enrol: there was no room for them",
        )?,
        IntCounter::new(
            "enforcer_devices_forgotten_total",
            "Devices that were forgotten because they were not seen for long",
        )?,
        IntGauge::new("enforcer_challenges_spent", "Challenges that were used and are remembered")?,
        IntGauge::new("enforcer_device_receipts", "Receipts of devices that are exchanged for newer ones")?,
    ))
}
