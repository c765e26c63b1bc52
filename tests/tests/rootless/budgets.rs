//! All budgets together, against the rule spelled out: nobody gets more than each of his budgets admits, and who keeps to all of
//! them is never refused, whatever others send.

use std::net::Ipv6Addr;

use enforcer_common::{
    budget::Scope,
    gcra::Rate,
    port::Port,
    reason::PassReason,
    settings::{Limit, Settings, flag},
    verdict::{Verdict, decide},
};
use enforcer_tests::{
    packets::{ACK, tcp_frame},
    tables::State,
};
use proptest::prelude::*;

/// Two in one /56, a third in their /48, a fourth elsewhere.
const SOURCES: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0x101, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0x102, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0x201, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0x101, 0, 0, 0, 1),
];
/// Keeps to every budget of his.
const POLITE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0x101, 0, 0, 0, 1);
const GROUPED: u16 = 81;
const MILLISECOND: u64 = 1_000_000;

const OWN: Rate = Rate::per_second(1_000, 10);
const BYTES: Rate = Rate::bytes_per_second(100_000, 65_536);
const SITE: Rate = Rate::per_second(1_500, 15);
const NETWORK: Rate = Rate::per_second(2_000, 20);
const GROUP: Rate = Rate::per_second(300, 3);
const EVERYBODY: Rate = Rate::per_second(2_500, 25);
const SHARE: Rate = EVERYBODY.shared_by(25, 1);

fn settings(settings: &mut Settings) {
    let packets = Limit::Packets as usize;
    settings.flags |= flag::MORE_BUDGETS | flag::DROP_WHEN_FULL;
    (settings.source_mask, settings.bucket_mask) = (63, 63);
    settings.limits[0][packets] = OWN;
    settings.limits[0][Limit::Bytes as usize] = BYTES;
    settings.networks[Scope::Site as usize][0][packets] = SITE;
    settings.networks[Scope::Network as usize][0][packets] = NETWORK;
    settings.groups[1][packets] = GROUP;
    settings.everybody[packets] = EVERYBODY;
    settings.shares[packets] = SHARE;
}

/// A packet that was admitted.
#[derive(Clone, Copy)]
struct Admitted {
    at: u64,
    source: usize,
    port: u16,
    length: u64,
}

/// Whether of those that `belong` no window holds more than `rates` admit together, each weighing what `cost` says of a rate.
fn is_within(
    admitted: &[Admitted],
    rates: &[Rate],
    belong: impl Fn(&Admitted) -> bool,
    cost: impl Fn(Rate, &Admitted) -> u64,
) -> bool {
    let those: Vec<&Admitted> = admitted.iter().filter(|one| belong(one)).collect();
    (0..those.len()).all(|first| {
        let mut weight = 0;
        those[first..].iter().all(|one| {
            weight += cost(rates[0], one);
            let elapsed = one.at - those[first].at;
            // In units of the first rate's time.
            let worth = |rate: &Rate| {
                let events = u128::from(rate.tolerance + elapsed) * u128::from(rates[0].increment);
                (events / u128::from(rate.increment)) as u64
            };
            weight <= rates.iter().map(worth).sum()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn nobody_exceeds_a_budget_and_nobody_starves(
        sent in proptest::collection::vec(
            (0..SOURCES.len(), 0u64..MILLISECOND, 0usize..1_200, any::<bool>()), 1..200,
        ),
    ) {
        let tables = State::default().set(settings).port(GROUPED, Port::in_group(1)).tables(0);
        let (mut now, mut due) = (1_000 * MILLISECOND, 1_000 * MILLISECOND);
        let mut admitted = Vec::new();
        for (source, gap, length, grouped) in sent {
            now += gap;
            if now >= due {
                tables.set_now(now);
                let frame = tcp_frame(POLITE.into(), 80, ACK, &[0; 20]);
                let verdict = decide(&frame.as_slice(), &tables);
                prop_assert_eq!(verdict, Verdict::Pass(PassReason::Clean), "of one within his share, at {}", now);
                due = now + SHARE.increment;
                admitted.push(Admitted { at: now, source: SOURCES.len(), port: 80, length: frame.len() as u64 });
            }
            let port = if grouped { GROUPED } else { 80 };
            let frame = tcp_frame(SOURCES[source].into(), port, ACK, &vec![0; length]);
            tables.set_now(now);
            if decide(&frame.as_slice(), &tables) == Verdict::Pass(PassReason::Clean) {
                admitted.push(Admitted { at: now, source, port, length: frame.len() as u64 });
            }
        }
        let event = |rate: Rate, _: &Admitted| rate.increment;
        let weight = |rate: Rate, one: &Admitted| rate.costing(one.length).increment;
        for source in 0..=SOURCES.len() {
            let own = |one: &Admitted| one.source == source;
            prop_assert!(is_within(&admitted, &[OWN], own, event), "packets of {source}");
            prop_assert!(is_within(&admitted, &[BYTES], own, weight), "bytes of {source}");
            let group = |one: &Admitted| one.source == source && one.port == GROUPED;
            prop_assert!(is_within(&admitted, &[GROUP], group, event), "packets of {source} to the group");
        }
        prop_assert!(is_within(&admitted, &[SITE], |one| one.source < 2, event), "/56");
        prop_assert!(is_within(&admitted, &[NETWORK], |one| one.source < 3, event), "/48");
        let all = [EVERYBODY, SHARE, SHARE, SHARE, SHARE, SHARE];
        prop_assert!(is_within(&admitted, &all, |_| true, event), "everybody");
    }
}
