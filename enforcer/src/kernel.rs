//! The data plane's user-space side: the only module that names aya.
//!
//! `Kernel::start` loads and attaches; what it hands out are small owned handles. With `mode = "off"` everything here
//! exists and does nothing.

pub mod program;
mod settings;

use std::net::IpAddr;

use anyhow::Result;
use enforcer_common::{
    ban::{Ban, Listing},
    maps::Counter,
    reason::{DropReason, PassReason},
    source::SourceKey,
};

use crate::{clock::KernelTime, prefix::Prefix};

/// Writes what is listed. The ban task owns the only one.
pub trait SourceLists: Send {
    /// Bans one source, or moves the end of its ban.
    fn ban(&mut self, source: SourceKey, ban: Ban) -> Result<()>;
    /// Lifts the ban of one source; not being banned is no error.
    fn unban(&mut self, source: SourceKey) -> Result<()>;
    /// Lists a prefix, or changes its listing.
    fn list(&mut self, prefix: Prefix, listing: Listing) -> Result<()>;
    /// Takes a prefix off the list; not being listed is no error.
    fn unlist(&mut self, prefix: Prefix) -> Result<()>;
}

/// One attached interface.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// Name, as configured.
    pub interface: String,
    /// Index, as the kernel counts.
    pub index: u32,
    /// `native` or `generic`.
    pub mode: String,
}

/// A reason of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The packet passed.
    Pass(PassReason),
    /// The packet was dropped.
    Drop(DropReason),
}

/// Counters by reason, summed over CPUs.
pub type Counters = Vec<(Reason, Counter)>;

/// What would happen to a packet, and what is known of its source.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Explanation {
    /// `pass` or `drop`.
    pub verdict: String,
    /// The reason's label.
    pub reason: String,
    /// The reason's description.
    pub description: String,
    /// What the source is charged as.
    pub source: String,
    /// State of each limit.
    pub limits: Vec<LimitState>,
}

/// One limit of one source.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct LimitState {
    /// The limit's label.
    pub limit: String,
    /// Whether it is configured.
    pub limited: bool,
    /// Events that would be admitted at once, now.
    pub remaining: u64,
    /// Events that an idle source may send at once.
    pub burst: u64,
    /// Nanoseconds until one more event is admitted; 0: now.
    pub wait_ns: u64,
}

/// Reads the live data plane. Cheap to clone, safe to share.
pub trait View: Send + Sync {
    /// Interfaces that the program is attached to; empty with `mode = "off"`.
    fn attachments(&self) -> Vec<Attachment>;
    /// Counters since the start.
    fn counters(&self) -> Result<Counters>;
    /// What would happen to a SYN from `address` to `port` at `now`, by the very function that the program runs.
    fn explain(&self, address: IpAddr, port: u16, now: KernelTime) -> Result<Explanation>;
}
