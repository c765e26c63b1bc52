//! SYNs above the budget that all sources share. In the kernel a listener stands where these say that there is one.

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    settings::Limit,
    source::SourceKey,
    verdict::Verdict::{Drop, Pass},
};

use super::{Case, case};
use crate::{
    packets::*,
    tables::{MANAGEMENT, PROTECTED, State, UNHEARD},
};

pub(super) fn cases() -> Vec<Case> {
    let spent = || State::default().syns_spent();
    let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
    let v4 = |port, flags| ethernet(IPV4, &ipv4(TCP, &tcp_with(port, flags, &options, &[])));
    let v6 = |port, flags| ethernet(IPV6, &ipv6(TCP, &tcp_with(port, flags, &options, &[])));
    let source = SourceKey::v4(SOURCE_V4.octets());
    vec![
        case("SYN within the budget", v4(PROTECTED, SYN), Pass(Clean))
            .with(State::default().set(|settings| settings.syn_budget = State::HOURLY)),
        case("SYN without a budget", v4(PROTECTED, SYN), Pass(Clean)),
        case("SYN above the budget", v4(PROTECTED, SYN), Drop(SynCookie)).with(spent()),
        case("IPv6: SYN above the budget", v6(PROTECTED, SYN), Drop(SynCookie)).with(spent()),
        case(
            "SYN above the budget, without options",
            tcp_frame(SOURCE_V4.into(), PROTECTED, SYN, &[]),
            Drop(SynCookie),
        )
        .with(spent()),
        case(
            "SYN above the budget, with 40 bytes of options",
            ethernet(IPV4, &ipv4(TCP, &tcp_with(PROTECTED, SYN, &[1; 40], &[]))),
            Drop(SynCookie),
        )
        .with(spent()),
        case(
            "SYN above the budget, behind two tags",
            tagged(&[SERVICE_VLAN, VLAN], IPV4, &v4(PROTECTED, SYN)[14..]),
            Drop(SynCookie),
        )
        .with(spent()),
        case(
            "SYN above the budget, with IPv4 options",
            ethernet(IPV4, &ipv4_with(SOURCE_V4, TCP, 0, &[1; 8], &tcp(PROTECTED, SYN, &[]))),
            Drop(SynCookie),
        )
        .with(spent()),
        case(
            "IPv6: SYN above the budget, behind extension headers",
            ethernet(IPV6, &ipv6(60, &extension(TCP, 1, &tcp(PROTECTED, SYN, &[])))),
            Drop(SynCookie),
        )
        .with(spent()),
        case(
            "SYN above the budget, with data",
            ethernet(IPV4, &ipv4(TCP, &tcp(PROTECTED, SYN, b"early"))),
            Drop(SynCookie),
        )
        .with(spent()),
        case(
            "SYN above the budget, padded",
            [tcp_frame(SOURCE_V4.into(), PROTECTED, SYN, &[]), vec![0xee; 6]].concat(),
            Drop(SynCookie),
        )
        .with(spent()),
        case("SYN above the budget, where nobody listens", v4(UNHEARD, SYN), Pass(CookieDeclined))
            .with(spent()),
        case("IPv6: SYN above the budget, where nobody listens", v6(UNHEARD, SYN), Pass(CookieDeclined))
            .with(spent()),
        case("SYN with FIN above the budget", v4(PROTECTED, SYN | 0x01), Pass(CookieDeclined)).with(spent()),
        case("SYN with RST above the budget", v4(PROTECTED, SYN | 0x04), Pass(CookieDeclined)).with(spent()),
        case("SYN above the budget to an open port", v4(80, SYN), Pass(Clean)).with(spent()),
        case("SYN above the budget to the management port", v4(MANAGEMENT, SYN), Pass(Management))
            .with(spent()),
        case("SYN-ACK above the budget", v4(PROTECTED, SYN | ACK), Pass(Clean)).with(spent()),
        case("acknowledgement above the budget", v4(PROTECTED, ACK), Pass(Clean)).with(spent()),
        case("SYN above the budget, where cookies are only rehearsed", v4(PROTECTED, SYN), Pass(Clean))
            .with(spent().set(|settings| settings.dry_run = SynCookie.bit())),
        case("SYN above the budget and the source's own limit", v4(PROTECTED, SYN), Drop(ConnectionLimit))
            .with(spent().exhausted(Limit::Connections, source)),
        case("banned source's SYN above the budget", v4(PROTECTED, SYN), Drop(Banned))
            .with(spent().banned(source, enforcer_common::ban::FOREVER)),
    ]
}
