//! What a destination port is to the enforcer: one word per port, in a map that the daemon writes.
//!
//! One lookup answers every question about a port, however many ports are named in the configuration.

/// How many ports there are, and entries in the map.
pub const PORTS: usize = 1 << 16;

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
    }
}
