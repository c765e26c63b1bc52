//! The data plane's user-space side: the only module that names aya.
//!
//! `Kernel::load` loads, `Kernel::attach` attaches; what it hands out are small owned handles. With `mode = "off"` everything here
//! exists and does nothing.

pub mod events;
pub mod model;
pub mod program;

mod attach;
mod bpffs;
mod budgets;
mod detach;
mod exact;
mod hellos;
mod heritage;
mod holder;
mod layout;
mod lists;
mod marks;
mod memory;
mod off;
mod pins;
mod plane;
mod practice;
mod probe;
mod rates;
mod raw;
mod reaper;
mod rule;
mod settings;
mod slots;
mod tables;
mod task;
mod view;

use std::{net::IpAddr, sync::Arc};

use anyhow::{Result, bail};
use enforcer_common::{
    ban::{Ban, Listing},
    maps::Counter,
    reason::{DropReason, PassReason},
    source::SourceKey,
    verdict::Verdict,
};
use tracing::warn;

pub use self::{
    detach::{Detached, detach},
    hellos::entries as listed_hellos,
    heritage::{Beginning, Held},
    practice::Practice,
    rule::{Grounds, rule},
    task::Diagnostics,
};
use self::{
    events::Events,
    exact::ExactBans,
    heritage::Heritage,
    lists::MapLists,
    marks::Marks,
    off::{NoLists, NoView},
    pins::Pins,
    plane::Xdp,
    program::Sizes,
    reaper::Reaper,
    tables::{LiveMaps, SettingsMap},
    view::MapView,
};
use crate::{
    clock::KernelTime,
    config::{self, Mode},
    prefix::Prefix,
};

/// The data plane of this process. Dropping it detaches the program, unless it is pinned.
pub struct Kernel {
    config: config::Kernel,
    plane: Plane,
    /// Opened when it is first needed.
    reaper: Option<Reaper>,
}

enum Plane {
    Xdp(Box<Xdp>),
    Off,
}

impl Kernel {
    /// Loads the program and writes its settings; nothing is attached yet. `max_bans` is `bans.max_entries`. With
    /// `mode = "off"` nothing is loaded and every handle does nothing.
    ///
    /// The lists are empty afterwards; the ban task fills them, allowances of the configuration included, so that the
    /// first packet after [`Kernel::attach`] meets all of them.
    pub fn load(config: &config::Kernel, max_bans: u32) -> Result<Self> {
        Self::load_with(config, Sizes::new(max_bans, config.limits.max_sources))
    }

    /// As [`Kernel::load`], with tables for as many bans as there may soon be, if `known` are remembered.
    pub fn load_growing(config: &config::Kernel, max_bans: u32, known: usize) -> Result<Self> {
        Self::load_with(config, Sizes::growing(max_bans, known, config.limits.max_sources))
    }

    fn load_with(config: &config::Kernel, sizes: Sizes) -> Result<Self> {
        let plane = match config.mode {
            Mode::Off => Plane::Off,
            Mode::Native | Mode::NativeOrGeneric | Mode::Generic => {
                Plane::Xdp(Box::new(Xdp::load(config, sizes)?))
            }
        };
        Ok(Self { config: config.clone(), plane, reaper: None })
    }

    /// Attaches the program to every interface of the configuration. After an error the caller drops the `Kernel`, and with it
    /// every link that was made.
    pub fn attach(&mut self) -> Result<()> {
        match &mut self.plane {
            Plane::Xdp(xdp) => xdp.attach(&self.config),
            Plane::Off => self.leave_nothing(),
        }
    }

    /// With `mode = "off"` nothing shall be judged, so what an earlier daemon has left goes.
    fn leave_nothing(&self) -> Result<()> {
        let Some(pins) = Pins::find(&self.config.pin_directory)? else { return Ok(()) };
        let interfaces = pins.remove_all()?;
        warn!(interfaces, "kernel.mode is \"off\": what an earlier daemon left attached was detached");
        Ok(())
    }

    /// Looks whether the program is still on every interface, and attaches it to those that came back; answers the interfaces
    /// without it. The daemon calls this every second. An error says that the kernel did not answer; nothing is known to
    /// have changed then.
    pub fn reconcile(&mut self) -> Result<Vec<String>> {
        let Plane::Xdp(xdp) = &mut self.plane else { return Ok(Vec::new()) };
        let mut links = std::mem::take(&mut xdp.links);
        let looked = attach::reconcile(xdp.site(&self.config), &mut links);
        xdp.links = links;
        xdp.publish()?;
        xdp.look_again()?;
        looked?;
        let detached = xdp.links.iter().filter(|link| !link.attachment.is_attached());
        Ok(detached.map(|link| link.attachment.interface.clone()).collect())
    }

    /// Whether somebody has removed what was pinned: then nothing is attached any more, nor will be.
    pub fn is_withdrawn(&self) -> bool {
        matches!(&self.plane, Plane::Xdp(xdp) if xdp.pins.as_ref().is_some_and(Pins::is_gone))
    }

    /// Ends the sockets of refused connections whose clients stay silent, and answers how many. The daemon calls this every second.
    pub fn reap(&mut self, now: KernelTime) -> Result<usize> {
        let Plane::Xdp(xdp) = &self.plane else { return Ok(0) };
        let reaper = match self.reaper.take() {
            Some(reaper) => reaper,
            None => Reaper::open(&xdp.program)?,
        };
        self.reaper.insert(reaper).reap(now)
    }

    /// The writer of the lists. The ban task owns it.
    pub fn lists(&self) -> Result<Box<dyn SourceLists>> {
        Ok(match &self.plane {
            Plane::Xdp(xdp) => {
                let map = |name: &str| xdp.program.map(name);
                let exact = ExactBans::open(&map, &SettingsMap::current(&xdp.settings))?;
                Box::new(MapLists::open(exact, Marks::open(&map)?, LiveMaps::open(&map)?)?)
            }
            Plane::Off => Box::new(NoLists),
        })
    }

    /// A reader, to be shared freely.
    pub fn view(&self) -> Result<Arc<dyn View>> {
        Ok(match &self.plane {
            Plane::Xdp(xdp) => Arc::new(MapView::new(
                LiveMaps::open(&|name| xdp.program.map(name))?,
                xdp.settings.clone(),
                Arc::clone(&xdp.attachments),
                Arc::clone(&xdp.slots),
                Arc::clone(&xdp.practice),
            )),
            Plane::Off => Arc::new(NoView { v6_length: self.config.ipv6_prefix }),
        })
    }

    /// Takes over what can change while packets flow: limits, ports, the minimum TLS version, the lease. What cannot is for
    /// `config::settle` to name.
    pub fn apply(&mut self, config: &config::Kernel) -> Result<()> {
        if let Plane::Xdp(xdp) = &mut self.plane {
            // Sources are cut as they were at the start: the bans in the map are.
            let live = config::Kernel { ipv6_prefix: self.config.ipv6_prefix, ..config.clone() };
            xdp.write(&live)?;
        }
        self.config.lease = config.lease;
        Ok(())
    }

    /// Says to the program that a healthy daemon is here. With `kernel.lease` the daemon calls this every second.
    pub fn renew_lease(&self) -> Result<()> {
        match &self.plane {
            Plane::Xdp(xdp) => xdp.renew_lease(self.config.lease),
            Plane::Off => Ok(()),
        }
    }

    /// What the lists of an earlier daemon hold, if it left any that can be understood.
    pub fn held(&self) -> Result<Held> {
        match &self.plane {
            Plane::Xdp(xdp) => xdp.heritage.as_ref().map_or(Ok(Held::default()), Heritage::held),
            Plane::Off => Ok(Held::default()),
        }
    }

    /// Whether the lists are those that packets are judged by already, before [`Kernel::attach`]: then it comes first, so
    /// that a start that fails has changed nothing.
    pub fn is_live(&self) -> bool {
        matches!(&self.plane, Plane::Xdp(xdp) if xdp.is_live())
    }

    /// What this start has found of an earlier one.
    pub fn beginning(&self) -> Beginning {
        match &self.plane {
            Plane::Off => Beginning::Fresh,
            Plane::Xdp(xdp) => xdp.beginning,
        }
    }

    /// What forwards the program's diagnostics, if `kernel.log` is true; once. The daemon spawns its `run`.
    pub fn take_diagnostics(&mut self) -> Option<Diagnostics> {
        match &mut self.plane {
            Plane::Xdp(xdp) => xdp.diagnostics.take(),
            Plane::Off => None,
        }
    }

    /// What takes samples of refused packets out of the kernel; `None` with `mode = "off"`. One at a time: the daemon
    /// spawns its `run`.
    pub fn events(&self) -> Result<Option<Events>> {
        match &self.plane {
            Plane::Xdp(xdp) => Events::open(&xdp.program, Arc::clone(&xdp.attachments)).map(Some),
            Plane::Off => Ok(None),
        }
    }

    /// Runs the program on a frame without any interface, for tests and benchmarks.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<program::Outcome> {
        match &self.plane {
            Plane::Xdp(xdp) => xdp.program.run(frame, repeat),
            Plane::Off => bail!("kernel.mode is \"off\": no program is loaded"),
        }
    }
}

/// Writes what is listed. The ban task owns the only one.
pub trait SourceLists: Send {
    /// Bans one source, or moves the end of its ban.
    fn ban(&mut self, source: SourceKey, ban: Ban) -> Result<()>;
    /// The same for many sources at once: a million takes less than a second. What was done before an error stays done.
    fn ban_many(&mut self, bans: &[(SourceKey, Ban)]) -> Result<()> {
        bans.iter().try_for_each(|(source, ban)| self.ban(*source, *ban))
    }
    /// Lifts the ban of one source; not being banned is no error.
    fn unban(&mut self, source: SourceKey) -> Result<()>;
    /// Lists a prefix, or changes its listing.
    fn list(&mut self, prefix: Prefix, listing: Listing) -> Result<()>;
    /// Takes a prefix off the list; not being listed is no error.
    fn unlist(&mut self, prefix: Prefix) -> Result<()>;
}

/// [`Attachment::mode`] of an interface without the program.
const DETACHED: &str = "detached";
/// The same, where somebody has removed what was pinned: the program is not attached again.
const WITHDRAWN: &str = "detached by an operator";

/// One configured interface.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// Name, as configured.
    pub interface: String,
    /// Index, as the kernel counts; 0 while it has none.
    pub index: u32,
    /// `native`, `generic`, or `detached`: it has vanished, or another program holds it, and no packet is judged there;
    /// `detached by an operator`: the same, until the daemon starts anew.
    pub mode: String,
}

impl Attachment {
    /// Whether the program is on it.
    pub fn is_attached(&self) -> bool {
        self.mode != DETACHED && self.mode != WITHDRAWN
    }
}

/// A reason, and what it meant for the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The packet passed.
    Pass(PassReason),
    /// The packet was dropped.
    Drop(DropReason),
    /// The packet would have been dropped, but for a dry run; what became of it is counted besides.
    WouldDrop(DropReason),
}

impl From<Verdict> for Reason {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass(reason) => Self::Pass(reason),
            Verdict::Drop(reason) => Self::Drop(reason),
        }
    }
}

impl Reason {
    /// `pass`, `drop` or `would_drop`.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Drop(_) => "drop",
            Self::WouldDrop(_) => "would_drop",
        }
    }

    /// The reason's own label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.label(),
            Self::Drop(reason) | Self::WouldDrop(reason) => reason.label(),
        }
    }

    /// The reason with this number; `would`: it was only rehearsed.
    pub fn from_number(number: u32, would: bool) -> Option<Self> {
        Self::all().find_map(|(reason, own)| match reason {
            Self::Pass(_) | Self::Drop(_) if own == number && !would => Some(reason),
            Self::Drop(reason) if own == number => Some(Self::WouldDrop(reason)),
            Self::Pass(_) | Self::Drop(_) | Self::WouldDrop(_) => None,
        })
    }

    /// One sentence for people.
    pub const fn description(&self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.description(),
            Self::Drop(reason) | Self::WouldDrop(reason) => reason.description(),
        }
    }

    /// Every reason, with the number of its counter.
    pub fn all() -> impl Iterator<Item = (Self, u32)> {
        let pass = PassReason::ALL.iter().map(|reason| (Self::Pass(*reason), reason.number()));
        let drop = DropReason::ALL.iter().map(|reason| (Self::Drop(*reason), reason.number()));
        let dry = DropReason::ALL.iter().map(|reason| (Self::WouldDrop(*reason), reason.dry_number()));
        pass.chain(drop).chain(dry)
    }
}

/// The name of interfaces that are counted together, because there are more than counters.
pub const OTHER_INTERFACES: &str = "other";

/// What was counted for one reason on one interface, over all CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Its name, as configured, or [`OTHER_INTERFACES`].
    pub interface: String,
    /// The reason.
    pub reason: Reason,
    /// Packets and bytes.
    pub counter: Counter,
}

/// Counters by interface and reason.
pub type Counters = Vec<Count>;

/// What became of packets that could have been shown as samples, see [`enforcer_common::event`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Written for the daemon.
    pub sampled: u64,
    /// Left out, because `kernel.events` was used up.
    pub over_budget: u64,
    /// Lost, because the daemon had not read what was written before.
    pub ring_full: u64,
}

/// What would happen to a packet, and what is known of its source.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Explanation {
    /// `pass` or `drop`.
    pub verdict: String,
    /// The reason's label.
    pub reason: String,
    /// The reason's description.
    pub description: String,
    /// What in the configuration or in the lists decided; empty where nothing there could have.
    #[serde(default)]
    pub rule: String,
    /// Reasons for which it would have been dropped but for a dry run.
    #[serde(default)]
    pub would_drop: Vec<String>,
    /// What the source is charged as.
    pub source: String,
    /// The tier of its budgets.
    #[serde(default)]
    pub tier: String,
    /// State of each limit.
    pub limits: Vec<LimitState>,
}

/// What kind of packet `why` asks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A TCP segment that opens a connection.
    #[default]
    Tcp,
    /// A UDP datagram.
    Udp,
}

/// One limit of one source.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct LimitState {
    /// The limit's label.
    pub limit: String,
    /// Whether it is configured.
    pub limited: bool,
    /// Events that would be admitted at once, now.
    pub remaining: u64,
    /// Events that an idle source may send at once.
    pub burst: u64,
    /// Nanoseconds until one more event is admitted; 0: now.
    pub wait_ns: u64,
}

/// Reads the live data plane. Cheap to clone, safe to share.
pub trait View: Send + Sync {
    /// Interfaces of the configuration, and how the program is attached to them; empty with `mode = "off"`.
    fn attachments(&self) -> Vec<Attachment>;
    /// What of the configuration is in force there; empty with `mode = "off"`.
    fn practice(&self) -> Practice {
        Practice::default()
    }
    /// Counters since the start.
    fn counters(&self) -> Result<Counters>;
    /// What became of the samples; `None` without a program.
    fn event_counts(&self) -> Result<Option<EventCounts>> {
        Ok(None)
    }
    /// What would happen to a packet of this kind from `address` to `port` at `now`, by the very function that the program
    /// runs.
    fn explain(&self, address: IpAddr, port: u16, protocol: Protocol, now: KernelTime)
    -> Result<Explanation>;
}
