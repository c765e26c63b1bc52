//! What an earlier daemon left in maps that are still pinned: bans, listings, and what sources owe.
//!
//! Called by `Kernel` at the start. Reads the old maps and never writes them: until the new program is in place, the old one
//! judges by them.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Map, MapData};
use enforcer_common::{
    ban::{Ban, Listing},
    limiter::{
        bucket_index,
        carry::{Debt, carry, debts},
    },
    maps,
    settings::{LIMITS, Limit, Settings},
    source::SourceKey,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tracing::warn;

use super::{
    memory::Words,
    pins::Found,
    tables::{LiveMaps, SettingsMap},
};
use crate::{clock, prefix::Prefix};

/// What a start has found of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing.
    Fresh,
    /// Maps that it goes on with: bans and limits are as they were.
    TakenOver,
    /// Maps of another size: bans and limits are carried over.
    Migrated,
    /// Maps of a layout that it does not know: what sources owed is forgotten.
    Replaced,
}

impl Beginning {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::TakenOver, Self::Migrated, Self::Replaced];

    pub(super) const fn of(found: &Found, understood: bool) -> Self {
        match found {
            Found::Nothing => Self::Fresh,
            Found::Same(_) => Self::TakenOver,
            Found::Other(_) if understood => Self::Migrated,
            Found::Other(_) => Self::Replaced,
        }
    }

    /// The name in `status` and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::TakenOver => "taken_over",
            Self::Migrated => "migrated",
            Self::Replaced => "replaced",
        }
    }
}

/// What the kernel's lists hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Banned sources, and until when.
    pub sources: Vec<(Prefix, Ban)>,
    /// Listed prefixes.
    pub prefixes: Vec<(Prefix, Listing)>,
}

/// Maps of a layout whose meaning is known.
pub(super) struct Heritage {
    maps: LiveMaps,
    tables: Tables,
    settings: Settings,
}

/// The tables of the limits, by limit. The first one holds the exact bans as well.
pub(super) struct Tables([Words; LIMITS]);

impl Tables {
    /// From wherever `map` finds them by name.
    pub(super) fn open(map: &dyn Fn(&str) -> Result<Map>) -> Result<Self> {
        let table = |name| Words::of(&map(name)?, name);
        let [sources, connections, hellos, quic] = maps::LIMITERS;
        Ok(Self([table(sources)?, table(connections)?, table(hellos)?, table(quic)?]))
    }

    /// Every debt of a limit, and every ban.
    fn debts(&self, limit: Limit, now: u64) -> impl Iterator<Item = (SourceKey, Debt)> {
        let table = &self.0[limit as usize];
        let buckets = (0u32..).map_while(|index| table.bucket(index));
        buckets
            .flat_map(move |bucket| debts(&bucket, now).collect::<Vec<_>>())
            .filter_map(|(key, debt)| Some((SourceKey::from_number(key)?, debt)))
    }
}

/// What became of the debts of an earlier layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// Sources that owe what they owed, counted by limit.
    pub(super) debts: u64,
    /// Those for which the new tables have no room, or which are cut differently now: they begin anew.
    pub(super) forgotten: u64,
}

impl Heritage {
    /// Opens what is pinned in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let map = |name: &str| pinned(directory, name);
        let settings = SettingsMap::open(map(maps::SETTINGS)?)?;
        let settings = SettingsMap::current(&settings);
        Ok(Self { maps: LiveMaps::open(&map)?, tables: Tables::open(&map)?, settings })
    }

    /// The settings that the old program judges by.
    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Everything that is listed. Ends of bans are as they were written: some may be over.
    pub(super) fn held(&self) -> Result<Held> {
        let mut held = Held::default();
        for (key, debt) in self.tables.debts(Limit::Packets, clock::kernel_now().0) {
            if let Debt::Banned(until) = debt {
                held.sources.push((Prefix::of_key(key, self.settings.v6_mask), Ban { until }));
            }
        }
        for entry in self.maps.bans.iter() {
            let (key, ban) = entry.context("reading the bans of an earlier daemon")?;
            if let Some(key) = SourceKey::from_number(key) {
                held.sources.push((Prefix::of_key(key, self.settings.v6_mask), ban));
            }
        }
        for entry in self.maps.listed_v4.iter() {
            let (key, listing) = entry.context("reading the prefixes of an earlier daemon")?;
            let net = Ipv4Net::new(key.data().into(), u8::try_from(key.prefix_len())?)?;
            held.prefixes.push((Prefix::from(IpNet::V4(net)), listing));
        }
        for entry in self.maps.listed_v6.iter() {
            let (key, listing) = entry.context("reading the prefixes of an earlier daemon")?;
            let net = Ipv6Net::new(key.data().into(), u8::try_from(key.prefix_len())?)?;
            held.prefixes.push((Prefix::from(IpNet::V6(net)), listing));
        }
        Ok(held)
    }

    /// Makes sources owe in the tables of a new program what they owe in the old ones. To be called before the new one is in
    /// place and again after that: what was charged in between counts as well.
    pub(super) fn carry(&self, tables: &Tables, settings: &Settings) -> Carried {
        let mut carried = Carried::default();
        let now = clock::kernel_now().0;
        let same_cut = self.settings.v6_mask == settings.v6_mask;
        for limit in Limit::ALL {
            for (key, debt) in self.tables.debts(limit, now) {
                // Bans are the ledger's to write.
                let Debt::Owes(tat) = debt else { continue };
                let index = bucket_index(key.get(), settings.seed, settings.mask(limit));
                let bucket = tables.0[limit as usize].bucket(index);
                let known = same_cut || key.address().is_ipv4();
                let kept = known && bucket.is_some_and(|bucket| carry(&bucket, key.get(), tat, now));
                carried.debts += u64::from(kept);
                carried.forgotten += u64::from(!kept);
            }
        }
        carried
    }
}

/// The old maps, if this version knows what they mean. Where it does not, the program is replaced all the same.
pub(super) fn inherit(found: &Found) -> Option<Heritage> {
    let layer = match found {
        Found::Nothing => return None,
        Found::Same(layer) | Found::Other(layer) => layer,
    };
    let opened = if layer.is_known() {
        Heritage::open(&layer.directory)
    } else {
        Err(anyhow!("this version does not know the layout {}", layer.name()))
    };
    opened
        .inspect_err(|error| {
            let reason = format!("{error:#}");
            warn!(
                reason,
                "what an earlier daemon left cannot be carried over: what sources owe is forgotten"
            );
        })
        .ok()
}

fn pinned(directory: &Path, name: &str) -> Result<Map> {
    let opened = MapData::from_pin(directory.join(name)).and_then(Map::from_map_data);
    opened.with_context(|| format!("opening the map {name} of an earlier daemon"))
}
