//! Serving: waits for signals and reload requests, and ends in order.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Interval, MissedTickBehavior},
};
use tracing::{debug, error, info, warn};

use super::{devices, facts, files::Seen, notify, start::Tied};
use crate::{
    access_log::AccessLog,
    bans::{ledger::Input, task::Handle},
    clock,
    config::{Config, Mode},
    control::{
        answer::{Facts, ReloadRequest, own_addresses},
        pins::SwitchRequest,
    },
    ingress::Ingress,
    kernel::Kernel,
    log::Log,
    metrics::{Metrics, http::Readiness},
    policy::SharedPolicy,
};

/// How often it is looked whether the ban task still runs, and how long it may take to answer the watchdog.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How often it is looked whether the program is on every interface: one question to the kernel for each.
const WATCH: Duration = Duration::from_secs(1);

/// How long the end waits for the access log's last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Every part of a daemon that is up.
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) path: PathBuf,
    pub(super) log: Log,
    pub(super) metrics: Metrics,
    pub(super) policy: SharedPolicy,
    pub(super) kernel: Kernel,
    pub(super) ingress: Ingress,
    pub(super) access_log: Option<AccessLog>,
    pub(super) bans: Handle,
    /// The addresses of this machine, as the ban task knows them.
    pub(super) machine: Vec<IpAddr>,
    pub(super) ban_task: Tied,
    pub(super) services: Vec<Tied>,
    pub(super) optional: Vec<Tied>,
    pub(super) facts: Arc<ArcSwap<Facts>>,
    pub(super) readiness: Readiness,
    pub(super) reload_requests: mpsc::Receiver<ReloadRequest>,
    pub(super) switch_requests: mpsc::Receiver<SwitchRequest>,
    /// The files behind the policy as they were when they were read last.
    pub(super) read: Arc<ArcSwap<Seen>>,
    pub(super) file_changes: mpsc::Receiver<Vec<PathBuf>>,
    pub(super) status: String,
    /// Whether the ban task answered when it was last asked. The lease of the program depends on it.
    pub(super) healthy: bool,
}

/// The signals that mean something.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    /// From here on they no longer end the process.
    pub(super) fn install() -> Result<Self> {
        let install = |kind| signal(kind).context("installing a signal handler");
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hangup: install(SignalKind::hangup())?,
            user1: install(SignalKind::user_defined1())?,
        })
    }

    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Running {
    /// Serves until a signal says to stop, then drains. The program is detached unless it is pinned.
    pub(super) async fn serve(mut self, mut signals: Signals) -> Result<()> {
        let mut heartbeat = interval(notify::watchdog_interval().map_or(HEARTBEAT, |due| due.min(HEARTBEAT)));
        let mut watch = interval(WATCH);
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return self.stop("SIGTERM", signals).await,
                _ = signals.interrupt.recv() => return self.stop("SIGINT", signals).await,
                _ = signals.user1.recv() => self.reopen(),
                _ = signals.hangup.recv() => drop(self.reload("SIGHUP").await),
                Some(request) = self.reload_requests.recv() => {
                    let result = self.reload("control socket").await;
                    // Whoever asked may have gone away; the reload stands.
                    let _ = request.send(result);
                }
                Some(request) = self.switch_requests.recv() => {
                    let result = self.switch(&request.set, request.back).await;
                    let _ = request.answer.send(result);
                }
                Some(changed) = self.file_changes.recv() => self.renew(&changed).await,
                _ = heartbeat.tick() => self.heartbeat().await?,
                _ = watch.tick() => {
                    self.watch_interfaces();
                    renew_lease(&self.kernel, self.healthy);
                    self.reap();
                    self.show_tokens();
                    let policy = self.policy.load();
                    policy.revoked().sweep(clock::unix_now());
                    policy.refreshed().sweep(clock::unix_now());
                    devices::sweep(&policy);
                }
            }
        }
    }

    /// Goes on with new files where the old ones were moved away.
    pub(super) fn reopen(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// An interface without its program is no reason to end, since the others are judged; but nobody shall be sent here.
    fn watch_interfaces(&mut self) {
        let obstacle = match self.kernel.reconcile() {
            Ok(detached) if detached.is_empty() => None,
            Ok(detached) => {
                let why = if self.kernel.is_withdrawn() { ": detached by an operator" } else { "" };
                Some(format!("no packet is judged on {}{why}", detached.join(", ")))
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot tell whether the program is attached");
                Some("the kernel does not tell whether the program is attached".to_owned())
            }
        };
        self.readiness.hinder(obstacle);
    }

    /// Keys that are fetched come and go without a reload, as do uses of proofs.
    fn show_tokens(&self) {
        let tokens = facts::tokens(&self.policy.load());
        let uses = self.policy.load().replay().len();
        self.metrics.replay_entries.set(i64::try_from(uses).unwrap_or(i64::MAX));
        if self.facts.load().tokens != tokens {
            self.facts.rcu(|facts| Facts { tokens: tokens.clone(), ..(**facts).clone() });
        }
    }

    /// Connections that were refused, and whose clients do not go: the server's socket shall.
    fn reap(&mut self) {
        match self.kernel.reap(crate::clock::kernel_now()) {
            Ok(0) => {}
            Ok(sockets) => {
                debug!(sockets, "sockets of refused connections were ended: their clients stayed silent")
            }
            Err(error) => {
                // It would be the same every second.
                static ONCE: std::sync::Once = std::sync::Once::new();
                ONCE.call_once(|| {
                    warn!(error = format!("{error:#}"), "sockets of refused connections cannot be ended");
                });
            }
        }
    }

    /// The daemon without its ban task would look well and ban nobody, so it rather ends.
    async fn heartbeat(&mut self) -> Result<()> {
        if self.ban_task.is_over() {
            bail!("the ban task has ended; this is a bug");
        }
        if self.services.iter().any(Tied::is_over) {
            bail!(
                "the control socket, the metrics listener or the watch over files or keys has ended; this is a bug"
            );
        }
        let answered = tokio::time::timeout(HEARTBEAT, self.bans.look(|_, _| ())).await;
        self.healthy = answered.is_ok();
        match answered {
            Ok(answered) => {
                answered?;
                notify::watchdog();
                let machine = own_addresses();
                if machine != self.machine {
                    self.bans.change(Input::Machine(machine.clone())).await?;
                    self.machine = machine;
                }
            }
            Err(_) => {
                error!("the ban task does not answer; the service manager is not told that all is well")
            }
        }
        Ok(())
    }

    async fn stop(self, signal: &str, mut signals: Signals) -> Result<()> {
        let patience = self.config.http.drain_timeout;
        warn!(signal, seconds = patience.as_secs(), "draining");
        self.readiness.set(false);
        notify::stopping(patience);
        self.facts.rcu(|facts| Facts { draining: true, ..(**facts).clone() });
        let drained = self.ingress.drain(patience);
        tokio::pin!(drained);
        let mut watch = interval(WATCH);
        loop {
            tokio::select! {
                report = &mut drained => {
                    info!(finished = report.finished, aborted = report.aborted, "drained");
                    break;
                }
                again = signals.stop() => {
                    warn!(signal = again, "not waiting any longer");
                    break;
                }
                // A daemon that drains still bans; its lease must not end before it does.
                _ = watch.tick() => renew_lease(&self.kernel, self.healthy && !self.ban_task.is_over()),
            }
        }
        if let Some(log) = self.access_log
            && !log.flush(LAST_WORDS)
        {
            warn!("lines of the access log are lost: whoever reads it is too slow");
        }
        // The ban task writes to the kernel's lists; it goes before they do.
        drop((self.services, self.optional));
        drop(self.ban_task);
        let withdrawn = self.kernel.is_withdrawn();
        drop(self.kernel);
        match &self.config.kernel {
            kernel if kernel.mode == Mode::Off || !kernel.persist || withdrawn => info!("stopped"),
            kernel => warn!(
                pins = %kernel.pin_directory.display(),
                "stopped; bans and limits stay in force without the daemon, `enforcer detach` ends them"
            ),
        }
        Ok(())
    }
}

/// A daemon that bans nobody any more is as good as none: its program shall do what it does without one.
fn renew_lease(kernel: &Kernel, healthy: bool) {
    if healthy && let Err(error) = kernel.renew_lease() {
        error!(error = format!("{error:#}"), "the program's lease cannot be renewed");
    }
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
