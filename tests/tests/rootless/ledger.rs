//! The ledger: what the kernel's tables answer is what the ledger means, after any history.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod history;
mod spared;
mod tiers;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use enforcer::{
    bans::{
        Offence,
        ledger::{
            BanRequest, End, Event, Input, Ledger, Outcome, Refusal, Restore, Settings, Standing, Terms,
        },
        memory::Memory,
        projection::{Place, Write},
        record::{Ban, Cause, FOREVER, Origin},
    },
    clock::KernelTime,
    config::Bans,
    denial::Denial,
    kernel::Held,
    prefix::Prefix,
};
use enforcer_common::{
    ban::{Listing, class},
    source::{SourceKey, v6_mask},
};

const SECOND: u64 = 1_000_000_000;

fn config() -> Bans {
    Bans {
        threshold: 20,
        window: Duration::from_secs(60),
        duration: Duration::from_secs(600),
        max_duration: Duration::from_secs(3600),
        max_entries: 64,
        dry_run: false,
        store: None,
    }
}

fn settings(allow: &[&str]) -> Settings {
    Settings {
        bans: config(),
        allow: allow.iter().map(|text| prefix(text)).collect(),
        marks: BTreeMap::new(),
        tiers: tiers(),
        ipv6_prefix: 64,
        upstreams: vec![address("198.18.3.3")],
    }
}

/// The name of a tier tells its number.
fn tiers() -> Vec<String> {
    (1..8).map(|number| format!("t{number}")).collect()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn request(text: &str, end: End) -> BanRequest {
    let (reason, machine) = ("test".into(), vec![address("198.18.2.2")]);
    BanRequest {
        prefix: prefix(text),
        terms: Terms { end, reason, force: false, own_address: None, machine },
    }
}

fn forced(prefix: Prefix, end: End) -> Input {
    Input::BanAdd(BanRequest { prefix, terms: Terms { force: true, ..request("198.18.0.0/24", end).terms } })
}

fn ban(text: &str, seconds: u64) -> Input {
    Input::BanAdd(request(text, End::After(Duration::from_secs(seconds))))
}

fn allow(text: &str) -> Input {
    Input::AllowAdd { prefix: prefix(text), reason: String::new(), force: false }
}

fn offence(text: &str, denial: Denial) -> Input {
    Input::Offence(Offence { source: address(text), denial })
}

/// The kernel's tables, asked in the order in which the program asks them.
#[derive(Default)]
struct Tables {
    listed: HashMap<Prefix, Listing>,
    exact: HashMap<SourceKey, u64>,
}

impl Tables {
    fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            match (write.place, write.listing) {
                (Place::Prefix(prefix), Some(listing)) => drop(self.listed.insert(prefix, listing)),
                (Place::Prefix(prefix), None) => drop(self.listed.remove(&prefix)),
                (Place::Source(key), Some(listing)) => {
                    assert_eq!(listing.class, class::BAN, "the exact table holds bans only");
                    self.exact.insert(key, listing.until);
                }
                (Place::Source(key), None) => drop(self.exact.remove(&key)),
            }
        }
    }

    /// What the longest prefix around `address` says.
    fn listing(&self, address: IpAddr) -> Option<Listing> {
        let around = self.listed.iter().filter(|(prefix, _)| prefix.contains(address));
        around.max_by_key(|(prefix, _)| prefix.net().prefix_len()).map(|(_, listing)| *listing)
    }

    /// The end of the ban that holds for `address`; `None`: its packets pass.
    fn banned(&self, now: KernelTime, address: IpAddr, v6_length: u8) -> bool {
        let listed = self.listing(address);
        if listed.is_some_and(|listing| listing.class == class::ALLOW) {
            return false;
        }
        let exact = self.exact.get(&SourceKey::of(address, v6_mask(v6_length)));
        exact.is_some_and(|until| now.0 < *until) || listed.is_some_and(|listing| now.0 < listing.until)
    }
}

/// A ledger together with the tables that its writes made.
struct World {
    ledger: Ledger,
    tables: Tables,
    now: KernelTime,
}

impl World {
    fn new(allow: &[&str]) -> Self {
        let mut world =
            Self { ledger: Ledger::new(config()), tables: Tables::default(), now: KernelTime(SECOND) };
        world.give(Input::Reconfigure(settings(allow)));
        world
    }

    fn give(&mut self, input: Input) -> (Outcome, Vec<Event>) {
        let actions = self.ledger.handle(self.now, input);
        self.tables.apply(&actions.writes);
        assert_eq!(self.ledger.projected(), self.tables.listed.len() + self.tables.exact.len());
        (actions.outcome, actions.events)
    }

    fn banned(&self, text: &str) -> bool {
        let kernel = self.tables.banned(self.now, address(text), self.ledger.settings().ipv6_prefix);
        let truth = matches!(self.ledger.standing(self.now, address(text)), Standing::Banned(_));
        assert_eq!(kernel, truth, "kernel and ledger disagree about {text}");
        kernel
    }

    /// The rule, spelled out over all entries.
    fn rule(&self, address: IpAddr) -> bool {
        let allowed = self.ledger.allowances().any(|(prefix, _)| prefix.contains(address));
        let end = self.ledger.bans(self.now).filter(|(ban, _)| ban.prefix.contains(address));
        !allowed && end.map(|(ban, _)| ban.until).max().is_some_and(|until| self.now < until)
    }
}

#[test]
fn offences_ban_the_source_and_the_ban_ends_by_itself() {
    let mut world = World::new(&[]);
    let mut events = Vec::new();
    for _ in 0..4 {
        assert!(!world.banned("198.18.0.2"));
        events = world.give(offence("198.18.0.2", Denial::TokenMissing)).1;
    }
    let [Event::Banned(Ban { cause: Cause::Offence(Denial::TokenMissing), offences: 4, .. })] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(world.banned("198.18.0.2") && !world.banned("198.18.0.3"));
    world.now = KernelTime(world.now.0 + 600 * SECOND - 1);
    assert!(world.banned("198.18.0.2"));
    world.now = KernelTime(world.now.0 + 1);
    assert!(!world.banned("198.18.0.2"), "exact to the nanosecond");
    let (_, events) = world.give(Input::Tick);
    assert!(matches!(&events[..], [Event::Ended(_)]));
    assert_eq!(world.ledger.projected(), 0);
}

#[test]
fn an_ipv6_client_is_banned_with_its_prefix_but_for_what_is_allowed_in_it() {
    let mut world = World::new(&["2001:db8:0:1::99"]);
    for _ in 0..4 {
        world.give(offence("2001:db8:0:1::7", Denial::TokenMissing));
    }
    assert!(world.banned("2001:db8:0:1::8") && !world.banned("2001:db8:0:2::7"));
    assert!(!world.banned("2001:db8:0:1::99"));
}

#[test]
fn loopback_and_allowed_sources_are_never_banned_by_offences() {
    let mut world = World::new(&["198.18.1.0/24"]);
    for source in ["127.0.0.1", "::1", "::ffff:127.0.0.9", "198.18.1.7", "::ffff:198.18.1.7"] {
        for _ in 0..20 {
            let (_, events) = world.give(offence(source, Denial::TokenBadSignature));
            assert!(events.is_empty(), "{source}");
        }
    }
    assert_eq!(world.ledger.bans(world.now).count(), 0);
}

#[test]
fn a_narrower_ban_takes_the_later_end_and_keeps_its_own_when_the_wider_one_goes() {
    let mut world = World::new(&[]);
    world.give(ban("198.18.0.2", 10));
    world.give(ban("198.18.0.0/28", 20));
    world.give(ban("198.18.0.0/24", 100));
    let start = world.now;
    world.now = start.plus_seconds(15);
    assert!(world.banned("198.18.0.2"));
    world.now = start.plus_seconds(30);
    assert!(world.banned("198.18.0.2") && world.banned("198.18.0.3"));
    world.now = start.plus_seconds(12);
    world.give(Input::BanDel(prefix("198.18.0.0/24")));
    assert!(world.banned("198.18.0.2") && !world.banned("198.18.0.200"));
    world.now = start.plus_seconds(20);
    assert!(!world.banned("198.18.0.2"));
}

#[test]
fn a_ban_inside_an_allowed_prefix_waits_for_the_allowance_to_go() {
    let mut world = World::new(&[]);
    world.give(allow("198.18.0.0/24"));
    let (outcome, _) = world.give(ban("198.18.0.2", 100));
    let Outcome::BanAdded { shadowed_by, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(shadowed_by, Some(prefix("198.18.0.0/24")));
    assert!(!world.banned("198.18.0.2"));
    let (outcome, _) = world.give(Input::AllowDel(prefix("198.18.0.0/24")));
    assert_eq!(outcome, Outcome::AllowDeleted { uncovers: 1, still_allowed_by: None });
    assert!(world.banned("198.18.0.2"));
    let (outcome, _) = world.give(allow("198.18.0.2"));
    assert_eq!(outcome, Outcome::AllowAdded { shadows: 1 });
    assert!(!world.banned("198.18.0.2"));
}

#[test]
fn operators_cannot_lock_themselves_or_everybody_out_by_accident() {
    let mut world = World::new(&[]);
    for wide in ["0.0.0.0/0", "::/0", "198.0.0.0/7", "2000::/3"] {
        let (outcome, _) = world.give(ban(wide, 10));
        assert_eq!(outcome, Outcome::Refused(Refusal::TooWide(prefix(wide))));
        let (outcome, _) = world.give(allow(wide));
        assert_eq!(outcome, Outcome::Refused(Refusal::TooWide(prefix(wide))));
    }
    let own = |force| {
        let mut request = request("198.18.0.0/24", End::Default);
        request.terms.force = force;
        request.terms.own_address = Some(address("::ffff:198.18.0.9"));
        Input::BanAdd(request)
    };
    let (outcome, _) = world.give(own(false));
    let Outcome::Refused(refusal @ Refusal::OwnSession(..)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        refusal.to_string(),
        "your own session comes from ::ffff:198.18.0.9, which 198.18.0.0/24 covers; allow your address first \
         (enforcer allow add 198.18.0.9), or use --force"
    );
    assert!(!world.banned("198.18.0.9"));
    assert!(matches!(world.give(own(true)).0, Outcome::BanAdded { .. }));
    world.give(Input::BanDel(prefix("198.18.0.0/24")));
    world.give(allow("198.18.0.9"));
    assert!(matches!(world.give(own(false)).0, Outcome::BanAdded { allowed_inside: 1, .. }));
    assert!(!world.banned("198.18.0.9") && world.banned("198.18.0.10"));
    assert_eq!(world.give(ban("198.18.0.1", 0)).0, Outcome::Refused(Refusal::NoDuration));
    let year = 365 * 86_400;
    assert!(matches!(world.give(ban("198.18.0.1", year)).0, Outcome::BanAdded { .. }));
    assert_eq!(world.give(ban("198.18.0.1", year + 1)).0, Outcome::Refused(Refusal::TooLong));
}

#[test]
fn this_machine_and_the_upstream_servers_are_not_banned_by_accident() {
    for (text, refusal) in [
        ("198.18.2.0/24", Refusal::OwnMachine(prefix("198.18.2.0/24"), address("198.18.2.2"))),
        ("127.0.0.0/24", Refusal::OwnMachine(prefix("127.0.0.0/24"), address("127.0.0.1"))),
        ("::1", Refusal::OwnMachine(prefix("::1"), address("::1"))),
        ("198.18.3.3", Refusal::Upstream(prefix("198.18.3.3"), address("198.18.3.3"))),
    ] {
        let mut world = World::new(&[]);
        let (outcome, _) = world.give(ban(text, 10));
        assert_eq!(outcome, Outcome::Refused(refusal.clone()));
        assert!(refusal.to_string().contains("--force"), "{refusal}");
        assert!(matches!(world.give(forced(prefix(text), End::Default)).0, Outcome::BanAdded { .. }));
    }
    let mut world = World::new(&["198.18.2.2", "198.18.3.3"]);
    assert!(matches!(world.give(ban("198.18.2.0/24", 10)).0, Outcome::BanAdded { .. }), "it is allowed");
}

#[test]
fn lifting_what_is_not_there_says_what_is() {
    let mut world = World::new(&["198.18.1.0/24"]);
    world.give(ban("198.18.0.0/24", 100));
    let say = |world: &mut World, input| {
        let (outcome, _) = world.give(input);
        let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
        refusal.to_string()
    };
    assert_eq!(
        say(&mut world, Input::BanDel(prefix("198.18.0.2"))),
        "198.18.0.2 has no ban of its own, 198.18.0.0/24 covers it: lift that, or allow 198.18.0.2"
    );
    assert_eq!(
        say(&mut world, Input::BanDel(prefix("198.18.0.0/16"))),
        "198.18.0.0/16 itself is not banned; bans inside it: 1 (see `ban list`)"
    );
    assert_eq!(say(&mut world, Input::BanDel(prefix("198.19.0.1"))), "198.19.0.1 is not banned");
    assert_eq!(
        say(&mut world, Input::AllowDel(prefix("198.18.1.0/24"))),
        "198.18.1.0/24 is allowed by the configuration: remove it from kernel.allow and reload"
    );
    assert_eq!(
        say(&mut world, Input::AllowDel(prefix("198.18.1.1"))),
        "198.18.1.1 is not on the list itself, 198.18.1.0/24 covers it"
    );
}

#[test]
fn a_full_ledger_refuses_loudly_and_replacing_still_works() {
    let mut world = World::new(&[]);
    for n in 0..64 {
        assert!(matches!(world.give(ban(&format!("198.18.7.{n}"), 100)).0, Outcome::BanAdded { .. }));
    }
    assert_eq!(world.give(ban("198.18.8.1", 100)).0, Outcome::Refused(Refusal::Full(64)));
    assert!(matches!(world.give(ban("198.18.7.1", 5)).0, Outcome::BanAdded { replaced: Some(_), .. }));
    let events: Vec<Event> =
        (0..4).flat_map(|_| world.give(offence("198.18.8.1", Denial::TokenMissing)).1).collect();
    assert_eq!(events, [Event::Full(prefix("198.18.8.1"))]);
    world.now = world.now.plus_seconds(6);
    let (_, events) = world.give(offence("198.18.8.1", Denial::TokenBadSignature));
    assert!(matches!(&events[..], [Event::Ended(_), Event::Banned(_)]), "{events:?}");
}

#[test]
fn offences_leave_room_for_operators() {
    let mut world = World::new(&[]);
    let mut refused = 0;
    for n in 0..64 {
        let source = format!("198.18.7.{n}");
        let events: Vec<Event> =
            (0..4).flat_map(|_| world.give(offence(&source, Denial::TokenMissing)).1).collect();
        refused += usize::from(events == [Event::Full(prefix(&source))]);
    }
    assert_eq!((world.ledger.active(Origin::Offence), refused), (32, 32), "half of 64 is the operators'");
    for n in 0..32 {
        assert!(matches!(world.give(ban(&format!("198.18.8.{n}"), 100)).0, Outcome::BanAdded { .. }));
    }
    assert_eq!(world.give(ban("198.18.9.1", 100)).0, Outcome::Refused(Refusal::Full(64)));
}

#[test]
fn a_dry_run_only_says_what_it_would_do() {
    let mut world = World::new(&[]);
    let mut settings = settings(&[]);
    settings.bans.dry_run = true;
    world.give(Input::Reconfigure(settings));
    let events: Vec<Event> =
        (0..4).flat_map(|_| world.give(offence("198.18.0.2", Denial::TokenMissing)).1).collect();
    assert!(matches!(&events[..], [Event::Withheld(_)]), "{events:?}");
    assert!(!world.banned("198.18.0.2"));
    world.give(Input::Reconfigure(self::settings(&[])));
    let events: Vec<Event> =
        (0..4).flat_map(|_| world.give(offence("198.18.0.2", Denial::TokenMissing)).1).collect();
    let [Event::Banned(ban)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(ban.until.seconds_from(world.now), 600, "the first ban: a dry run is no strike");
}

#[test]
fn an_operators_pardon_is_complete() {
    let mut world = World::new(&[]);
    for _ in 0..4 {
        world.give(offence("198.18.0.2", Denial::TokenMissing));
    }
    world.give(Input::BanDel(prefix("198.18.0.2")));
    assert_eq!(world.ledger.score(world.now, address("198.18.0.2")), None);
    let events: Vec<Event> =
        (0..4).flat_map(|_| world.give(offence("198.18.0.2", Denial::TokenMissing)).1).collect();
    let [Event::Banned(ban)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(ban.until.seconds_from(world.now), 600, "not doubled");
}
