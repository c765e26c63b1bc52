//! The ledger at its bounds: what the kernel's tables have no room for is refused, and the rest goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{net::Ipv4Addr, time::Duration};

use enforcer::{
    bans::ledger::{
        Actions, BanRequest, End, Event, Input, Ledger, Outcome, Refusal, Standing, Tally, Terms,
    },
    clock::KernelTime,
    config::Bans,
    kernel::program::PREFIX_BANS,
    prefix::Prefix,
};

const NOW: KernelTime = KernelTime(1_000_000_000);

fn terms() -> Terms {
    Terms { end: End::Default, reason: "list".into(), force: false, own_address: None, machine: Vec::new() }
}

fn ledger(max_entries: u32) -> Ledger {
    Ledger::new(Bans {
        threshold: 20,
        window: Duration::from_secs(60),
        duration: Duration::from_secs(600),
        max_duration: Duration::from_secs(3600),
        max_entries,
        dry_run: false,
        store: None,
    })
}

fn add(ledger: &mut Ledger, prefix: Prefix) -> Outcome {
    let request = BanRequest { prefix, terms: terms() };
    ledger.handle(NOW, Input::BanAdd(request)).outcome
}

#[test]
fn bans_of_prefixes_have_a_bound_of_their_own_and_allowances_always_fit() {
    let mut ledger = ledger(1_000_000);
    let pair = |n: u32| Prefix::host(Ipv4Addr::from(0x0a00_0000 + 2 * n).into()).widened(31);
    for n in 0..PREFIX_BANS {
        assert!(matches!(add(&mut ledger, pair(n)), Outcome::BanAdded { .. }), "{n}");
    }
    assert_eq!(add(&mut ledger, pair(PREFIX_BANS)), Outcome::Refused(Refusal::FullPrefixes));
    assert!(matches!(add(&mut ledger, pair(0)), Outcome::BanAdded { replaced: Some(_), .. }));
    let single = "198.18.0.1".parse().unwrap();
    assert!(matches!(add(&mut ledger, single), Outcome::BanAdded { .. }), "a single source");
    let allow =
        Input::AllowAdd { prefix: "198.18.0.0/24".parse().unwrap(), reason: String::new(), force: false };
    assert!(matches!(ledger.handle(NOW, allow).outcome, Outcome::AllowAdded { .. }));
    ledger.handle(NOW, Input::BanDel(pair(7)));
    assert!(matches!(add(&mut ledger, pair(PREFIX_BANS)), Outcome::BanAdded { .. }));
}

fn host(n: u32) -> Prefix {
    Prefix::host(Ipv4Addr::from(0xc612_0000 + n).into())
}

fn many(ledger: &mut Ledger, now: KernelTime, prefixes: Vec<Prefix>) -> (Tally, Actions) {
    let mut actions = ledger.handle(now, Input::BanMany { prefixes, terms: terms(), more: false });
    let outcome = std::mem::take(&mut actions.outcome);
    let Outcome::Many(tally) = outcome else { panic!("{outcome:?}") };
    (tally, actions)
}

#[test]
fn a_list_is_taken_in_with_one_word_and_what_has_no_room_is_counted() {
    let mut ledger = ledger(90_000);
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    let allow = Input::AllowAdd { prefix: prefix("198.18.1.0/24"), reason: String::new(), force: false };
    ledger.handle(NOW, allow);
    add(&mut ledger, host(5));
    // Of 100,000 lines: a thousand IPv6 prefixes, a /24 over some of the addresses, ten lines twice, two that are too wide.
    let mut list: Vec<Prefix> = (0..98_987).map(host).collect();
    list.extend((0..1000).map(|n| prefix(&format!("2001:db8:{n:x}::/48"))));
    list.splice(0..0, [prefix("198.18.2.0/24"), prefix("198.0.0.0/7"), prefix("128.0.0.0/1")]);
    list.extend((0..10).map(host));
    assert_eq!(list.len(), 100_000);
    let (tally, actions) = many(&mut ledger, NOW, list);
    assert_eq!((tally.banned, tally.replaced, tally.shadowed, tally.repeated), (89_999, 1, 256, 10));
    let refused: Vec<(&str, usize, String)> =
        tally.refused.iter().map(|row| (row.refusal.kind(), row.count, row.prefix.to_string())).collect();
    let expected = [("too_wide", 2, "198.0.0.0/7".to_owned()), ("full", 9_988, host(89_999).to_string())];
    assert_eq!(refused, expected);
    assert_eq!(actions.events, [Event::Many { tally, more: false }], "one word for all of them");
    assert_eq!(actions.saves.len(), 90_000);
    // An allowed address has no place in the tables, the allowance itself has one.
    assert_eq!(ledger.projected(), 90_000 - 256 + 1);
    assert_eq!(actions.writes.len(), 90_000 - 256 - 1, "the one that stood already is as it was");
    let standing = |ledger: &Ledger, n: u32| ledger.standing(NOW, host(n).net().addr());
    assert!(matches!(standing(&ledger, 256), Standing::Allowed(..)));
    assert!(matches!(standing(&ledger, 89_998), Standing::Banned(_)));
    assert_eq!(standing(&ledger, 89_999), Standing::Clear);

    // Half of them lifted again, with some that are not there.
    let half = (0..89_999).step_by(2).chain([99_999]).map(host).collect();
    let actions = ledger.handle(NOW, Input::BanDelMany { prefixes: half, more: false });
    let Outcome::Many(tally) = actions.outcome else { panic!("{:?}", actions.outcome) };
    assert_eq!((tally.lifted, tally.not_banned), (45_000, 1));
    // What lies in the banned /24 stays banned by that.
    assert!(matches!(standing(&ledger, 512), Standing::Banned(_)) && standing(&ledger, 0) == Standing::Clear);

    // All of them end at once: that takes some turns, and no turn says more than a number.
    let later = NOW.plus_seconds(601);
    let mut ended = 0;
    while ledger.projected() > 1 {
        let actions = ledger.handle(later, Input::Tick);
        assert!(actions.writes.len() <= 20_000, "{}", actions.writes.len());
        let [Event::EndedMany(count)] = actions.events[..] else { panic!("{:?}", actions.events.len()) };
        ended += count;
    }
    assert_eq!((ended, ledger.bans(later).count()), (45_000, 0));
}

#[test]
fn the_bound_of_prefixes_holds_for_a_list_too_and_a_wrong_end_refuses_all_of_it() {
    let mut ledger = ledger(1_000_000);
    let pair = |n: u32| Prefix::host(Ipv4Addr::from(0x0a00_0000 + 2 * n).into()).widened(31);
    let mut list: Vec<Prefix> = (0..PREFIX_BANS + 3).map(pair).collect();
    list.push(host(1));
    let (tally, _) = many(&mut ledger, NOW, list);
    assert_eq!(tally.banned, PREFIX_BANS as usize + 1, "a single source has room");
    assert_eq!((tally.refused[0].count, &tally.refused[0].refusal), (3, &Refusal::FullPrefixes));
    let terms = Terms { end: End::After(Duration::ZERO), ..terms() };
    let actions = ledger.handle(NOW, Input::BanMany { prefixes: vec![host(2)], terms, more: false });
    assert_eq!(actions.outcome, Outcome::Refused(Refusal::NoDuration));
    assert!(actions.writes.is_empty() && actions.saves.is_empty() && actions.events.is_empty());
}
