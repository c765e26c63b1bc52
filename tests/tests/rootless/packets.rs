//! The packet cases in plain memory, the table's own completeness, and the parser on any bytes at all.

use std::{collections::HashSet, net::IpAddr, sync::LazyLock};

use enforcer_common::{
    ban::Listing,
    budget::Scope,
    gcra::Rate,
    packet::Packet,
    reason::{DropReason, PassReason},
    settings::Limit,
    source::SourceKey,
    verdict::{Verdict, decide, decide_by_steps, glance, work::Next},
};
use enforcer_tests::{
    cases,
    packets::*,
    tables::{PROTECTED, State},
};
use proptest::prelude::*;

/// Later than every ban that has ended, earlier than every ban that holds.
const NOW: u64 = 1_000_000_000_000;

#[test]
fn every_case_ends_as_expected() {
    let wrong: Vec<String> = cases::all()
        .into_iter()
        .filter_map(|case| {
            let tables = case.state.tables(NOW);
            let last = (case.frame, case.expected);
            let frames = case.before.iter().chain([&last]);
            let wrong = frames.enumerate().find_map(|(at, (frame, expected))| {
                let found = decide(&&**frame, &tables);
                (found != *expected).then(|| format!("frame {at}: {found:?} instead of {expected:?}"))
            });
            wrong.map(|wrong| format!("{}: {wrong}", case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// `until` is the first instant at which packets pass again, for exact bans and for prefixes.
#[test]
fn a_ban_ends_at_its_instant() {
    let source = SourceKey::v4(SOURCE_V4.octets());
    let Ok(prefix) = "198.18.0.0/16".parse() else { unreachable!("a prefix") };
    let frame = tcp_frame(SOURCE_V4.into(), 80, SYN, &[]);
    let states = [
        (State::default().banned(source, NOW), DropReason::Banned),
        (State::default().listing(prefix, Listing::banned(NOW)), DropReason::BannedPrefix),
    ];
    for (state, reason) in states {
        let at = |now| decide(&&*frame, &state.clone().tables(now));
        assert_eq!(at(NOW - 1), Verdict::Drop(reason));
        assert_eq!(at(NOW), Verdict::Pass(PassReason::Clean));
    }
}

/// What is rehearsed is counted, and everything behind it still holds.
#[test]
fn a_dry_run_counts_what_it_spares_and_goes_on() {
    let source = SourceKey::v4(SOURCE_V4.octets());
    let rehearse = |mask| {
        let state = State::default().banned(source, u64::MAX).exhausted(Limit::Connections, source);
        let tables = state.set(|settings| settings.dry_run = mask).tables(NOW);
        let verdict = decide(&&*tcp_frame(SOURCE_V4.into(), 80, SYN, &[]), &tables);
        (verdict, tables.take_rehearsed())
    };
    use DropReason::{Banned, ConnectionLimit};
    assert_eq!(rehearse(0), (Verdict::Drop(Banned), vec![]));
    assert_eq!(rehearse(Banned.bit()), (Verdict::Drop(ConnectionLimit), vec![Banned]));
    let all = Banned.bit() | ConnectionLimit.bit();
    assert_eq!(rehearse(all), (Verdict::Pass(PassReason::Clean), vec![Banned, ConnectionLimit]));
}

#[test]
fn the_table_has_every_reason_and_no_name_twice() {
    let cases = cases::all();
    let names: HashSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 250, "{} cases", cases.len());
    let verdicts: HashSet<_> = cases
        .iter()
        .flat_map(|case| case.before.iter().map(|(_, verdict)| *verdict).chain([case.expected]))
        .collect();
    for reason in PassReason::ALL {
        assert!(verdicts.contains(&Verdict::Pass(*reason)), "no case for {reason:?}");
    }
    for reason in DropReason::ALL {
        assert!(verdicts.contains(&Verdict::Drop(*reason)), "no case for {reason:?}");
    }
}

/// A packet that panics when a parser has lost its bearings: no header can name an offset that large.
struct Strict<'a>(&'a [u8]);

impl Packet for Strict<'_> {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        assert!(offset <= 0x2_0000, "read at {offset}");
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn first<const N: usize>(&self) -> Option<&[u8; N]> {
        self.0.first_chunk()
    }
}

/// Everything switched on, so that every path can be taken.
fn busy() -> State {
    Limit::ALL.into_iter().fold(State::default(), |state, limit| {
        [Scope::Site, Scope::Network, Scope::Share]
            .into_iter()
            .fold(state.limited(limit), |state, scope| state.more(scope, limit, 0))
    })
}

fn agrees(frame: &[u8]) -> Verdict {
    let verdict = decide(&Strict(frame), &busy().tables(NOW));
    assert_eq!(verdict, decide(&frame, &busy().tables(NOW)));
    looks_and_steps_agree(frame, busy());
    looks_and_steps_agree(frame, Limit::ALL.into_iter().fold(State::default(), State::limited));
    verdict
}

/// What the first look says is what the steps would have said, and what it charges is what they would have charged: the first time that a
/// source is seen, within its limits, and beyond.
fn looks_and_steps_agree(frame: &[u8], state: State) {
    const BURST: u64 = 3;
    let state = state.set(|settings| {
        settings.limits[0][Limit::Packets as usize] = Rate::new(1, 3_600_000_000_000, BURST);
    });
    let (looks, steps) = (state.clone().tables(NOW), state.tables(NOW));
    for _ in 0..BURST + 2 {
        assert_eq!(decide(&frame, &looks), decide_by_steps(&frame, &steps));
        assert_eq!(looks.take_rehearsed(), steps.take_rehearsed());
        assert_eq!(looks.take_answer(), steps.take_answer());
        assert_eq!(looks.traces(), steps.traces());
    }
}

/// Whatever the state of the tables.
#[test]
fn the_first_look_says_what_the_steps_say_of_every_case() {
    for case in cases::all() {
        looks_and_steps_agree(&case.frame, case.state.clone());
        let (looks, steps) = (case.state.clone().tables(NOW), case.state.tables(NOW));
        for frame in case.before.iter().map(|(frame, _)| frame).chain([&case.frame]) {
            assert_eq!(decide(&&**frame, &looks), decide_by_steps(&&**frame, &steps), "{}", case.name);
            assert_eq!(looks.traces(), steps.traces(), "{}", case.name);
        }
    }
}

/// What nearly all of a flood consists of: a step would cost more than everything else.
#[test]
fn the_first_look_is_the_last_one_at_what_floods_consist_of() {
    let decided = |state: State, expected: Verdict| {
        for source in [SOURCE_V4.into(), SOURCE_V6.into()] {
            let tables = state.clone().tables(NOW);
            let frame = tcp_frame(source, PROTECTED, SYN, &[]);
            // What is within the limits goes on to the flow table.
            let next = (0..4).map(|_| glance(&&*frame, &tables)).last();
            assert_eq!(next, Some(Next::end(expected)), "{source}");
        }
    };
    let source = |address: IpAddr| SourceKey::of(address, u64::MAX);
    let keys = [source(SOURCE_V4.into()), source(SOURCE_V6.into())];
    let listed = |listing| {
        let prefixes = ["198.18.0.0/24", "2001:db8:1::/48"].map(|text| text.parse().unwrap());
        prefixes.into_iter().fold(State::default(), |state, prefix| state.listing(prefix, listing))
    };
    let banned = keys.into_iter().fold(State::default(), |state, key| state.banned(key, NOW + 1));
    let slow = |state: State, limit| {
        let rate = Rate::new(1, 3_600_000_000_000, 2);
        state.set(|settings| settings.limits.iter_mut().for_each(|tier| tier[limit as usize] = rate))
    };
    use DropReason::{Banned, BannedPrefix, ConnectionLimit, PacketLimit};
    decided(banned, Verdict::Drop(Banned));
    decided(listed(Listing::banned(u64::MAX)), Verdict::Drop(BannedPrefix));
    decided(listed(Listing::banned(NOW + 1)), Verdict::Drop(BannedPrefix));
    decided(listed(Listing::ALLOWED), Verdict::Pass(PassReason::Allowed));
    for state in
        [State::default(), listed(Listing::banned(NOW)), listed(Listing { tier: 1, ..Listing::NONE })]
    {
        decided(slow(state.clone(), Limit::Packets), Verdict::Drop(PacketLimit));
        decided(slow(state.clone(), Limit::Connections), Verdict::Drop(ConnectionLimit));
        let more = state.more(Scope::Share, Limit::Hellos, 0);
        decided(slow(more, Limit::Packets), Verdict::Drop(PacketLimit));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_get_a_verdict(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
        agrees(&frame);
    }

    #[test]
    fn any_bytes_behind_an_ip_header_get_a_verdict(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        protocol in prop_oneof![any::<u8>(), Just(TCP), Just(UDP), Just(0), Just(43), Just(44), Just(51), Just(60)],
    ) {
        agrees(&ethernet(IPV4, &ipv4(protocol, &payload)));
        agrees(&ethernet(IPV6, &ipv6(protocol, &payload)));
    }

    /// Whole frames of the table, cut and with bytes replaced.
    #[test]
    fn any_damage_to_a_case_gets_a_verdict(
        index in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        static CASES: LazyLock<Vec<cases::Case>> = LazyLock::new(cases::all);
        let mut frame = index.get(&CASES).frame.clone();
        frame.truncate(cut.index(frame.len() + 1));
        for (at, byte) in damage {
            if !frame.is_empty() {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
        }
        agrees(&frame);
    }

    /// However a hello is cut, a part of it is never refused for the version of a list that it does not show, and a
    /// part that is accepted is accepted as a whole.
    #[test]
    fn a_part_of_a_hello_is_judged_like_the_whole_or_passes(
        versions in proptest::collection::vec(0x0300u16..0x0306, 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = Hello::offering(&versions).bytes();
        let judge = |data: &[u8]| agrees(&tcp_frame(SOURCE_V4.into(), PROTECTED, DATA, data));
        let verdict = judge(&whole);
        let part = judge(&whole[..cut.index(whole.len())]);
        let passes = [Verdict::Pass(PassReason::HelloIncomplete), Verdict::Pass(PassReason::Clean)];
        prop_assert!(part == verdict || passes.contains(&part), "{part:?} of {verdict:?}");
        prop_assert_eq!(
            verdict == Verdict::Pass(PassReason::HelloAccepted),
            versions.iter().any(|version| (0x0303..=0x0304).contains(version))
        );
    }
}
