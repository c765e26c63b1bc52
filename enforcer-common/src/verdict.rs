//! The verdict on a packet: every decision of the program, in the order in which it is taken.
//!
//! Called by the XDP program for every frame, by the daemon to explain itself, and by the tests. What a verdict may look
//! up is [`Tables`]; what it decides is written here and nowhere else.

use crate::{
    ban::{Ban, Listing, class},
    gcra::Rate,
    headers::{Headers, Link, Transport},
    hello::Hello,
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
    /// What the longest listed prefix around an IPv4 address says; [`Listing::NONE`] if there is none. Not an `Option`,
    /// here and below: LLVM stores the payload of `None` unwritten, and the verifier refuses to read it.
    fn listing_v4(&self, address: [u8; 4]) -> Listing;
    /// What the longest listed prefix around an IPv6 address, given as its two halves in host order, says.
    fn listing_v6(&self, address: [u64; 2]) -> Listing;
    /// The ban of exactly this source; [`Ban::NONE`] if there is none.
    fn ban(&self, source: SourceKey) -> Ban;
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
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Allowed,
    Banned,
    InBannedPrefix,
    Unknown,
}

#[inline(always)]
fn judge<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<PassReason, DropReason> {
    let settings = match tables.settings() {
        Some(settings) if settings.abi == ABI => settings,
        Some(_) | None => return Ok(PassReason::NoSettings),
    };
    let mut headers = Headers::UNREAD;
    headers.read_link(packet)?;
    match headers.link {
        Link::Control => return Ok(PassReason::LinkControl),
        Link::Other => return Ok(PassReason::NotIp),
        Link::Ipv4 => headers.read_ipv4(packet)?,
        Link::Ipv6 => {
            headers.read_ipv6(packet)?;
            if headers.is_neighbour_discovery(packet) {
                return Ok(PassReason::NeighbourDiscovery);
            }
        }
    }
    let source = match headers.link {
        Link::Ipv6 => SourceKey::v6(headers.source[0], settings.v6_mask),
        Link::Ipv4 | Link::Control | Link::Other => SourceKey::v4((headers.source[0] as u32).to_be_bytes()),
    };
    let standing = standing(tables, settings, &headers, source);
    if standing == Standing::Allowed {
        return Ok(PassReason::Allowed);
    }
    let form = headers.read_transport(packet);
    match standing {
        Standing::Banned => return spare_management(settings, &headers, DropReason::Banned),
        Standing::InBannedPrefix => return spare_management(settings, &headers, DropReason::BannedPrefix),
        Standing::Allowed | Standing::Unknown => form?,
    }
    if headers.transport == Transport::Tcp
        && headers.fragment
        && is_listed(&settings.protected_ports, headers.port)
    {
        return Err(DropReason::TcpFragment);
    }
    match charge_and_inspect(packet, tables, settings, source, &headers) {
        // Limits yield to management; the form of a hello and its version do not.
        Err(
            reason @ (DropReason::PacketLimit
            | DropReason::ConnectionLimit
            | DropReason::HelloLimit
            | DropReason::LimiterFull),
        ) => spare_management(settings, &headers, reason),
        verdict => verdict,
    }
}

#[inline(always)]
fn standing<T: Tables>(tables: &T, settings: &Settings, headers: &Headers, source: SourceKey) -> Standing {
    let mut listing = Listing::NONE;
    if headers.link == Link::Ipv4 {
        if settings.flags & flag::LISTED_V4 != 0 {
            listing = tables.listing_v4((headers.source[0] as u32).to_be_bytes());
        }
    } else if settings.flags & flag::LISTED_V6 != 0 {
        listing = tables.listing_v6(headers.source);
    }
    if listing.class == class::ALLOW {
        return Standing::Allowed;
    }
    let ban = tables.ban(source);
    // The clock costs as much as a lookup: most sources have no ban.
    if ban != Ban::NONE && ban.holds(tables.now()) {
        return Standing::Banned;
    }
    if listing.class == class::BAN && tables.now() < listing.until {
        return Standing::InBannedPrefix;
    }
    Standing::Unknown
}

#[inline(always)]
fn charge_and_inspect<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    settings: &Settings,
    source: SourceKey,
    headers: &Headers,
) -> Result<PassReason, DropReason> {
    charge(tables, settings, Limit::Packets, source, DropReason::PacketLimit)?;
    match headers.transport {
        Transport::Tcp => {}
        Transport::LaterFragment => return Ok(PassReason::Fragment),
        Transport::Udp | Transport::Other => return Ok(PassReason::Clean),
    }
    if headers.opens {
        charge(tables, settings, Limit::Connections, source, DropReason::ConnectionLimit)?;
    }
    if headers.offset == headers.end || !is_listed(&settings.protected_ports, headers.port) {
        return Ok(PassReason::Clean);
    }
    let minimum = settings.minimum_tls;
    let hello = packet.inspect_hello(headers.offset, headers.end, minimum);
    if hello == Hello::Absent {
        return Ok(PassReason::Clean);
    }
    // A minimum of 0 means that hellos are limited, but not judged.
    if hello == Hello::Malformed && minimum != 0 {
        return Err(DropReason::MalformedHello);
    }
    charge(tables, settings, Limit::Hellos, source, DropReason::HelloLimit)?;
    match hello {
        Hello::Incomplete => Ok(PassReason::HelloIncomplete),
        Hello::Refused => Err(DropReason::TlsVersion),
        Hello::Accepted | Hello::Malformed | Hello::Absent => Ok(PassReason::HelloAccepted),
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
/// Headers whose form is wrong name no port, since nothing has read as far.
#[inline(always)]
fn spare_management(
    settings: &Settings,
    headers: &Headers,
    reason: DropReason,
) -> Result<PassReason, DropReason> {
    if headers.transport == Transport::Tcp && is_listed(&settings.management_ports, headers.port) {
        Ok(PassReason::Management)
    } else {
        Err(reason)
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
