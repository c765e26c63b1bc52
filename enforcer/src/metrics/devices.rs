//! How many devices there are, as metrics, read at each scrape.

use anyhow::Result;
use prometheus::{
    IntCounter, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{clock, policy::SharedPolicy};

/// Registers `enforcer_devices{status}` (`active`, `blocked`, `unreadable`), `enforcer_devices_refused_total`, `enforcer_devices_forgotten_total`,
/// `enforcer_devices_overdue`, `enforcer_devices_clock_leapt_seconds`, `enforcer_challenges_spent`, `enforcer_device_receipts`,
/// `enforcer_android_revocations` and `enforcer_android_revocations_age_seconds`. Without `[attestation]` they show nothing.
pub fn register(registry: &Registry, policy: SharedPolicy) -> Result<()> {
    registry.register(Box::new(Devices { policy, descriptions: Families::new()? }))?;
    Ok(())
}

struct Devices {
    policy: SharedPolicy,
    descriptions: Families,
}

struct Families {
    devices: IntGaugeVec,
    refused: IntCounter,
    forgotten: IntCounter,
    overdue: IntGauge,
    leapt: IntGauge,
    spent: IntGauge,
    receipts: IntGauge,
    /// How much is in Google's list, and how old that is; nothing where there is none.
    list: (IntGaugeVec, IntGaugeVec),
}

impl Collector for Devices {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.all().into_iter().flat_map(|family| family.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let policy = self.policy.load();
        let Some(attestation) = policy.attestation() else { return Vec::new() };
        let Ok(families) = Families::new() else { return Vec::new() };
        let look = attestation.enrolment.devices.look();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let status = |name: &str| families.devices.with_label_values(&[name]);
        status("active").set(number(look.devices.saturating_sub(look.blocked)));
        status("blocked").set(number(look.blocked));
        status("unreadable").set(number(look.unreadable));
        families.refused.inc_by(look.refused);
        families.forgotten.inc_by(look.forgotten);
        families.overdue.set(number(look.overdue));
        families.leapt.set(i64::try_from(look.leapt).unwrap_or(i64::MAX));
        families.spent.set(number(attestation.enrolment.challenges.spent()));
        families.receipts.set(number(attestation.enrolment.devices.receipts()));
        if let Some(by) = &attestation.android_key
            && let (Some(list), Some(at)) = (&by.revoked, by.listed)
        {
            let none: &[&str] = &[];
            let age = clock::unix_now().saturating_sub(at);
            families.list.0.with_label_values(none).set(number(list.len()));
            families.list.1.with_label_values(none).set(i64::try_from(age).unwrap_or(i64::MAX));
        }
        families.all().into_iter().flat_map(|family| family.collect()).collect()
    }
}

impl Families {
    fn new() -> Result<Self> {
        let gauge = |name, help| IntGauge::new(name, help);
        Ok(Self {
            devices: IntGaugeVec::new(
                Opts::new("enforcer_devices", "Devices that have enrolled"),
                &["status"],
            )?,
            refused: IntCounter::new(
                "enforcer_devices_refused_total",
                "Devices that could not enrol: there was no room for them",
            )?,
            forgotten: IntCounter::new(
                "enforcer_devices_forgotten_total",
                "Devices that were forgotten because they were not seen for long",
            )?,
            overdue: gauge(
                "enforcer_devices_overdue",
                "Devices that were not seen for long and are known still, as no more are forgotten at once",
            )?,
            leapt: gauge(
                "enforcer_devices_clock_leapt_seconds",
                "By how much the wall clock has leapt ahead since the start: devices are taken for younger by that",
            )?,
            spent: gauge("enforcer_challenges_spent", "Challenges that were used and are remembered")?,
            receipts: gauge(
                "enforcer_device_receipts",
                "Receipts of devices that are exchanged for newer ones",
            )?,
            list: (
                IntGaugeVec::new(
                    Opts::new(
                        "enforcer_android_revocations",
                        "Certificates that Google has revoked, as far as is known",
                    ),
                    &[],
                )?,
                IntGaugeVec::new(
                    Opts::new(
                        "enforcer_android_revocations_age_seconds",
                        "Since the list of them was written",
                    ),
                    &[],
                )?,
            ),
        })
    }

    fn all(&self) -> [&dyn Collector; 9] {
        let Self { devices, refused, forgotten, overdue, leapt, spent, receipts, list } = self;
        [devices, refused, forgotten, overdue, leapt, spent, receipts, &list.0, &list.1]
    }
}
