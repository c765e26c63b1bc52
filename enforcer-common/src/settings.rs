//! What the daemon tells the program. One value in a one-entry map, replaced as a whole.

use crate::gcra::Rate;

/// Moves whenever the layout or the meaning of [`Settings`] or of a map changes. A program that finds another
/// number judges nothing and counts `no_settings`.
pub const ABI: u32 = 1;

/// Ports at which ClientHellos are judged and charged.
pub const PROTECTED_PORTS: usize = 16;
/// Ports that bans and limits never close.
pub const MANAGEMENT_PORTS: usize = 8;

/// What a source is limited in. The number is the index in [`Settings::limits`] and names the table.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Every IP packet.
    Packets = 0,
    /// TCP segments with SYN and without ACK.
    Connections = 1,
    /// TLS ClientHellos on protected ports, and what may be the beginning of one.
    Hellos = 2,
}

impl Limit {
    /// Every limit, by number.
    pub const ALL: [Self; 3] = [Self::Packets, Self::Connections, Self::Hellos];

    /// The stable name in configuration, metrics and command output.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Connections => "connections",
            Self::Hellos => "hellos",
        }
    }
}

/// Bits of [`Settings::flags`].
pub mod flag {
    /// A source for which the limiter has no slot is dropped (fails closed); clear: it passes unlimited (fails open).
    pub const DROP_WHEN_FULL: u32 = 1 << 0;
    /// The prefix tries hold IPv4 entries; clear: they need not be asked.
    pub const LISTED_V4: u32 = 1 << 1;
    /// The prefix tries hold IPv6 entries; clear: they need not be asked.
    pub const LISTED_V6: u32 = 1 << 2;
    /// A limit needs a finer clock than the coarse one, see [`crate::gcra::Rate::needs_fine_clock`]; clear: the coarse one is
    /// cheaper and does.
    pub const FINE_CLOCK: u32 = 1 << 3;
}

/// The program's settings. Host byte order throughout; unused ports are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// [`ABI`].
    pub abi: u32,
    /// See [`flag`].
    pub flags: u32,
    /// Mask over the upper half of IPv6 sources, see [`crate::source::v6_mask`].
    pub v6_mask: u64,
    /// Random, so that nobody can aim at a bucket from outside.
    pub seed: u64,
    /// Buckets per limiter table, a power of two, less one.
    pub bucket_mask: u32,
    /// Lowest acceptable TLS version as on the wire (0x0303 is TLS 1.2); 0: hellos are not judged.
    pub minimum_tls: u16,
    /// Keeps the layout free of implicit padding.
    pub reserved: u16,
    /// By [`Limit`].
    pub limits: [Rate; 3],
    /// TCP ports that serve TLS: what begins like a ClientHello is judged there, and nothing else.
    pub protected_ports: [u16; PROTECTED_PORTS],
    /// TCP ports that stay reachable for banned and limited sources.
    pub management_ports: [u16; MANAGEMENT_PORTS],
}

const _: () = assert!(size_of::<Settings>() == 128);

impl Settings {
    /// Judges nothing but the packet's own form: no limits, no protected ports.
    pub const PERMISSIVE: Self = Self {
        abi: ABI,
        flags: 0,
        v6_mask: u64::MAX,
        seed: 0,
        bucket_mask: 0,
        minimum_tls: 0x0303,
        reserved: 0,
        limits: [Rate::UNLIMITED; 3],
        protected_ports: [0; PROTECTED_PORTS],
        management_ports: [0; MANAGEMENT_PORTS],
    };

    /// The rate of one limit.
    #[inline(always)]
    pub const fn limit(&self, limit: Limit) -> Rate {
        self.limits[limit as usize]
    }
}
