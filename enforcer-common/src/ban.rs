//! What a listed source or prefix is worth: a ban with an end, or an allowance.

/// A ban that ends only by hand.
pub const FOREVER: u64 = u64::MAX;

/// A ban as it lies in the maps, for exact sources.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Nanoseconds of `CLOCK_MONOTONIC` at which the ban ends; the first instant at which packets pass again.
    pub until: u64,
}

impl Ban {
    /// No ban: one that ended before the clock began.
    pub const NONE: Self = Self { until: 0 };

    /// Whether the ban holds at `now`.
    #[inline(always)]
    pub const fn holds(&self, now: u64) -> bool {
        now < self.until
    }
}

/// What a prefix is listed as. Numbers are part of the map layout.
pub mod class {
    /// Neither allowed nor banned: listed for its tier or its ports.
    pub const NONE: u8 = 0;
    /// Packets pass, whatever else is listed for an address inside, unless a longer prefix says otherwise.
    pub const ALLOW: u8 = 1;
    /// Packets are dropped until the entry's end.
    pub const BAN: u8 = 2;
}

/// The value in the prefix tries. The longest prefix decides; who writes the tries makes sure that this is right.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// One of [`class`].
    pub class: u8,
    /// Which budgets its sources have: a row of [`crate::settings::Settings::limits`].
    pub tier: u8,
    /// Through which doors its sources always get, by the bits of [`crate::port::Port::doors`].
    pub doors: u16,
    /// Keeps the layout free of implicit padding.
    pub reserved: [u16; 2],
    /// As in [`Ban::until`]; unused for allowances.
    pub until: u64,
}

impl Listing {
    /// Not listed.
    pub const NONE: Self = Self { class: class::NONE, tier: 0, doors: 0, reserved: [0; 2], until: 0 };

    /// An allowance.
    pub const ALLOWED: Self = Self { class: class::ALLOW, until: FOREVER, ..Self::NONE };

    /// A ban until `until`.
    pub const fn banned(until: u64) -> Self {
        Self { class: class::BAN, until, ..Self::NONE }
    }

    /// A listing as the program sees it: a trie aligns its values to the key's size, which is 4 bytes for IPv4.
    #[inline(always)]
    pub const fn from_words([kind, _, low, high]: [u32; 4]) -> Self {
        let [class, tier, one, other] = kind.to_ne_bytes();
        let doors = u16::from_ne_bytes([one, other]);
        let (first, second) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
        Self { class, tier, doors, reserved: [0; 2], until: first as u64 | (second as u64) << 32 }
    }
}

const _: () = assert!(size_of::<Listing>() == size_of::<[u32; 4]>());
