//! Who is banned and who is allowed: the truth, of which the kernel's tables are a projection.
//!
//! [`super::task`] feeds it and carries out what it answers; it reads no clock and touches no table. The rules:
//!
//! - An address in any allowed prefix is never banned, by whatever ban, wide or narrow.
//! - Any other address is banned until the latest end of the bans that cover it.
//! - Offences ban a source only: the address for IPv4, the configured prefix for IPv6; never a loopback address,
//!   never an allowed one, and never a source that holds an address of this machine or of an upstream server. An operator's ban replaces the one on the same prefix.

mod bulk;
mod configure;
mod operator;
mod restore;
mod room;
mod tiers;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    time::Duration,
};

use enforcer_common::ban::Listing;
use foldhash::fast::RandomState;

use super::{
    Offence,
    memory::Save,
    prefixes::PrefixMap,
    projection::{Place, Projection, Truth, Write},
    record::{Allowance, Ban, Cause, FOREVER, Origin, Text, Tiered},
    score::{Charge, Score, Scores, TRACKED_SOURCES},
};
use crate::{
    clock::KernelTime,
    config::{self, Mark},
    prefix::Prefix,
};

pub(super) use bulk::distinct;
pub use bulk::{Refused, Tally};
pub use restore::{Restore, Restored};
pub use tiers::TierEntry;

pub use operator::{BanRequest, End, MAX_ALLOWANCES, Refusal, Terms, allow_suggestion};

/// What the ledger is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client offended.
    Offence(Offence),
    /// An operator bans.
    BanAdd(BanRequest),
    /// An operator lifts the ban of exactly this prefix.
    BanDel(Prefix),
    /// An operator bans many.
    BanMany {
        /// Whom.
        prefixes: Vec<Prefix>,
        /// How.
        terms: Terms,
        /// Whether another part of the same import follows.
        more: bool,
    },
    /// An operator lifts the bans of exactly these prefixes.
    BanDelMany {
        /// Whose.
        prefixes: Vec<Prefix>,
        /// Whether another part of the same import follows.
        more: bool,
    },
    /// An operator allows a prefix, for a reason; `force` permits a very wide one.
    AllowAdd {
        /// What to allow.
        prefix: Prefix,
        /// Why.
        reason: String,
        /// However wide it is.
        force: bool,
    },
    /// An operator takes back an allowance.
    AllowDel(Prefix),
    /// An operator puts a prefix into a tier, for a reason.
    TierSet {
        /// Whom.
        prefix: Prefix,
        /// Which, by name.
        tier: String,
        /// Why.
        reason: String,
    },
    /// An operator takes back his word on the tier of a prefix.
    TierDel(Prefix),
    /// Time has passed.
    Tick,
    /// The addresses of this machine, when they have changed.
    Machine(Vec<IpAddr>),
    /// The configuration has changed.
    Reconfigure(Settings),
    /// The daemon begins: what is remembered, and what the kernel holds.
    Restore(Box<Restore>),
}

/// What the ledger needs of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `[bans]`
    pub bans: config::Bans,
    /// `kernel.allow`
    pub allow: Vec<Prefix>,
    /// Tiers and doors that the configuration gives to prefixes.
    pub marks: BTreeMap<Prefix, Mark>,
    /// The tiers by name, in the order of their numbers.
    pub tiers: Vec<String>,
    /// `kernel.ipv6_prefix`
    pub ipv6_prefix: u8,
    /// Upstream servers that are given by address: a ban would drop their answers.
    pub upstreams: Vec<IpAddr>,
}

impl Settings {
    /// Picks them out.
    pub fn of(config: &config::Config) -> Self {
        Self {
            bans: config.bans.clone(),
            allow: config.kernel.allow.clone(),
            marks: config.kernel.marks(),
            tiers: config.kernel.tiers.keys().cloned().collect(),
            ipv6_prefix: config.kernel.ipv6_prefix,
            upstreams: config
                .upstreams
                .values()
                .flat_map(|upstream| &upstream.servers)
                .filter_map(|server| server.host()?.trim_matches(['[', ']']).parse().ok())
                .collect(),
        }
    }
}

/// What is to be done, and what to say.
#[derive(Debug, Default)]
pub struct Actions {
    /// Changes of the kernel's tables, in an order that never bans an allowed address in between.
    pub writes: Vec<Write>,
    /// What happened, for log and metrics.
    pub events: Vec<Event>,
    /// What has to be remembered beyond this process.
    pub saves: Vec<Save>,
    /// The answer to an operator.
    pub outcome: Outcome,
}

/// Something to log and to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A ban began or was replaced.
    Banned(Ban),
    /// A ban reached its end.
    Ended(Ban),
    /// So many bans reached their end together.
    EndedMany(usize),
    /// An operator lifted a ban.
    Lifted(Ban),
    /// An operator made or lifted many bans.
    Many {
        /// What came of them.
        tally: Tally,
        /// Whether another part of the same import follows.
        more: bool,
    },
    /// A source would have been banned but for `dry_run`.
    Withheld(Ban),
    /// A source would have been banned, but holds this address: an upstream server's or one of this machine.
    Spared(Ban, IpAddr),
    /// A source should have been banned, but offences have filled their part of `max_entries`.
    Full(Prefix),
    /// An offence could not be counted: too many sources have a score.
    Untracked(Prefix),
}

/// The answer to an operator's input.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Outcome {
    /// Nothing was asked.
    #[default]
    Quiet,
    /// The ban stands.
    BanAdded {
        /// As recorded.
        ban: Ban,
        /// The one that it replaced.
        replaced: Option<Ban>,
        /// The allowed prefix that makes it ineffective.
        shadowed_by: Option<Prefix>,
        /// Allowed prefixes inside, which it does not reach.
        allowed_inside: usize,
        /// The source that the prefix is only a part of: an IPv6 client can go on from elsewhere in it.
        part_of: Option<Prefix>,
    },
    /// The ban is lifted; another one may still cover the prefix.
    BanDeleted {
        /// As it was.
        ban: Ban,
        /// A wider one that holds on.
        still_banned_by: Option<Prefix>,
    },
    /// What came of many bans.
    Many(Tally),
    /// The allowance stands; so many bans inside have no effect now.
    AllowAdded {
        /// Bans inside.
        shadows: usize,
    },
    /// The allowance is gone; so many bans inside have effect again.
    AllowDeleted {
        /// Bans inside.
        uncovers: usize,
        /// A wider allowance that holds on, or the configuration's own.
        still_allowed_by: Option<Prefix>,
    },
    /// The prefix is in the tier.
    TierSet {
        /// By name.
        tier: String,
        /// The one that an operator had named before.
        replaced: Option<Text>,
        /// The allowed prefix that makes it ineffective.
        allowed_by: Option<Prefix>,
    },
    /// The operator's word is gone.
    TierDeleted {
        /// The tier that the prefix is in now.
        now: String,
    },
    /// The ledger is as it was.
    Restored(Restored),
    /// Not done, and why.
    Refused(Refusal),
}

/// What the ledger says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// On the allow list by this prefix.
    Allowed(Prefix, Allowance),
    /// Banned by this one, the one that ends last.
    Banned(Ban),
    /// Neither.
    Clear,
}

/// The truth about bans and allowances.
#[derive(Debug)]
pub struct Ledger {
    settings: Settings,
    machine: Vec<IpAddr>,
    bans: PrefixMap<Ban>,
    allowances: PrefixMap<Allowance>,
    marks: PrefixMap<Mark>,
    /// Operators' words on tiers.
    tiers: BTreeMap<Prefix, Tiered>,
    ends: BTreeSet<(KernelTime, Prefix)>,
    scores: Scores,
    projection: Projection,
    active: [usize; Origin::ALL.len()],
    /// Bans that are no single source: they share the kernel's tries with the allowances.
    wide: usize,
}

impl Ledger {
    /// An empty ledger; the configured allowances come with the first [`Input::Reconfigure`].
    pub fn new(bans: config::Bans) -> Self {
        Self {
            settings: Settings {
                bans,
                allow: Vec::new(),
                marks: BTreeMap::new(),
                tiers: Vec::new(),
                ipv6_prefix: 64,
                upstreams: Vec::new(),
            },
            machine: Vec::new(),
            bans: PrefixMap::default(),
            allowances: PrefixMap::default(),
            marks: PrefixMap::default(),
            tiers: BTreeMap::new(),
            ends: BTreeSet::new(),
            scores: Scores::new(TRACKED_SOURCES),
            projection: Projection::default(),
            active: [0; Origin::ALL.len()],
            wide: 0,
        }
    }

    /// Takes in what happened at `now` and says what follows.
    pub fn handle(&mut self, now: KernelTime, input: Input) -> Actions {
        let mut actions = Actions::default();
        self.expire(now, &mut actions);
        match input {
            Input::Offence(offence) => self.offence(now, offence, &mut actions),
            Input::Tick => self.scores.sweep(now),
            Input::Machine(addresses) => self.machine = addresses,
            Input::Reconfigure(settings) => self.reconfigure(now, settings, &mut actions),
            Input::BanAdd(request) => actions.outcome = self.ban_add(now, request, &mut actions).into(),
            Input::BanDel(prefix) => actions.outcome = self.ban_del(prefix, &mut actions).into(),
            Input::BanMany { prefixes, terms, more } => {
                actions.outcome = self.ban_many(now, prefixes, &terms, more, &mut actions).into();
            }
            Input::BanDelMany { prefixes, more } => {
                actions.outcome = self.ban_del_many(&prefixes, more, &mut actions);
            }
            Input::AllowAdd { prefix, reason, force } => {
                actions.outcome = self.allow_add(now, prefix, &reason, force, &mut actions).into();
            }
            Input::AllowDel(prefix) => actions.outcome = self.allow_del(prefix, &mut actions).into(),
            Input::TierSet { prefix, tier, reason } => {
                actions.outcome = self.tier_set(now, prefix, &tier, &reason, &mut actions).into();
            }
            Input::TierDel(prefix) => actions.outcome = self.tier_del(prefix, &mut actions).into(),
            Input::Restore(restore) => {
                actions.outcome = Outcome::Restored(self.restore(now, *restore, &mut actions));
            }
        }
        let forgotten = self.scores.take_forgotten();
        actions.saves.extend(forgotten.into_iter().map(|source| Save::History(source, None)));
        settle(&mut actions.writes);
        actions
    }

    /// What holds for `address` at `now`.
    pub fn standing(&self, now: KernelTime, address: IpAddr) -> Standing {
        let host = Prefix::host(address);
        if let Some((prefix, allowance)) = self.allowances.covering(&host).next() {
            return Standing::Allowed(prefix, allowance.clone());
        }
        let holding = self.bans.covering(&host).map(|(_, ban)| ban).filter(|ban| now < ban.until);
        holding.max_by_key(|ban| ban.until).map_or(Standing::Clear, |ban| Standing::Banned(ban.clone()))
    }

    /// The score of the source that `address` belongs to.
    pub fn score(&self, now: KernelTime, address: IpAddr) -> Option<Score> {
        self.scores.get(now, &Prefix::of_source(address, self.settings.ipv6_prefix), &self.settings.bans)
    }

    /// Every ban that holds at `now`, each with the allowed prefix that makes it ineffective, if one does.
    pub fn bans(&self, now: KernelTime) -> impl Iterator<Item = (&Ban, Option<Prefix>)> {
        self.bans
            .iter()
            .filter(move |(_, ban)| now < ban.until)
            .map(|(prefix, ban)| (ban, self.shadow(prefix)))
    }

    /// Every allowance.
    pub fn allowances(&self) -> impl Iterator<Item = (&Prefix, &Allowance)> {
        self.allowances.iter()
    }

    /// Bans by [`Origin`].
    pub const fn active(&self, origin: Origin) -> usize {
        self.active[origin as usize]
    }

    /// Whether bans have ended that are still there.
    pub fn has_ended(&self, now: KernelTime) -> bool {
        self.ends.first().is_some_and(|(until, _)| *until <= now)
    }

    /// The configuration in force.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the kernel's tables hold once every write is done.
    pub fn places(&self) -> impl Iterator<Item = (Place, Listing)> {
        self.projection.places()
    }

    /// How many entries the kernel's tables hold when they are up to date.
    pub fn projected(&self) -> usize {
        self.projection.len()
    }

    fn offence(&mut self, now: KernelTime, offence: Offence, actions: &mut Actions) {
        let host = Prefix::host(offence.source);
        let denial = offence.denial;
        if offence.source.to_canonical().is_loopback() || denial.weight() == 0 {
            return;
        }
        if self.allowances.covering(&host).next().is_some() {
            return;
        }
        let source = Prefix::of_source(offence.source, self.settings.ipv6_prefix);
        let covering = self.bans.covering(&host).find(|(_, ban)| now < ban.until).map(|(prefix, _)| prefix);
        if let Some(ban) = covering.and_then(|prefix| self.bans.get_mut(&prefix)) {
            // Requests that were under way, or a management port: they do not earn a second ban.
            ban.offences = ban.offences.saturating_add(1);
            return;
        }
        let (offences, duration) = match self.scores.charge(now, source, denial, &self.settings.bans) {
            Charge::Within => return,
            Charge::NoRoom => return actions.events.push(Event::Untracked(source)),
            Charge::Reached { offences, duration } => (offences, duration),
        };
        let until = end(now, duration);
        let ban = Ban { prefix: source, cause: Cause::Offence(denial), since: now, until, offences };
        if self.settings.bans.dry_run {
            self.scores.spared(&source);
            actions.events.push(Event::Withheld(ban));
        } else if let Some(address) = self.locked_out(source, &self.machine).map(|found| found.address()) {
            self.scores.spared(&source);
            actions.events.push(Event::Spared(ban, address));
        } else if self.has_room_for_offence() {
            self.scores.banned(&source, until);
            actions.saves.push(Save::History(source, self.scores.history(&source)));
            self.put_ban(ban, actions);
        } else {
            actions.events.push(Event::Full(source));
        }
    }

    fn put_ban(&mut self, ban: Ban, actions: &mut Actions) -> Option<Ban> {
        let prefix = ban.prefix;
        actions.events.push(Event::Banned(ban.clone()));
        actions.saves.push(Save::Ban(prefix, Some(ban.clone())));
        self.keep_ban(ban, actions)
    }

    /// Puts a ban among the others; whether it is new or was remembered is not its matter.
    fn keep_ban(&mut self, ban: Ban, actions: &mut Actions) -> Option<Ban> {
        let prefix = ban.prefix;
        let old = self.place_ban(ban);
        self.refresh(&prefix, actions);
        old
    }

    /// The same without a look at the kernel's tables.
    fn place_ban(&mut self, ban: Ban) -> Option<Ban> {
        let (prefix, until) = (ban.prefix, ban.until);
        self.active[ban.cause.origin() as usize] += 1;
        if until != FOREVER {
            self.ends.insert((until, prefix));
        }
        let old = self.bans.insert(prefix, ban);
        if old.is_none() && self.is_wide(&prefix) {
            self.wide += 1;
        }
        if let Some(old) = &old {
            self.active[old.cause.origin() as usize] -= 1;
            if old.until != until {
                self.ends.remove(&(old.until, prefix));
            }
        }
        old
    }

    fn remove_ban(&mut self, prefix: &Prefix, actions: &mut Actions) -> Option<Ban> {
        let ban = self.take_ban(prefix)?;
        actions.saves.push(Save::Ban(*prefix, None));
        self.refresh(prefix, actions);
        Some(ban)
    }

    /// The same without a look at the kernel's tables.
    fn take_ban(&mut self, prefix: &Prefix) -> Option<Ban> {
        let ban = self.bans.remove(prefix)?;
        if self.is_wide(prefix) {
            self.wide -= 1;
        }
        self.active[ban.cause.origin() as usize] -= 1;
        self.ends.remove(&(ban.until, *prefix));
        Some(ban)
    }

    /// Whether the ban of `prefix` lies in a trie of the kernel, not in the table of exact sources.
    fn is_wide(&self, prefix: &Prefix) -> bool {
        prefix.source_key(self.settings.ipv6_prefix).is_none()
    }

    fn shadow(&self, prefix: &Prefix) -> Option<Prefix> {
        self.allowances.covering(prefix).next().map(|(allowed, _)| allowed)
    }
}

/// Keeps the last write of each place, allowances first: no allowed address is banned between two writes.
fn settle(writes: &mut Vec<Write>) {
    // Those of an import are in the order of addresses, each place once.
    if !writes.is_sorted_by(|one, next| one.place < next.place) {
        let mut seen = HashSet::with_capacity_and_hasher(writes.len(), RandomState::default());
        writes.reverse();
        writes.retain(|write| seen.insert(write.place));
        writes.reverse();
    }
    writes.sort_by_key(|write| write.listing != Some(Listing::ALLOWED));
}

/// The end of a ban that begins at `now`; very long ones last forever.
fn end(now: KernelTime, duration: Duration) -> KernelTime {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    KernelTime(now.0.saturating_add(nanos))
}
