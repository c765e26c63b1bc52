//! Writes bans and prefixes into the maps. The ban task owns the only writer.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use aya::maps::{MapError, lpm_trie::Key};
use enforcer_common::{
    ban::{Ban, Listing},
    source::SourceKey,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{SourceLists, exact::ExactBans, marks::Marks, tables::LiveMaps};
use crate::prefix::Prefix;

/// The writer over the program's maps.
pub(super) struct MapLists {
    exact: ExactBans,
    marks: Marks,
    maps: LiveMaps,
}

impl MapLists {
    /// Over maps that may hold something already.
    pub(super) fn open(exact: ExactBans, mut marks: Marks, maps: LiveMaps) -> Result<Self> {
        for key in maps.listed_v4.keys() {
            let key = key.context("reading the IPv4 trie")?;
            marks.add(prefix(key.data().into(), key.prefix_len()));
        }
        for key in maps.listed_v6.keys() {
            let key = key.context("reading the IPv6 trie")?;
            marks.add(prefix(key.data().into(), key.prefix_len()));
        }
        Ok(Self { exact, marks, maps })
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
        let listed = match prefix.net() {
            IpNet::V4(net) => self.maps.listed_v4.insert(&key_v4(net), listing, 0),
            IpNet::V6(net) => self.maps.listed_v6.insert(&key_v6(net), listing, 0),
        };
        listed.with_context(|| format!("listing {prefix}"))?;
        self.marks.add(prefix);
        Ok(())
    }

    fn unlist(&mut self, prefix: Prefix) -> Result<()> {
        let removed = match prefix.net() {
            IpNet::V4(net) => self.maps.listed_v4.remove(&key_v4(net)),
            IpNet::V6(net) => self.maps.listed_v6.remove(&key_v6(net)),
        };
        absent_is_fine(removed).with_context(|| format!("taking {prefix} off the list"))?;
        self.marks.remove(prefix);
        Ok(())
    }
}

fn key_v4(net: Ipv4Net) -> Key<[u8; 4]> {
    Key::new(u32::from(net.prefix_len()), net.addr().octets())
}

fn key_v6(net: Ipv6Net) -> Key<[u8; 16]> {
    Key::new(u32::from(net.prefix_len()), net.addr().octets())
}

fn prefix(address: IpAddr, length: u32) -> Prefix {
    Prefix::host(address).widened(u8::try_from(length).unwrap_or(u8::MAX))
}

/// Removing what is not there leaves the map as wished.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}
