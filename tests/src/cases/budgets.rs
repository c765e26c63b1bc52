//! Budgets besides those of a source: its bytes, the networks around it, groups of ports, everybody; and what becomes of those
//! for whom a table has no slot.

use std::net::{IpAddr, Ipv6Addr};

use enforcer_common::{
    ban::Listing,
    budget::{Scope, shared},
    port::{Port, door},
    reason::{DropReason::*, PassReason::*},
    settings::{Limit, flag},
    source::{SourceKey, v6_mask},
    verdict::Verdict::{Drop, Pass},
};

use super::{Case, case, sequence};
use crate::{
    packets::*,
    tables::{MANAGEMENT, PROTECTED, QUIC, State, UNHEARD},
};

/// Another source in the same /56, one in the same /48 alone, and one in neither.
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xff, 0, 0, 0, 7);
const COUSIN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0x102, 0, 0, 0, 7);
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 2, 0, 0, 0, 7);

fn key(address: impl Into<IpAddr>) -> SourceKey {
    SourceKey::of(address.into(), v6_mask(64))
}

fn data(source: impl Into<IpAddr>) -> Vec<u8> {
    tcp_frame(source.into(), 80, ACK, b"data")
}

fn syn(source: impl Into<IpAddr>) -> Vec<u8> {
    tcp_frame(source.into(), 80, SYN, &[])
}

fn hello(source: impl Into<IpAddr>) -> Vec<u8> {
    tcp_frame(source.into(), PROTECTED, DATA, &Hello::offering(&[0x0304, 0x0303]).bytes())
}

fn initial() -> Vec<u8> {
    let initial = [&[0xc3, 0, 0, 0, 1, 8][..], &[0; 1194]].concat();
    ethernet(IPV4, &ipv4(UDP, &udp(QUIC, &initial)))
}

pub(super) fn cases() -> Vec<Case> {
    [bytes(), networks(), groups(), everybody(), crowds()].concat()
}

fn more(state: State) -> State {
    state.set(|settings| settings.flags |= flag::MORE_BUDGETS)
}

fn bytes() -> Vec<Case> {
    let source = key(SOURCE_V4);
    let of_length = |length: usize| tcp_frame(SOURCE_V4.into(), 80, ACK, &vec![0; length]);
    let over = || more(State::default().exhausted(Limit::Bytes, source));
    // 1 KiB, and then as much again in an hour.
    let kilobyte = || more(State::default().limited(Limit::Bytes));
    vec![
        case("within the limit of bytes", data(SOURCE_V4), Pass(Clean)).with(kilobyte()),
        case("over the limit of bytes", data(SOURCE_V4), Drop(ByteLimit)).with(over()),
        case("another source is over the limit of bytes", data([198, 18, 0, 8]), Pass(Clean)).with(over()),
        case(
            "over the limit of bytes at the management port",
            tcp_frame(SOURCE_V4.into(), MANAGEMENT, SYN, &[]),
            Pass(Management),
        )
        .with(over()),
        case("over the limit of bytes, banned", data(SOURCE_V4), Drop(Banned))
            .with(over().banned(source, u64::MAX)),
        case("a frame heavier than the limit of bytes", of_length(1_200), Drop(ByteLimit)).with(kilobyte()),
        case("limit of bytes that the program is not told of", data(SOURCE_V4), Pass(Clean))
            .with(State::default().exhausted(Limit::Bytes, source)),
        sequence(
            "frames are charged by their length",
            vec![
                (of_length(500), Pass(Clean)),
                (of_length(500), Drop(ByteLimit)),
                (of_length(100), Pass(Clean)),
                (of_length(400), Drop(ByteLimit)),
                (of_length(10), Pass(Clean)),
            ],
        )
        .with(kilobyte()),
        case("over the limit of bytes in a dry run", data(SOURCE_V4), Pass(Clean))
            .with(over().set(|settings| settings.dry_run = ByteLimit.bit())),
    ]
}

fn networks() -> Vec<Case> {
    let owing = |scope, limit| State::default().owing(scope, limit, 0, key(SOURCE_V6));
    let (site, network) = (Scope::Site, Scope::Network);
    let fresh = |scope, limit| State::default().more(scope, limit, 0);
    let mut cases = vec![
        case("a /56 over its packets", data(SOURCE_V6), Drop(SiteLimit)).with(owing(site, Limit::Packets)),
        case("a /48 over its packets", data(SOURCE_V6), Drop(NetworkLimit))
            .with(owing(network, Limit::Packets)),
        case("a source beside a /56 over its packets", data(COUSIN), Pass(Clean))
            .with(owing(site, Limit::Packets)),
        case("a source beside a /48 over its packets", data(STRANGER), Pass(Clean))
            .with(owing(network, Limit::Packets)),
        case("IPv4 knows no networks", data(SOURCE_V4), Pass(Clean)).with(State::default().owing(
            network,
            Limit::Packets,
            0,
            key(SOURCE_V4),
        )),
        case("a /48 over its connections", syn(SOURCE_V6), Drop(NetworkLimit))
            .with(owing(network, Limit::Connections)),
        case("a /48 over its connections, in an open one", data(SOURCE_V6), Pass(Clean))
            .with(owing(network, Limit::Connections)),
        case("a /56 over its hellos", hello(SOURCE_V6), Drop(SiteLimit)).with(owing(site, Limit::Hellos)),
        case("a /56 over its bytes", data(SOURCE_V6), Drop(SiteLimit)).with(owing(site, Limit::Bytes)),
        case("allowed in a /48 over its packets", data(SOURCE_V6), Pass(Allowed)).with(
            owing(network, Limit::Packets)
                .listing("2001:db8:1:2::/64".parse().unwrap_or_else(never), Listing::ALLOWED),
        ),
        case(
            "allowed at a port, in a /48 over its packets",
            tcp_frame(SOURCE_V6.into(), UNHEARD, SYN, &[]),
            Pass(Allowed),
        )
        .with(owing(network, Limit::Packets).port(UNHEARD, Port::behind(door::other(0))).listing(
            "2001:db8:1:2::/64".parse().unwrap_or_else(never),
            Listing { doors: door::other(0), ..Listing::NONE },
        )),
        case("a tier without a limit in a /48 over its packets", data(SOURCE_V6), Pass(Clean)).with(
            owing(network, Limit::Packets).listing(
                "2001:db8:1:2::/64".parse().unwrap_or_else(never),
                Listing { tier: 2, ..Listing::NONE },
            ),
        ),
    ];
    for (name, scope, others) in [
        ("/56", site, [Drop(SiteLimit), Pass(Clean), Pass(Clean)]),
        ("/48", network, [Drop(NetworkLimit), Drop(NetworkLimit), Pass(Clean)]),
    ] {
        let [neighbour, cousin, stranger] = others;
        let frames = vec![
            (data(SOURCE_V6), Pass(Clean)),
            (data(NEIGHBOUR), neighbour),
            (data(COUSIN), cousin),
            (data(STRANGER), stranger),
        ];
        cases.push(
            sequence(&format!("the sources of a {name} share its packets"), frames)
                .with(fresh(scope, Limit::Packets)),
        );
    }
    cases
}

fn never<T>(_: impl std::fmt::Debug) -> T {
    unreachable!("a prefix that cannot be read")
}

fn groups() -> Vec<Case> {
    let source = key(SOURCE_V4);
    let grouped = |state: State| state.port(UNHEARD, Port::in_group(3));
    let owing = |limit| grouped(State::default().owing(Scope::Group, limit, 3, source));
    let to = |port, flags| tcp_frame(SOURCE_V4.into(), port, flags, &[]);
    vec![
        case("over the packets to a group", to(UNHEARD, ACK), Drop(GroupLimit)).with(owing(Limit::Packets)),
        case("over the packets to another port's group", to(80, ACK), Pass(Clean))
            .with(owing(Limit::Packets)),
        case(
            "over the packets to a group, by UDP",
            ethernet(IPV4, &ipv4(UDP, &udp(UNHEARD, b"q"))),
            Drop(GroupLimit),
        )
        .with(owing(Limit::Packets)),
        case("over the connections to a group", to(UNHEARD, SYN), Drop(GroupLimit))
            .with(owing(Limit::Connections)),
        case("over the connections to a group, in an open one", to(UNHEARD, ACK), Pass(Clean))
            .with(owing(Limit::Connections)),
        case(
            "another source is over the packets to a group",
            tcp_frame(IpAddr::from([198, 18, 0, 8]), UNHEARD, ACK, &[]),
            Pass(Clean),
        )
        .with(owing(Limit::Packets)),
        sequence(
            "the ports of a group share its budget",
            vec![
                (to(UNHEARD, ACK), Pass(Clean)),
                (to(80, ACK), Pass(Clean)),
                (to(PROTECTED, ACK), Drop(GroupLimit)),
                (to(UNHEARD, ACK), Drop(GroupLimit)),
            ],
        )
        .with(
            grouped(State::default().more(Scope::Group, Limit::Packets, 3))
                .port(PROTECTED, Port::in_group(3)),
        ),
    ]
}

fn everybody() -> Vec<Case> {
    let source = key(SOURCE_V4);
    let exceeded = |limit| State::default().more(Scope::Share, limit, 0).spent(shared::everybody(limit));
    let without_share = |limit| {
        let state = State::default().owing(Scope::Share, limit, 0, source);
        state.spent(shared::everybody(limit))
    };
    let mut cases = vec![
        case("everybody is within the packets of all", data(SOURCE_V4), Pass(Clean))
            .with(State::default().owing(Scope::Share, Limit::Packets, 0, source)),
        case("more than the packets of all, from one within its share", data(SOURCE_V4), Pass(Clean))
            .with(exceeded(Limit::Packets)),
        case("more than the packets of all, from one above its share", data(SOURCE_V4), Drop(GlobalLimit))
            .with(without_share(Limit::Packets)),
        case("IPv6: more than the packets of all", data(SOURCE_V6), Pass(Clean))
            .with(without_share(Limit::Packets)),
        case(
            "more than the packets of all, at the management port",
            tcp_frame(SOURCE_V4.into(), MANAGEMENT, SYN, &[]),
            Pass(Management),
        )
        .with(without_share(Limit::Packets)),
        case("more than the connections of all", syn(SOURCE_V4), Drop(GlobalLimit))
            .with(without_share(Limit::Connections)),
        case("more than the connections of all, in an open one", data(SOURCE_V4), Pass(Clean))
            .with(without_share(Limit::Connections)),
        case("more than the hellos of all", hello(SOURCE_V4), Drop(GlobalLimit))
            .with(without_share(Limit::Hellos)),
        case("more than the hellos of all, within the share", hello(SOURCE_V4), Pass(HelloAccepted))
            .with(exceeded(Limit::Hellos)),
        case("more than the bytes of all", data(SOURCE_V4), Drop(GlobalLimit))
            .with(without_share(Limit::Bytes)),
        case("more than the QUIC of all", initial(), Drop(GlobalLimit)).with(without_share(Limit::Quic)),
    ];
    // Of one packet for all and one as a share.
    let neighbour = [198, 18, 0, 8];
    cases.push(
        sequence(
            "above the packets of all each source has its share",
            vec![
                (data(SOURCE_V4), Pass(Clean)),
                (data(SOURCE_V4), Pass(Clean)),
                (data(SOURCE_V4), Drop(GlobalLimit)),
                (data(neighbour), Pass(Clean)),
                (data(neighbour), Drop(GlobalLimit)),
                (data(SOURCE_V6), Pass(Clean)),
            ],
        )
        .with(State::default().more(Scope::Share, Limit::Packets, 0)),
    );
    cases
}

/// Tables without a slot: more sources than there are, or invented ones.
fn crowds() -> Vec<Case> {
    let sharing = |state: State| state.set(|settings| settings.flags |= flag::SHARE_WHEN_FULL);
    let dropping = |state: State| state.set(|settings| settings.flags |= flag::DROP_WHEN_FULL);
    let full = |limit| sharing(State::default().full(limit));
    let spent = |limit| full(limit).spent(shared::crowd(limit, None, 0));
    let group = || State::default().more(Scope::Group, Limit::Packets, 0).full_budgets();
    // Whichever of the two buckets it is.
    let crowded = |scope| {
        [0, 1].into_iter().fold(sharing(group()), |state, index| {
            state.spent(shared::crowd(Limit::Packets, Some(scope), index))
        })
    };
    let all_full = || Limit::ALL.into_iter().fold(sharing(State::default()), State::full).full_budgets();
    let everything = || {
        let scopes = [Scope::Site, Scope::Network, Scope::Group, Scope::Share];
        let state = scopes.into_iter().fold(all_full(), |state, scope| state.more(scope, Limit::Packets, 0));
        state.spent(shared::everybody(Limit::Packets))
    };
    let first = |source: u8| data([198, 18, 1, source]);
    vec![
        case("no slot, and the shared budget has room", data(SOURCE_V4), Pass(LimiterShared))
            .with(full(Limit::Packets)),
        case("no slot, and the shared budget is used up", data(SOURCE_V4), Drop(LimiterFull))
            .with(spent(Limit::Packets)),
        case("no slot, and that of another limit is used up", data(SOURCE_V4), Pass(LimiterShared))
            .with(full(Limit::Packets).spent(shared::crowd(Limit::Hellos, None, 0))),
        case("a source with a slot beside those without", data(SOURCE_V4), Pass(Clean))
            .with(spent(Limit::Packets).holding(Limit::Packets, key(SOURCE_V4))),
        case(
            "no slot in the connection table, and the shared budget is used up",
            syn(SOURCE_V4),
            Drop(LimiterFull),
        )
        .with(spent(Limit::Connections)),
        case(
            "no slot in the hello table, and the shared budget has room",
            hello(SOURCE_V4),
            Pass(HelloAccepted),
        )
        .with(full(Limit::Hellos)),
        case(
            "no slot in the hello table, and the shared budget is used up",
            hello(SOURCE_V4),
            Drop(LimiterFull),
        )
        .with(spent(Limit::Hellos)),
        case(
            "no slot in the table of bytes, and the shared budget is used up",
            data(SOURCE_V4),
            Drop(LimiterFull),
        )
        .with(more(spent(Limit::Bytes))),
        case("no slot for a further budget, dropping", data(SOURCE_V4), Drop(LimiterFull))
            .with(dropping(group())),
        case("no slot for a further budget, passing", data(SOURCE_V4), Pass(Clean)).with(group()),
        case(
            "no slot for a further budget, and the shared one has room",
            data(SOURCE_V4),
            Pass(LimiterShared),
        )
        .with(sharing(group())),
        case(
            "no slot for a further budget, and the shared one is used up",
            data(SOURCE_V4),
            Drop(LimiterFull),
        )
        .with(crowded(Scope::Group)),
        case(
            "no slot for a further budget, and that of another kind is used up",
            data(SOURCE_V4),
            Pass(LimiterShared),
        )
        .with(crowded(Scope::Share)),
        case(
            "no slot in the connection table, and the shared budget has room",
            syn(SOURCE_V4),
            Pass(LimiterShared),
        )
        .with(full(Limit::Connections)),
        case("no slot, and the shared budget is used up, rehearsed", data(SOURCE_V4), Pass(LimiterShared))
            .with(spent(Limit::Packets).set(|settings| settings.dry_run = LimiterFull.bit())),
        case("no slot, passing", data(SOURCE_V4), Pass(Clean)).with(State::default().full(Limit::Packets)),
        sequence(
            "no slot for a connection, and then data that needs none",
            vec![
                (syn(SOURCE_V4), Pass(LimiterShared)),
                // Not at the first look, for it might begin a hello.
                (tcp_frame(SOURCE_V4.into(), PROTECTED, ACK, &[0x16, 2]), Pass(Clean)),
            ],
        )
        .with(full(Limit::Connections)),
        sequence(
            "invented sources without a slot share one budget",
            vec![
                (first(1), Pass(LimiterShared)),
                (first(2), Drop(LimiterFull)),
                (first(3), Drop(LimiterFull)),
                (tcp_frame(SOURCE_V4.into(), MANAGEMENT, SYN, &[]), Pass(Management)),
            ],
        )
        .with(full(Limit::Packets)),
        sequence(
            "every table is full: one packet of each kind, and no more",
            vec![
                (syn(SOURCE_V6), Pass(LimiterShared)),
                (data([198, 18, 1, 1]), Drop(LimiterFull)),
                (data(NEIGHBOUR), Drop(LimiterFull)),
            ],
        )
        .with(everything()),
        case(
            "every table is full, management",
            tcp_frame(SOURCE_V4.into(), MANAGEMENT, SYN, &[]),
            Pass(Management),
        )
        .with(everything()),
        case("every table is full, dropping", data(SOURCE_V4), Drop(LimiterFull))
            .with(dropping(Limit::ALL.into_iter().fold(State::default(), State::full))),
    ]
}
