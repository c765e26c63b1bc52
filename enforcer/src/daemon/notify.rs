//! What the service manager is told (sd_notify(3)); without one, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Up and serving; also the end of a reload.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again. `Type=notify-reload` wants the time besides (systemd.service(5), 253).
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "no time for the service manager"),
    }
}

/// Draining for at most `patience`; the manager's own patience is stretched to it.
pub(super) fn stopping(patience: Duration) {
    let microseconds = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    send(&[
        NotifyState::Stopping,
        NotifyState::Status("draining"),
        NotifyState::ExtendTimeoutUsec(microseconds),
    ]);
}

/// Alive.
pub(super) fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`watchdog`] is due: twice as often as the manager demands. `None` when it demands nothing.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager cannot be told");
    }
}
