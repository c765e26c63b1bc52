//! After any history of bans, allowances, offences and configurations the tables answer what the rules say.

use std::collections::{BTreeMap, BTreeSet};

use enforcer::config::Mark;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Ban(Prefix, u64),
    Unban(Prefix),
    Many(Vec<Prefix>, u64),
    Allow(Prefix),
    Disallow(Prefix),
    Offend(IpAddr),
    Wait(u64),
    Tier(Prefix, u8),
    Untier(Prefix),
    Configure(Vec<Prefix>, u8, BTreeMap<Prefix, Mark>),
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    let v4 =
        (0u8..2, prop_oneof![0u8..8, 248u8..=255]).prop_map(|(c, d)| Ipv4Addr::new(198, 18, c, d).into());
    let v6 = (0u16..3, 0u16..3, 0u16..3)
        .prop_map(|(g, h, i)| Ipv6Addr::new(0x2001, 0xdb8, g, h, 0, 0, 0, i).into());
    prop_oneof![v4, v6]
}

fn some_prefix() -> impl Strategy<Value = Prefix> {
    let lengths = prop_oneof![
        Just(16u8),
        Just(23),
        Just(24),
        Just(29),
        Just(32),
        Just(48),
        Just(56),
        Just(64),
        Just(96),
        Just(128)
    ];
    (some_address(), lengths).prop_map(|(address, bits)| Prefix::host(address).widened(bits))
}

fn some_marks() -> impl Strategy<Value = BTreeMap<Prefix, Mark>> {
    let mark = (proptest::option::of(0u8..8), 0u16..4).prop_map(|(tier, doors)| Mark { tier, doors });
    proptest::collection::btree_map(some_prefix(), mark, 0..6)
}

/// What all marks around an address say, from the widest on.
fn mark_of(marks: &BTreeMap<Prefix, Mark>, address: IpAddr) -> (u8, u16) {
    let mut around: Vec<_> = marks.iter().filter(|(prefix, _)| prefix.contains(address)).collect();
    around.sort_by_key(|(prefix, _)| prefix.net().prefix_len());
    around
        .into_iter()
        .fold((0, 0), |(tier, doors), (_, mark)| (mark.tier.unwrap_or(tier), doors | mark.doors))
}

fn some_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (some_prefix(), 1u64..100).prop_map(|(prefix, seconds)| Step::Ban(prefix, seconds)),
        1 => some_prefix().prop_map(|prefix| Step::Ban(prefix, u64::MAX)),
        2 => some_prefix().prop_map(Step::Unban),
        3 => (proptest::collection::vec(some_prefix(), 0..12), 0u64..100).prop_map(|(all, n)| Step::Many(all, n)),
        2 => some_prefix().prop_map(Step::Allow),
        1 => some_prefix().prop_map(Step::Disallow),
        2 => (some_prefix(), 0u8..8).prop_map(|(prefix, number)| Step::Tier(prefix, number)),
        1 => some_prefix().prop_map(Step::Untier),
        4 => some_address().prop_map(Step::Offend),
        3 => (0u64..200).prop_map(Step::Wait),
        2 => (proptest::collection::vec(some_prefix(), 0..3), prop_oneof![Just(48u8), Just(56), Just(64)], some_marks())
            .prop_map(|(allow, length, marks)| Step::Configure(allow, length, marks)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// After any history, also between two ticks, the tables' answer is the rule's answer for every address.
    #[test]
    fn the_tables_answer_what_the_rule_says(
        steps in proptest::collection::vec(some_step(), 1..50), asked in proptest::collection::vec(some_address(), 1..20),
    ) {
        let mut world = World::new(&[]);
        // What operators have said of tiers.
        let mut said = BTreeMap::new();
        for step in steps {
            let mut named = None;
            let input = match step {
                Step::Ban(prefix, u64::MAX) => forced(prefix, End::Never),
                Step::Ban(prefix, seconds) => forced(prefix, End::After(Duration::from_secs(seconds))),
                Step::Unban(prefix) => Input::BanDel(prefix),
                Step::Many(prefixes, n) if n % 3 == 0 => Input::BanDelMany { prefixes, more: false },
                Step::Many(prefixes, seconds) => {
                    let end = End::After(Duration::from_secs(seconds));
                    Input::BanMany { prefixes, terms: request("198.18.0.0/24", end).terms, more: false }
                }
                Step::Allow(prefix) => Input::AllowAdd { prefix, reason: String::new(), force: true },
                Step::Disallow(prefix) => Input::AllowDel(prefix),
                Step::Tier(prefix, number) => {
                    let tier = if number == 0 { "default".to_owned() } else { format!("t{number}") };
                    named = Some((prefix, Some(number)));
                    Input::TierSet { prefix, tier, reason: String::new() }
                }
                Step::Untier(prefix) => {
                    named = Some((prefix, None));
                    Input::TierDel(prefix)
                }
                Step::Offend(source) => Input::Offence(Offence { source, denial: Denial::TokenBadSignature }),
                Step::Configure(allow, ipv6_prefix, marks) => {
                    Input::Reconfigure(Settings { bans: config(), allow, marks, tiers: tiers(), ipv6_prefix, upstreams: Vec::new() })
                }
                Step::Wait(seconds) => {
                    world.now = world.now.plus_seconds(seconds);
                    // Every second time the clock has moved and nobody told the ledger.
                    if seconds % 2 == 0 { continue; }
                    Input::Tick
                }
            };
            let (outcome, _) = world.give(input);
            match (outcome, named) {
                (Outcome::TierSet { .. }, Some((prefix, Some(number)))) => drop(said.insert(prefix, number)),
                (Outcome::TierDeleted { .. }, Some((prefix, None))) => drop(said.remove(&prefix)),
                _ => {}
            }
            let mut marks = world.ledger.settings().marks.clone();
            for (prefix, number) in &said {
                marks.entry(*prefix).or_default().tier = Some(*number);
            }
            for moment in [0, 1, 50, 300] {
                let later = KernelTime(world.now.0 + moment * SECOND);
                let today = std::mem::replace(&mut world.now, later);
                for address in &asked {
                    let length = world.ledger.settings().ipv6_prefix;
                    let kernel = world.tables.banned(world.now, *address, length);
                    prop_assert_eq!(kernel, world.rule(*address), "{} at +{} s", address, moment);
                    let standing = matches!(world.ledger.standing(world.now, *address), Standing::Banned(_));
                    prop_assert_eq!(kernel, standing, "{} at +{} s", address, moment);
                }
                world.now = today;
            }
            for address in &asked {
                let listing = world.tables.listing(*address).unwrap_or(Listing::NONE);
                if listing.class != class::ALLOW {
                    prop_assert_eq!((listing.tier, listing.doors), mark_of(&marks, *address), "{}", address);
                }
            }
            let now = world.now;
            let offences = world.ledger.bans(now).filter(|(ban, _)| ban.cause.origin() == Origin::Offence).count();
            prop_assert!(world.ledger.active(Origin::Offence) >= offences);
            prop_assert!(world.ledger.bans(now).count() <= config().max_entries as usize);
        }
        // What has an end, ends; nothing stays behind but what was meant to stay.
        world.now = world.now.plus_seconds(100_000);
        world.give(Input::Tick);
        prop_assert!(world.ledger.bans(world.now).all(|(ban, _)| ban.until == FOREVER));
        let held = world.ledger.bans(world.now).filter(|(_, shadow)| shadow.is_none()).count();
        let allowed = |inner: &Prefix| world.ledger.allowances().any(|(prefix, _)| prefix.covers(inner));
        let length = world.ledger.settings().ipv6_prefix;
        let banned: Vec<Prefix> = world.ledger.bans(world.now).map(|(ban, _)| ban.prefix).collect();
        let shares = |prefix: &Prefix| banned.contains(prefix) && prefix.source_key(length).is_none();
        let marks = world.ledger.settings().marks.keys().chain(said.keys()).collect::<BTreeSet<_>>();
        let marks = marks.into_iter().filter(|prefix| !allowed(prefix) && !shares(prefix)).count();
        prop_assert_eq!(world.ledger.projected(), held + world.ledger.allowances().count() + marks);
    }
}
