//! The one owner of the ledger and the one writer of the kernel's lists.
//!
//! It reads offences and operators' requests, lets time pass, carries out what the ledger says, and tries again
//! what the kernel refused. The daemon starts it; the control socket talks to it through [`Handle`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use enforcer_common::ban::{Ban as KernelBan, Listing, class};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::MissedTickBehavior,
};
use tracing::{error, info, warn};

use super::{
    Offence,
    banned::Banned,
    keeping::Keeping,
    ledger::{Actions, Event, Input, Ledger, Outcome, Tally},
    projection::{Place, Write},
    record::{Ban, FOREVER, Origin},
};
use crate::{
    clock::{self, KernelTime},
    kernel::SourceLists,
    metrics::Metrics,
};

/// How often bans are looked through for their end and refused writes are tried again. The kernel ends bans by itself,
/// so this only bounds how long a finished one stays listed.
const TICK: Duration = Duration::from_secs(1);

/// Until more bans are taken off that have ended, where so many did that some are left: a million take some seconds, in which offences
/// and requests get their turn.
const SOON: Duration = Duration::from_millis(20);

/// Offences that are taken at once before requests get their turn.
const BATCH: usize = 256;

/// Requests that may wait. They come from the control socket, which bounds its connections.
const WAITING: usize = 64;

/// Talks to the task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
}

/// What came of an operator's input.
#[derive(Debug)]
pub struct Reply {
    /// The ledger's answer.
    pub outcome: Outcome,
    /// Why the kernel's tables do not show it yet; the task keeps trying.
    pub kernel_error: Option<String>,
}

/// What a look at the ledger sees beside it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Now.
    pub now: KernelTime,
    /// List changes that still have to reach the kernel.
    pub pending: usize,
}

type Look = Box<dyn FnOnce(&Ledger, Moment) + Send>;

enum Request {
    Change(Input, oneshot::Sender<Reply>),
    Look(Look),
}

impl Handle {
    /// Has the ledger take in `input`.
    pub async fn change(&self, input: Input) -> Result<Reply> {
        let (sender, receiver) = oneshot::channel();
        self.send(Request::Change(input, sender)).await?;
        receiver.await.map_err(|_| stopped())
    }

    /// Looks at the ledger.
    pub async fn look<T, F>(&self, look: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Ledger, Moment) -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let look = Box::new(move |ledger: &Ledger, moment: Moment| {
            // Whoever asked may have gone away; then nobody misses the answer.
            let _ = sender.send(look(ledger, moment));
        });
        self.send(Request::Look(look)).await?;
        receiver.await.map_err(|_| stopped())
    }

    async fn send(&self, request: Request) -> Result<()> {
        self.requests.send(request).await.map_err(|_| stopped())
    }
}

fn stopped() -> anyhow::Error {
    anyhow!("the ban task has stopped")
}

/// Starts the task. It ends when every handle and every reporter is gone, or when it is aborted.
pub fn spawn(
    ledger: Ledger,
    lists: Box<dyn SourceLists>,
    offences: mpsc::Receiver<Offence>,
    metrics: Metrics,
    keeping: Option<Keeping>,
    banned: Arc<Banned>,
) -> (Handle, JoinHandle<()>) {
    let (requests, receiver) = mpsc::channel(WAITING);
    let task = Task {
        ledger,
        lists,
        keeping,
        banned,
        pending: BTreeMap::new(),
        metrics,
        import: Import::default(),
        complained: false,
    };
    (Handle { requests }, tokio::spawn(task.run(offences, receiver)))
}

/// An import that comes in parts: it is logged once, at its end.
#[derive(Default)]
struct Import {
    sum: Option<Tally>,
    /// Whether a part came in since the last tick; if none does, whoever sent them is gone.
    fresh: bool,
}

struct Task {
    ledger: Ledger,
    lists: Box<dyn SourceLists>,
    /// None: nothing outlives the daemon but what the kernel holds.
    keeping: Option<Keeping>,
    /// What requests are judged by.
    banned: Arc<Banned>,
    pending: BTreeMap<Place, Option<Listing>>,
    metrics: Metrics,
    import: Import,
    /// Whether "no room" was logged since the last tick: a flood of offences must not flood the log.
    complained: bool,
}

impl Task {
    async fn run(mut self, mut offences: mpsc::Receiver<Offence>, mut requests: mpsc::Receiver<Request>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        let (mut reported, mut asked) = (true, true);
        while reported || asked {
            tokio::select! {
                request = requests.recv(), if asked => match request {
                    Some(request) => self.request(request),
                    None => asked = false,
                },
                count = offences.recv_many(&mut batch, BATCH), if reported => {
                    reported = count > 0;
                    for offence in batch.drain(..) {
                        self.handle(clock::kernel_now(), Input::Offence(offence));
                    }
                }
                _ = tick.tick() => self.tick(),
                () = tokio::time::sleep(SOON), if self.ledger.has_ended(clock::kernel_now()) => {
                    self.handle(clock::kernel_now(), Input::Tick);
                }
            }
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Change(input, reply) => {
                let (outcome, kernel_error) = self.handle(clock::kernel_now(), input);
                // Whoever asked may have gone away; the change stands.
                let _ = reply.send(Reply { outcome, kernel_error });
            }
            Request::Look(look) => {
                look(&self.ledger, Moment { now: clock::kernel_now(), pending: self.pending.len() });
            }
        }
    }

    fn tick(&mut self) {
        self.complained = false;
        if !std::mem::take(&mut self.import.fresh) {
            self.tell_import();
        }
        self.handle(clock::kernel_now(), Input::Tick);
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let mut writes: Vec<Write> =
            pending.into_iter().map(|(place, listing)| Write { place, listing }).collect();
        writes.sort_by_key(|write| write.listing != Some(Listing::ALLOWED));
        match self.write(writes) {
            None => info!("the kernel's lists are complete again"),
            Some(error) => error!(error, pending = self.pending.len(), "the kernel's lists are incomplete"),
        }
    }

    fn handle(&mut self, now: KernelTime, input: Input) -> (Outcome, Option<String>) {
        let is_beginning = matches!(input, Input::Restore(_));
        let Actions { writes, events, saves, outcome } = self.ledger.handle(now, input);
        if is_beginning {
            // What the kernel held already is not written again.
            self.banned.replace(self.ledger.places());
        } else {
            self.banned.apply(&writes);
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.save(&saves);
        }
        let error = self.write(writes);
        if let Some(error) = &error {
            warn!(error, "the kernel refused a list change; trying again");
        }
        for event in events {
            self.tell(now, event);
        }
        for origin in Origin::ALL {
            let active = i64::try_from(self.ledger.active(origin)).unwrap_or(i64::MAX);
            self.metrics.bans_active.with_label_values(&[origin.label()]).set(active);
        }
        (outcome, error)
    }

    /// Carries out `writes`; what fails stays pending. Returns the first error.
    fn write(&mut self, writes: Vec<Write>) -> Option<String> {
        let mut first = None;
        let mut bans = Vec::new();
        // Single sources come last, all at once: allowances are in place by then.
        for write in writes {
            match (write.place, write.listing) {
                (Place::Source(key), Some(listing)) => bans.push((key, KernelBan { until: listing.until })),
                _ => self.write_one(write, &mut first),
            }
        }
        if self.lists.ban_many(&bans).is_ok() {
            if !self.pending.is_empty() {
                for (key, _) in &bans {
                    self.pending.remove(&Place::Source(*key));
                }
            }
        } else {
            // Some may be done, which does not hurt; each by itself tells which cannot be.
            for (key, ban) in bans {
                let listing = Some(Listing::banned(ban.until));
                self.write_one(Write { place: Place::Source(key), listing }, &mut first);
            }
        }
        self.metrics.kernel_writes_pending.set(i64::try_from(self.pending.len()).unwrap_or(i64::MAX));
        first
    }

    fn write_one(&mut self, write: Write, first: &mut Option<String>) {
        match carry_out(self.lists.as_mut(), write) {
            Ok(()) => {
                self.pending.remove(&write.place);
            }
            Err(error) => {
                self.metrics.kernel_write_errors.inc();
                self.pending.insert(write.place, write.listing);
                first.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    fn tell(&mut self, now: KernelTime, event: Event) {
        match event {
            Event::Banned(ban) => {
                self.metrics.bans.with_label_values(&[ban.cause.label()]).inc();
                match ban.cause.origin() {
                    Origin::Offence => {
                        info!(prefix = %ban.prefix, cause = %ban.cause, offences = ban.offences, seconds = seconds(&ban, now), "banned");
                    }
                    Origin::Operator => {
                        warn!(prefix = %ban.prefix, reason = %ban.cause, seconds = seconds(&ban, now), "banned by an operator");
                    }
                }
            }
            Event::Ended(ban) => {
                info!(prefix = %ban.prefix, origin = ban.cause.origin().label(), "ban ended");
            }
            Event::EndedMany(count) => info!(count, "bans ended"),
            Event::Many { tally, more } => {
                let begun = (tally.banned + tally.replaced) as u64;
                self.metrics.bans.with_label_values(&[Origin::Operator.label()]).inc_by(begun);
                self.import.sum.get_or_insert_default().add(tally);
                self.import.fresh = more;
                if !more {
                    self.tell_import();
                }
            }
            Event::Lifted(ban) => {
                warn!(prefix = %ban.prefix, origin = ban.cause.origin().label(), "ban lifted by an operator");
            }
            Event::Withheld(ban) => {
                self.metrics.bans_withheld.with_label_values(&["dry_run"]).inc();
                info!(prefix = %ban.prefix, cause = %ban.cause, offences = ban.offences, seconds = seconds(&ban, now), "would be banned (dry run)");
            }
            Event::Spared(ban, address) => {
                self.metrics.bans_withheld.with_label_values(&["lock_out"]).inc();
                if !std::mem::replace(&mut self.complained, true) {
                    warn!(prefix = %ban.prefix, cause = %ban.cause, %address, "not banned: an address of this machine or of an upstream server is in it");
                }
            }
            Event::Full(prefix) => {
                self.metrics.bans_withheld.with_label_values(&["full"]).inc();
                if !std::mem::replace(&mut self.complained, true) {
                    error!(%prefix, "not banned: bans by offences fill their part of bans.max_entries");
                }
            }
            Event::Untracked(source) => {
                self.metrics.offences_untracked.inc();
                if !std::mem::replace(&mut self.complained, true) {
                    error!(%source, "offence not counted: too many sources offend at once");
                }
            }
        }
    }
}

impl Task {
    fn tell_import(&mut self) {
        let Some(sum) = self.import.sum.take() else { return };
        warn!(
            banned = sum.banned,
            replaced = sum.replaced,
            lifted = sum.lifted,
            not_banned = sum.not_banned,
            refused = sum.refusals(),
            "bans imported by an operator"
        );
    }
}

/// Seconds that a ban lasts, as logged; forever is -1.
fn seconds(ban: &Ban, now: KernelTime) -> i64 {
    if ban.until == FOREVER { -1 } else { i64::try_from(ban.until.seconds_from(now)).unwrap_or(i64::MAX) }
}

/// The lists themselves say in their errors whom it was about.
fn carry_out(lists: &mut dyn SourceLists, write: Write) -> Result<()> {
    match (write.place, write.listing) {
        (Place::Prefix(prefix), Some(listing)) => lists.list(prefix, listing),
        (Place::Prefix(prefix), None) => lists.unlist(prefix),
        (Place::Source(key), Some(listing)) => {
            debug_assert_eq!(listing.class, class::BAN);
            lists.ban(key, KernelBan { until: listing.until })
        }
        (Place::Source(key), None) => lists.unban(key),
    }
}
