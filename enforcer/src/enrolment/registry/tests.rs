//! What the registry keeps, and what it forgets.

use std::sync::Barrier;

use prometheus::{IntCounter, IntGauge};

use super::*;
use crate::{
    config::{Environment, Level, Platform},
    enrolment::{Evidence, Provider, Wanted, device::Point},
    store::Gauges,
};

const NOW: u64 = 1_800_000_000;

fn gauges() -> Gauges {
    Gauges {
        pending: IntGauge::new("pending", "x").unwrap(),
        errors: IntCounter::new("errors", "x").unwrap(),
    }
}

fn id(n: u32) -> DeviceId {
    DeviceId::of_key(&n.to_be_bytes())
}

fn device() -> Device {
    Device {
        key: Point([4; 65]),
        platform: Platform::Ios,
        provider: Provider::AppAttest,
        environment: Environment::Production,
        app: "ABCDE12345.com.example.app".into(),
        level: Level::Strong,
        counter: 0,
        enrolled: NOW,
        seen: NOW,
        risk: Some(2),
        hardware: None,
        verdict: None,
        blocked: None,
        evidence: Evidence::default(),
    }
}

fn standing(registry: &Registry, n: u32) -> Result<Standing, Unfit> {
    registry.standing(id(n), 1, |_| Ok(()))
}

#[test]
fn a_counter_only_grows_and_of_two_with_one_counter_one_is_the_first() {
    let registry = Registry::new(1_000);
    assert_eq!(registry.advance(id(1), 1, NOW), Err(Unfit::Unknown));
    assert_eq!(registry.enrol(id(1), device()), Ok(false));
    assert_eq!(registry.advance(id(1), 0, NOW), Err(Unfit::Replayed), "the first one is 1");
    for (counter, good) in
        [(1, true), (1, false), (7, true), (6, false), (7, false), (u32::MAX, true), (0, false)]
    {
        assert_eq!(registry.advance(id(1), counter, NOW + 5).is_ok(), good, "{counter}");
    }
    registry.enrol(id(2), device()).unwrap();
    let barrier = Barrier::new(8);
    let wins = std::thread::scope(|scope| {
        let race = || {
            barrier.wait();
            registry.advance(id(2), 9, NOW).is_ok()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|won| *won).count()
    });
    assert_eq!(wins, 1);
}

#[test]
fn who_enrols_again_keeps_its_counter_and_its_block() {
    let registry = Registry::new(1_000);
    registry.enrol(id(1), device()).unwrap();
    registry.advance(id(1), 5, NOW).unwrap();
    let again = Device { enrolled: NOW + 9, seen: NOW + 9, ..device() };
    assert_eq!(registry.enrol(id(1), again.clone()), Ok(true));
    let known = registry.find(id(1)).unwrap();
    assert_eq!((known.counter, known.enrolled, known.seen), (5, NOW, NOW + 9));
    for (reason, at) in [("stolen", NOW), ("stolen twice", NOW + 1)] {
        assert!(registry.block(id(1), reason, at).is_some());
    }
    assert_eq!(registry.enrol(id(1), again), Err(Unfit::Blocked));
    assert_eq!(registry.advance(id(1), 6, NOW), Err(Unfit::Blocked));
    assert_eq!(standing(&registry, 1), Err(Unfit::Blocked));
    let blocked = registry.find(id(1)).unwrap().blocked.unwrap();
    assert_eq!((blocked.since, &*blocked.reason), (NOW, "stolen twice"));
    assert_eq!(registry.look().blocked, 1);
    assert!(registry.unblock(id(1)).is_some() && registry.unblock(id(1)).is_none());
    assert!(standing(&registry, 1).is_ok());
    assert!(registry.block(id(2), "", NOW).is_none() && registry.unblock(id(2)).is_none());
    assert!(registry.forget(id(2)).is_none() && registry.forget(id(1)).is_some());
    assert_eq!((registry.look().devices, registry.look().blocked), (0, 0));
}

#[test]
fn it_is_bounded_and_refuses_what_finds_no_room() {
    let registry = Registry::new(3);
    let outcomes: Vec<_> = (0..5).map(|n| registry.enrol(id(n), device())).collect();
    assert_eq!(outcomes, [Ok(false), Ok(false), Ok(false), Err(Unfit::Full), Err(Unfit::Full)]);
    assert_eq!(registry.enrol(id(0), device()), Ok(true), "who is known needs no room");
    assert_eq!((registry.look().devices, registry.look().refused), (3, 2));
    assert!(registry.forget(id(1)).is_some());
    assert_eq!(registry.enrol(id(4), device()), Ok(false));
}

#[test]
fn who_is_not_seen_for_long_is_forgotten_unless_it_is_blocked() {
    let registry = Registry::new(1_000);
    for n in 0..100 {
        registry.enrol(id(n), device()).unwrap();
    }
    registry.block(id(1), "", NOW);
    registry.advance(id(2), 1, NOW + 500).unwrap();
    let sweep = |now: u64| {
        for _ in 0..SHARDS {
            registry.sweep(now, Duration::from_secs(now - NOW), Duration::from_secs(1_000));
        }
    };
    sweep(NOW + 1_000);
    assert_eq!(registry.look().devices, 100);
    // One at a time, so that all of them take a while.
    (1_001..1_500).for_each(|second| sweep(NOW + second));
    assert_eq!((registry.look().devices, registry.look().forgotten), (2, 98));
    assert!(registry.find(id(1)).is_some() && registry.find(id(2)).is_some());
}

#[test]
fn a_wall_clock_that_leaps_ahead_costs_nobody_its_enrolment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.redb");
    let registry = Registry::new(1_000);
    registry.keep(&path, gauges()).unwrap();
    for n in 0..1_000 {
        registry.enrol(id(n), device()).unwrap();
    }
    let (half_year, ten_years) = (Duration::from_secs(180 * 86_400), 10 * 365 * 86_400);
    let sweep = |registry: &Registry, from: u64, machine: u64| {
        for second in 0..64 {
            registry.sweep(from + second, Duration::from_secs(machine + second), half_year);
        }
    };
    sweep(&registry, NOW, 500);
    sweep(&registry, NOW + ten_years, 564);
    let look = registry.look();
    assert_eq!((look.devices, look.forgotten, look.overdue), (1_000, 0, 0));
    assert!(look.leapt.abs_diff(ten_years - 64) <= 1, "{look:?}");
    drop(registry);
    // Where it is wrong from the start on, some go, and there is time to see it.
    let registry = Registry::new(1_000);
    registry.keep(&path, gauges()).unwrap();
    sweep(&registry, NOW + ten_years, 500);
    sweep(&registry, NOW + ten_years + 64, 500 + 86_400);
    let look = registry.look();
    assert!(look.devices >= 990 && look.devices < 1_000 && look.overdue == look.devices, "{look:?}");
}

#[test]
fn a_device_is_judged_once_for_each_policy_and_again_when_it_shows_something_else() {
    let registry = Registry::new(10);
    registry.enrol(id(1), device()).unwrap();
    let asked = std::cell::Cell::new(0);
    let ask = |policy: u64, answer: Result<(), Unfit>| {
        asked.set(0);
        let outcome = registry.standing(id(1), policy, |_| {
            asked.set(1);
            answer
        });
        (outcome.is_ok(), asked.get())
    };
    let (first, second) = (registry.policy(), registry.policy());
    assert_ne!(first, second);
    assert_eq!([ask(first, Ok(())), ask(first, Ok(()))], [(true, 1), (true, 0)]);
    assert_eq!([ask(second, Err(Unfit::Full)), ask(second, Err(Unfit::Full))], [(false, 1); 2]);
    assert_eq!(ask(second, Ok(())), (true, 1));
    let distributed = Distributed { category: Some(4), version: None };
    registry.learn(id(1), distributed.clone());
    assert_eq!(ask(second, Ok(())), (true, 1));
    registry.learn(id(1), distributed);
    assert_eq!(ask(second, Ok(())), (true, 0), "nothing new");
    registry.enrol(id(1), device()).unwrap();
    assert_eq!(ask(second, Ok(())), (true, 1), "enrolled again");
}

#[test]
fn pages_show_each_device_once() {
    let registry = Registry::new(1_000);
    for n in 0..250 {
        registry.enrol(id(n), device()).unwrap();
    }
    registry.block(id(17), "", NOW);
    let (mut after, mut seen, mut sizes) = (None, Vec::new(), Vec::new());
    loop {
        let page = registry.page(after, 100, &Wanted::default());
        sizes.push(page.rows.len());
        seen.extend(page.rows.iter().map(|(id, _)| *id));
        after = seen.last().copied();
        if !page.more {
            break;
        }
    }
    assert_eq!(sizes, [100, 100, 50]);
    assert!(seen.is_sorted() && seen.iter().collect::<std::collections::HashSet<_>>().len() == 250);
    let blocked = registry.page(None, 100, &Wanted { blocked: true, ..Wanted::default() });
    assert_eq!((blocked.rows.len(), blocked.rows[0].0, blocked.more), (1, id(17), false));
    assert!(registry.page(seen.last().copied(), 1, &Wanted::default()).rows.is_empty());
}

#[test]
fn what_is_known_survives_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.redb");
    let registry = Registry::new(1_000);
    registry.keep(&path, gauges()).unwrap();
    for n in 0..4 {
        registry.enrol(id(n), device()).unwrap();
    }
    for counter in 1..50 {
        registry.advance(id(0), counter, NOW + u64::from(counter)).unwrap();
    }
    registry.block(id(1), "stolen", NOW);
    registry.forget(id(2));
    let before = registry.page(None, 10, &Wanted::default());
    drop(registry);
    let registry = Registry::new(1_000);
    registry.keep(&path, gauges()).unwrap();
    assert_eq!(registry.page(None, 10, &Wanted::default()), before);
    let look = registry.look();
    assert_eq!((look.devices, look.blocked, look.is_kept), (3, 1, true));
    assert_eq!(registry.advance(id(0), 49, NOW), Err(Unfit::Replayed));
    drop(registry);
    let small = Registry::new(2);
    let error = small.keep(&path, gauges()).unwrap_err().to_string();
    assert!(error.contains("max_devices") && error.contains("1 of the devices"), "{error}");
}

#[test]
fn a_store_that_is_broken_is_set_aside_and_nobody_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.redb");
    std::fs::write(&path, "no store at all, but long enough to be one".repeat(1000)).unwrap();
    let registry = Registry::new(1_000);
    registry.keep(&path, gauges()).unwrap();
    assert_eq!((registry.look().devices, registry.look().is_kept), (0, true));
    assert_eq!(standing(&registry, 1), Err(Unfit::Unknown));
}
