//! What the first look judges to the end besides clean packets, and how it leaves the tables to what comes behind. In the kernel it
//! alone judges these.

use std::net::IpAddr;

use enforcer::prefix::Prefix;
use enforcer_common::{
    ban::{FOREVER, Listing},
    budget::{Scope, shared},
    port::{Port, door},
    reason::{DropReason::*, PassReason::*},
    settings::{Limit, Settings, flag},
    source::{SourceKey, v6_mask},
    verdict::Verdict::{Drop, Pass},
};

use super::{Case, case, sequence};
use crate::{
    packets::*,
    tables::{MANAGEMENT, PROTECTED, State},
};

/// An instant that has passed on every machine that has run for a nanosecond.
const PAST: u64 = 1;

/// One of each family, and a prefix around both.
const SOURCES: [(&str, IpAddr); 2] = [("IPv4", IpAddr::V4(SOURCE_V4)), ("IPv6", IpAddr::V6(SOURCE_V6))];

fn listed(listing: Listing) -> State {
    let prefixes = ["198.18.0.0/24", "2001:db8:1::/48"].iter().filter_map(|text| text.parse::<Prefix>().ok());
    prefixes.fold(State::default(), |state, prefix| state.listing(prefix, listing))
}

pub(super) fn cases() -> Vec<Case> {
    SOURCES
        .into_iter()
        .flat_map(|(family, source)| {
            [limits(family, source), prefixes(family, source), junk(family, source)].concat()
        })
        .collect()
}

/// Packets that end near the end of linear memory, wherever that is, and frames that go on behind it: all of a frame is counted.
fn junk(family: &str, source: IpAddr) -> Vec<Case> {
    let ends = (3_000..4_000).step_by(40);
    ends.map(|length| {
        let mut frame = tcp_frame(source, 80, ACK, &vec![0x17; length]);
        frame.resize(6_000, 0xee);
        case(
            &format!("first look, {family}: {length} bytes of data, and junk behind them"),
            frame,
            Pass(Clean),
        )
    })
    .collect()
}

fn limits(family: &str, source: IpAddr) -> Vec<Case> {
    let name = |name: &str| format!("first look, {family}: {name}");
    let key = SourceKey::of(source, v6_mask(64));
    let data = || tcp_frame(source, 80, ACK, b"data");
    let syn = |port| tcp_frame(source, port, SYN, &[]);
    let limited = |limit| State::default().limited(limit);
    let (syns, packets) = (limited(Limit::Connections), limited(Limit::Packets));
    let more = |state: State| state.set(|settings| settings.flags |= flag::MORE_BUDGETS);
    let sharing = |state: State| state.set(|settings| settings.flags |= flag::SHARE_WHEN_FULL);
    let dropping = |state: State| state.set(|settings| settings.flags |= flag::DROP_WHEN_FULL);
    let spared = |state: State, bit| state.set(|settings: &mut Settings| settings.dry_run = bit);
    let packet = |second| vec![(data(), Pass(Clean)), (data(), second)];
    let opened = |port, second| vec![(syn(port), Pass(Clean)), (syn(port), second)];
    vec![
        sequence(&name("a second packet over the limit"), packet(Drop(PacketLimit))).with(packets.clone()),
        sequence(&name("a second packet over the limit, of a source with a slot"), packet(Drop(PacketLimit)))
            .with(packets.clone().holding(Limit::Packets, key)),
        sequence(&name("a second packet over the limit, beside further budgets"), packet(Drop(PacketLimit)))
            .with(more(packets.clone())),
        sequence(&name("a second packet over a limit that is rehearsed"), packet(Pass(Clean)))
            .with(spared(packets.clone(), PacketLimit.bit())),
        sequence(
            &name("a second packet over the limit while hellos are rehearsed"),
            packet(Drop(PacketLimit)),
        )
        .with(spared(packets.clone(), TlsVersion.bit())),
        sequence(&name("a second SYN over the limit of packets"), opened(PROTECTED, Drop(PacketLimit)))
            .with(packets),
        sequence(&name("a second SYN"), opened(PROTECTED, Drop(ConnectionLimit))).with(syns.clone()),
        sequence(&name("a second SYN to an open port"), opened(80, Drop(ConnectionLimit))).with(syns.clone()),
        sequence(&name("a second SYN of a source with a slot"), opened(PROTECTED, Drop(ConnectionLimit)))
            .with(syns.clone().holding(Limit::Connections, key)),
        sequence(&name("a second SYN, rehearsed"), opened(PROTECTED, Pass(Clean)))
            .with(spared(syns.clone(), ConnectionLimit.bit())),
        sequence(
            &name("a second SYN to the management port"),
            vec![
                (syn(MANAGEMENT), Pass(Management)),
                (syn(MANAGEMENT), Pass(Management)),
                (syn(PROTECTED), Pass(Clean)),
            ],
        )
        .with(syns.clone()),
        sequence(&name("a second SYN beside further budgets"), opened(PROTECTED, Drop(ConnectionLimit)))
            .with(more(syns.clone())),
        sequence(
            &name("a SYN within its limit above the budget of all, and another one"),
            vec![(syn(PROTECTED), Drop(SynCookie)), (syn(PROTECTED), Drop(ConnectionLimit))],
        )
        .with(syns.syns_spent()),
        case(&name("a SYN that finds no slot, sharing"), syn(PROTECTED), Pass(LimiterShared))
            .with(sharing(State::default().full(Limit::Connections))),
        case(&name("a SYN that finds no slot, dropping"), syn(80), Drop(LimiterFull))
            .with(dropping(State::default().full(Limit::Connections))),
        case(&name("a SYN that finds no slot, passing"), syn(80), Pass(Clean))
            .with(State::default().full(Limit::Connections)),
        case(&name("a SYN whose source owes more than its limit tolerates"), syn(80), Drop(ConnectionLimit))
            .with(State::default().exhausted(Limit::Connections, key)),
        case(&name("a SYN while more packets are sent than all may"), syn(80), Drop(GlobalLimit)).with(
            State::default()
                .owing(Scope::Share, Limit::Packets, 0, key)
                .spent(shared::everybody(Limit::Packets)),
        ),
    ]
}

fn prefixes(family: &str, source: IpAddr) -> Vec<Case> {
    let name = |name: &str| format!("first look, {family}: {name}");
    let data = |port| tcp_frame(source, port, DATA, &[0x17; 40]);
    let syn = |port| tcp_frame(source, port, SYN, &[]);
    let old = tcp_frame(source, PROTECTED, DATA, &Hello::legacy(0x0301).bytes());
    let banned = || listed(Listing::banned(FOREVER));
    let tier = |limit: Limit, listing: Listing| {
        listed(Listing { tier: 1, ..listing }).set(|settings| {
            settings.limits[1][limit as usize] = State::HOURLY;
        })
    };
    let behind = |doors| banned_behind(doors).port(PROTECTED, Port::behind(door::other(0)));
    vec![
        case(&name("data of a banned prefix"), data(PROTECTED), Drop(BannedPrefix)).with(banned()),
        case(&name("a hello of a banned prefix"), old.clone(), Drop(BannedPrefix)).with(banned()),
        case(&name("a banned prefix beside further budgets"), syn(80), Drop(BannedPrefix))
            .with(banned().more(Scope::Share, Limit::Packets, 0)),
        case(&name("a banned prefix, rehearsed"), syn(80), Pass(Clean))
            .with(banned().set(|settings| settings.dry_run = BannedPrefix.bit())),
        case(&name("a banned prefix while fragments are rehearsed"), syn(80), Drop(BannedPrefix))
            .with(banned().set(|settings| settings.dry_run = TcpFragment.bit())),
        case(&name("data of a banned prefix to the management port"), data(MANAGEMENT), Pass(Management))
            .with(banned()),
        case(&name("data of a banned prefix that has ended"), data(PROTECTED), Pass(Clean))
            .with(listed(Listing::banned(PAST))),
        case(&name("an old hello of a banned prefix that has ended"), old, Drop(TlsVersion))
            .with(listed(Listing::banned(PAST))),
        case(&name("data of an allowed prefix"), data(PROTECTED), Pass(Allowed))
            .with(listed(Listing::ALLOWED)),
        case(&name("data through a door"), data(PROTECTED), Pass(Allowed)).with(behind(door::other(0))),
        case(&name("data beside a door"), data(PROTECTED), Drop(BannedPrefix)).with(behind(door::other(1))),
        sequence(
            &name("a second packet over the limit of a tier"),
            vec![(data(80), Pass(Clean)), (data(80), Drop(PacketLimit))],
        )
        .with(tier(Limit::Packets, Listing::NONE)),
        sequence(
            &name("a second SYN over the limit of a tier, whose ban has ended"),
            vec![(syn(PROTECTED), Pass(Clean)), (syn(PROTECTED), Drop(ConnectionLimit))],
        )
        .with(tier(Limit::Connections, Listing::banned(PAST))),
        sequence(
            &name("SYNs in a tier without a limit"),
            vec![(syn(80), Pass(Clean)), (syn(80), Pass(Clean))],
        )
        .with(listed(Listing { tier: 1, ..Listing::NONE }).limited(Limit::Connections)),
    ]
}

fn banned_behind(doors: u16) -> State {
    listed(Listing { doors, ..Listing::banned(FOREVER) })
}
