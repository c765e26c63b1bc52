//! The one owner of the ledger and the one writer of the kernel's lists.
//!
//! It reads offences and operators' requests, lets time pass, and has carried out what the ledger says. The daemon starts it; the control socket talks to it through [`Handle`].

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Result, anyhow};
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
    ledger::{Actions, Event, Input, Ledger, Outcome, Tally, Terms, distinct},
    projection::Write,
    record::{Ban, FOREVER, Origin},
    writer::Writer,
};
use crate::{
    clock::{self, KernelTime},
    kernel::SourceLists,
    metrics::Metrics,
    prefix::Prefix,
};

/// How often bans are looked through for their end and refused writes are tried again. The kernel ends bans by itself,
/// so this only bounds how long a finished one stays listed.
const TICK: Duration = Duration::from_secs(1);

/// Until more bans are taken off that have ended, where so many did that some are left: a million take some seconds, in which offences
/// and requests get their turn.
const SOON: Duration = Duration::from_millis(20);

/// Offences that are taken at once before requests get their turn.
const BATCH: usize = 256;

/// Bans of an import that the ledger takes at once, while those before are written.
const AT_ONCE: usize = 512;

/// Changes of an import that requests may not be judged by yet, at most: the kernel judges packets by them already.
const UNSHOWN: usize = 65_536;

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
    let writer = Writer::new(lists, metrics.clone());
    let task = Task {
        ledger,
        writer,
        keeping,
        banned,
        unshown: Vec::new(),
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
    writer: Writer,
    /// None: nothing outlives the daemon but what the kernel holds.
    keeping: Option<Keeping>,
    /// What requests are judged by.
    banned: Arc<Banned>,
    /// What it does not show yet, of an import that goes on: for a tick at most.
    unshown: Vec<Write>,
    metrics: Metrics,
    import: Import,
    /// Whether "no room" was logged since the last tick: a flood of offences must not flood the log.
    complained: bool,
}

impl Task {
    async fn run(mut self, mut offences: mpsc::Receiver<Offence>, mut requests: mpsc::Receiver<Request>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Goes on counting while requests and offences come in.
        let mut soon = tokio::time::interval(SOON);
        soon.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                _ = soon.tick(), if self.ledger.has_ended(clock::kernel_now()) => {
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
                look(&self.ledger, Moment { now: clock::kernel_now(), pending: self.writer.pending() });
            }
        }
    }

    fn tick(&mut self) {
        self.complained = false;
        if !std::mem::take(&mut self.import.fresh) {
            self.tell_import();
        }
        self.handle(clock::kernel_now(), Input::Tick);
        match self.writer.again() {
            None => {}
            Some(None) => info!("the kernel's lists are complete again"),
            Some(Some(error)) => {
                error!(error, pending = self.writer.pending(), "the kernel's lists are incomplete");
            }
        }
    }

    fn handle(&mut self, now: KernelTime, input: Input) -> (Outcome, Option<String>) {
        let is_beginning = matches!(input, Input::Restore(_));
        let (actions, error) = if let Input::BanMany { prefixes, terms, more } = input {
            self.import(now, prefixes, &terms, more)
        } else {
            self.banned.apply(&std::mem::take(&mut self.unshown));
            (self.ledger.handle(now, input), None)
        };
        let Actions { writes, events, saves, outcome } = actions;
        if is_beginning {
            // What the kernel held already is not written again.
            self.banned.replace(self.ledger.places());
        } else {
            self.banned.apply(&writes);
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.save(saves);
        }
        let error = error.or(self.writer.write(writes));
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

    /// Bans many: while the ledger goes through some of them, those before are written. Returns what is left to do, and the kernel's first
    /// error.
    fn import(
        &mut self,
        now: KernelTime,
        prefixes: Vec<Prefix>,
        terms: &Terms,
        more: bool,
    ) -> (Actions, Option<String>) {
        let (prefixes, repeated) = distinct(prefixes);
        let mut sum = Actions::default();
        sum.saves.reserve(prefixes.len());
        let mut tally = Tally { repeated, ..Tally::default() };
        let mut refusal = None;
        let Self { ledger, writer, banned, unshown, .. } = self;
        let error = thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<Write>>(1);
            let writing = scope.spawn(move || {
                let mut first = None;
                for writes in receiver {
                    unshown.extend_from_slice(&writes);
                    first = first.or(writer.write(writes));
                }
                // Each time copies whatever it changes, which of a whole import is all of it.
                if !more || unshown.len() > UNSHOWN {
                    banned.apply(&std::mem::take(unshown));
                }
                first
            });
            for some in prefixes.chunks(AT_ONCE) {
                let input = Input::BanMany { prefixes: some.to_vec(), terms: terms.clone(), more: true };
                let actions = ledger.handle(now, input);
                sum.saves.extend(actions.saves);
                sum.events
                    .extend(actions.events.into_iter().filter(|event| !matches!(event, Event::Many { .. })));
                if let Outcome::Many(some) = actions.outcome {
                    tally.add(some);
                } else {
                    refusal = Some(actions.outcome);
                }
                // Without the thread they are written by whoever gets what is left.
                if let Err(unsent) = sender.send(actions.writes) {
                    sum.writes.extend(unsent.0);
                }
            }
            drop(sender);
            writing.join().unwrap_or_else(|_| Some("the thread that writes has panicked".to_owned()))
        });
        sum.outcome = refusal.unwrap_or_else(|| {
            sum.events.push(Event::Many { tally: tally.clone(), more });
            Outcome::Many(tally)
        });
        (sum, error)
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
