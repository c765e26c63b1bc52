//! Whom the ledger spares: this machine, the upstream servers, and who was banned only because others were.

use super::*;

#[test]
fn offences_ban_neither_this_machine_nor_an_upstream_server() {
    let mut world = World::new(&[]);
    world.give(Input::Machine(vec![address("198.18.2.2"), address("2001:db8:2::2")]));
    // The upstream server's address, an own one, a neighbour of an own one in its source, and of the loopback address.
    for text in ["198.18.3.3", "198.18.2.2", "2001:db8:2::7", "::2"] {
        for _ in 0..3 {
            let events: Vec<Event> =
                (0..4).flat_map(|_| world.give(offence(text, Denial::TokenMissing)).1).collect();
            assert!(matches!(&events[..], [Event::Spared(ban, _)] if ban.offences > 0), "{text}: {events:?}");
            assert!(!world.banned(text), "{text}");
        }
    }
    // Another source, and an address that the machine has no more.
    world.give(Input::Machine(Vec::new()));
    for text in ["198.18.3.4", "198.18.2.2"] {
        (0..4).for_each(|_| drop(world.give(offence(text, Denial::TokenMissing))));
        assert!(world.banned(text), "{text}");
    }
}

#[test]
fn an_end_that_the_kernel_has_of_a_wider_ban_is_not_kept_for_a_source_inside() {
    let mut ledger = Ledger::new(config());
    let now = KernelTime(SECOND);
    let forever = enforcer_common::ban::FOREVER;
    let own = now.0 + 700 * SECOND;
    let source = |text: &str, until| (prefix(text), enforcer_common::ban::Ban { until });
    let held = Held {
        sources: vec![
            source("198.18.7.1", forever),
            source("198.18.7.2", own),
            source("198.18.9.1", forever),
        ],
        prefixes: vec![(prefix("198.18.7.0/24"), Listing::banned(forever))],
    };
    let restore =
        Restore { settings: settings(&[]), memory: Memory::default(), stale: false, held, live: true };
    let actions = ledger.handle(now, Input::Restore(Box::new(restore)));
    let Outcome::Restored(restored) = actions.outcome else { panic!("{:?}", actions.outcome) };
    assert_eq!(restored.kept, 3, "the one inside with an end of its own, the prefix, and the one outside");
    assert!(matches!(ledger.standing(now, address("198.18.7.1")), Standing::Banned(_)));
    ledger.handle(now, Input::BanDel(prefix("198.18.7.0/24")));
    assert_eq!(ledger.standing(now, address("198.18.7.1")), Standing::Clear);
    for text in ["198.18.7.2", "198.18.9.1"] {
        assert!(matches!(ledger.standing(now, address(text)), Standing::Banned(_)), "{text}");
    }
}

#[test]
fn a_reload_changes_only_the_configured_allowances() {
    let mut world = World::new(&["198.18.0.0/24"]);
    world.give(ban("198.18.0.2", 100));
    world.give(ban("198.18.1.2", 100));
    world.give(allow("198.18.1.2"));
    assert!(!world.banned("198.18.0.2") && !world.banned("198.18.1.2"));
    world.give(Input::Reconfigure(settings(&[])));
    assert!(world.banned("198.18.0.2") && !world.banned("198.18.1.2"));
    world.give(Input::Reconfigure(settings(&["198.18.1.2"])));
    world.give(Input::AllowDel(prefix("198.18.1.2")));
    assert!(!world.banned("198.18.1.2"), "the configuration still lists it");
}
