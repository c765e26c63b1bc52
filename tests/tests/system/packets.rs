//! The packet cases, and the limiter's exactness, through the loaded program by `BPF_PROG_TEST_RUN`.

mod connections;
mod limits;

use std::{fs, net::TcpListener, process::Command, thread};

use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, lpm_trie::Key};
use enforcer::{
    clock::kernel_now,
    config::MAX_ALLOW,
    kernel::program::{OPERATOR_ALLOWANCES, PREFIX_BANS, Program, Sizes},
};
use enforcer_common::{
    answer::Kind,
    ban::{Ban, Listing},
    headers::{Headers, Link},
    limiter::RawBucket,
    listed,
    maps::{self, Counter},
    packet::Packet as _,
    reason::{self, DropReason, PassReason},
    settings::{INTERFACES, SHARED_SLOT, Settings},
    verdict::{Verdict, decide},
};
use enforcer_tests::{
    cases,
    memory::{XDP_DROP, carry_out},
    packets::*,
    tables::{PROTECTED, State},
};
use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};

/// The shortest frame that the kernel tests a program with: an Ethernet header.
pub(super) const SHORTEST: usize = 14;

/// The loaded program with one bucket per limit, and its maps.
pub(super) struct Loaded {
    program: Program,
    settings: Array<MapData, Settings>,
    ports: Array<MapData, u32>,
    bans: HashMap<MapData, u64, Ban>,
    listed_v4: LpmTrie<MapData, [u8; 4], Listing>,
    listed_v6: LpmTrie<MapData, [u8; 16], Listing>,
    spilled: Array<MapData, u64>,
    bits_v4: Array<MapData, u64>,
    bits_v6: Array<MapData, u64>,
    limiters: Vec<Array<MapData, RawBucket>>,
    flow_words: Array<MapData, RawBucket>,
    hellos: HashMap<MapData, u64, u32>,
    budgets: Array<MapData, RawBucket>,
    shared: Array<MapData, RawBucket>,
    counters: PerCpuArray<MapData, Counter>,
}

impl Loaded {
    pub(super) fn new() -> Self {
        let program = Program::load(Sizes::new(16, 1), false).unwrap();
        let map = |name| program.map(name).unwrap();
        Self {
            settings: map(maps::SETTINGS).try_into().unwrap(),
            ports: map(maps::PORTS).try_into().unwrap(),
            bans: map(maps::BANS).try_into().unwrap(),
            listed_v4: map(maps::LISTED_V4).try_into().unwrap(),
            listed_v6: map(maps::LISTED_V6).try_into().unwrap(),
            bits_v4: map(maps::LISTED_BITS_V4).try_into().unwrap(),
            bits_v6: map(maps::LISTED_BITS_V6).try_into().unwrap(),
            spilled: map(maps::SPILLED).try_into().unwrap(),
            limiters: maps::LIMITERS.iter().map(|name| map(name).try_into().unwrap()).collect(),
            hellos: map(maps::HELLOS).try_into().unwrap(),
            flow_words: map(maps::FLOW_WORDS).try_into().unwrap(),
            budgets: map(maps::BUDGETS).try_into().unwrap(),
            shared: map(maps::SHARED).try_into().unwrap(),
            counters: map(maps::COUNTERS).try_into().unwrap(),
            program,
        }
    }

    /// Puts the maps into this state, and nothing else into them.
    pub(super) fn fill(&mut self, state: &State) {
        for key in self.bans.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.bans.remove(&key).unwrap();
        }
        for key in self.listed_v4.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.listed_v4.remove(&key).unwrap();
        }
        for key in self.listed_v6.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.listed_v6.remove(&key).unwrap();
        }
        let unwritten = Settings { abi: 0, ..Settings::PERMISSIVE };
        self.settings.set(0, state.settings.unwrap_or(unwritten), 0).unwrap();
        for (number, _) in &State::default().ports {
            self.ports.set(u32::from(*number), 0, 0).unwrap();
        }
        for (number, port) in &state.ports {
            self.ports.set(u32::from(*number), port.word(), 0).unwrap();
        }
        for key in self.hellos.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.hellos.remove(&key).unwrap();
        }
        for (hash, bits) in &state.hellos {
            self.hellos.insert(hash, bits, 0).unwrap();
        }
        self.spilled.set(0, if state.spilled.is_empty() { 0 } else { u64::MAX }, 0).unwrap();
        for (source, ban) in &state.spilled {
            self.bans.insert(source.get(), ban, 0).unwrap();
        }
        // All that a case asks for is around these two.
        let any = if state.listed.is_empty() { 0 } else { u64::MAX };
        let bits = SOURCE_V6.to_bits() >> 64;
        self.bits_v4.set(listed::place(listed::v4(SOURCE_V4.octets())).0, any, 0).unwrap();
        self.bits_v6.set(listed::place(listed::v6_site(bits as u64)).0, any, 0).unwrap();
        for (prefix, listing) in &state.listed {
            let length = u32::from(prefix.net().prefix_len());
            match prefix.net() {
                IpNet::V4(net) => {
                    self.listed_v4.insert(&Key::new(length, net.addr().octets()), listing, 0).unwrap()
                }
                IpNet::V6(net) => {
                    self.listed_v6.insert(&Key::new(length, net.addr().octets()), listing, 0).unwrap()
                }
            }
        }
        for index in 0..self.budgets.len() {
            self.budgets.set(index, state.budgets, 0).unwrap();
        }
        for place in 0..self.shared.len() {
            self.shared.set(place, state.shared(place), 0).unwrap();
        }
        // Entries mean nothing without their words. Cases have the first bucket alone.
        self.flow_words.set(0, state.flows(kernel_now().0), 0).unwrap();
        for (map, bucket) in self.limiters.iter_mut().zip(&state.filled()) {
            // Whichever a source falls into.
            for index in 0..map.len() {
                map.set(index, bucket, 0).unwrap();
            }
        }
    }

    /// Over all interfaces.
    fn counter(&self, number: u32) -> Counter {
        (0..INTERFACES as u32).map(|slot| self.counter_in(slot, number)).fold(Counter::default(), add)
    }

    fn counter_in(&self, slot: u32, number: u32) -> Counter {
        self.counters
            .get(&reason::counter(slot, number), 0)
            .unwrap()
            .iter()
            .copied()
            .fold(Counter::default(), add)
    }

    /// Of every reason, by its number, in the slot that test runs are counted in. A million of these questions are asked.
    fn counts(&self) -> Vec<(u32, Counter)> {
        let pass = PassReason::ALL.iter().map(|reason| reason.number());
        let drop = DropReason::ALL.iter().map(|reason| reason.number());
        pass.chain(drop).map(|number| (number, self.counter_in(SHARED_SLOT, number))).collect()
    }

    /// What the program did with a frame: the one reason that it counted, dry runs aside; what it returned, and the frame that it
    /// left unless it dropped that.
    pub(super) fn judge(&self, frame: &[u8]) -> Result<(Verdict, u32, Option<Vec<u8>>), String> {
        let before = self.counts();
        let outcome = self.program.run(frame, 1).map_err(|error| format!("{error:#}"))?;
        let changed: Vec<(u32, u64, u64)> = before
            .iter()
            .zip(self.counts())
            .filter(|(before, after)| **before != *after)
            .map(|((number, before), (_, after))| {
                (*number, after.packets - before.packets, after.bytes - before.bytes)
            })
            .collect();
        let [(number, 1, bytes)] = changed[..] else { return Err(format!("counted {changed:?}")) };
        if bytes != frame.len() as u64 {
            return Err(format!("counted {bytes} bytes of {}", frame.len()));
        }
        let pass =
            PassReason::ALL.iter().find(|reason| reason.number() == number).copied().map(Verdict::Pass);
        let drop =
            DropReason::ALL.iter().find(|reason| reason.number() == number).copied().map(Verdict::Drop);
        let verdict = pass.or(drop).ok_or_else(|| format!("counted {number}"))?;
        let left = (outcome.action != XDP_DROP).then_some(outcome.frame);
        Ok((verdict, outcome.action, left))
    }
}

fn add(sum: Counter, counter: Counter) -> Counter {
    Counter { packets: sum.packets + counter.packets, bytes: sum.bytes + counter.bytes }
}

/// Test runs come in by the loopback of the namespace, whose index is 1 (`LOOPBACK_IFINDEX`).
#[test]
fn packets_are_counted_in_the_slot_of_their_interface() {
    let mut loaded = Loaded::new();
    let frame = tcp_frame(SOURCE_V4.into(), 80, ACK, b"data");
    for (slot, at) in [(0, Some(0)), (3, Some(3)), (SHARED_SLOT, Some(SHARED_SLOT)), (SHARED_SLOT, None)] {
        loaded.fill(&State::default().set(|settings| {
            settings.interfaces = [9; INTERFACES];
            if let Some(at) = at {
                settings.interfaces[at as usize] = 1;
            }
        }));
        let clean = PassReason::Clean.number();
        let before = loaded.counter_in(slot, clean).packets;
        loaded.program.run(&frame, 1).unwrap();
        assert_eq!(loaded.counter_in(slot, clean).packets, before + 1, "{slot}");
    }
}

/// Where the frames of the cases go to.
const SERVERS: [&str; 2] = ["198.19.0.1/32", "2001:db8:9:9::1/128"];

/// Cookies hang on a listener of the namespace in which the program runs, and on what that allows.
#[test]
fn every_case_ends_in_the_kernel_as_it_does_in_user_space() {
    beside_a_listener(run_every_case);
}

/// Runs a test in a namespace of its own, in which somebody listens where the cases' frames go to.
fn beside_a_listener(test: impl FnOnce() + Send + 'static) {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let ip = |words: &str| {
            let done = Command::new("ip").args(words.split(' ')).status().unwrap();
            assert!(done.success(), "ip {words}");
        };
        ip("link set lo up");
        SERVERS.iter().for_each(|address| ip(&format!("addr add {address} dev lo")));
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").unwrap();
        let listener = TcpListener::bind(("::", PROTECTED)).unwrap();
        test();
        drop(listener);
    })
    .join()
    .unwrap();
}

fn run_every_case() {
    let mut loaded = Loaded::new();
    let (cases, too_short): (Vec<_>, Vec<_>) =
        cases::all().into_iter().partition(|case| case.frame.len() >= SHORTEST);
    assert_eq!(too_short.len(), 2, "frames that the kernel refuses to test");
    let wrong: Vec<String> = cases
        .into_iter()
        .filter_map(|case| {
            loaded.fill(&case.state);
            let tables = case.state.tables(kernel_now().0);
            let last = (case.frame, case.expected);
            let frames = case.before.iter().chain([&last]);
            let wrong = frames.enumerate().find_map(|(at, (frame, expected))| {
                let found = loaded.judge(frame);
                let verdict = decide(&&**frame, &tables);
                let mut answer = tables.take_answer();
                if answer.kind == Kind::SynCookie
                    && let Ok((_, _, Some(left))) = &found
                {
                    // What the cookie is nobody can foretell.
                    answer.sequence = left.as_slice().u32(sequence_of(left)).unwrap();
                }
                let (action, left) = carry_out(frame, *expected, &answer);
                (verdict != *expected || found != Ok((verdict, action, left.clone()))).then(|| {
                    let expected = (expected, action, left);
                    format!("frame {at}: {found:?} instead of {expected:?}, in plain memory {verdict:?}")
                })
            });
            wrong.map(|wrong| format!("{}: {wrong}", case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    for slot in (0..INTERFACES as u32).filter(|slot| *slot != SHARED_SLOT) {
        for number in 0..reason::COUNTERS {
            assert_eq!(loaded.counter_in(slot, number), Counter::default(), "slot {slot}, number {number}");
        }
    }
}

/// Where a frame's TCP sequence number stands.
fn sequence_of(frame: &[u8]) -> usize {
    let mut headers = Headers::UNREAD;
    headers.read_link(&frame).unwrap();
    headers.network + if headers.link == Link::Ipv6 { 40 } else { 20 } + 4
}

/// The verifier gives up at a million; kernels differ, so half of that is the bar.
#[test]
fn the_verifier_is_far_from_giving_up() {
    for (diagnostics, name) in [(false, "enforcer"), (true, "enforcer, diagnostics")] {
        let program = Program::load(Sizes::new(16, 1), diagnostics).unwrap();
        let count = program.verified_instructions().unwrap().unwrap();
        // `cargo xtask vm` reads this line.
        println!("verified: {name} = {count}");
        assert!(count < 500_000, "{name}: {count}");
    }
}

/// Every ban and every allowance that the daemon accepts at once finds room in the trie of its family.
#[test]
fn bans_of_prefixes_leave_room_for_every_allowance() {
    let mut loaded = Loaded::new();
    let insert = |loaded: &mut Loaded, from: u32, count: u32, listing| {
        for n in from..from + count {
            let key = Key::new(31, (0x0a00_0000 + 2 * n).to_be_bytes());
            loaded.listed_v4.insert(&key, listing, 0).unwrap_or_else(|error| panic!("{n}: {error}"));
        }
    };
    insert(&mut loaded, 0, PREFIX_BANS, Listing::banned(u64::MAX));
    insert(&mut loaded, PREFIX_BANS, OPERATOR_ALLOWANCES + 2 * MAX_ALLOW as u32, Listing::ALLOWED);
}
