//! Budgets are exact in the maps of the loaded program: what is admitted, to the event, and whatever two CPUs do at once.

use std::sync::Barrier;

use enforcer_common::{
    budget::Scope,
    gcra::{Rate, TICK},
    port::Port,
    settings::{Limit, flag},
};
use enforcer_tests::tables::{QUIC, UNHEARD};

use super::*;

/// A compare-and-swap that LLVM has turned into something else admits none, all, or one too many.
#[test]
fn a_limit_admits_exactly_its_burst() {
    const BURST: u64 = 5;
    let mut loaded = Loaded::new();
    // At one event an hour no time that a test takes admits one more.
    let rate = Rate::new(1, 3_600_000_000_000, BURST);
    for limit in Limit::ALL {
        // All frames of a limit of bytes are as heavy as one event of it.
        let state = State::default().set(|settings| settings.limits[0][limit as usize] = rate);
        loaded.fill(&state.set(|settings| settings.flags |= flag::MORE_BUDGETS));
        let (frame, over) = match limit {
            Limit::Packets => (tcp_frame(SOURCE_V4.into(), 80, ACK, b"data"), DropReason::PacketLimit),
            Limit::Connections => (tcp_frame(SOURCE_V4.into(), 80, SYN, &[]), DropReason::ConnectionLimit),
            Limit::Bytes => {
                let empty = tcp_frame(SOURCE_V4.into(), 80, ACK, &[]).len() as u64;
                let frame =
                    tcp_frame(SOURCE_V4.into(), 80, ACK, &vec![0; (Limit::Bytes.unit() - empty) as usize]);
                (frame, DropReason::ByteLimit)
            }
            Limit::Quic => {
                let initial = [&[0xc3, 0, 0, 0, 1, 8][..], &[0; 1194]].concat();
                (ethernet(IPV4, &ipv4(UDP, &udp(QUIC, &initial))), DropReason::QuicLimit)
            }
            Limit::Hellos => (
                tcp_frame(SOURCE_V6.into(), 443, DATA, &Hello::legacy(0x0303).bytes()),
                DropReason::HelloLimit,
            ),
        };
        let before = loaded.counter(over.number()).packets;
        loaded.program.run(&frame, 100).unwrap();
        assert_eq!(loaded.counter(over.number()).packets - before, 100 - BURST, "{limit:?}");
    }
}

/// The coarse clock stands still for up to a tick, and would refuse nearly all of these.
#[test]
fn a_limit_finer_than_a_tick_admits_what_comes_at_its_rate() {
    let rate = Rate { increment: 1_000, tolerance: 1_000 };
    assert!(rate.needs_fine_clock());
    let mut loaded = Loaded::new();
    loaded.fill(&State::default().set(|settings| {
        settings.flags |= flag::FINE_CLOCK;
        settings.limits[0][Limit::Packets as usize] = rate;
    }));
    let frame = tcp_frame(SOURCE_V4.into(), 80, ACK, b"data");
    for _ in 0..1_000 {
        loaded.program.run(&frame, 1).unwrap();
        let done = kernel_now();
        while kernel_now().0 < done.0 + rate.increment {
            std::hint::spin_loop();
        }
    }
    assert_eq!(loaded.counter(PassReason::Clean.number()).packets, 1_000);
}

/// One budget that two CPUs charge at the same time: neither may get what the other got. `refused` is why the rest is dropped.
struct Hammered {
    name: &'static str,
    state: State,
    frame: Vec<u8>,
    refused: DropReason,
    /// What is admitted in a time of so many nanoseconds costs that and the tolerances of these, each event its increment.
    rates: Vec<Rate>,
}

const ROUNDS: u32 = 200_000;
/// An event costs 10 us, 100 of them are admitted at once.
const RATE: Rate = Rate { increment: 10_000, tolerance: 1_000_000 };

fn hammered() -> Vec<Hammered> {
    let (v4, v6) =
        (tcp_frame(SOURCE_V4.into(), 80, ACK, b"data"), tcp_frame(SOURCE_V6.into(), 80, ACK, b"data"));
    let limited = |limit: Limit| State::default().set(|settings| settings.limits[0][limit as usize] = RATE);
    let more = |change: &dyn Fn(&mut Settings)| {
        State::default().set(|settings| {
            settings.flags |= flag::MORE_BUDGETS;
            change(settings);
        })
    };
    let packets = Limit::Packets as usize;
    let one = |name, state, frame: &[u8], refused| Hammered {
        name,
        state,
        frame: frame.to_vec(),
        refused,
        rates: vec![RATE],
    };
    vec![
        one("packets", limited(Limit::Packets), &v4, DropReason::PacketLimit),
        Hammered {
            rates: vec![RATE.costing(v4.len() as u64)],
            ..one(
                "bytes",
                more(&|settings| settings.limits[0][Limit::Bytes as usize] = RATE),
                &v4,
                DropReason::ByteLimit,
            )
        },
        one(
            "/48",
            more(&|settings| settings.networks[Scope::Network as usize][0][packets] = RATE),
            &v6,
            DropReason::NetworkLimit,
        ),
        one(
            "group",
            more(&|settings| settings.groups[1][packets] = RATE).port(UNHEARD, Port::in_group(1)),
            &tcp_frame(SOURCE_V4.into(), UNHEARD, ACK, &[]),
            DropReason::GroupLimit,
        ),
        Hammered {
            rates: vec![RATE, RATE],
            ..one(
                "everybody, and a share",
                more(&|settings| (settings.everybody[packets], settings.shares[packets]) = (RATE, RATE)),
                &v4,
                DropReason::GlobalLimit,
            )
        },
        one(
            "those without a slot",
            State::default().full(Limit::Packets).set(|settings| {
                settings.flags |= flag::SHARE_WHEN_FULL;
                settings.limits[0][packets] = RATE;
            }),
            &v4,
            DropReason::LimiterFull,
        ),
    ]
}

#[test]
fn every_budget_holds_when_two_cpus_charge_it() {
    let mut loaded = Loaded::new();
    for Hammered { name, state, frame, refused, rates } in hammered() {
        loaded.fill(&state);
        let passed = |loaded: &Loaded| {
            let reasons = [PassReason::Clean, PassReason::LimiterShared];
            reasons.iter().map(|reason| loaded.counter(reason.number()).packets).sum::<u64>()
        };
        let (before, refused_before) = (passed(&loaded), loaded.counter(refused.number()).packets);
        let barrier = Barrier::new(2);
        let start = kernel_now();
        thread::scope(|scope| {
            for cpu in 0..2 {
                let (loaded, frame, barrier) = (&loaded, &frame, &barrier);
                scope.spawn(move || {
                    let mut set = nix::sched::CpuSet::new();
                    set.set(cpu).unwrap();
                    // A machine with one CPU runs the threads in turn; the bound holds there too.
                    let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
                    barrier.wait();
                    loaded.program.run(frame, ROUNDS).unwrap();
                });
            }
        });
        let elapsed = kernel_now().0 - start.0;
        let admitted = passed(&loaded) - before;
        let refused = loaded.counter(refused.number()).packets - refused_before;
        let bound: u64 = rates.iter().map(|rate| (rate.tolerance + elapsed + TICK) / rate.increment).sum();
        let burst: u64 = rates.iter().map(|rate| rate.tolerance / rate.increment).sum();
        assert_eq!(admitted + refused, u64::from(2 * ROUNDS), "{name}");
        assert!(admitted >= burst, "{name}: {admitted} admitted, not even the burst of {burst}");
        assert!(admitted <= bound, "{name}: {admitted} admitted, at most {bound} may be");
    }
}
