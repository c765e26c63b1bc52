//! What the daemon tells the program. One value in a one-entry map, replaced as a whole; what it says of ports lies in a map
//! of its own, see [`crate::port`].

use core::mem::offset_of;

use crate::{
    gcra::{self, Rate},
    quic,
    reason::DropReason,
};

/// Moves whenever the layout or the meaning of [`Settings`] or of a map changes. A program that finds another
/// number judges nothing and counts `no_settings`.
pub const ABI: u32 = 7;

/// Moves whenever the meaning of a table changes that is carried over to another version: the buckets of the limiters, bans and
/// listings with their keys and values, and [`Identity`]. It is independent of [`ABI`], so that an upgrade forgets nothing that
/// both versions understand.
pub const TABLES: u32 = 1;

/// How [`Settings`] begin in every version that has the same number [`TABLES`]: what the tables cannot be understood without.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The version's own [`ABI`].
    pub abi: u32,
    /// The version's own; not to be read by others.
    pub flags: u32,
    /// See [`Settings::v6_mask`].
    pub v6_mask: u64,
    /// See [`Settings::seed`].
    pub seed: u64,
}

const _: () = {
    assert!(size_of::<Identity>() == 24);
    assert!(offset_of!(Settings, abi) == 0 && offset_of!(Identity, abi) == 0);
    assert!(offset_of!(Settings, v6_mask) == 8 && offset_of!(Identity, v6_mask) == 8);
    assert!(offset_of!(Settings, seed) == 16 && offset_of!(Identity, seed) == 16);
};

/// What a source is limited in. The number is the index in a row of [`Settings::limits`] and names the table.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Every IP packet.
    Packets = 0,
    /// TCP segments with SYN and without ACK.
    Connections = 1,
    /// TLS ClientHellos on protected ports, and what may be the beginning of one.
    Hellos = 2,
    /// Datagrams that begin with a long header, to ports where QUIC is served.
    Quic = 3,
    /// The bytes of every IP packet's frame.
    Bytes = 4,
}

impl Limit {
    /// Every limit, by number.
    pub const ALL: [Self; LIMITS] = [Self::Packets, Self::Connections, Self::Hellos, Self::Quic, Self::Bytes];

    /// The stable name in configuration, metrics and command output.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Connections => "connections",
            Self::Hellos => "hellos",
            Self::Quic => "quic",
            Self::Bytes => "bytes",
        }
    }

    /// How many of what the limit counts make up an event of its rate.
    pub const fn unit(self) -> u64 {
        match self {
            Self::Packets | Self::Connections | Self::Hellos | Self::Quic => 1,
            Self::Bytes => gcra::UNIT,
        }
    }
}

/// How many limits there are.
pub const LIMITS: usize = 5;
/// QUIC versions that can be served at once.
pub const QUIC_VERSIONS: usize = 4;
/// Tiers of budgets, a power of two: 0 is everybody's, the others are given to prefixes by [`crate::ban::Listing::tier`].
pub const TIERS: usize = 8;
/// Groups of ports, a power of two: 0 is no group.
pub const GROUPS: usize = 8;
/// Slots in which interfaces are counted; the last one is shared by all further ones.
pub const INTERFACES: usize = 8;
/// The slot that is shared.
pub const SHARED_SLOT: u32 = INTERFACES as u32 - 1;

/// Bits of [`Settings::flags`].
pub mod flag {
    /// A source for which the limiter has no slot is dropped (fails closed); clear: it passes unlimited (fails open).
    pub const DROP_WHEN_FULL: u32 = 1 << 0;
    /// A source for which the limiter has no slot shares a budget with others of its kind, and is dropped above that.
    pub const SHARE_WHEN_FULL: u32 = 1 << 9;
    /// There are budgets besides those of a source's packets, connections, hellos and QUIC, see [`crate::budget`]; clear: nobody asks
    /// for them.
    pub const MORE_BUDGETS: u32 = 1 << 10;
    /// A limit needs a finer clock than the coarse one, see [`crate::gcra::Rate::needs_fine_clock`]; clear: the coarse one is
    /// cheaper and does.
    pub const FINE_CLOCK: u32 = 1 << 3;
    /// TCP checksums of segments with a hello are verified on the interfaces of [`Settings::verified`](super::Settings::verified); clear:
    /// they are taken for right everywhere.
    pub const VERIFY_CHECKSUMS: u32 = 1 << 5;
    /// Hellos that cannot be followed to their end are dropped (fails closed); clear: they pass, and the server judges them.
    pub const STRICT_CONNECTIONS: u32 = 1 << 6;
    /// When the lease is over, bans go on; clear: nothing is judged then.
    pub const BANS_WITHOUT_LEASE: u32 = 1 << 8;
    /// Frames that are neither IP nor link control are dropped; clear: they pass.
    pub const DROP_NOT_IP: u32 = 1 << 4;
    /// Hellos are read to their end and compared with what is listed, see [`crate::hello::lists`]; clear: nothing is.
    pub const HELLO_LISTS: u32 = 1 << 11;
    /// Hellos that ask for no name which is listed as served are refused; clear: no name needs to be listed.
    pub const ONLY_NAMES: u32 = 1 << 12;

    const ALL: [u32; 10] = [
        DROP_WHEN_FULL,
        SHARE_WHEN_FULL,
        MORE_BUDGETS,
        FINE_CLOCK,
        VERIFY_CHECKSUMS,
        STRICT_CONNECTIONS,
        BANS_WITHOUT_LEASE,
        DROP_NOT_IP,
        HELLO_LISTS,
        ONLY_NAMES,
    ];
    const _: () = {
        let (mut flag, mut seen) = (0, 0);
        while flag < ALL.len() {
            assert!(ALL[flag].is_power_of_two() && seen & ALL[flag] == 0, "two flags are one");
            seen |= ALL[flag];
            flag += 1;
        }
    };
}

/// How a hello is refused: values of [`Settings::refusal`].
pub mod refusal {
    /// The client is sent an alert and the end of the connection; its next segment becomes a reset for the server.
    pub const ALERT: u8 = 0;
    /// The server's socket gets a reset in place of the hello, the client one in answer to its next segment.
    pub const RESET: u8 = 1;
    /// The server gets the hello with a version that it refuses by itself; where that is impossible, as [`RESET`].
    pub const POISON: u8 = 2;
    /// The client is told nothing; its next segment becomes a reset for the server.
    pub const DROP: u8 = 3;
}

/// The program's settings. Host byte order throughout.
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
    /// Instant of `CLOCK_MONOTONIC`, in nanoseconds, after which the program judges nothing, or nothing but bans, and counts `lease_expired`;
    /// 0: it judges whether the daemon is there or not.
    pub lease_until: u64,
    /// Reasons, by [`DropReason::bit`], for which packets pass and are only counted as `would_drop`.
    pub dry_run: u64,
    /// Reasons, by [`DropReason::bit`], that say that a packet cannot be parsed, and for which it passes as `unparsed`.
    pub tolerated: u64,
    /// Buckets of the table of sources, a power of two, less one.
    pub source_mask: u32,
    /// Buckets per table of the other limits, a power of two, less one.
    pub bucket_mask: u32,
    /// Lowest acceptable TLS version as on the wire (0x0303 is TLS 1.2); 0: hellos are not judged.
    pub minimum_tls: u16,
    /// See [`refusal`].
    pub refusal: u8,
    /// Interfaces, by slot from the lowest bit on, whose frames bring complete checksums, see [`flag::VERIFY_CHECKSUMS`].
    pub verified: u8,
    /// Buckets of the flow table, a power of two, less one.
    pub flow_mask: u32,
    /// By tier and [`Limit`].
    pub limits: [[Rate; LIMITS]; TIERS],
    /// The budgets of the networks around an IPv6 source, by [`crate::budget::Scope::NETWORKS`], its tier and [`Limit`].
    pub networks: [[[Rate; LIMITS]; TIERS]; 2],
    /// What a source may send to a group of ports, by [`crate::port::Port::group`] and [`Limit`].
    pub groups: [[Rate; LIMITS]; GROUPS],
    /// What all sources may send together, by [`Limit`].
    pub everybody: [Rate; LIMITS],
    /// What a source may send while all of them together send more, by [`Limit`].
    pub shares: [Rate; LIMITS],
    /// Indices of interfaces; the position is the slot in which packets are counted. Unused ones are 0, and the last one is
    /// not looked at.
    pub interfaces: [u32; INTERFACES],
    /// How many packets that are not passed on as they came are shown to the daemon, per CPU, see [`crate::event`];
    /// [`Rate::UNLIMITED`]: none.
    pub events: Rate,
    /// SYNs to protected ports, from all sources together, that the network stack gets as they are; what is above is answered with
    /// SYN cookies. [`Rate::UNLIMITED`]: all of them.
    pub syn_budget: Rate,
    /// QUIC versions that are served, as on the wire; unused places are 0, which is no version (RFC 9000 section 17.2.1).
    pub quic_versions: [u32; QUIC_VERSIONS],
}

impl Settings {
    /// Judges nothing but the packet's own form: no limits.
    pub const PERMISSIVE: Self = Self {
        abi: ABI,
        flags: 0,
        v6_mask: u64::MAX,
        seed: 0,
        lease_until: 0,
        dry_run: 0,
        tolerated: 0,
        source_mask: 0,
        bucket_mask: 0,
        minimum_tls: 0x0303,
        refusal: refusal::ALERT,
        verified: u8::MAX,
        flow_mask: 0,
        limits: [[Rate::UNLIMITED; LIMITS]; TIERS],
        networks: [[[Rate::UNLIMITED; LIMITS]; TIERS]; 2],
        groups: [[Rate::UNLIMITED; LIMITS]; GROUPS],
        everybody: [Rate::UNLIMITED; LIMITS],
        shares: [Rate::UNLIMITED; LIMITS],
        interfaces: [0; INTERFACES],
        events: Rate::UNLIMITED,
        syn_budget: Rate::UNLIMITED,
        quic_versions: [quic::VERSION_1, quic::VERSION_2, 0, 0],
    };

    /// Buckets, less one, of the table that keeps a limit.
    #[inline(always)]
    pub const fn mask(&self, limit: Limit) -> u32 {
        match limit {
            Limit::Packets => self.source_mask,
            Limit::Connections | Limit::Hellos | Limit::Quic | Limit::Bytes => self.bucket_mask,
        }
    }

    /// Buckets, less one, of the table of further budgets: twice as many as those of a limit.
    #[inline(always)]
    pub const fn budget_mask(&self) -> u32 {
        self.bucket_mask << 1 | 1
    }

    /// The rate of one limit in one tier. Of a tier only the bits that count: a mask is a bound that LLVM keeps and that every
    /// verifier understands.
    #[inline(always)]
    pub const fn limit(&self, limit: Limit, tier: u8) -> Rate {
        self.limits[tier as usize & (TIERS - 1)][limit as usize]
    }

    /// The slot in which an interface is counted. The usual machine has one interface to protect, in slot 0.
    #[inline(always)]
    pub const fn slot(&self, interface: u32) -> u32 {
        let mut slot = 0;
        while slot < INTERFACES - 1 {
            if self.interfaces[slot] == interface {
                return slot as u32;
            }
            slot += 1;
        }
        SHARED_SLOT
    }

    /// Whether checksums are verified of what comes by the interface with this slot.
    #[inline(always)]
    pub const fn verifies(&self, slot: u32) -> bool {
        self.flags & flag::VERIFY_CHECKSUMS != 0 && self.verified >> (slot & SHARED_SLOT) & 1 != 0
    }

    /// Whether packets are only counted that would be dropped for this reason.
    #[inline(always)]
    pub const fn is_dry(&self, reason: DropReason) -> bool {
        self.dry_run & reason.bit() != 0
    }

    /// Whether packets pass that cannot be parsed for this reason.
    #[inline(always)]
    pub const fn tolerates(&self, reason: DropReason) -> bool {
        self.tolerated & reason.bit() != 0
    }
}

const _: () = assert!(INTERFACES == u8::BITS as usize && INTERFACES.is_power_of_two());
const _: () = assert!(TIERS.is_power_of_two() && GROUPS.is_power_of_two());
const _: () = assert!(
    size_of::<Settings>()
        == 48 + 16 + (3 * TIERS + GROUPS + 2) * LIMITS * 16 + INTERFACES * 4 + 16 + 16 + QUIC_VERSIONS * 4
);
