//! Ethernet, VLAN tags, and what passes before there is an address.

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    settings::{ABI, flag},
    verdict::Verdict::{Drop, Pass},
};

use super::{Case, case};
use crate::{
    packets::*,
    tables::{MANAGEMENT, State},
};

pub(super) fn cases() -> Vec<Case> {
    let web = || ipv4(TCP, &tcp(80, ACK, b"data"));
    let web6 = || ipv6(TCP, &tcp(80, ACK, b"data"));
    let unset = State { settings: None, ..State::default() };
    let strict = || State::default().set(|settings| settings.flags |= flag::DROP_NOT_IP);
    let cut = || tagged(&[VLAN], IPV4, &[])[..16].to_vec();
    let deep = || tagged(&[SERVICE_VLAN, VLAN, VLAN], IPV4, &web());
    vec![
        case("no settings yet", ethernet(IPV4, &web()), Pass(NoSettings)).with(unset.clone()),
        case("no settings, not even a whole frame", vec![2; 14], Pass(NoSettings)).with(unset),
        case("settings of another layout", ethernet(IPV4, &web()), Pass(NoSettings))
            .with(State::default().set(|settings| settings.abi = ABI + 1)),
        case("after the lease", ethernet(IPV4, &web()), Pass(LeaseExpired))
            .with(State::default().set(|settings| settings.lease_until = 1)),
        case("after the lease, not even a whole frame", vec![2; 14], Pass(LeaseExpired))
            .with(State::default().set(|settings| settings.lease_until = 1)),
        case("within the lease", cut(), Drop(Truncated))
            .with(State::default().set(|settings| settings.lease_until = u64::MAX)),
        case(
            "MPLS, where frames that are not IP are dropped",
            ethernet(0x8847, &[0; 40]),
            Drop(NotIpRefused),
        )
        .with(strict()),
        case("ARP, where frames that are not IP are dropped", ethernet(0x0806, &[0; 28]), Pass(LinkControl))
            .with(strict()),
        case("MPLS, where dropping it is only rehearsed", ethernet(0x8847, &[0; 40]), Pass(NotIp))
            .with(strict().set(|settings| settings.dry_run = NotIpRefused.bit())),
        case("cut frame, where that is tolerated", cut(), Pass(Unparsed))
            .with(State::default().set(|settings| settings.tolerated = Truncated.bit())),
        case("three tags, where dropping them is only rehearsed", deep(), Pass(Unparsed))
            .with(State::default().set(|settings| settings.dry_run = VlanDepth.bit())),
        case("three tags, where something else is tolerated", deep(), Drop(VlanDepth))
            .with(State::default().set(|settings| settings.tolerated = !VlanDepth.bit())),
        case("empty frame", vec![], Drop(Truncated)),
        case("frame of 13 bytes", vec![2; 13], Drop(Truncated)),
        case("ARP", ethernet(0x0806, &[0; 28]), Pass(LinkControl)),
        case("LACP", ethernet(0x8809, &[1; 110]), Pass(LinkControl)),
        case("LLDP", ethernet(0x88cc, &[1; 40]), Pass(LinkControl)),
        case("EAPOL", ethernet(0x888e, &[1; 40]), Pass(LinkControl)),
        case("ARP behind a tag", tagged(&[VLAN], 0x0806, &[0; 28]), Pass(LinkControl)),
        case("MPLS", ethernet(0x8847, &[0; 40]), Pass(NotIp)),
        case("an 802.3 length instead of a type", ethernet(0x0026, &[0x42; 38]), Pass(NotIp)),
        case("IPv4 untagged", ethernet(IPV4, &web()), Pass(Clean)),
        case("IPv6 untagged", ethernet(IPV6, &web6()), Pass(Clean)),
        case("IPv4 behind 802.1Q", tagged(&[VLAN], IPV4, &web()), Pass(Clean)),
        case("IPv6 behind 802.1ad and 802.1Q", tagged(&[SERVICE_VLAN, VLAN], IPV6, &web6()), Pass(Clean)),
        case("two 802.1Q tags", tagged(&[VLAN, VLAN], IPV4, &web()), Pass(Clean)),
        case("three tags", deep(), Drop(VlanDepth)),
        case(
            "three tags, to a management port",
            tagged(&[VLAN; 3], IPV4, &ipv4(TCP, &tcp(MANAGEMENT, SYN, &[]))),
            Drop(VlanDepth),
        ),
        case("cut inside the first tag", cut(), Drop(Truncated)),
        case("cut inside the second tag", tagged(&[VLAN, VLAN], IPV4, &[])[..20].to_vec(), Drop(Truncated)),
    ]
}
