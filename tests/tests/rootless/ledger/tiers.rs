//! What operators say of tiers, what they are refused, and what of it outlives the daemon.

use std::collections::BTreeMap;

use enforcer::{
    bans::{memory::Save, record::Text},
    config::Mark,
};

use super::*;

fn set(text: &str, tier: &str) -> Input {
    Input::TierSet { prefix: prefix(text), tier: tier.into(), reason: "a partner".into() }
}

fn refused(world: &mut World, input: Input) -> String {
    let (outcome, _) = world.give(input);
    let Outcome::Refused(refusal) = &outcome else { panic!("{outcome:?}") };
    refusal.to_string()
}

fn tier(world: &World, text: &str) -> u8 {
    world.tables.listing(address(text)).map_or(0, |listing| listing.tier)
}

#[test]
fn an_operator_s_word_is_stronger_than_the_configuration_s_until_it_is_taken_back() {
    let mut world = World::new(&[]);
    let marks = BTreeMap::from([(prefix("198.18.0.0/24"), Mark { tier: Some(1), doors: 0 })]);
    world.give(Input::Reconfigure(Settings { marks: marks.clone(), ..settings(&[]) }));
    assert_eq!(tier(&world, "198.18.0.7"), 1);
    let (outcome, _) = world.give(set("198.18.0.0/24", "t2"));
    assert_eq!(outcome, Outcome::TierSet { tier: "t2".into(), replaced: None, allowed_by: None });
    world.give(set("198.18.0.7", "default"));
    assert_eq!(
        [tier(&world, "198.18.0.7"), tier(&world, "198.18.0.8"), tier(&world, "198.18.1.7")],
        [0, 2, 0]
    );
    // A ban inside keeps the tier, and one around it holds inside.
    world.give(ban("198.18.0.16/28", 10));
    assert!(world.banned("198.18.0.17") && !world.banned("198.18.0.7"));
    assert_eq!(tier(&world, "198.18.0.17"), 2);
    world.give(ban("198.18.0.0/23", 10));
    assert!(world.banned("198.18.0.7") && world.banned("198.18.0.8"));
    let rows: Vec<_> = world.ledger.tiers().into_iter().map(|entry| (entry.tier, entry.holds)).collect();
    assert_eq!(rows, [("t1".into(), false), ("t2".into(), true), ("default".into(), true)]);
    let (outcome, _) = world.give(Input::TierDel(prefix("198.18.0.0/24")));
    assert_eq!(outcome, Outcome::TierDeleted { now: "t1".into() });
    assert_eq!(tier(&world, "198.18.0.8"), 1);
    // A tier that is gone counts for nothing, and counts again when it is back.
    world.give(set("198.18.9.0/24", "t7"));
    world.give(Input::Reconfigure(Settings { tiers: vec!["t1".into()], ..settings(&[]) }));
    assert_eq!([tier(&world, "198.18.9.1"), tier(&world, "198.18.0.8")], [0, 0]);
    assert!(world.ledger.tiers().iter().any(|entry| entry.tier == "t7" && !entry.holds));
    world.give(Input::Reconfigure(settings(&[])));
    assert_eq!(tier(&world, "198.18.9.1"), 7);
}

#[test]
fn what_cannot_be_a_tier_is_refused_with_what_can() {
    let mut world = World::new(&["198.18.1.0/24"]);
    assert_eq!(
        refused(&mut world, set("198.18.0.7", "t9")),
        "there is no tier `t9`; there are: default, t1, t2, t3, t4, t5, t6, t7"
    );
    assert_eq!(
        refused(&mut world, set("2001:db8:1:2::7", "t1")),
        "2001:db8:1:2::7 is only a part of the source 2001:db8:1:2::/64, which has one budget: name that"
    );
    assert_eq!(
        refused(&mut world, Input::TierDel(prefix("198.18.0.7"))),
        "no operator has put 198.18.0.7 into a tier; `tier list` shows who is in one, by whose word"
    );
    let (outcome, _) = world.give(set("198.18.1.7", "t1"));
    let allowed_by = Some(prefix("198.18.1.0/24"));
    assert_eq!(outcome, Outcome::TierSet { tier: "t1".into(), replaced: None, allowed_by });
    let (outcome, _) = world.give(set("198.18.1.7", "t2"));
    assert_eq!(outcome, Outcome::TierSet { tier: "t2".into(), replaced: Some(Text::new("t1")), allowed_by });
    for n in 0..4_095u32 {
        let address = Ipv4Addr::from(0x0a00_0000 + n);
        assert!(matches!(world.give(set(&address.to_string(), "t1")).0, Outcome::TierSet { .. }));
    }
    assert!(refused(&mut world, set("198.18.0.7", "t1")).starts_with("operators have put 4096 prefixes"));
    assert!(matches!(world.give(set("198.18.1.7", "t3")).0, Outcome::TierSet { .. }), "it is there already");
}

#[test]
fn an_operator_s_word_is_remembered() {
    let mut ledger = Ledger::new(config());
    ledger.handle(KernelTime(SECOND), Input::Reconfigure(settings(&[])));
    let actions = ledger.handle(KernelTime(SECOND), set("198.18.0.7", "t3"));
    let [Save::Tier(at, Some(tiered))] = &actions.saves[..] else { panic!("{:?}", actions.saves) };
    assert_eq!((at, tiered.reason.as_str()), (&prefix("198.18.0.7"), "a partner"));
    let memory = Memory { tiers: vec![(*at, tiered.clone())], ..Memory::default() };
    let restore =
        Restore { settings: settings(&[]), memory, stale: false, held: Held::default(), live: false };
    let mut tables = Tables::default();
    let mut ledger = Ledger::new(config());
    tables.apply(&ledger.handle(KernelTime(SECOND), Input::Restore(Box::new(restore))).writes);
    assert_eq!(tables.listing(address("198.18.0.7")).map(|listing| listing.tier), Some(3));
    let gone = ledger.handle(KernelTime(SECOND), Input::TierDel(*at));
    assert_eq!(gone.saves, [Save::Tier(*at, None)]);
}
