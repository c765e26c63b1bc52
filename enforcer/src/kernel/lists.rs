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
    exact::ExactBans,
    tables::{LiveMaps, SettingsMap, SharedSettings},
};
use crate::prefix::Prefix;

/// The writer over the program's maps.
pub(super) struct MapLists {
    exact: ExactBans,
    maps: LiveMaps,
    settings: SharedSettings,
}

impl MapLists {
    pub(super) fn new(exact: ExactBans, maps: LiveMaps, settings: SharedSettings) -> Self {
        Self { exact, maps, settings }
    }
}

impl SourceLists for MapLists {
    fn ban(&mut self, source: SourceKey, ban: Ban) -> Result<()> {
        self.exact.ban(&[(source, ban)])
    }

    fn ban_many(&mut self, bans: &[(SourceKey, Ban)]) -> Result<()> {
        self.exact.ban(bans)
    }

    fn unban(&mut self, source: SourceKey) -> Result<()> {
        self.exact.lift(source)
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
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}
