//! Budgets beside those of a single source: of the IPv6 networks around it, of its packets to a group of ports, and of everybody
//! together. Where each lies, and by which key; [`crate::verdict`] charges them by the arithmetic of all limits.
//!
//! Budgets of networks, groups and shares lie in one table ([`crate::maps::BUDGETS`]), whose keys are hashes: what a budget
//! belongs to does not fit into 64 bits. Keys of one kind never collide. Those of two kinds do once in 2^64 pairs; then
//! two budgets are one.

use crate::{
    limiter::mix,
    settings::{LIMITS, Limit},
    source::{SourceKey, v6_mask},
};

/// What a budget belongs to.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The /56 around an IPv6 source.
    Site = 0,
    /// The /48 around an IPv6 source.
    Network = 1,
    /// A source, at a group of ports.
    Group = 2,
    /// A source, of what everybody shares.
    Share = 3,
}

/// How many scopes there are.
const SCOPES: u32 = 4;

impl Scope {
    /// The networks around a source, and the bits of an address that they have.
    pub const NETWORKS: [(Self, u8); 2] = [(Self::Site, 56), (Self::Network, 48)];

    /// The key of its budget for events of `limit` from `source`; `group` counts for [`Scope::Group`] alone.
    #[inline(always)]
    pub const fn key(self, limit: Limit, group: u32, source: SourceKey, seed: u64) -> u64 {
        let (holder, detail) = match self {
            Self::Site => (source.get() & v6_mask(56), 0),
            Self::Network => (source.get() & v6_mask(48), 0),
            Self::Group => (source.get(), group),
            Self::Share => (source.get(), 0),
        };
        let kind = (self as u64) << 16 | (detail as u64) << 8 | limit as u64;
        let key = mix(holder ^ mix(seed ^ kind));
        // The keys of slots that are empty or being taken over.
        if key == 0 || key == u64::MAX { 1 } else { key }
    }
}

/// Places in [`crate::maps::SHARED`]: budgets that many sources share.
pub mod shared {
    use super::{LIMITS, Limit};

    /// Cells of each table for those who find no slot. Buckets of it that are full share one where they are more than that; those of two
    /// tables never do, since what one limit allows is nothing to another.
    pub const CELLS: u32 = 1 << 10;
    /// The budget of SYNs to protected ports, above which cookies are sent.
    pub const SYNS: u32 = LIMITS as u32;
    /// Where the cells begin.
    const FIRST: u32 = SYNS + 1;
    /// Tables with cells of their own: a limit's, and further budgets' of a limit.
    const TABLES: u32 = LIMITS as u32 * (1 + super::SCOPES);
    /// All places.
    pub const PLACES: usize = (FIRST + TABLES * CELLS) as usize;

    /// The budget of everybody together.
    #[inline(always)]
    pub const fn everybody(limit: Limit) -> u32 {
        limit as u32
    }

    /// The budget of those for whom bucket `index` of a table has no slot: of that of a limit, or, by `scope`, of the further budgets'.
    #[inline(always)]
    pub const fn crowd(limit: Limit, scope: Option<super::Scope>, index: u32) -> u32 {
        let scopes = match scope {
            Some(scope) => 1 + scope as u32,
            None => 0,
        };
        let table = scopes * LIMITS as u32 + limit as u32;
        FIRST + table * CELLS + (index & (CELLS - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, net::IpAddr};

    fn source(text: &str) -> SourceKey {
        SourceKey::of(text.parse::<IpAddr>().unwrap(), v6_mask(64))
    }

    #[test]
    fn networks_hold_their_sources_and_nothing_else_shares_a_key() {
        let seed = 0x1234;
        let site = |text| Scope::Site.key(Limit::Packets, 0, source(text), seed);
        let network = |text| Scope::Network.key(Limit::Packets, 0, source(text), seed);
        assert_eq!(site("2001:db8:1:200::7"), site("2001:db8:1:2ff::7"));
        assert_ne!(site("2001:db8:1:200::7"), site("2001:db8:1:300::7"));
        assert_eq!(network("2001:db8:1:200::7"), network("2001:db8:1:ff00::7"));
        assert_ne!(network("2001:db8:1::7"), network("2001:db8:2::7"));
        let mut keys = HashSet::new();
        for source in ["2001:db8:1::7", "198.18.0.7", "::"].map(source) {
            for scope in [Scope::Site, Scope::Network, Scope::Group, Scope::Share] {
                for limit in Limit::ALL {
                    let groups = if scope == Scope::Group { 0..8 } else { 0..1 };
                    assert!(
                        groups.into_iter().all(|group| keys.insert(scope.key(limit, group, source, seed)))
                    );
                }
            }
        }
    }

    #[test]
    fn every_place_is_one_of_the_map() {
        for limit in Limit::ALL {
            assert!((shared::everybody(limit) as usize) < LIMITS);
            for index in [0, 1, shared::CELLS - 1, u32::MAX] {
                for scope in [None, Some(Scope::Site), Some(Scope::Share)] {
                    let place = shared::crowd(limit, scope, index) as usize;
                    assert!((LIMITS + 1..shared::PLACES).contains(&place));
                }
            }
        }
    }

    #[test]
    fn no_two_tables_share_a_cell() {
        let scopes = [None, Some(Scope::Site), Some(Scope::Network), Some(Scope::Group), Some(Scope::Share)];
        let mut cells = HashSet::new();
        for limit in Limit::ALL {
            for scope in scopes {
                assert!((0..shared::CELLS).all(|index| cells.insert(shared::crowd(limit, scope, index))));
            }
        }
        assert_eq!(cells.len() + LIMITS + 1, shared::PLACES);
    }
}
