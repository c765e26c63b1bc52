//! What a destination port is to the enforcer: one word per port, in a map that the daemon writes.
//!
//! One lookup answers every question about a port, however many ports are named in the configuration.

use crate::settings::GROUPS;

/// How many ports there are, and entries in the map.
pub const PORTS: usize = 1 << 16;

/// Where the number of a group begins in a port's word.
const GROUP: u32 = 8;

/// Where the doors begin in a port's word.
const DOORS: u32 = 16;

/// Bits of [`Port::doors`] and of [`crate::ban::Listing::doors`].
pub mod door {
    /// TCP: to manage the machine by, where not everybody may.
    pub const MANAGEMENT: u16 = 1 << 0;
    /// How many others there are: ports that are allowed to some sources.
    pub const OTHERS: usize = 15;

    /// One of the others.
    pub const fn other(number: usize) -> u16 {
        1 << (1 + number % OTHERS)
    }
}

/// What is known of a port. 0: nothing.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port(u32);

impl Port {
    /// Nothing is known of it.
    pub const UNKNOWN: Self = Self(0);
    /// TCP: TLS is served here, ClientHellos are judged and charged.
    pub const PROTECTED: Self = Self(1 << 0);
    /// TCP: nothing closes it for anybody: no ban, no limit.
    pub const MANAGEMENT: Self = Self(1 << 1);
    /// UDP: QUIC is served here.
    pub const QUIC: Self = Self(1 << 2);

    /// The port behind these doors, each of which is a bit: whoever is listed for one of them gets through, whatever else is known
    /// of him. See [`door`].
    pub const fn behind(doors: u16) -> Self {
        Self((doors as u32) << DOORS)
    }

    /// The doors that lead to it.
    #[inline(always)]
    pub const fn doors(self) -> u16 {
        (self.0 >> DOORS) as u16
    }

    /// In a group of ports, by its number: the row of [`crate::settings::Settings::groups`]. 0: in none.
    pub const fn in_group(group: u8) -> Self {
        Self((group as u32 & (GROUPS as u32 - 1)) << GROUP)
    }

    /// The number of its group.
    #[inline(always)]
    pub const fn group(self) -> u32 {
        self.0 >> GROUP & (GROUPS as u32 - 1)
    }

    /// The word as it lies in the map.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// The word for the map.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether everything that `other` says holds for this port.
    #[inline(always)]
    pub const fn is(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_add_up_and_come_back() {
        let both = Port::PROTECTED.with(Port::QUIC);
        assert!(both.is(Port::PROTECTED) && both.is(Port::QUIC) && !both.is(Port::MANAGEMENT));
        assert_eq!(Port::from_word(both.word()), both);
        assert!(!Port::UNKNOWN.is(Port::PROTECTED));
        let last = door::other(door::OTHERS - 1);
        assert_eq!(both.with(Port::behind(last | door::MANAGEMENT)).doors(), 1 << 15 | 1);
        let grouped = both.with(Port::in_group(7)).with(Port::behind(last));
        assert_eq!((grouped.group(), grouped.doors(), both.group()), (7, last, 0));
        assert!(grouped.is(both) && !grouped.is(Port::MANAGEMENT));
        assert!(!Port::behind(u16::MAX).is(Port::PROTECTED) && both.doors() == 0);
    }
}
