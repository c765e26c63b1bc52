//! Devices while the daemon runs: what is said of their configuration, and when they are forgotten.

use std::time::Duration;

use tracing::warn;

use crate::{clock, log::Seldom, policy::Policy};

/// What a day may bring, as a list that has grown old.
static DAY: Seldom = Seldom::new();
/// What goes on, once an hour.
static HOUR: Seldom = Seldom::new();

/// Says what the configuration of devices leaves open.
pub(super) fn warn_of(policy: &Policy, now: u64) {
    // Whoever says it leaves nothing to be said again today.
    DAY.may_speak(now / 86_400);
    let Some(attestation) = policy.attestation() else { return };
    for (key, what, remedy) in attestation.remarks(now) {
        warn!(key, "{what}: {remedy}");
    }
}

/// Forgets who was not seen for long, and says what is odd about that; once a second.
pub(super) fn sweep(policy: &Policy) {
    let Some(attestation) = policy.attestation() else { return };
    let now = clock::unix_now();
    let machine = Duration::from_nanos(clock::kernel_now().0);
    let devices = &attestation.enrolment.devices;
    devices.sweep(now, machine, attestation.config.forget_after);
    let look = devices.look();
    if DAY.may_speak(now / 86_400) {
        warn_of(policy, now);
    }
    if (look.overdue > 0 || look.leapt > 0) && HOUR.may_speak(now / 3_600) {
        warn!(
            overdue = look.overdue,
            leapt_seconds = look.leapt,
            "devices that were not seen for attestation.forget_after are forgotten slowly: many at once, or a wall clock that has leapt; IS THE CLOCK RIGHT?"
        );
    }
}
