//! The verdict on a packet: every decision of the program, in the order in which it is taken.
//!
//! Called by the XDP program for every frame, by the daemon to explain itself, and by the tests. What a verdict may look
//! up is [`Tables`]; what it decides is written here and nowhere else.

use crate::{
    ban::{Ban, Listing, class},
    gcra::Rate,
    headers::{self, Address, Link, Network, Tcp, Transport},
    hello::{self, Hello},
    limiter::Charge,
    packet::Packet,
    reason::{DropReason, PassReason},
    settings::{ABI, Limit, Settings, flag},
    source::SourceKey,
};

/// What becomes of a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the network stack.
    Pass(PassReason),
    /// It ends here.
    Drop(DropReason),
}

/// What a verdict may look up.
pub trait Tables {
    /// The daemon's settings, if it has written any.
    fn settings(&self) -> Option<&Settings>;
    /// What the longest listed prefix around an IPv4 address says.
    fn listing_v4(&self, address: [u8; 4]) -> Option<Listing>;
    /// What the longest listed prefix around an IPv6 address says.
    fn listing_v6(&self, address: [u8; 16]) -> Option<Listing>;
    /// The ban of exactly this source.
    fn ban(&self, source: SourceKey) -> Option<Ban>;
    /// Charges one event to a source.
    fn charge(&self, limit: Limit, source: SourceKey, now: u64, rate: Rate) -> Charge;
    /// Nanoseconds of `CLOCK_MONOTONIC`, the same for the whole packet. Asked only when something depends on it.
    fn now(&self) -> u64;
}

/// Decides about one frame.
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(packet: &P, tables: &T) -> Verdict {
    match judge(packet, tables) {
        Ok(reason) => Verdict::Pass(reason),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// What the lists say of a source.
enum Standing {
    Allowed,
    Dropped(DropReason),
    Unknown,
}

#[inline(always)]
fn judge<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<PassReason, DropReason> {
    let settings = match tables.settings() {
        Some(settings) if settings.abi == ABI => settings,
        Some(_) | None => return Ok(PassReason::NoSettings),
    };
    let network = match headers::link(packet)? {
        Link::Control => return Ok(PassReason::LinkControl),
        Link::Other => return Ok(PassReason::NotIp),
        Link::Ipv4(offset) => headers::ipv4(packet, offset)?,
        Link::Ipv6(offset) => {
            let network = headers::ipv6(packet, offset)?;
            if headers::is_neighbour_discovery(packet, &network) {
                return Ok(PassReason::NeighbourDiscovery);
            }
            network
        }
    };
    let source = source_key(&network, settings);
    let standing = standing(tables, settings, &network, source);
    if let Standing::Allowed = standing {
        return Ok(PassReason::Allowed);
    }
    let transport = headers::transport(packet, &network);
    if let Standing::Dropped(reason) = standing {
        return spare_management(settings, &transport, reason);
    }
    let transport = transport?;
    if let Transport::Tcp(tcp) = &transport
        && tcp.fragment
        && is_listed(&settings.protected_ports, tcp.port)
    {
        return Err(DropReason::TcpFragment);
    }
    match charge_and_inspect(packet, tables, settings, source, &transport) {
        // Limits yield to management; the form of a hello and its version do not.
        Err(
            reason @ (DropReason::PacketLimit
            | DropReason::ConnectionLimit
            | DropReason::HelloLimit
            | DropReason::LimiterFull),
        ) => spare_management(settings, &Ok(transport), reason),
        verdict => verdict,
    }
}

#[inline(always)]
fn source_key(network: &Network, settings: &Settings) -> SourceKey {
    match network.source {
        Address::V4(address) => SourceKey::v4(address),
        Address::V6([a, b, c, d, e, f, g, h, ..]) => {
            SourceKey::v6(u64::from_be_bytes([a, b, c, d, e, f, g, h]), settings.v6_mask)
        }
    }
}

#[inline(always)]
fn standing<T: Tables>(tables: &T, settings: &Settings, network: &Network, source: SourceKey) -> Standing {
    let listing = match network.source {
        Address::V4(address) if settings.flags & flag::LISTED_V4 != 0 => tables.listing_v4(address),
        Address::V6(address) if settings.flags & flag::LISTED_V6 != 0 => tables.listing_v6(address),
        Address::V4(_) | Address::V6(_) => None,
    };
    if let Some(listing) = listing
        && listing.class == class::ALLOW
    {
        return Standing::Allowed;
    }
    if let Some(ban) = tables.ban(source)
        && ban.holds(tables.now())
    {
        return Standing::Dropped(DropReason::Banned);
    }
    if let Some(listing) = listing
        && listing.class == class::BAN
        && tables.now() < listing.until
    {
        return Standing::Dropped(DropReason::BannedPrefix);
    }
    Standing::Unknown
}

#[inline(always)]
fn charge_and_inspect<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    settings: &Settings,
    source: SourceKey,
    transport: &Transport,
) -> Result<PassReason, DropReason> {
    charge(tables, settings, Limit::Packets, source, DropReason::PacketLimit)?;
    let tcp = match transport {
        Transport::Tcp(tcp) => tcp,
        Transport::LaterFragment => return Ok(PassReason::Fragment),
        Transport::Udp | Transport::Other => return Ok(PassReason::Clean),
    };
    if tcp.opens {
        charge(tables, settings, Limit::Connections, source, DropReason::ConnectionLimit)?;
    }
    if tcp.payload == tcp.end || !is_listed(&settings.protected_ports, tcp.port) {
        return Ok(PassReason::Clean);
    }
    inspect(packet, tables, settings, source, tcp)
}

#[inline(always)]
fn inspect<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    settings: &Settings,
    source: SourceKey,
    tcp: &Tcp,
) -> Result<PassReason, DropReason> {
    let minimum = settings.minimum_tls;
    let hello = hello::inspect(packet, tcp.payload, tcp.end, minimum);
    if let Hello::Absent = hello {
        return Ok(PassReason::Clean);
    }
    // A minimum of 0 means that hellos are limited, but not judged.
    if let Hello::Malformed = hello
        && minimum != 0
    {
        return Err(DropReason::MalformedHello);
    }
    charge(tables, settings, Limit::Hellos, source, DropReason::HelloLimit)?;
    match hello {
        Hello::Incomplete => Ok(PassReason::HelloIncomplete),
        Hello::Offers(version) if version < minimum => Err(DropReason::TlsVersion),
        Hello::Offers(_) | Hello::Malformed | Hello::Absent => Ok(PassReason::HelloAccepted),
    }
}

#[inline(always)]
fn charge<T: Tables>(
    tables: &T,
    settings: &Settings,
    limit: Limit,
    source: SourceKey,
    exceeded: DropReason,
) -> Result<(), DropReason> {
    let rate = settings.limit(limit);
    if !rate.is_limited() {
        return Ok(());
    }
    match tables.charge(limit, source, tables.now(), rate) {
        Charge::Within => Ok(()),
        Charge::Exceeded(_) => Err(exceeded),
        Charge::Full if settings.flags & flag::DROP_WHEN_FULL != 0 => Err(DropReason::LimiterFull),
        Charge::Full => Ok(()),
    }
}

/// Passes what would be dropped for its source if it is TCP to a management port: who bans himself must still get in.
#[inline(always)]
fn spare_management(
    settings: &Settings,
    transport: &Result<Transport, DropReason>,
    reason: DropReason,
) -> Result<PassReason, DropReason> {
    match transport {
        Ok(Transport::Tcp(tcp)) if is_listed(&settings.management_ports, tcp.port) => Ok(PassReason::Management),
        Ok(_) | Err(_) => Err(reason),
    }
}

/// Whether `port` is among `ports`, whose unused entries are 0 and come last.
#[inline(always)]
fn is_listed<const N: usize>(ports: &[u16; N], port: u16) -> bool {
    let mut index = 0;
    while index < N {
        if ports[index] == 0 {
            return false;
        }
        if ports[index] == port {
            return true;
        }
        index += 1;
    }
    false
}
