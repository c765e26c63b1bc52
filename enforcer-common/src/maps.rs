//! Names of the maps, as the object declares and the loader asks for them.

use crate::settings::LIMITS;

/// One [`crate::settings::Settings`]. Written by the daemon.
pub const SETTINGS: &str = "SETTINGS";
/// Buckets of the packet limit, in which exact bans are debts, see [`crate::limiter`]. Charged by the program, bans written by the daemon
/// through shared memory. Durable, together with the seed and the mask of the settings, by which it is laid out.
pub const SOURCES: &str = "SOURCES";
/// One bit per bucket of [`SOURCES`]: bans that belong there have spilled over into [`BANS`]. Written by the daemon through shared
/// memory. Durable.
pub const SPILLED: &str = "SPILLED";
/// `SourceKey -> Ban`, for those that found no slot in [`SOURCES`]. Written by the daemon. Durable.
pub const BANS: &str = "BANS";
/// IPv4 prefix -> `Listing`. Written by the daemon. Durable.
pub const LISTED_V4: &str = "LISTED_V4";
/// IPv6 prefix -> `Listing`. Written by the daemon. Durable.
pub const LISTED_V6: &str = "LISTED_V6";
/// The bits that say whether [`LISTED_V4`] needs asking, see [`crate::listed`]. Written by the daemon through shared memory. Durable.
pub const LISTED_BITS_V4: &str = "LISTED_BITS_V4";
/// The same for [`LISTED_V6`].
pub const LISTED_BITS_V6: &str = "LISTED_BITS_V6";
/// One word per TCP or UDP port, see [`crate::port`]. Written by the daemon.
pub const PORTS: &str = "PORTS";
/// Limiter buckets, one table per limit. Written by the program.
pub const LIMITERS: [&str; LIMITS] = [SOURCES, "LIMIT_CONNS", "LIMIT_HELLOS", "LIMIT_QUIC", "LIMIT_BYTES"];
/// Limiter buckets of the budgets besides those, by their keys, see [`crate::budget`]. Written by the program.
pub const BUDGETS: &str = "BUDGETS";
/// Limiter buckets with one budget each, which many sources share, by their places, see [`crate::budget::shared`]. Written by the
/// program.
pub const SHARED: &str = "SHARED_BUDGETS";
/// Words of the flow table, by bucket, see [`crate::flow`]. Written by the program; the daemon reads them for refused flows.
pub const FLOW_WORDS: &str = "FLOW_WORDS";
/// Entries of the flow table, by bucket and slot. Written by the program.
pub const FLOWS: &str = "FLOWS";
/// Words of what has passed of hellos, by group, see [`crate::flow::kept`]. Written by the program.
pub const KEPT_WORDS: &str = "KEPT_WORDS";
/// Its bytes, by group and place. Written by the program.
pub const KEPT: &str = "KEPT";
/// When the program sent the latest SYN cookie, in nanoseconds of `CLOCK_MONOTONIC`, to within a second. Written by the program.
pub const COOKIES: &str = "COOKIES";
/// `hash -> bits` of names and fingerprints of ClientHellos, see [`crate::hello::lists`]. Written by the daemon.
pub const HELLOS: &str = "HELLOS";
/// Per CPU, interface and reason: packets and bytes. Written by the program.
pub const COUNTERS: &str = "COUNTERS";
/// Packets that were not passed on as they came, as samples, see [`crate::event`]. Written by the program, read by the daemon.
pub const EVENTS: &str = "EVENTS";
/// Per CPU: one [`crate::event::Budget`]. Written by the program.
pub const EVENT_BUDGET: &str = "EVENT_BUDGET";

/// A counter: packets and bytes of one reason on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
}

#[cfg(feature = "pod")]
mod pod {
    #![allow(unsafe_code, reason = "Pod promises what repr(C) integers without padding fulfil")]

    // SAFETY: repr(C), integers only, no padding, any bit pattern is valid.
    unsafe impl aya::Pod for super::Counter {}
    // SAFETY: repr(C), integers only, no padding, any bit pattern is valid.
    unsafe impl aya::Pod for crate::event::Budget {}
    // SAFETY: as above; the size is asserted beside the type.
    unsafe impl aya::Pod for crate::settings::Settings {}
    // SAFETY: repr(C), integers only; the sizes of it and of its parts are asserted beside them.
    unsafe impl aya::Pod for crate::flow::Entry {}
    // SAFETY: repr(C) of one integer.
    unsafe impl aya::Pod for crate::ban::Ban {}
    // SAFETY: repr(C), integers only, the padding is an explicit field.
    unsafe impl aya::Pod for crate::ban::Listing {}
}
