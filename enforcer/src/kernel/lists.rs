//! Writes bans and prefixes into the maps. The ban task owns the only writer.

use anyhow::{Context as _, Result};
use aya::maps::{MapError, lpm_trie::Key};
use enforcer_common::{
    ban::{Ban, Listing},
    settings::flag,
    source::SourceKey,
};
use ipnet::IpNet;

use super::{
    SourceLists,
    tables::{LiveMaps, SettingsMap, SharedSettings},
};
use crate::prefix::Prefix;

/// The writer over the program's maps.
pub(super) struct MapLists {
    maps: LiveMaps,
    settings: SharedSettings,
}

impl MapLists {
    pub(super) fn new(maps: LiveMaps, settings: SharedSettings) -> Self {
        Self { maps, settings }
    }
}

impl SourceLists for MapLists {
    fn ban(&mut self, source: SourceKey, ban: Ban) -> Result<()> {
        self.maps.bans.insert(source.get(), ban, 0).with_context(|| format!("banning {}", source.address()))
    }

    fn unban(&mut self, source: SourceKey) -> Result<()> {
        absent_is_fine(self.maps.bans.remove(&source.get()))
            .with_context(|| format!("unbanning {}", source.address()))
    }

    fn list(&mut self, prefix: Prefix, listing: Listing) -> Result<()> {
        let flag = match prefix.net() {
            IpNet::V4(net) => {
                let key = Key::new(u32::from(net.prefix_len()), net.addr().octets());
                self.maps.listed_v4.insert(&key, listing, 0).with_context(|| format!("listing {prefix}"))?;
                flag::LISTED_V4
            }
            IpNet::V6(net) => {
                let key = Key::new(u32::from(net.prefix_len()), net.addr().octets());
                self.maps.listed_v6.insert(&key, listing, 0).with_context(|| format!("listing {prefix}"))?;
                flag::LISTED_V6
            }
        };
        // Stays set when the last prefix goes: an empty trie is soon looked through, and counting entries would be one more thing to
        // get wrong.
        SettingsMap::change(&self.settings, |settings| settings.flags |= flag)
    }

    fn unlist(&mut self, prefix: Prefix) -> Result<()> {
        let removed = match prefix.net() {
            IpNet::V4(net) => {
                self.maps.listed_v4.remove(&Key::new(u32::from(net.prefix_len()), net.addr().octets()))
            }
            IpNet::V6(net) => {
                self.maps.listed_v6.remove(&Key::new(u32::from(net.prefix_len()), net.addr().octets()))
            }
        };
        absent_is_fine(removed).with_context(|| format!("taking {prefix} off the list"))
    }
}

/// Removing what is not there leaves the map as wished.
fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}
