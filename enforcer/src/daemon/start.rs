//! Starting: first whatever can fail without a trace, then the attachment, and only then is anything accepted: no client
//! is served before its packets are judged, and no packet is judged before the lists are written.
//!
//! Every part undoes itself when it is dropped, so an error on the way leaves nothing behind: no socket, no listener,
//! no attached program.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use tokio::{
    sync::{broadcast, mpsc},
    task::AbortHandle,
};
use tracing::{info, warn};

use super::{
    Error,
    descriptors::Budget,
    devices, facts,
    files::{self, Seen},
    notify, pins, revocations,
    running::Running,
    sockets,
};
use crate::{
    access_log::AccessLog,
    agreement,
    bans::{
        Reporter,
        keeping::{Keeping, Kept},
        ledger::{Input, Ledger, Outcome, Restore, Restored, Settings},
        task::{self, Reply},
    },
    clock,
    config::Config,
    control::{
        answer::{Context, own_addresses},
        endpoint::Endpoint,
        server,
        socket::Socket,
    },
    ingress::Ingress,
    kernel::{Kernel, events::QUEUE},
    keys,
    log::Log,
    metrics::{
        self, Metrics,
        http::{Readiness, Server},
    },
    policy::Policy,
    store,
};

/// Offences that may wait for the ban task: a burst of some milliseconds at the highest request rate.
const OFFENCES: usize = 4_096;

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Tied(AbortHandle);

impl Tied {
    pub(super) fn spawn<F>(future: F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(tokio::spawn(future).abort_handle())
    }

    /// Whether it has ended by itself.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) async fn start(config: Config, path: PathBuf, log: Log) -> Result<Running, Error> {
    let started = clock::instant_now();
    let metrics = Metrics::new()?;
    metrics::process::register(&metrics.registry)?;
    let seen = Seen::of(&config);
    // Before the stores: a daemon that answers there is what a second one has to be told of.
    let socket = Socket::bind(&config.control.socket, config.control.group.as_deref())?;
    let revoked = revocations::begin(&config, &metrics, clock::unix_now())?;
    let policy = Policy::load_with(&config, revoked).map_err(Error::Configuration)?.share();
    let readiness = Readiness::default();
    let scrapes = match config.metrics.address {
        Some(address) => {
            let server = Server::bind(address, metrics.registry.clone(), readiness.clone()).await?;
            Some(server.with_admin(Arc::new(Endpoint(Arc::clone(&policy)))))
        }
        None => None,
    };
    let scrape_address = scrapes.as_ref().map(Server::address).transpose()?;
    let (reporter, offences) = Reporter::new(OFFENCES, metrics.offences_lost.clone());
    let banned = Arc::clone(reporter.banned());
    let mut affordable = config.clone();
    let budget = Budget::claim(&config.http);
    affordable.http.max_connections = budget.connections;
    let access_log = AccessLog::start(&config.access_log, &metrics)?;
    let mut inherited = sockets::kept()?;
    let mut ingress = Ingress::adopt(
        &affordable,
        Arc::clone(&policy),
        reporter,
        metrics.clone(),
        access_log.clone(),
        &mut inherited,
    )?;
    if let Some(path) = &config.replay.store {
        let gauges = store::Gauges {
            pending: metrics.replay_store_pending.clone(),
            errors: metrics.replay_store_errors.clone(),
        };
        policy.load().replay().keep(path, gauges, clock::unix_now())?;
    }
    if let Some(attestation) = policy.load().attestation()
        && let Some(path) = &attestation.config.store
    {
        let gauges = store::Gauges {
            pending: metrics.device_store_pending.clone(),
            errors: metrics.device_store_errors.clone(),
        };
        attestation.enrolment.devices.keep(path, gauges)?;
    }
    let (keeping, kept) = keeping(&config, &metrics)?.unzip();
    let known = kept.as_ref().map_or(0, |kept| kept.memory.bans.len());
    let mut kernel = Kernel::load_growing(&config.kernel, config.bans.max_entries, known)?;

    let view = kernel.view()?;
    metrics::kernel::register(&metrics.registry, Arc::clone(&view))?;
    metrics::pins::register(&metrics.registry, Arc::clone(&policy))?;
    metrics::upstreams::register(&metrics.registry, Arc::clone(&policy))?;
    metrics::revocations::register(&metrics.registry, Arc::clone(&policy))?;
    metrics::suspicion::register(&metrics.registry, Arc::clone(&policy))?;
    metrics::devices::register(&metrics.registry, Arc::clone(&policy))?;
    let ledger = Ledger::new(config.bans.clone());
    let (bans, task) = task::spawn(ledger, kernel.lists()?, offences, metrics.clone(), keeping, banned);
    let ban_task = Tied::of(task.abort_handle());
    let (memory, stale) = kept.map_or_else(Default::default, |kept: Kept| (kept.memory, kept.stale));
    let restore = Restore {
        settings: Settings::of(&config),
        memory,
        stale,
        held: kernel.held()?,
        live: kernel.is_live(),
    };
    let machine = own_addresses();
    bans.change(Input::Machine(machine.clone())).await?;
    let (events, diagnostics) = (kernel.events()?, kernel.take_diagnostics());
    // From here on nothing fails but the lists and the attachment themselves.
    let restored = if kernel.is_live() {
        // Packets are judged by these lists already, and nothing may change before all else has succeeded.
        kernel.attach()?;
        bans.change(Input::Restore(Box::new(restore))).await?
    } else {
        let restored = bans.change(Input::Restore(Box::new(restore))).await?;
        if let Some(error) = restored.kernel_error {
            return Err(Error::Failed(anyhow::anyhow!("cannot write the lists: {error}")));
        }
        kernel.attach()?;
        restored
    };
    pins::remember(&policy.load(), &config, &metrics).await;
    ingress.serve();
    tell(&restored);
    // A start that fails says why in one line; whatever else is to be said waits until it has not.
    budget.tell(&config.http);
    facts::certificates(&policy.load(), &metrics, clock::unix_now());
    pins::warn_of(&policy.load(), clock::unix_now());
    devices::warn_of(&policy.load(), clock::unix_now());

    let mut addresses = ingress.addresses();
    addresses.extend(ingress.redirects());
    let facts = Arc::new(ArcSwap::from_pointee(facts::facts(
        &affordable,
        &policy.load(),
        kernel.beginning(),
        &addresses,
        scrape_address,
    )));
    // One reload at a time; a second request waits in its connection.
    let (reloads, reload_requests) = mpsc::channel(1);
    let (switches, switch_requests) = mpsc::channel(1);
    let mut optional = Vec::new();
    let samples = match events {
        Some(events) => {
            let (samples, _) = broadcast::channel(QUEUE);
            let sender = samples.clone();
            let comparison = agreement::compare(samples.subscribe(), Arc::clone(&policy), metrics.clone());
            optional.push(Tied::spawn(async move {
                if let Err(error) = comparison.await {
                    tracing::warn!(error = format!("{error:#}"), "refused hellos are not compared");
                }
            }));
            // They show what happens, they do not make it happen: without them the daemon goes on.
            optional.push(Tied::spawn(async move {
                if let Err(error) = events.run(sender).await {
                    tracing::warn!(error = format!("{error:#}"), "samples of refused packets have ended");
                }
            }));
            Some(samples)
        }
        None => None,
    };
    let context = Context {
        bans: bans.clone(),
        samples,
        view: Arc::clone(&view),
        metrics: metrics.clone(),
        facts: Arc::clone(&facts),
        policy: Arc::clone(&policy),
        started,
        reloads,
        switches,
    };
    let mut services = vec![Tied::spawn(server::serve(socket, Arc::new(context)))];
    if let Some(diagnostics) = diagnostics {
        // They are a convenience: without them the daemon goes on.
        optional.push(Tied::spawn(async move {
            if let Err(error) = diagnostics.run().await {
                warn!(error = format!("{error:#}"), "the program's diagnostics have ended");
            }
        }));
    }
    let read = Arc::new(ArcSwap::from_pointee(seen));
    let (changes, file_changes) = mpsc::channel(1);
    services.push(Tied::spawn(keys::tend(Arc::clone(&policy), metrics.clone())));
    services.push(Tied::spawn(keys::receipts::tend(Arc::clone(&policy), metrics.clone())));
    services.push(Tied::spawn(files::watch(Arc::clone(&read), changes)));
    services.extend(scrapes.map(|server| Tied::spawn(server.serve())));

    facts::show_persistence(&facts.load().persistence, &metrics);
    readiness.set(true);
    for attachment in view.attachments() {
        info!(interface = %attachment.interface, mode = %attachment.mode, "attached");
    }
    if view.attachments().is_empty() {
        warn!(
            "kernel.mode is \"off\": no packet is judged, and bans hold for connections and requests alone"
        );
    }
    let listeners: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let metrics_address = scrape_address.map(|address| address.to_string());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        listeners = listeners.join(" "),
        metrics = metrics_address.as_deref().unwrap_or("off"),
        control = %config.control.socket.display(),
        "ready"
    );
    sockets::keep(&ingress.take_sockets());
    sockets::let_go(inherited);
    let status = format!("serving on {}", listeners.join(" "));
    notify::ready(&status);
    Ok(Running {
        config,
        path,
        log,
        metrics,
        policy,
        kernel,
        ingress,
        access_log,
        bans,
        machine,
        ban_task,
        services,
        optional,
        facts,
        readiness,
        reload_requests,
        switch_requests,
        read,
        file_changes,
        status,
        healthy: true,
    })
}

/// Opens the store of bans, if there is one, and reads it.
fn keeping(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<(Keeping, Kept)>> {
    let Some(path) = &config.bans.store else { return Ok(None) };
    let gauges =
        store::Gauges { pending: metrics.store_pending.clone(), errors: metrics.store_errors.clone() };
    Keeping::begin(store::open("bans.store", path, gauges)?.store).map(Some)
}

/// Says what the ledger began with.
fn tell(restored: &Reply) {
    let Outcome::Restored(Restored { bans, kept, allowances, dropped }) = restored.outcome else { return };
    if bans + kept + allowances > 0 {
        info!(bans, allowances, "bans and operators' allowances are as they were");
    }
    if kept > 0 {
        warn!(bans = kept, "bans that only the kernel knew of are kept, without their causes");
    }
    if dropped > 0 {
        warn!(
            bans = dropped,
            "bans.max_entries has room for fewer bans: those that would have ended first are lifted"
        );
    }
    if let Some(error) = &restored.kernel_error {
        warn!(error, "the kernel refused a part of the lists; trying again");
    }
}

impl Tied {
    /// Ties a task that runs already.
    pub(super) const fn of(task: AbortHandle) -> Self {
        Self(task)
    }
}
