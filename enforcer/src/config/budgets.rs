//! What sources may send: as one of them, as one of a tier, to a group of ports, and all together.

use std::time::Duration;

use crate::prefix::Prefix;

/// Sources with budgets of their own. What a tier does not name is as in [`super::Kernel::limits`].
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// `prefixes`: who is in it; operators can add others. Default: nobody.
    pub prefixes: Vec<Prefix>,
    /// Its limits.
    pub limits: LimitSet,
}

/// Ports of this machine for which a source has budgets of their own, besides its others.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `ports`, over TCP and UDP; at least one, and none in two groups.
    pub ports: Vec<u16>,
    /// At least one. Default: off.
    pub limits: LimitSet,
}

/// What all sources may send together.
#[derive(Clone, Debug, PartialEq)]
pub struct Everybody {
    /// Default: off.
    pub limits: LimitSet,
    /// `shares`: above a limit each source still gets this part of it, default 100.
    pub shares: u64,
}

/// A limit of each kind; `None` is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSet {
    /// `packets`
    pub packets: Option<RateLimit>,
    /// `connections`
    pub connections: Option<RateLimit>,
    /// `hellos`
    pub hellos: Option<RateLimit>,
    /// `quic`
    pub quic: Option<RateLimit>,
    /// `bytes`
    pub bytes: Option<ByteLimit>,
}

impl LimitSet {
    /// Nothing is limited.
    pub const OFF: Self = Self { packets: None, connections: None, hellos: None, quic: None, bytes: None };
}

/// Limits per source, before the TCP stack. `rate = "off"` switches one off.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelLimits {
    /// `packets`, default 50,000/s with a burst of 100,000.
    pub packets: Option<RateLimit>,
    /// `connections` (SYN), default 200/s with a burst of 1,000.
    pub connections: Option<RateLimit>,
    /// `hellos` (ClientHello), default 200/s with a burst of 1,000.
    pub hellos: Option<RateLimit>,
    /// `quic` (datagrams with long headers), default 200/s with a burst of 1,000.
    pub quic: Option<RateLimit>,
    /// `bytes` of whole frames, default off.
    pub bytes: Option<ByteLimit>,
    /// `ipv6_56`: how many times a source's budgets the /56 around it has; 0 (default): it has none.
    pub ipv6_56: u64,
    /// `ipv6_48`: the same of the /48.
    pub ipv6_48: u64,
    /// `when_full`: `"share"` (default), `"drop"` (fails closed) or `"pass"` (fails open).
    pub when_full: WhenFull,
    /// `max_sources`: slots per limit, rounded up to a power of two, 1,024 to 16,777,216. Default 262,144.
    pub max_sources: u32,
}

impl KernelLimits {
    /// Those that everybody has who is in no tier.
    pub const fn set(&self) -> LimitSet {
        let Self { packets, connections, hellos, quic, bytes, .. } = *self;
        LimitSet { packets, connections, hellos, quic, bytes }
    }
}

/// `{ rate = "10MiB/s", burst = "20MiB" }`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteLimit {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes at once from an idle source, at least 64 KiB.
    pub burst: u64,
}

/// `{ rate = "5/s", burst = 10 }`; rates are `N/s`, `N/m` or `N/h`, also in nginx spelling `Nr/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Events per `period`, at least 1.
    pub events: u64,
    /// One second, minute or hour.
    pub period: Duration,
    /// Kernel: events at once from an idle source (>= 1). Routes: as nginx `burst`, requests beyond the first that
    /// are admitted at once (>= 0).
    pub burst: u64,
}

/// What happens to a source for which the limiter has no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// It shares one budget, as large as its own would be, with others that find no slot; above that its packets are dropped.
    Share,
    /// Its packets are dropped.
    Drop,
    /// Its packets pass without a limit.
    Pass,
}
