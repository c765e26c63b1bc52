//! What an earlier daemon left in maps that are still pinned: bans, listings, and what sources owe.
//!
//! Called by `Kernel` at the start. Reads the old maps and never writes them: until the new program is in place, the old one
//! judges by them.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Map, MapData};
use enforcer_common::{
    ban::{Ban, Listing},
    maps,
    settings::Settings,
    source::SourceKey,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tracing::warn;

use super::{
    pins::Found,
    tables::{LiveMaps, SettingsMap},
};
use crate::prefix::Prefix;

/// What a start has found of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing.
    Fresh,
    /// Maps that it goes on with: bans and limits are as they were.
    TakenOver,
    /// Maps of another size: bans are carried over.
    Migrated,
    /// Maps of a layout that it does not know: what sources owed is forgotten.
    Replaced,
}

impl Beginning {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::TakenOver, Self::Migrated, Self::Replaced];

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
    settings: Settings,
}

impl Heritage {
    /// Opens what is pinned in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let map = |name: &str| pinned(directory, name);
        let settings = SettingsMap::open(map(maps::SETTINGS)?)?;
        Ok(Self { maps: LiveMaps::open(&map)?, settings: SettingsMap::current(&settings) })
    }

    /// The settings that the old program judges by.
    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Everything that is listed. Ends of bans are as they were written: some may be over.
    pub(super) fn held(&self) -> Result<Held> {
        let mut held = Held::default();
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
