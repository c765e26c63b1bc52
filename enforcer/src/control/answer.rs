//! What the daemon answers its operators: every command of [`super::wire`], carried out.
//!
//! It asks the ban task, reads the kernel's view, and passes reloads on to the daemon. It decides nothing itself.

use std::{net::IpAddr, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use prometheus::core::Collector as _;
use tokio::sync::{broadcast::Receiver, mpsc, oneshot};

use super::{
    bulk, devices,
    pins::{self, SwitchRequest},
    revocation,
    rows::{self, Hook},
    server::Respond,
    span,
    wire::{
        Answer, BanRow, Command, CountRow, CounterRow, Done, Failure, FailureKind, FilesRow, HelloRow,
        PersistenceRow, PinsCommand, ReloadRow, Reloaded, Status, TierCommand, TokenRow, TrafficRow,
        Watching, Why,
    },
};
use crate::{
    bans::{
        ledger::{BanRequest, End, Input, Ledger, Outcome, Standing, Terms},
        record::Origin,
        task::{Handle, Moment, Reply},
    },
    clock,
    kernel::{
        Count, Counters, Protocol, Reason, View,
        events::{Sample, Samples},
    },
    metrics::{self, Metrics},
    policy::SharedPolicy,
    prefix::Prefix,
};

/// What the daemon knows of itself; replaced as a whole when it changes.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The configured `kernel.mode`.
    pub kernel_mode: &'static str,
    /// What becomes of the program without the daemon.
    pub persistence: PersistenceRow,
    /// Addresses that are listened on.
    pub listeners: Vec<String>,
    /// Where metrics and health checks are served.
    pub metrics: Option<String>,
    /// Client connections that can be open at once.
    pub max_connections: u32,
    /// The port that `why` asks about unless told otherwise.
    pub port: u16,
    /// Issuers of tokens.
    pub tokens: Vec<TokenRow>,
    /// What `kernel.dry_run` names.
    pub rehearsed: Vec<String>,
    /// Entries of each list of `[kernel.hellos]` that has any.
    pub listed: Vec<CountRow>,
    /// `kernel.events`, in words; `None` if it is off.
    pub samples: Option<String>,
    /// Requests are no longer accepted.
    pub draining: bool,
    /// The last reload: when, and what came of it.
    pub last_reload: Option<(Instant, Result<Reloaded, String>)>,
    /// The last change of a file since then: when, and why it was refused.
    pub files: Option<(Instant, Result<(), String>)>,
}

/// A request to reload; the answer is what needs a restart, or why the configuration was refused.
pub type ReloadRequest = oneshot::Sender<Result<Reloaded, String>>;

/// Everything that answers are made from.
#[derive(Clone)]
pub struct Context {
    /// The ban task.
    pub bans: Handle,
    /// The data plane.
    pub view: Arc<dyn View>,
    /// Own counters.
    pub metrics: Metrics,
    /// What the daemon knows of itself.
    pub facts: Arc<ArcSwap<Facts>>,
    /// What is in force.
    pub policy: SharedPolicy,
    /// When it started.
    pub started: Instant,
    /// Samples of refused packets; `None` with `mode = "off"`.
    pub samples: Option<Samples>,
    /// To the daemon's main loop.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Likewise.
    pub switches: mpsc::Sender<SwitchRequest>,
}

impl Respond for Context {
    async fn respond(&self, command: Command) -> Result<Answer, Failure> {
        match command {
            Command::Status => self.status().await.map(|status| Answer::Status(Box::new(status))),
            Command::BanAdd { prefix, seconds, forever, reason, force, own_address } => {
                let terms = terms(seconds, forever, reason, force, own_address)?;
                let request = BanRequest { prefix, terms };
                self.change(prefix, Input::BanAdd(request)).await
            }
            Command::BanAddMany { prefixes, seconds, forever, reason, force, own_address, more } => {
                let terms = terms(seconds, forever, reason, force, own_address)?;
                self.change_many(Input::BanMany { prefixes, terms, more }).await
            }
            Command::BanDelMany { prefixes, more } => {
                self.change_many(Input::BanDelMany { prefixes, more }).await
            }
            Command::BanDel { prefix } => self.change(prefix, Input::BanDel(prefix)).await,
            Command::AllowAdd { prefix, reason, force } => {
                self.change(prefix, Input::AllowAdd { prefix, reason, force }).await
            }
            Command::AllowDel { prefix } => self.change(prefix, Input::AllowDel(prefix)).await,
            Command::BanList => self.look(all_bans).await.map(Answer::Bans),
            Command::AllowList => {
                let all = |ledger: &Ledger, moment: Moment| {
                    ledger
                        .allowances()
                        .map(|(prefix, row)| rows::allowance(*prefix, row, moment.now))
                        .collect()
                };
                self.look(all).await.map(Answer::Allowances)
            }
            Command::Tier(TierCommand::Set { prefix, tier, reason }) => {
                self.change(prefix, Input::TierSet { prefix, tier, reason }).await
            }
            Command::Tier(TierCommand::Del { prefix }) => self.change(prefix, Input::TierDel(prefix)).await,
            Command::Tier(TierCommand::List) => {
                let all = |ledger: &Ledger, moment: Moment| {
                    ledger.tiers().iter().map(|entry| rows::tier(entry, moment.now)).collect()
                };
                self.look(all).await.map(Answer::Tiers)
            }
            Command::Token(command) => revocation::carry_out(&self.policy.load(), command, clock::unix_now()),
            Command::Device(command) => {
                devices::answer(&self.policy.load_full(), command, clock::unix_now()).await
            }
            Command::Why { address, port, protocol } => {
                let port = port.unwrap_or(self.facts.load().port);
                self.why(address, port, protocol).await.map(|why| Answer::Why(Box::new(why)))
            }
            Command::Pins(PinsCommand::Switch { set, back }) => pins::switch(&self.switches, set, back).await,
            Command::Pins(PinsCommand::Seen) => pins::seen(&self.policy.load(), clock::unix_now()),
            Command::Reload => self.reload().await.map(Answer::Reloaded),
            Command::Metrics => {
                metrics::http::text(&self.metrics.registry).map(Answer::Metrics).map_err(failed)
            }
            Command::Events { .. } => {
                Err(Failure::new(FailureKind::Failed, "events are shown, not answered; this is a bug"))
            }
        }
    }

    fn watch(&self) -> Result<(Watching, Receiver<Arc<Sample>>), Failure> {
        let refused = |text: &str| Err(Failure::new(FailureKind::Refused, text));
        let Some(samples) = &self.samples else {
            return refused("kernel.mode is \"off\": no packet is judged, so none is refused");
        };
        match &self.facts.load().samples {
            Some(budget) => Ok((Watching { budget: budget.clone() }, samples.subscribe())),
            None => refused("kernel.events is off: set a rate in the configuration and reload"),
        }
    }
}

impl Context {
    async fn change(&self, prefix: Prefix, input: Input) -> Result<Answer, Failure> {
        let Reply { outcome, kernel_error } = self.bans.change(input).await.map_err(failed)?;
        let mut done = told(prefix, outcome)?;
        done.remarks.extend(self.remarks(kernel_error));
        Ok(Answer::Done(done))
    }

    async fn change_many(&self, input: Input) -> Result<Answer, Failure> {
        let Reply { outcome, kernel_error } = self.bans.change(input).await.map_err(failed)?;
        match outcome {
            Outcome::Many(tally) => Ok(Answer::Many(bulk::told(tally, self.remarks(kernel_error)))),
            Outcome::Refused(refusal) => Err(Failure::new(FailureKind::Refused, refusal.to_string())),
            Outcome::Quiet
            | Outcome::BanAdded { .. }
            | Outcome::BanDeleted { .. }
            | Outcome::AllowAdded { .. }
            | Outcome::AllowDeleted { .. }
            | Outcome::TierSet { .. }
            | Outcome::TierDeleted { .. }
            | Outcome::Restored(_) => Err(Failure::new(FailureKind::Failed, "nothing was asked")),
        }
    }

    /// What keeps a change from having its effect.
    fn remarks(&self, kernel_error: Option<String>) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(error) = kernel_error {
            remarks.push(format!("the kernel refused it so far, trying again every second: {error}"));
        }
        let facts = self.facts.load();
        let interfaces = self.view.attachments();
        for one in interfaces.iter().filter(|one| !one.is_attached()) {
            remarks.push(format!("no packet is judged on {}: the program is not attached", one.interface));
        }
        if facts.persistence.store.is_none() {
            remarks.push("bans.store is \"off\": it is forgotten when the machine starts anew".to_owned());
        }
        if interfaces.is_empty() {
            remarks.push(format!(
                "kernel.mode is \"{}\": it holds for connections and requests alone",
                facts.kernel_mode
            ));
        }
        remarks
    }

    async fn look<T, F>(&self, look: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Ledger, Moment) -> T + Send + 'static,
    {
        self.bans.look(look).await.map_err(failed)
    }

    async fn why(&self, address: IpAddr, port: u16, protocol: Protocol) -> Result<Why, Failure> {
        let look = move |ledger: &Ledger, moment: Moment| {
            let threshold = ledger.settings().bans.threshold;
            let score = ledger.score(moment.now, address).map(|score| rows::score(score, threshold));
            let (ban, allowance) = match ledger.standing(moment.now, address) {
                Standing::Banned(ban) => (Some(rows::ban(&ban, None, moment.now)), None),
                Standing::Allowed(prefix, row) => (None, Some(rows::allowance(prefix, &row, moment.now))),
                Standing::Clear => (None, None),
            };
            (ban, allowance, score)
        };
        let (ban, allowance, score) = self.look(look).await?;
        let mut explanation =
            self.view.explain(address, port, protocol, clock::kernel_now()).map_err(failed)?;
        // The program knows that there is an entry, the ledger which one.
        match (explanation.reason.as_str(), &ban, &allowance) {
            ("banned" | "banned_prefix", Some(row), _) => {
                explanation.rule = format!("{} is banned by {}", row.prefix, row.origin);
            }
            ("allowed", _, Some(row)) => {
                explanation.rule = format!("{} is allowed by {}", row.prefix, row.origin);
            }
            _ => {}
        }
        let counters = self.view.counters().map_err(failed)?;
        let counted = counter_rows(&counters, |reason| {
            reason.action() == explanation.verdict && reason.label() == explanation.reason
        });
        let counter = counted.into_iter().reduce(|sum, row| CounterRow {
            interface: String::new(),
            packets: sum.packets + row.packets,
            bytes: sum.bytes + row.bytes,
            ..sum
        });
        let attachments = self.view.attachments();
        let hook = Hook::of(address, &attachments);
        let sentence = rows::sentence(address, port, &explanation, ban.as_ref(), allowance.as_ref(), hook);
        Ok(Why {
            address: address.to_canonical(),
            port,
            protocol,
            sentence,
            explanation,
            ban,
            allowance,
            score,
            counter,
        })
    }

    async fn status(&self) -> Result<Status, Failure> {
        let look = |ledger: &Ledger, moment: Moment| {
            let bans = Origin::ALL.map(|origin| CountRow {
                name: origin.label().to_owned(),
                count: ledger.active(origin) as u64,
            });
            (bans, ledger.projected(), moment.pending, ledger.settings().bans.dry_run)
        };
        let (bans, list_entries, pending_writes, dry_run) = self.look(look).await?;
        let counters = self.view.counters().map_err(failed)?;
        let facts = self.facts.load();
        let now = clock::instant_now();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state: if facts.draining { "draining" } else { "running" }.to_owned(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            resident_bytes: metrics::process::resident_bytes(),
            kernel_mode: facts.kernel_mode.to_owned(),
            persistence: facts.persistence.clone(),
            interfaces: self.view.attachments(),
            practice: self.view.practice(),
            list_entries,
            pending_writes,
            listeners: facts.listeners.clone(),
            metrics: facts.metrics.clone(),
            max_connections: facts.max_connections,
            tokens: facts.tokens.clone(),
            revocations: revocation::row(&self.policy.load()),
            upstreams: rows::upstreams(&self.policy.load(), clock::kernel_now()),
            pins: pins::rows(&self.policy.load(), clock::unix_now()),
            bans: bans.into(),
            dry_run,
            rehearsed: facts.rehearsed.clone(),
            traffic: traffic(&counters),
            drops: counter_rows(&counters, |reason| matches!(reason, Reason::Drop(_))),
            would_drops: counter_rows(&counters, |reason| matches!(reason, Reason::WouldDrop(_))),
            denials: self.denials(),
            hellos: HelloRow {
                compared: self.metrics.hellos_compared.get(),
                false_drops: self.metrics.false_drops.get(),
                missed: self.metrics.missed_hellos.get(),
            },
            listed: facts.listed.clone(),
            files: facts.files.as_ref().map(|(at, result)| FilesRow {
                age_seconds: now.saturating_duration_since(*at).as_secs(),
                error: result.as_ref().err().cloned(),
            }),
            last_reload: facts.last_reload.as_ref().map(|(at, result)| ReloadRow {
                age_seconds: now.saturating_duration_since(*at).as_secs(),
                error: result.as_ref().err().cloned(),
                needs_restart: result.as_ref().map(|done| done.needs_restart.clone()).unwrap_or_default(),
            }),
        })
    }

    fn denials(&self) -> Vec<CountRow> {
        let families = self.metrics.denials.collect();
        let samples = families.iter().flat_map(|family| family.get_metric());
        let rows = samples.map(|sample| CountRow {
            name: sample.get_label().first().map(|label| label.value().to_owned()).unwrap_or_default(),
            count: sample.get_counter().get_value() as u64,
        });
        rows.filter(|row| row.count > 0).collect()
    }

    async fn reload(&self) -> Result<Reloaded, Failure> {
        let (sender, receiver) = oneshot::channel();
        let gone = || Failure::new(FailureKind::Failed, "the daemon is stopping");
        self.reloads.send(sender).await.map_err(|_| gone())?;
        let result = receiver.await.map_err(|_| gone())?;
        result.map_err(|message| Failure::new(FailureKind::Configuration, message))
    }
}

fn terms(
    seconds: Option<u64>,
    forever: bool,
    reason: String,
    force: bool,
    own_address: Option<IpAddr>,
) -> Result<Terms, Failure> {
    let end = match (seconds, forever) {
        (Some(_), true) => {
            let text = "a ban lasts either some seconds or forever";
            return Err(Failure::new(FailureKind::Malformed, text));
        }
        (None, true) => End::Never,
        (Some(seconds), false) => End::After(std::time::Duration::from_secs(seconds)),
        (None, false) => End::Default,
    };
    Ok(Terms { end, reason, force, own_address, machine: own_addresses() })
}

/// The addresses of this machine's interfaces; best effort, they only guard against mistakes.
pub fn own_addresses() -> Vec<IpAddr> {
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    nix::ifaddrs::getifaddrs().map(|all| all.filter_map(address).collect()).unwrap_or_default()
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::new(FailureKind::Failed, format!("{error:#}"))
}

fn all_bans(ledger: &Ledger, moment: Moment) -> Vec<BanRow> {
    ledger.bans(moment.now).map(|(ban, shadow)| rows::ban(ban, shadow, moment.now)).collect()
}

fn counter_rows(counters: &Counters, wanted: impl Fn(&Reason) -> bool) -> Vec<CounterRow> {
    let counted = counters.iter().filter(|count| wanted(&count.reason) && count.counter.packets > 0);
    let row = |count: &Count| CounterRow {
        reason: count.reason.label().to_owned(),
        interface: count.interface.clone(),
        packets: count.counter.packets,
        bytes: count.counter.bytes,
    };
    counted.map(row).collect()
}

/// Sums by interface, in the order of the configuration.
fn traffic(counters: &Counters) -> Vec<TrafficRow> {
    let mut rows: Vec<TrafficRow> = Vec::new();
    for Count { interface, reason, counter } in counters {
        if rows.last().is_none_or(|row| row.interface != *interface) {
            rows.push(TrafficRow { interface: interface.clone(), ..TrafficRow::default() });
        }
        let Some(row) = rows.last_mut() else { continue };
        let (packets, bytes) = match reason {
            Reason::Pass(_) => (&mut row.passed, &mut row.passed_bytes),
            Reason::Drop(_) => (&mut row.dropped, &mut row.dropped_bytes),
            Reason::WouldDrop(_) => (&mut row.would_drop, &mut row.would_drop_bytes),
        };
        *packets += counter.packets;
        *bytes += counter.bytes;
    }
    rows
}

/// What came of a change, in words.
fn told(prefix: Prefix, outcome: Outcome) -> Result<Done, Failure> {
    let now = clock::kernel_now();
    let mut remarks = Vec::new();
    let (message, ban) = match outcome {
        Outcome::Refused(refusal) => return Err(Failure::new(FailureKind::Refused, refusal.to_string())),
        Outcome::Quiet | Outcome::Restored(_) | Outcome::Many(_) => {
            return Err(Failure::new(FailureKind::Failed, "nothing was asked"));
        }
        Outcome::BanAdded { ban, replaced, shadowed_by, allowed_inside, part_of } => {
            if let Some(old) = replaced {
                let old = rows::ban(&old, None, now);
                remarks.push(format!("it replaces the ban by {} ({})", old.origin, remaining(&old)));
            }
            if let Some(allowed) = shadowed_by {
                remarks.push(format!("it has no effect while {allowed} is allowed"));
            }
            if allowed_inside > 0 {
                remarks.push(format!("it does not reach the allowed prefixes inside: {allowed_inside}"));
            }
            if let Some(source) = part_of {
                remarks.push(format!("an IPv6 client has more addresses than that: consider {source}"));
            }
            let row = rows::ban(&ban, shadowed_by, now);
            (format!("{prefix} is banned: {}", remaining(&row)), Some(row))
        }
        Outcome::BanDeleted { ban, still_banned_by } => {
            if let Some(wider) = still_banned_by {
                remarks.push(format!("it stays banned by {wider}"));
            }
            (format!("the ban of {prefix} is lifted"), Some(rows::ban(&ban, None, now)))
        }
        Outcome::AllowAdded { shadows } => {
            if shadows > 0 {
                remarks.push(format!("bans that have no effect now: {shadows}"));
            }
            (format!("{prefix} is allowed until that is taken back"), None)
        }
        Outcome::AllowDeleted { uncovers, still_allowed_by } => {
            if let Some(allowed) = still_allowed_by {
                remarks.push(format!("it stays allowed by {allowed}"));
            }
            if uncovers > 0 {
                remarks.push(format!("bans that have effect again: {uncovers}"));
            }
            (format!("{prefix} is no longer allowed by an operator"), None)
        }
        Outcome::TierSet { tier, replaced, allowed_by } => {
            if let Some(old) = replaced.filter(|old| old.as_str() != tier) {
                remarks.push(format!("it was in the tier {} before", old.as_str()));
            }
            if let Some(allowed) = allowed_by {
                remarks.push(format!("it has no effect while {allowed} is allowed"));
            }
            (format!("{prefix} is in the tier {tier} until that is taken back"), None)
        }
        Outcome::TierDeleted { now } => (format!("{prefix} is in the tier {now} again"), None),
    };
    Ok(Done { message, remarks, ban })
}

fn remaining(row: &BanRow) -> String {
    match row.remaining_seconds {
        Some(seconds) => format!("{} remaining", span::remaining(seconds)),
        None => "until it is lifted".to_owned(),
    }
}
