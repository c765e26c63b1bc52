//! The rates of all budgets, as the program reads them, made from the configuration. Called by `settings` alone.

use enforcer_common::{
    gcra::Rate,
    settings::{GROUPS, LIMITS, Limit, Settings, TIERS, flag},
};

use crate::config::{self, LimitSet, RateLimit};

/// The largest frame, in bytes: what a share of a budget of bytes always lets through at once.
const LARGEST_FRAME: u64 = 64 << 10;

/// Rates by [`Limit`].
type Row = [Rate; LIMITS];

/// What of the settings says how much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    limits: [Row; TIERS],
    networks: [[Row; TIERS]; 2],
    groups: [Row; GROUPS],
    everybody: Row,
    shares: Row,
}

impl Rates {
    pub(super) fn of(config: &config::Kernel) -> Self {
        let general = config.limits.set();
        // Numbers that no tier has are as the first, which is everybody's.
        let mut tiers = [general; TIERS];
        for (tier, named) in tiers.iter_mut().skip(1).zip(config.tiers.values()) {
            *tier = named.limits;
        }
        let networks = |factor: u64| match factor {
            0 => [[Rate::UNLIMITED; LIMITS]; TIERS],
            factor => tiers.map(|tier| row(multiplied(tier, factor))),
        };
        let mut groups = [[Rate::UNLIMITED; LIMITS]; GROUPS];
        for (group, named) in groups.iter_mut().skip(1).zip(config.groups.values()) {
            *group = row(named.limits);
        }
        let everybody = row(config.everybody.limits);
        let mut shares = everybody;
        for (share, limit) in shares.iter_mut().zip(Limit::ALL) {
            let least = if limit == Limit::Bytes { LARGEST_FRAME / limit.unit() } else { 1 };
            *share = share.shared_by(config.everybody.shares, least);
        }
        Self {
            limits: tiers.map(row),
            networks: [networks(config.limits.ipv6_56), networks(config.limits.ipv6_48)],
            groups,
            everybody,
            shares,
        }
    }

    /// Writes them, and the flags that depend on them.
    pub(super) fn put(&self, settings: &mut Settings) {
        let Self { limits, networks, groups, everybody, shares } = *self;
        let (fine, more) = (self.needs_fine_clock(), self.has_more());
        settings.flags |= if fine { flag::FINE_CLOCK } else { 0 } | if more { flag::MORE_BUDGETS } else { 0 };
        *settings = Settings { limits, networks, groups, everybody, shares, ..*settings };
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        let networks = self.networks.as_flattened().iter();
        let own = [&self.everybody, &self.shares];
        self.limits.iter().chain(networks).chain(&self.groups).chain(own)
    }

    /// Whether there are budgets that no packet is charged to unless the program is told so.
    fn has_more(&self) -> bool {
        let bytes = self.limits.iter().map(|row| &row[Limit::Bytes as usize]);
        let others = self.rows().skip(TIERS).flatten();
        bytes.chain(others).any(Rate::is_limited)
    }

    fn needs_fine_clock(&self) -> bool {
        let costs = self.rows().flat_map(|row| Limit::ALL.into_iter().zip(row));
        costs.into_iter().any(|(limit, rate)| match limit {
            Limit::Bytes => rate.is_limited() && rate.costing(LARGEST_FRAME - 1).needs_fine_clock(),
            Limit::Packets | Limit::Connections | Limit::Hellos | Limit::Quic => rate.needs_fine_clock(),
        })
    }
}

/// A limit as the program counts it.
pub(super) fn rate(limit: Option<&RateLimit>) -> Rate {
    limit.map_or(Rate::UNLIMITED, |limit| {
        let period = u64::try_from(limit.period.as_nanos()).unwrap_or(u64::MAX);
        Rate::new(limit.events, period, limit.burst)
    })
}

fn row(limits: LimitSet) -> Row {
    let LimitSet { packets, connections, hellos, quic, bytes } = limits;
    let bytes = bytes.map_or(Rate::UNLIMITED, |limit| Rate::bytes_per_second(limit.rate, limit.burst));
    let [packets, connections, hellos, quic] =
        [packets, connections, hellos, quic].map(|limit| rate(limit.as_ref()));
    [packets, connections, hellos, quic, bytes]
}

/// `factor` times as much.
fn multiplied(limits: LimitSet, factor: u64) -> LimitSet {
    let more = |limit: RateLimit| RateLimit {
        events: limit.events.saturating_mul(factor),
        burst: limit.burst.saturating_mul(factor),
        ..limit
    };
    let LimitSet { packets, connections, hellos, quic, bytes } = limits;
    LimitSet {
        packets: packets.map(more),
        connections: connections.map(more),
        hellos: hellos.map(more),
        quic: quic.map(more),
        bytes: bytes.map(|limit| config::ByteLimit {
            rate: limit.rate.saturating_mul(factor),
            burst: limit.burst.saturating_mul(factor),
        }),
    }
}
