//! A full bucket: who gives way.

use super::*;

const SECOND: u64 = 1_000_000_000;

fn of(flow: u64, at: usize, length: usize, now: u64) -> Segment {
    Segment { hash: flow << 32, now, ..segment(0, at, length) }
}

fn begin(bucket: &mut Plain, flow: u64, phase: Phase, now: u64) -> Place {
    let opening = Opening { phase, begins: phase == Phase::Opened, next: 0, value: 0 };
    open(bucket, &of(flow, 0, 0, now), &opening)
}

/// Whoever sends beginnings of hellos without a SYN, as many as he likes, takes no room from a client that sent one, nor makes an old hello
/// forgotten.
#[test]
fn strangers_take_nobody_s_room() {
    let old = stream(&[0x0302], 0x0303, 900, false, &[], None);
    let good = stream(&[0x0304], 0x0303, 900, false, &[], None);
    let mut bucket = Plain::default();
    let now = 100 * SECOND;
    let crowd = |bucket: &mut Plain, first: u64| {
        for flow in first..first + 50 {
            assert_eq!(begin(bucket, flow, Phase::Loose, now), Place::Found);
            assert_eq!(advance_by(bucket, &of(flow, 0, 500, now), &&*good).kind, Kind::Part);
        }
    };
    assert_eq!(begin(&mut bucket, 1, Phase::Opened, now), Place::Found);
    assert_eq!(advance_by(&mut bucket, &of(1, 0, 500, now), &&*old).kind, Kind::Part);
    crowd(&mut bucket, 1_000);
    assert_eq!(begin(&mut bucket, 2, Phase::Opened, now), Place::Found, "there is room for a client");
    crowd(&mut bucket, 2_000);
    assert_eq!(advance_by(&mut bucket, &of(2, 0, 500, now), &&*good).kind, Kind::Part);
    crowd(&mut bucket, 3_000);
    assert_eq!(advance_by(&mut bucket, &of(2, 500, good.len() - 500, now), &&*good).kind, Kind::Accepted);
    assert_eq!(advance_by(&mut bucket, &of(1, 500, old.len() - 500, now), &&*old).kind, Kind::Refused);
}

/// Nor do such that send a SYN first: what has stood for 2 s gives way.
#[test]
fn what_goes_on_for_long_gives_way() {
    let good = stream(&[0x0304], 0x0303, 900, false, &[], None);
    let mut bucket = Plain::default();
    for flow in 1..=SLOTS as u64 {
        let now = (100 + flow / 8) * SECOND;
        assert_eq!(begin(&mut bucket, flow, Phase::Opened, now), Place::Found);
        assert_eq!(advance_by(&mut bucket, &of(flow, 0, 500, now), &&*good).kind, Kind::Part);
    }
    assert_eq!(begin(&mut bucket, 9, Phase::Opened, 102 * SECOND), Place::Full);
    assert_eq!(begin(&mut bucket, 9, Phase::Opened, 104 * SECOND), Place::Found);
    assert_eq!(
        advance_by(&mut bucket, &of(8, 500, good.len() - 500, 104 * SECOND), &&*good).kind,
        Kind::Accepted
    );
}
