//! What operators ask of the ledger, and what it refuses them.
//!
//! The refusals are there against lock-out: a ban of half the Internet, of one's own session, of this machine or of
//! an upstream server, and an allowance that would switch enforcement off, need `force`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;

use super::{Actions, Event, Ledger, Outcome, end};
use crate::{
    bans::{
        memory::{Allowed, Save},
        record::{Allowance, Ban, Cause, FOREVER, Text},
    },
    clock::KernelTime,
    kernel::program::{OPERATOR_ALLOWANCES, OPERATOR_TIERS, PREFIX_BANS},
    prefix::Prefix,
};

/// Shortest prefixes that need no `force`: one 256th of IPv4, and of IPv6 what no single network is given.
const LEAST_V4: u8 = 8;
const LEAST_V6: u8 = 16;

/// Allowances of operators that are kept at most: the kernel's tries have room for them beside the bans and the
/// configured ones.
pub const MAX_ALLOWANCES: usize = OPERATOR_ALLOWANCES as usize;

/// The longest ban with an end; whoever wants more means `--forever`.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What an operator wants banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanRequest {
    /// Whom.
    pub prefix: Prefix,
    /// How.
    pub terms: Terms,
}

/// How long and why somebody is to be banned, and what must not be hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long.
    pub end: End,
    /// Why.
    pub reason: String,
    /// However wide it is, and whoever sits inside.
    pub force: bool,
    /// The operator's own address, which the ban must not reach.
    pub own_address: Option<IpAddr>,
    /// The addresses of this machine.
    pub machine: Vec<IpAddr>,
}

/// When a ban shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After the configured `bans.duration`.
    Default,
    /// After this long.
    After(Duration),
    /// By hand only.
    Never,
}

/// Why an operator's request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The prefix is very short.
    TooWide(Prefix),
    /// The operator's own session comes from the prefix.
    OwnSession(Prefix, IpAddr),
    /// The machine's own traffic comes from the prefix.
    OwnMachine(Prefix, IpAddr),
    /// An upstream server's answers come from the prefix.
    Upstream(Prefix, IpAddr),
    /// `bans.max_entries` are there.
    Full(u32),
    /// [`PREFIX_BANS`] bans of prefixes are there.
    FullPrefixes,
    /// [`MAX_ALLOWANCES`] are there.
    FullAllowances,
    /// A ban that would be over at once.
    NoDuration,
    /// A ban that would last longer than [`LONGEST`].
    TooLong,
    /// There is no such ban; the wider one that covers the prefix, and how many lie inside.
    NoBan(Prefix, Option<Prefix>, usize),
    /// There is no such allowance; the wider one that covers the prefix.
    NoAllowance(Prefix, Option<Prefix>),
    /// The allowance comes from the configuration.
    Configured(Prefix),
    /// There is no tier of that name; those that there are.
    NoTier(String, Vec<String>),
    /// The prefix is only a part of a source.
    PartOfSource(Prefix, Prefix),
    /// [`OPERATOR_TIERS`] prefixes are there.
    FullTiers,
    /// No operator has put it into a tier.
    NotTiered(Prefix),
}

impl Refusal {
    /// What kind of refusal it is, whomever it concerns.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TooWide(_) => "too_wide",
            Self::OwnSession(..) => "own_session",
            Self::OwnMachine(..) => "own_machine",
            Self::Upstream(..) => "upstream",
            Self::Full(_) => "full",
            Self::FullPrefixes => "full_prefixes",
            Self::FullAllowances => "full_allowances",
            Self::NoDuration => "no_duration",
            Self::TooLong => "too_long",
            Self::NoBan(..) => "no_ban",
            Self::NoAllowance(..) => "no_allowance",
            Self::Configured(_) => "configured",
            Self::NoTier(..) => "no_tier",
            Self::PartOfSource(..) => "part_of_source",
            Self::FullTiers => "full_tiers",
            Self::NotTiered(_) => "not_tiered",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooWide(prefix) => write!(
                f,
                "{prefix} is very wide: prefixes shorter than /{LEAST_V4} (IPv4) or /{LEAST_V6} (IPv6) need --force"
            ),
            Self::OwnSession(prefix, address) => write!(
                f,
                "your own session comes from {address}, which {prefix} covers; allow your address first ({}), or use --force",
                allow_suggestion(*address)
            ),
            Self::OwnMachine(prefix, address) => write!(
                f,
                "{prefix} holds {address}, an address of this machine: a ban would drop what it sends to itself; use --force if that is meant"
            ),
            Self::Upstream(prefix, address) => write!(
                f,
                "{prefix} holds the upstream server {address}: a ban would drop its answers; allow it first ({}), or use --force",
                allow_suggestion(*address)
            ),
            Self::Full(most) => write!(
                f,
                "there are {most} bans already; lift some, ban a wider prefix, or raise bans.max_entries"
            ),
            Self::FullPrefixes => write!(
                f,
                "there are {PREFIX_BANS} bans of prefixes already, and the kernel's tables hold no more whatever bans.max_entries is; lift some, or ban a wider prefix"
            ),
            Self::FullAllowances => write!(
                f,
                "there are {MAX_ALLOWANCES} allowances of operators already; allow a wider prefix instead"
            ),
            Self::NoDuration => f.write_str("a ban of no duration would end at once; use --for or --forever"),
            Self::TooLong => f.write_str("a ban of more than 365d; use a shorter --for, or --forever"),
            Self::NoBan(prefix, Some(wider), _) => {
                write!(f, "{prefix} has no ban of its own, {wider} covers it: lift that, or allow {prefix}")
            }
            Self::NoBan(prefix, None, 0) => write!(f, "{prefix} is not banned"),
            Self::NoBan(prefix, None, inside) => {
                write!(f, "{prefix} itself is not banned; bans inside it: {inside} (see `ban list`)")
            }
            Self::NoAllowance(prefix, Some(wider)) => {
                write!(f, "{prefix} is not on the list itself, {wider} covers it")
            }
            Self::NoAllowance(prefix, None) => write!(f, "{prefix} is not on the allow list"),
            Self::Configured(prefix) => {
                write!(f, "{prefix} is allowed by the configuration: remove it from kernel.allow and reload")
            }
            Self::NoTier(name, known) if known.is_empty() => {
                write!(
                    f,
                    "there is no tier `{name}`: the configuration has none; add [kernel.tier.{name}] and reload"
                )
            }
            Self::NoTier(name, known) => {
                write!(f, "there is no tier `{name}`; there are: default, {}", known.join(", "))
            }
            Self::PartOfSource(prefix, source) => {
                write!(f, "{prefix} is only a part of the source {source}, which has one budget: name that")
            }
            Self::FullTiers => write!(
                f,
                "operators have put {OPERATOR_TIERS} prefixes into tiers already; name a wider prefix, or write them into the configuration"
            ),
            Self::NotTiered(prefix) => write!(
                f,
                "no operator has put {prefix} into a tier; `tier list` shows who is in one, by whose word"
            ),
        }
    }
}

/// The command that keeps `address` from being banned.
pub fn allow_suggestion(address: IpAddr) -> String {
    format!("enforcer allow add {}", address.to_canonical())
}

impl From<Result<Outcome, Refusal>> for Outcome {
    fn from(result: Result<Outcome, Refusal>) -> Self {
        result.unwrap_or_else(Self::Refused)
    }
}

/// An address that a ban would shut out.
#[derive(Clone, Copy, Debug)]
pub(super) enum LockedOut {
    Machine(IpAddr),
    Upstream(IpAddr),
}

impl LockedOut {
    pub(super) const fn address(self) -> IpAddr {
        match self {
            Self::Machine(address) | Self::Upstream(address) => address,
        }
    }

    const fn refusal(self, prefix: Prefix) -> Refusal {
        match self {
            Self::Machine(address) => Refusal::OwnMachine(prefix, address),
            Self::Upstream(address) => Refusal::Upstream(prefix, address),
        }
    }
}

impl Ledger {
    pub(super) fn ban_add(
        &mut self,
        now: KernelTime,
        request: BanRequest,
        actions: &mut Actions,
    ) -> Result<Outcome, Refusal> {
        let BanRequest { prefix, terms } = request;
        let until = self.until(now, terms.end)?;
        let old = self.bans.get(&prefix).map(|old| old.offences);
        self.admit(prefix, &terms)?;
        let offences = old.unwrap_or(0);
        let ban =
            Ban { prefix, cause: Cause::Operator(Text::new(&terms.reason)), since: now, until, offences };
        let replaced = self.put_ban(ban.clone(), actions);
        let shadowed_by = self.shadow(&prefix);
        let allowed_inside = if shadowed_by.is_some() { 0 } else { self.allowances.covered(&prefix).count() };
        let source = Prefix::of_source(prefix.net().addr(), self.settings.ipv6_prefix);
        let part_of = (source != prefix && source.covers(&prefix)).then_some(source);
        Ok(Outcome::BanAdded { ban, replaced, shadowed_by, allowed_inside, part_of })
    }

    /// When a ban ends that begins at `now`.
    pub(super) fn until(&self, now: KernelTime, wanted: End) -> Result<KernelTime, Refusal> {
        let until = match wanted {
            End::Default => end(now, self.settings.bans.duration),
            End::After(duration) if duration > LONGEST => return Err(Refusal::TooLong),
            End::After(duration) => end(now, duration),
            End::Never => FOREVER,
        };
        if until <= now { Err(Refusal::NoDuration) } else { Ok(until) }
    }

    /// Whether `prefix` may be banned, and there is room for that unless it is banned already.
    pub(super) fn admit(&self, prefix: Prefix, terms: &Terms) -> Result<(), Refusal> {
        if !terms.force {
            refuse_wide(prefix)?;
            self.refuse_lock_out(prefix, terms)?;
        }
        let is_new = || self.bans.get(&prefix).is_none();
        if !self.has_room() && is_new() {
            return Err(Refusal::Full(self.settings.bans.max_entries));
        }
        if self.wide >= PREFIX_BANS as usize && self.is_wide(&prefix) && is_new() {
            return Err(Refusal::FullPrefixes);
        }
        Ok(())
    }

    fn refuse_lock_out(&self, prefix: Prefix, terms: &Terms) -> Result<(), Refusal> {
        if let Some(address) = terms.own_address.filter(|address| self.would_reach(prefix, address)) {
            return Err(Refusal::OwnSession(prefix, address));
        }
        self.locked_out(prefix, &terms.machine).map_or(Ok(()), |found| Err(found.refusal(prefix)))
    }

    /// Whom a ban of `prefix` would shut out that nobody means: this machine, which has the addresses `machine`, or an upstream
    /// server.
    pub(super) fn locked_out(&self, prefix: Prefix, machine: &[IpAddr]) -> Option<LockedOut> {
        let reached = |address: &IpAddr| self.would_reach(prefix, address);
        let loopback =
            [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST), prefix.net().addr()];
        let loopback = loopback.into_iter().filter(IpAddr::is_loopback);
        let own = machine.iter().copied().chain(loopback).find(reached).map(LockedOut::Machine);
        own.or_else(|| self.settings.upstreams.iter().copied().find(reached).map(LockedOut::Upstream))
    }

    fn would_reach(&self, prefix: Prefix, address: &IpAddr) -> bool {
        // Most bans are of one address, and there may be a million of them.
        let reached = match prefix.is_host() {
            true => prefix.net().addr() == address.to_canonical(),
            false => prefix.contains(*address),
        };
        reached && self.allowances.covering(&Prefix::host(*address)).next().is_none()
    }

    pub(super) fn ban_del(&mut self, prefix: Prefix, actions: &mut Actions) -> Result<Outcome, Refusal> {
        let Some(ban) = self.remove_ban(&prefix, actions) else {
            let wider = self.bans.covering(&prefix).next().map(|(wider, _)| wider);
            return Err(Refusal::NoBan(prefix, wider, self.bans.covered(&prefix).count()));
        };
        self.scores.forget(&prefix);
        actions.events.push(Event::Lifted(ban.clone()));
        let still_banned_by =
            self.bans.covering(&prefix).max_by_key(|(_, ban)| ban.until).map(|(wider, _)| wider);
        Ok(Outcome::BanDeleted { ban, still_banned_by })
    }

    pub(super) fn allow_add(
        &mut self,
        now: KernelTime,
        prefix: Prefix,
        reason: &str,
        force: bool,
        actions: &mut Actions,
    ) -> Result<Outcome, Refusal> {
        if !force {
            refuse_wide(prefix)?;
        }
        let text = Some(Text::new(reason));
        let renewed = self.allowances.get(&prefix).is_some_and(|allowance| allowance.operator.is_some());
        let of_operators =
            self.allowances.iter().filter(|(_, allowance)| allowance.operator.is_some()).count();
        if !renewed && of_operators >= MAX_ALLOWANCES {
            return Err(Refusal::FullAllowances);
        }
        if let Some(allowance) = self.allowances.get_mut(&prefix) {
            allowance.operator = text;
        } else {
            self.allowances.insert(prefix, Allowance { configured: false, operator: text, since: now });
            self.refresh(&prefix, actions);
        }
        if let Some(Allowance { operator: Some(reason), since, .. }) = self.allowances.get(&prefix) {
            let allowed = Allowed { reason: reason.clone(), since: *since };
            actions.saves.push(Save::Allowance(prefix, Some(allowed)));
        }
        Ok(Outcome::AllowAdded { shadows: self.bans.covered(&prefix).count() })
    }

    pub(super) fn allow_del(&mut self, prefix: Prefix, actions: &mut Actions) -> Result<Outcome, Refusal> {
        let Some(allowance) = self.allowances.get_mut(&prefix) else {
            return Err(Refusal::NoAllowance(prefix, self.shadow(&prefix)));
        };
        if allowance.operator.take().is_none() {
            return Err(Refusal::Configured(prefix));
        }
        actions.saves.push(Save::Allowance(prefix, None));
        if !allowance.configured {
            self.allowances.remove(&prefix);
            self.refresh(&prefix, actions);
        }
        let uncovers = self.bans.covered(&prefix).filter(|(inner, _)| self.shadow(inner).is_none()).count();
        Ok(Outcome::AllowDeleted { uncovers, still_allowed_by: self.shadow(&prefix) })
    }
}

fn refuse_wide(prefix: Prefix) -> Result<(), Refusal> {
    let least = match prefix.net() {
        IpNet::V4(_) => LEAST_V4,
        IpNet::V6(_) => LEAST_V6,
    };
    if prefix.net().prefix_len() < least { Err(Refusal::TooWide(prefix)) } else { Ok(()) }
}
