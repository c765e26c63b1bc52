//! Allowances, bans, limits, and the management port that neither of the latter closes.

use std::net::IpAddr;

use enforcer::prefix::Prefix;
use enforcer_common::{
    ban::{FOREVER, Listing},
    gcra::Rate,
    port::{Port, door},
    reason::{DropReason::*, PassReason::*},
    settings::{Limit, TIERS, flag},
    source::{SourceKey, v6_mask},
    verdict::Verdict::{self, Drop, Pass},
};

use super::{Case, case};
use crate::{
    packets::*,
    tables::{MANAGEMENT, PROTECTED, State, UNHEARD},
};

/// An instant that has passed on every machine that has run for a nanosecond.
const PAST: u64 = 1;

fn key(address: impl Into<IpAddr>) -> SourceKey {
    SourceKey::of(address.into(), v6_mask(64))
}

fn prefix(text: &str) -> Prefix {
    match text.parse() {
        Ok(prefix) => prefix,
        Err(error) => unreachable!("{text}: {error}"),
    }
}

pub(super) fn cases() -> Vec<Case> {
    [lists(), doors(), tiers(), rates(), lapsed()].concat()
}

fn lists() -> Vec<Case> {
    let v4 = |port| tcp_frame(SOURCE_V4.into(), port, SYN, &[]);
    let v6 = |port| tcp_frame(SOURCE_V6.into(), port, SYN, &[]);
    let banned4 = || State::default().banned(key(SOURCE_V4), FOREVER);
    let banned6 = || State::default().banned(key(SOURCE_V6), FOREVER);
    let listed = |text, listing| State::default().listing(prefix(text), listing);
    let neighbour = IpAddr::from([0x2001, 0xdb8, 1, 2, 0xffff, 0, 0, 1]);
    vec![
        case("banned source", v4(443), Drop(Banned)).with(banned4()),
        case("IPv6: banned source", v6(443), Drop(Banned)).with(banned6()),
        case("IPv6: another address of a banned source", tcp_frame(neighbour, 80, ACK, b"x"), Drop(Banned))
            .with(banned6()),
        case("banned source without a slot", v4(443), Drop(Banned))
            .with(State::default().spilled(key(SOURCE_V4), FOREVER)),
        case("IPv6: banned source without a slot", v6(443), Drop(Banned))
            .with(State::default().spilled(key(SOURCE_V6), FOREVER)),
        case("banned source without a slot that has one by now", v4(443), Drop(Banned)).with(
            State::default().spilled(key(SOURCE_V4), FOREVER).exhausted(Limit::Packets, key(SOURCE_V4)),
        ),
        case("ban without a slot that has ended", v4(443), Pass(Clean))
            .with(State::default().spilled(key(SOURCE_V4), PAST)),
        case("somebody else is banned without a slot", v4(443), Pass(Clean))
            .with(State::default().spilled(key([198, 18, 0, 8]), FOREVER)),
        case("banned source that was limited", v4(443), Drop(Banned))
            .with(State::default().limited(Limit::Packets).banned(key(SOURCE_V4), FOREVER)),
        case("ban that has ended, under a limit", v4(443), Pass(Clean))
            .with(State::default().limited(Limit::Packets).banned(key(SOURCE_V4), PAST)),
        case("a new source beside three banned ones", v4(443), Pass(Clean)).with(
            (10..13)
                .fold(State::default(), |state, last| state.banned(key([198, 18, 0, last]), FOREVER))
                .limited(Limit::Packets),
        ),
        case("ban that has ended", v4(443), Pass(Clean)).with(State::default().banned(key(SOURCE_V4), PAST)),
        case("somebody else is banned", v4(443), Pass(Clean))
            .with(State::default().banned(key([198, 18, 0, 8]), FOREVER)),
        case("banned source behind two tags", tagged(&[VLAN, VLAN], IPV4, &v4(80)[14..]), Drop(Banned))
            .with(banned4()),
        case("banned source's UDP", ethernet(IPV4, &ipv4(UDP, &udp(53, b"q"))), Drop(Banned)).with(banned4()),
        case("banned source's broken TCP", ethernet(IPV4, &ipv4(TCP, &[0; 8])), Drop(Banned)).with(banned4()),
        case(
            "banned source's later fragment",
            ethernet(IPV4, &ipv4_fragment(UDP, 1480, false, &[0; 9])),
            Drop(Banned),
        )
        .with(banned4()),
        case("banned source's ARP", ethernet(0x0806, &[0; 28]), Pass(LinkControl)).with(banned4()),
        case(
            "banned source's neighbour discovery",
            ethernet(IPV6, &ipv6_from(SOURCE_V6, ICMPV6, 255, &[136, 0, 0, 0])),
            Pass(NeighbourDiscovery),
        )
        .with(banned6()),
        case("banned source at the management port", v4(MANAGEMENT), Pass(Management)).with(banned4()),
        case("IPv6: banned source at the management port", v6(MANAGEMENT), Pass(Management)).with(banned6()),
        case(
            "banned source's UDP to the management port's number",
            ethernet(IPV4, &ipv4(UDP, &udp(MANAGEMENT, b"q"))),
            Drop(Banned),
        )
        .with(banned4()),
        case("management port without a ban", v4(MANAGEMENT), Pass(Management)),
        case("banned prefix", v4(443), Drop(BannedPrefix))
            .with(listed("198.18.0.0/16", Listing::banned(FOREVER))),
        case("IPv6: banned prefix", v6(443), Drop(BannedPrefix))
            .with(listed("2001:db8::/32", Listing::banned(FOREVER))),
        case("banned prefix that has ended", v4(443), Pass(Clean))
            .with(listed("198.18.0.0/16", Listing::banned(PAST))),
        case("beside a banned prefix", v4(443), Pass(Clean))
            .with(listed("198.19.0.0/16", Listing::banned(FOREVER))),
        case("banned prefix at the management port", v4(MANAGEMENT), Pass(Management))
            .with(listed("198.18.0.0/16", Listing::banned(FOREVER))),
        case("everything banned", v4(443), Drop(BannedPrefix))
            .with(listed("0.0.0.0/0", Listing::banned(FOREVER))),
        case("allowed address", v4(443), Pass(Allowed)).with(listed("198.18.0.7/32", Listing::ALLOWED)),
        case("allowed although banned", v4(443), Pass(Allowed))
            .with(banned4().listing(prefix("198.18.0.0/24"), Listing::ALLOWED)),
        case("IPv6: allowed although banned", v6(443), Pass(Allowed))
            .with(banned6().listing(prefix("2001:db8:1::/48"), Listing::ALLOWED)),
        case("allowed inside a banned prefix", v4(443), Pass(Allowed)).with(
            listed("198.18.0.0/15", Listing::banned(FOREVER))
                .listing(prefix("198.18.0.0/24"), Listing::ALLOWED),
        ),
        case("banned inside an allowed prefix", v4(443), Drop(BannedPrefix)).with(
            listed("198.18.0.0/15", Listing::ALLOWED)
                .listing(prefix("198.18.0.0/24"), Listing::banned(FOREVER)),
        ),
        case("IPv6: one address of a source banned by a long prefix", v6(443), Drop(BannedPrefix))
            .with(listed("2001:db8:1:2::7/128", Listing::banned(FOREVER))),
        case("allowed source's old hello", hello_frame(&Hello::legacy(0x0301)), Pass(Allowed))
            .with(listed("198.18.0.7/32", Listing::ALLOWED)),
        case("allowed source that is limited", v4(443), Pass(Allowed))
            .with(listed("198.18.0.7/32", Listing::ALLOWED).exhausted(Limit::Packets, key(SOURCE_V4))),
        case("allowed source's broken IPv4", ethernet(IPV4, &[0x44; 40]), Drop(MalformedIpv4))
            .with(listed("0.0.0.0/0", Listing::ALLOWED)),
    ]
}

/// Ports that are open to some whatever else is known of them.
fn doors() -> Vec<Case> {
    let v4 = |port| tcp_frame(SOURCE_V4.into(), port, SYN, &[]);
    let v6 = |port| tcp_frame(SOURCE_V6.into(), port, SYN, &[]);
    let udp4 = |port| ethernet(IPV4, &ipv4(UDP, &udp(port, b"q")));
    let (first, second) = (door::other(0), door::other(1));
    // Banned, over every limit, and let in by some of the doors.
    let shut = |doors| {
        let listing = Listing { doors, ..Listing::banned(FOREVER) };
        State { ports: vec![(PROTECTED, Port::PROTECTED.with(Port::behind(first)))], ..State::default() }
            .port(MANAGEMENT, Port::behind(door::MANAGEMENT))
            .port(UNHEARD, Port::behind(second))
            .exhausted(Limit::Packets, key(SOURCE_V4))
            .listing(prefix("198.18.0.0/24"), listing)
            .listing(prefix("2001:db8:1::/48"), listing)
    };
    let old = hello_frame(&Hello::legacy(0x0301));
    vec![
        case("banned, allowed at the port", v4(PROTECTED), Pass(Allowed)).with(shut(first)),
        case("IPv6: banned, allowed at the port", v6(PROTECTED), Pass(Allowed)).with(shut(first)),
        case("banned, allowed at another port", v4(PROTECTED), Drop(BannedPrefix)).with(shut(second)),
        case("IPv6: banned, allowed at another port", v6(PROTECTED), Drop(BannedPrefix)).with(shut(second)),
        case("banned, allowed at no port", v4(UNHEARD), Drop(BannedPrefix)).with(shut(0)),
        case("banned, allowed at two ports", v4(UNHEARD), Pass(Allowed)).with(shut(first | second)),
        case("banned, allowed at the port over UDP", udp4(UNHEARD), Pass(Allowed)).with(shut(second)),
        case("banned, allowed at a port, at one without a door", v4(81), Drop(BannedPrefix))
            .with(shut(u16::MAX)),
        case("old hello of a source that is allowed at the port", old, Pass(Allowed)).with(shut(first)),
        case(
            "later fragment of a source that is allowed at a port",
            ethernet(IPV4, &ipv4_fragment(UDP, 1480, false, &[0; 9])),
            Drop(BannedPrefix),
        )
        .with(shut(u16::MAX)),
        case("over the packet limit, allowed at the port", v4(PROTECTED), Pass(Allowed)).with(
            State::default()
                .port(PROTECTED, Port::behind(first))
                .exhausted(Limit::Packets, key(SOURCE_V4))
                .listing(prefix("198.18.0.7/32"), Listing { doors: first, ..Listing::NONE }),
        ),
        case("management port, from where the machine is managed", v4(MANAGEMENT), Pass(Management))
            .with(shut(door::MANAGEMENT)),
        case("IPv6: management port, from where the machine is managed", v6(MANAGEMENT), Pass(Management))
            .with(shut(door::MANAGEMENT)),
        case("management port, from elsewhere", v4(MANAGEMENT), Drop(BannedPrefix))
            .with(shut(!door::MANAGEMENT)),
        case(
            "UDP to the management port's number, from where the machine is managed",
            udp4(MANAGEMENT),
            Drop(BannedPrefix),
        )
        .with(shut(door::MANAGEMENT)),
    ]
}

/// Budgets by tier.
fn tiers() -> Vec<Case> {
    let source = key(SOURCE_V4);
    let data = || tcp_frame(SOURCE_V4.into(), 80, ACK, b"data");
    let tier = |tier| Listing { tier, ..Listing::NONE };
    let last = TIERS as u8 - 1;
    let rich = |listing| {
        let state =
            State::default().exhausted(Limit::Packets, source).listing(prefix("198.18.0.0/24"), listing);
        state.set(|settings| settings.limits[usize::from(last)][Limit::Packets as usize] = Rate::UNLIMITED)
    };
    let poor = |listing| {
        let state =
            State::default().exhausted(Limit::Connections, source).listing(prefix("198.18.0.0/24"), listing);
        state.set(|settings| {
            let used_up = std::mem::take(&mut settings.limits[0]);
            settings.limits[1] = used_up;
        })
    };
    vec![
        case("over everybody's limit, in a tier without one", data(), Pass(Clean)).with(rich(tier(last))),
        case("over everybody's limit, in another tier", data(), Drop(PacketLimit)).with(rich(tier(0))),
        case("over the tier's limit", tcp_frame(SOURCE_V4.into(), 80, SYN, &[]), Drop(ConnectionLimit))
            .with(poor(tier(1))),
        case("over another tier's limit", tcp_frame(SOURCE_V4.into(), 80, SYN, &[]), Pass(Clean))
            .with(poor(tier(2))),
        case("banned prefix in a tier", data(), Drop(BannedPrefix))
            .with(rich(Listing { tier: last, ..Listing::banned(FOREVER) })),
        case("ban of a prefix in a tier that has ended", data(), Pass(Clean))
            .with(rich(Listing { tier: last, ..Listing::banned(PAST) })),
    ]
}

fn hello_frame(hello: &Hello) -> Vec<u8> {
    tcp_frame(SOURCE_V4.into(), PROTECTED, DATA, &hello.bytes())
}

fn rates() -> Vec<Case> {
    let source = key(SOURCE_V4);
    let syn = |port| tcp_frame(SOURCE_V4.into(), port, SYN, &[]);
    let data = || tcp_frame(SOURCE_V4.into(), 80, ACK, b"data");
    let hello = || hello_frame(&Hello::offering(&[0x0304, 0x0303]));
    let exhausted = |limit| State::default().exhausted(limit, source);
    let dropping =
        |limit| State::default().full(limit).set(|settings| settings.flags |= flag::DROP_WHEN_FULL);
    let limited = |name: &str, frame, expected: Verdict, state| case(name, frame, expected).with(state);
    vec![
        limited("within the packet limit", data(), Pass(Clean), State::default().limited(Limit::Packets)),
        limited("over the packet limit", data(), Drop(PacketLimit), exhausted(Limit::Packets)),
        limited(
            "IPv6: over the packet limit",
            tcp_frame(SOURCE_V6.into(), 80, ACK, b"data"),
            Drop(PacketLimit),
            State::default().exhausted(Limit::Packets, key(SOURCE_V6)),
        ),
        limited(
            "over the packet limit with a fragment",
            ethernet(IPV4, &ipv4_fragment(UDP, 1480, false, &[0; 9])),
            Drop(PacketLimit),
            exhausted(Limit::Packets),
        ),
        limited(
            "over the packet limit with ICMP",
            ethernet(IPV4, &ipv4(1, &[8, 0, 0, 0])),
            Drop(PacketLimit),
            exhausted(Limit::Packets),
        ),
        limited(
            "over the packet limit at the management port",
            syn(MANAGEMENT),
            Pass(Management),
            exhausted(Limit::Packets),
        ),
        limited(
            "another source is over the packet limit",
            data(),
            Pass(Clean),
            State::default().exhausted(Limit::Packets, key([198, 18, 0, 8])),
        ),
        limited(
            "within the connection limit",
            syn(443),
            Pass(Clean),
            State::default().limited(Limit::Connections),
        ),
        limited("over the connection limit", syn(443), Drop(ConnectionLimit), exhausted(Limit::Connections)),
        limited(
            "over the connection limit at another port",
            syn(80),
            Drop(ConnectionLimit),
            exhausted(Limit::Connections),
        ),
        limited(
            "over the connection limit at the management port",
            syn(MANAGEMENT),
            Pass(Management),
            exhausted(Limit::Connections),
        ),
        limited(
            "over the connection limit, in an open connection",
            data(),
            Pass(Clean),
            exhausted(Limit::Connections),
        ),
        limited(
            "over the connection limit, a SYN that answers",
            tcp_frame(SOURCE_V4.into(), 443, SYN | ACK, &[]),
            Pass(Clean),
            exhausted(Limit::Connections),
        ),
        limited(
            "within the hello limit",
            hello(),
            Pass(HelloAccepted),
            State::default().limited(Limit::Hellos),
        ),
        limited("over the hello limit", hello(), Drop(HelloLimit), exhausted(Limit::Hellos)),
        limited(
            "over the hello limit with an old version",
            hello_frame(&Hello::legacy(0x0301)),
            Drop(HelloLimit),
            exhausted(Limit::Hellos),
        ),
        limited(
            "over the hello limit with a hello that goes on",
            tcp_frame(SOURCE_V4.into(), PROTECTED, DATA, &Hello::legacy(0x0303).bytes()[..60]),
            Drop(HelloLimit),
            exhausted(Limit::Hellos),
        ),
        limited(
            "over the hello limit with other data",
            tcp_frame(SOURCE_V4.into(), PROTECTED, DATA, &[0x17; 60]),
            Pass(Clean),
            exhausted(Limit::Hellos),
        ),
        limited(
            "over the hello limit, open port",
            tcp_frame(SOURCE_V4.into(), 80, DATA, &Hello::legacy(0x0301).bytes()),
            Pass(Clean),
            exhausted(Limit::Hellos),
        ),
        limited("no slot for the source, dropping", data(), Drop(LimiterFull), dropping(Limit::Packets)),
        limited(
            "no slot for the source, passing",
            data(),
            Pass(Clean),
            State::default().full(Limit::Packets),
        ),
        limited(
            "no slot for the source at the management port",
            syn(MANAGEMENT),
            Pass(Management),
            dropping(Limit::Packets),
        ),
        limited("no slot in the connection table", syn(443), Drop(LimiterFull), dropping(Limit::Connections)),
        limited("no slot in the hello table", hello(), Drop(LimiterFull), dropping(Limit::Hellos)),
    ]
}

/// After the end of a lease that bans outlive.
fn lapsed() -> Vec<Case> {
    let lapsed = |state: State| {
        state.set(|settings| {
            settings.lease_until = 1;
            settings.flags |= flag::BANS_WITHOUT_LEASE;
        })
    };
    let v4 = |port, flags, bytes: &[u8]| tcp_frame(SOURCE_V4.into(), port, flags, bytes);
    let listed = |text, listing| State::default().listing(prefix(text), listing);
    vec![
        case("a banned source after the lease", v4(80, ACK, b"x"), Drop(Banned))
            .with(lapsed(State::default().banned(key(SOURCE_V4), FOREVER))),
        case("a banned source without a slot after the lease", v4(80, ACK, b"x"), Drop(Banned))
            .with(lapsed(State::default().spilled(key(SOURCE_V4), FOREVER))),
        case("a ban that has ended, after the lease", v4(80, ACK, b"x"), Pass(LeaseExpired))
            .with(lapsed(State::default().banned(key(SOURCE_V4), PAST))),
        case("a banned prefix after the lease", v4(80, ACK, b"x"), Drop(BannedPrefix))
            .with(lapsed(listed("198.18.0.0/24", Listing::banned(FOREVER)))),
        case("an allowed source after the lease", v4(80, ACK, b"x"), Pass(Allowed))
            .with(lapsed(listed("198.18.0.0/24", Listing::ALLOWED).banned(key(SOURCE_V4), FOREVER))),
        case("a limit after the lease", v4(80, ACK, b"x"), Pass(LeaseExpired))
            .with(lapsed(State::default().exhausted(Limit::Packets, key(SOURCE_V4)))),
        case(
            "an old hello after the lease",
            v4(PROTECTED, DATA, &Hello::legacy(0x0301).bytes()),
            Pass(LeaseExpired),
        )
        .with(lapsed(State::default())),
        case("a SYN above its limit after the lease", v4(PROTECTED, SYN, &[]), Pass(LeaseExpired))
            .with(lapsed(State::default().exhausted(Limit::Connections, key(SOURCE_V4)))),
    ]
}
