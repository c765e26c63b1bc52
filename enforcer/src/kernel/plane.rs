//! The loaded program with its maps and links: made over what an earlier daemon left, put in its place in one step.
//!
//! `Kernel` owns the only one. Until [`Xdp::attach`] has nothing left that could fail, nothing is written that the program in use
//! reads, and what was done to interfaces is undone by an error.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use arc_swap::ArcSwap;
use aya::maps::{PerCpuArray, PerCpuValues};
use enforcer_common::{
    maps::{self, Counter},
    reason,
    settings::{INTERFACES, SHARED_SLOT},
};
use tracing::{info, warn};

use super::{
    Attachment, Practice,
    attach::{self, Site},
    hellos::{self, HellosMap},
    heritage::{self, Beginning, Carried, Heritage, Tables},
    layout::Layout,
    pins::{Found, Pins},
    practice,
    program::{Program, Sizes},
    settings::{self, Means},
    slots::Slots,
    tables::{PortsMap, SettingsMap, SharedSettings},
    task::Diagnostics,
};
use crate::config;

/// The data plane that judges packets.
pub(super) struct Xdp {
    pub(super) program: Program,
    pub(super) layout: Layout,
    /// The directory of pins; none with `persist = false`, or while another daemon has it.
    pub(super) pins: Option<Pins>,
    pub(super) found: Found,
    /// The maps of `found`, if they can be understood.
    pub(super) heritage: Option<Heritage>,
    pub(super) beginning: Beginning,
    pub(super) sizes: Sizes,
    pub(super) seed: u64,
    pub(super) settings: SharedSettings,
    pub(super) ports: PortsMap,
    hellos: HellosMap,
    pub(super) links: Vec<attach::Link>,
    pub(super) attachments: Arc<ArcSwap<Vec<Attachment>>>,
    pub(super) slots: Arc<ArcSwap<Slots>>,
    pub(super) practice: Arc<ArcSwap<Practice>>,
    /// As it was last written.
    live: config::Kernel,
    /// What the devices allowed then.
    means: Means,
    pub(super) diagnostics: Option<Diagnostics>,
}

impl Xdp {
    pub(super) fn load(config: &config::Kernel, sizes: Sizes) -> Result<Self> {
        // What an IPv6 key means depends on how sources are cut.
        let layout = Program::layout(sizes, config.ipv6_prefix.into())?;
        let pins = match config.persist {
            true => Some(Pins::claim(&config.pin_directory)?),
            false => Pins::find(&config.pin_directory)?,
        };
        let found = pins.as_ref().map_or(Ok(Found::Nothing), |pins| pins.look(&layout))?;
        let same = match &found {
            Found::Same(layer) => Some((&layout, layer.directory.as_path())),
            Found::Other(_) | Found::Nothing => None,
        };
        let mut program = Program::load_over(sizes, config.log, same)?;
        let settings = SettingsMap::open(program.map(maps::SETTINGS)?)?;
        let ports = PortsMap::open(program.map(maps::PORTS)?)?;
        let hellos = HellosMap::open(program.map(maps::HELLOS)?)?;
        let heritage = heritage::inherit(&found);
        let seed = match heritage.as_ref().map(Heritage::seed) {
            // What sources owe lies where the seed has put it.
            Some(seed) if seed != 0 => seed,
            Some(_) | None => random()?,
        };
        let diagnostics = if config.log { Some(Diagnostics::open(&mut program)?) } else { None };
        let mut made = Self {
            program,
            layout,
            pins,
            beginning: Beginning::of(&found, heritage.is_some()),
            found,
            heritage,
            sizes,
            seed,
            settings,
            ports,
            hellos,
            links: Vec::new(),
            attachments: Arc::default(),
            slots: Arc::default(),
            practice: Arc::default(),
            live: config.clone(),
            means: Means::of(config),
            diagnostics,
        };
        if !made.is_live() {
            // Before anything is attached: the first packet is judged.
            made.write(config)?;
        }
        Ok(made)
    }

    /// Whether the maps are those of the program that is attached now: nothing may be written before that one is replaced.
    pub(super) const fn is_live(&self) -> bool {
        matches!(self.found, Found::Same(_))
    }

    pub(super) fn attach(&mut self, config: &config::Kernel) -> Result<()> {
        let stage = match &self.pins {
            Some(pins) if config.persist => Some(pins.stage(&self.layout, &self.program, self.is_live())?),
            Some(_) | None => None,
        };
        // An interface that is not there ends the start soon.
        let index = |name: &String| nix::net::if_::if_nametoindex(name.as_str()).unwrap_or(0);
        let interfaces: Vec<_> = config.interfaces.iter().map(|name| (name.clone(), index(name))).collect();
        let slots = Slots::assign(&SettingsMap::current(&self.settings).interfaces, &interfaces);
        if !self.is_live() {
            // Before the first packet comes.
            self.number(slots.numbers(&interfaces))?;
        }
        self.carry()?;
        let (links, change) = attach::attach_all(self.site(config), &config.interfaces)?;
        self.links = links;
        self.write(config)?;
        self.hand_over(slots)?;
        self.publish()?;
        let carried = self.carry()?;
        // Nothing can fail from here on.
        change.keep();
        if let Some(Carried { debts, forgotten }) = carried {
            info!(debts, forgotten, "what sources owe was carried over from an earlier layout");
        }
        if let Some(stage) = stage {
            stage.keep();
        }
        if config.persist {
            let interfaces: Vec<u32> = self.links.iter().map(|link| link.attachment.index).collect();
            if let Some(pins) = &self.pins {
                pins.tidy(&self.layout, &interfaces);
            }
        } else if let Some(pins) = self.pins.take()
            && let Err(error) = pins.abandon()
        {
            warn!(error = format!("{error:#}"), "what an earlier daemon has pinned cannot be removed");
        }
        // Old maps are freed, and the program in them.
        (self.found, self.heritage) = (Found::Nothing, None);
        Ok(())
    }

    /// Carries over what sources owe, where the old tables have another layout.
    fn carry(&self) -> Result<Option<Carried>> {
        let Some(heritage) = self.heritage.as_ref().filter(|_| !self.is_live()) else { return Ok(None) };
        let tables = Tables::open(&|name| self.program.map(name).map(Some))?;
        Ok(Some(heritage.carry(&tables, &SettingsMap::current(&self.settings))))
    }

    pub(super) fn site(&self, config: &config::Kernel) -> Site<'_> {
        let before = match &self.found {
            Found::Same(layer) | Found::Other(layer) => Some(layer),
            Found::Nothing => None,
        };
        Site {
            program: &self.program,
            mode: config.mode,
            pins: self.pins.as_ref(),
            persist: config.persist,
            before,
        }
    }

    /// Writes what `config` says of settings, ports and hellos.
    pub(super) fn write(&mut self, config: &config::Kernel) -> Result<()> {
        let (means, practice) = practice::look(config, &self.attached());
        let mut next = settings::settings(config, self.sizes, self.seed, &means);
        next.lease_until = settings::lease_until(config.lease);
        let listed = hellos::entries(&config.hellos, self.seed);
        self.hellos.add(&listed)?;
        SettingsMap::change(&self.settings, |settings| {
            next.interfaces = settings.interfaces;
            next.verified = means.checksums.mask(&settings.interfaces);
            *settings = next;
        })?;
        self.hellos.settle(&listed)?;
        self.ports.write(&settings::ports(config))?;
        self.live = config.clone();
        self.means = means;
        if self.links.is_empty() {
            // A start that fails says that alone, in one line.
            return Ok(());
        }
        let before = self.practice.swap(Arc::new(practice));
        let now = self.practice.load();
        for remark in now.remarks.iter().filter(|remark| !before.remarks.contains(remark)) {
            warn!("{remark}");
        }
        Ok(())
    }

    /// Writes the settings anew if the devices have become others: one came back, or got a VLAN.
    pub(super) fn look_again(&mut self) -> Result<()> {
        let (means, practice) = practice::look(&self.live, &self.attached());
        if self.means == means && **self.practice.load() == practice {
            return Ok(());
        }
        let live = self.live.clone();
        self.write(&live)
    }

    fn attached(&self) -> Vec<Attachment> {
        self.links.iter().map(|link| link.attachment.clone()).collect()
    }

    pub(super) fn renew_lease(&self, lease: Option<Duration>) -> Result<()> {
        SettingsMap::change(&self.settings, |settings| settings.lease_until = settings::lease_until(lease))
    }

    /// Shows the views how the interfaces are now, and the program which one is counted where.
    pub(super) fn publish(&self) -> Result<()> {
        let now = self.attached();
        let interfaces: Vec<_> = now.iter().map(|one| (one.interface.clone(), one.index)).collect();
        self.number(self.slots.load().numbers(&interfaces))?;
        if **self.attachments.load() != now {
            self.attachments.store(Arc::new(now));
        }
        Ok(())
    }

    /// Has everything counted in these slots; what was counted there for other interfaces is forgotten.
    fn hand_over(&self, slots: Slots) -> Result<()> {
        let attached = self.attached();
        let before = SettingsMap::current(&self.settings).interfaces;
        let had =
            |name: &str, number: u32| attached.iter().any(|one| one.interface == name && one.index == number);
        let kept = slots.taken().filter(|(slot, name)| had(name, before[*slot as usize]));
        let mut numbers = [0; INTERFACES];
        for (slot, _) in kept {
            numbers[slot as usize] = before[slot as usize];
        }
        // First nobody counts there, then it is cleared.
        self.number(numbers)?;
        let mut counters: PerCpuArray<_, Counter> = PerCpuArray::try_from(self.program.map(maps::COUNTERS)?)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("counting the CPUs")?;
        for (slot, number) in (0..).zip(numbers).take(SHARED_SLOT as usize) {
            if number == 0 {
                for reason in 0..reason::COUNTERS {
                    let none = PerCpuValues::try_from(vec![Counter::default(); cpus])?;
                    counters.set(reason::counter(slot, reason), none, 0).context("clearing a counter")?;
                }
            }
        }
        self.slots.store(Arc::new(slots));
        Ok(())
    }

    fn number(&self, interfaces: [u32; INTERFACES]) -> Result<()> {
        SettingsMap::change(&self.settings, |settings| {
            settings.interfaces = interfaces;
            settings.verified = self.means.checksums.mask(&interfaces);
        })
    }
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system's random generator failed"))?;
    Ok(u64::from_ne_bytes(bytes))
}
