//! What is pinned, taken over, replaced and removed, on interfaces of a namespace of the test's own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    process::Command,
    thread,
};

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use enforcer::{
    config::{self, Mode},
    kernel::{Beginning, Detached, Kernel, Reason, detach},
    prefix::Prefix,
};
use enforcer_common::{
    ban::{Ban, FOREVER},
    limiter::SLOTS,
    maps::{self, Counter},
    reason::{self, PassReason},
    settings::ABI,
    source::SourceKey,
};
use enforcer_tests::{bpffs, cleanup::Owned, kernel::plain};
use nix::sched::{CloneFlags, unshare};

/// A veth pair, left and right, and a BPF file system; all of it ends with the thread that the test runs on.
struct World {
    place: PathBuf,
}

impl World {
    fn run(test: impl FnOnce(&Self) + Send + 'static) {
        let run = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let (_owned, directory) = Owned::directory().unwrap();
            let world = Self { place: bpffs::below(&directory).unwrap() };
            ip("link add left type veth peer name right");
            test(&world);
        });
        run.join().unwrap();
    }

    fn config(&self, interfaces: &[&str]) -> config::Kernel {
        config::Kernel {
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            persist: true,
            pin_directory: self.place.join("enforcer"),
            ..plain()
        }
    }

    /// A daemon's start, and its end: answers what it found.
    fn daemon(&self, config: &config::Kernel) -> anyhow::Result<Beginning> {
        let mut kernel = Kernel::load(config, 16)?;
        let beginning = kernel.beginning();
        kernel.attach()?;
        Ok(beginning)
    }

    fn refusal(&self, config: &config::Kernel) -> String {
        let message = format!("{:#}", self.daemon(config).unwrap_err());
        assert!(!message.contains('\n'), "{message}");
        message
    }

    fn names(&self) -> Vec<String> {
        bpffs::names(&self.place).unwrap()
    }

    fn layers(&self) -> Vec<String> {
        self.names()
            .into_iter()
            .filter(|name| name.contains("layout-") && name.matches('/').count() == 1)
            .collect()
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Mode (1: native, 2: generic, as in linux/if_link.h) and number of the program on an interface.
fn program(interface: &str) -> Option<(u64, u64)> {
    let told: serde_json::Value =
        serde_json::from_str(&ip(&format!("-j -d link show dev {interface}"))).unwrap();
    let xdp = &told[0]["xdp"];
    Some((xdp["mode"].as_u64()?, xdp["prog"]["id"].as_u64()?))
}

#[test]
fn the_program_stays_is_replaced_and_goes_by_detach_alone() {
    World::run(|world| {
        let config = world.config(&["left", "right"]);
        assert_eq!(world.daemon(&config).unwrap(), Beginning::Fresh);
        let (names, first) = (world.names(), program("left").unwrap());
        assert_eq!(world.daemon(&config).unwrap(), Beginning::TakenOver);
        assert_eq!(world.names(), names);
        assert_ne!(program("left").unwrap(), first);
        assert_eq!(detach(&config.pin_directory, false).unwrap(), Detached::Interfaces(2));
        assert_eq!((program("left"), program("right"), world.names()), (None, None, Vec::new()));
        assert_eq!(detach(&config.pin_directory, false).unwrap(), Detached::Nothing);
    });
}

#[test]
fn a_first_start_that_fails_leaves_nothing() {
    World::run(|world| {
        // Loopback's driver knows nothing of XDP.
        assert!(world.refusal(&world.config(&["left", "lo"])).contains("lo cannot run XDP"));
        assert_eq!((program("left"), world.names()), (None, Vec::new()));
        assert!(world.refusal(&world.config(&["left", "absent"])).contains("absent"));
        assert_eq!((program("left"), world.names()), (None, Vec::new()));
    });
}

#[test]
fn a_change_of_mode_moves_the_program_and_one_that_fails_moves_it_back() {
    World::run(|world| {
        let mode = |mode, interfaces: &[&str]| config::Kernel { mode, ..world.config(interfaces) };
        world.daemon(&mode(Mode::Native, &["left"])).unwrap();
        assert_eq!(program("left").unwrap().0, 1);
        world.daemon(&mode(Mode::Generic, &["left"])).unwrap();
        assert_eq!(program("left").unwrap().0, 2);
        world.daemon(&mode(Mode::NativeOrGeneric, &["left"])).unwrap();
        assert_eq!(program("left").unwrap().0, 2, "it is allowed where it is");
        world.daemon(&mode(Mode::Generic, &["left", "lo"])).unwrap();
        let (before, names) = ((program("left"), program("lo")), world.names());
        assert!(world.refusal(&mode(Mode::Native, &["left", "lo"])).contains("lo cannot run XDP"));
        assert_eq!(((program("left"), program("lo")), world.names()), (before, names));
        detach(&world.place.join("enforcer"), false).unwrap();
        assert_eq!((program("left"), program("lo")), (None, None));
    });
}

#[test]
fn interfaces_that_are_no_longer_named_and_those_that_vanished_are_cleared_away() {
    World::run(|world| {
        world.daemon(&world.config(&["left", "right"])).unwrap();
        world.daemon(&world.config(&["right"])).unwrap();
        assert_eq!(program("left"), None);
        assert!(program("right").is_some());
        let links = || world.names().into_iter().filter(|name| name.contains("/link-")).count();
        assert_eq!(links(), 1);
        ip("link del right");
        ip("link add left type veth peer name right");
        assert_eq!(program("right"), None);
        assert_eq!(world.daemon(&world.config(&["right"])).unwrap(), Beginning::TakenOver);
        assert!(program("right").is_some());
        assert_eq!(links(), 1);
    });
}

#[test]
fn what_was_counted_stays_with_its_interface_wherever_that_is_named() {
    World::run(|world| {
        ip("link add third type veth peer name fourth");
        // Packets that passed, by interface, for a daemon that begins with these.
        let counted = |interfaces: &[&str]| -> Vec<(String, u64)> {
            let mut kernel = Kernel::load(&world.config(interfaces), 16).unwrap();
            kernel.attach().unwrap();
            let rows = kernel.view().unwrap().counters().unwrap();
            let clean = rows.into_iter().filter(|row| row.reason == Reason::Pass(PassReason::Clean));
            clean.map(|row| (row.interface, row.counter.packets)).collect()
        };
        let told = |rows: &[(&str, u64)]| -> Vec<(String, u64)> {
            rows.iter().map(|(name, packets)| ((*name).to_owned(), *packets)).collect()
        };
        assert_eq!(counted(&["left", "right"]), told(&[("left", 0), ("right", 0)]));
        let pin = world.place.join(&world.layers()[0]).join(maps::COUNTERS);
        let map = Map::PerCpuArray(MapData::from_pin(pin).unwrap());
        let mut counters: PerCpuArray<_, Counter> = PerCpuArray::try_from(map).unwrap();
        for (slot, packets) in [(0, 7), (1, 9)] {
            let index = reason::counter(slot, PassReason::Clean.number());
            let mut counter = vec![Counter::default(); aya::util::nr_cpus().unwrap()];
            counter[0] = Counter { packets, bytes: 0 };
            counters.set(index, PerCpuValues::try_from(counter).unwrap(), 0).unwrap();
        }
        assert_eq!(counted(&["right", "left"]), told(&[("left", 7), ("right", 9)]));
        // Whoever gets the slot of another one does not get what was counted in it.
        assert_eq!(counted(&["third", "right"]), told(&[("third", 0), ("right", 9)]));
        assert_eq!(counted(&["left", "third", "right"]), told(&[("third", 0), ("right", 9), ("left", 0)]));
    });
}

#[test]
fn one_daemon_at_a_time_has_the_directory() {
    World::run(|world| {
        let config = world.config(&["left"]);
        let mut first = Kernel::load(&config, 16).unwrap();
        first.attach().unwrap();
        let refused = world.refusal(&world.config(&["right"]));
        assert!(refused.contains("another enforcer is running"), "{refused}");
        let refused = detach(&config.pin_directory, false).unwrap_err().to_string();
        assert!(refused.contains("--force"), "{refused}");
        assert_eq!(detach(&config.pin_directory, true).unwrap(), Detached::Interfaces(1));
        assert_eq!((program("left"), world.names()), (None, Vec::new()));
        // What an operator has taken away stays away, also from interfaces that come back.
        for _ in 0..2 {
            assert_eq!(first.reconcile().unwrap(), ["left"]);
            assert_eq!((program("left"), world.names()), (None, Vec::new()));
            assert!(first.is_withdrawn());
            assert_eq!(first.view().unwrap().attachments()[0].mode, "detached by an operator");
            ip("link del left");
            ip("link add left type veth peer name right");
        }
        let refused = format!("{:#}", first.attach().unwrap_err());
        assert!(refused.contains("pin_directory") || refused.contains("pinning the maps"), "{refused}");
        assert_eq!(program("left"), None);
        // The directory of another daemon is not the one that was removed.
        let second = Kernel::load(&config, 16).unwrap();
        drop(first);
        assert_eq!(world.names(), ["enforcer"]);
        drop(second);
    });
}

#[test]
fn a_directory_that_others_own_or_may_write_to_is_refused() {
    World::run(|world| {
        let config = world.config(&["left"]);
        fs::create_dir(&config.pin_directory).unwrap();
        fs::set_permissions(&config.pin_directory, fs::Permissions::from_mode(0o770)).unwrap();
        let refused = world.refusal(&config);
        assert!(refused.contains("written by others (mode 770)"), "{refused}");
        fs::set_permissions(&config.pin_directory, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&config.pin_directory, Some(65_534), None).unwrap();
        let refused = world.refusal(&config);
        assert!(refused.contains("belongs to user 65534"), "{refused}");
        chown(&config.pin_directory, Some(0), None).unwrap();
        world.daemon(&config).unwrap();
    });
}

#[test]
fn a_claim_of_a_daemon_that_was_killed_is_released() {
    World::run(|world| {
        let config = world.config(&["left"]);
        world.daemon(&config).unwrap();
        let sources = world.place.join(&world.layers()[0]).join(maps::SOURCES);
        let (index, slot) = (3, 1);
        let data = MapData::from_pin(&sources).unwrap();
        let mut table: Array<_, [u64; SLOTS * 2]> = Array::try_from(Map::Array(data)).unwrap();
        let mut bucket = [0; SLOTS * 2];
        bucket[slot * 2..slot * 2 + 2].copy_from_slice(&[u64::MAX, u64::MAX]);
        table.set(index, bucket, 0).unwrap();
        let mut kernel = Kernel::load(&config, 16).unwrap();
        let _lists = kernel.lists().unwrap();
        kernel.attach().unwrap();
        let [key, word] = table.get(&index, 0).unwrap()[slot * 2..slot * 2 + 2] else { panic!("two words") };
        assert_eq!(key, 0);
        assert!(word < 1 << 63, "the word of a ban is gone: {word:x}");
    });
}

#[test]
fn without_persistence_what_was_pinned_is_taken_over_and_ends_with_the_daemon() {
    World::run(|world| {
        world.daemon(&world.config(&["left"])).unwrap();
        let config = config::Kernel { persist: false, ..world.config(&["left"]) };
        let mut kernel = Kernel::load(&config, 16).unwrap();
        assert_eq!(kernel.beginning(), Beginning::TakenOver);
        kernel.attach().unwrap();
        assert!(program("left").is_some());
        assert_eq!(world.names(), Vec::<String>::new());
        drop(kernel);
        assert_eq!(program("left"), None);

        world.daemon(&world.config(&["left"])).unwrap();
        let off = config::Kernel { mode: Mode::Off, ..world.config(&[]) };
        world.daemon(&off).unwrap();
        assert_eq!((program("left"), world.names()), (None, Vec::new()));
    });
}

#[test]
fn maps_of_another_shape_are_not_used_and_do_not_stay() {
    World::run(|world| {
        let config = world.config(&["left"]);
        world.daemon(&config).unwrap();
        let own = world.layers();
        let larger = config::Kernel {
            limits: config::KernelLimits { max_sources: 4_096, ..config.limits.clone() },
            ..config.clone()
        };
        assert_eq!(world.daemon(&larger).unwrap(), Beginning::Migrated);
        assert_eq!(world.layers().len(), 1);
        assert_ne!(world.layers(), own);

        // As a version would have left it that counts its layouts otherwise.
        let layer = world.place.join(&world.layers()[0]);
        fs::rename(&layer, layer.with_file_name("layout-1-0123456789abcdef")).unwrap();
        assert_eq!(world.daemon(&config).unwrap(), Beginning::Replaced);
        assert_eq!(world.layers(), own);

        // As another version leaves it: more settings, and without a limit that this one has. The tables themselves are the same.
        let banned = "198.18.7.7".parse().unwrap();
        let key = SourceKey::of(banned, 0);
        let mut kernel = Kernel::load(&config, 16).unwrap();
        kernel.lists().unwrap().ban(key, Ban { until: FOREVER }).unwrap();
        kernel.attach().unwrap();
        drop(kernel);
        let layer = world.place.join(&own[0]);
        let other = own[0].replace(&format!("layout-{ABI}-"), "layout-4000000000-");
        fs::remove_file(layer.join("LIMIT_QUIC")).unwrap();
        fs::remove_file(layer.join("SETTINGS")).unwrap();
        fs::rename(&layer, world.place.join(&other)).unwrap();
        let settings = world.place.join(&other).join("SETTINGS");
        let mut create = Command::new("bpftool");
        create.args(["map", "create"]).arg(settings);
        create.args("type array key 4 value 2048 entries 1 name SETTINGS".split(' '));
        assert!(create.status().unwrap().success());
        let mut kernel = Kernel::load(&config, 16).unwrap();
        assert_eq!(kernel.beginning(), Beginning::Migrated);
        assert_eq!(kernel.held().unwrap().sources, [(Prefix::host(banned), Ban { until: FOREVER })]);
        kernel.attach().unwrap();
        assert_eq!(world.layers(), own);
        drop(kernel);

        // Somebody has been at the pins.
        fs::remove_file(world.place.join(&own[0]).join("SETTINGS")).unwrap();
        assert_eq!(world.daemon(&config).unwrap(), Beginning::Replaced);
        assert_eq!(world.layers(), own);
        assert_eq!(world.daemon(&config).unwrap(), Beginning::TakenOver);
        assert!(program("left").is_some());
    });
}
