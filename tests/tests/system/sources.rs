//! The table of sources as the daemon writes it and the program reads it: bans by the thousand, and what becomes of those that find
//! no slot.

use std::net::Ipv4Addr;

use anyhow::Result;
use enforcer::{
    config::{self, KernelLimits},
    kernel::{Kernel, Reason, program::Sizes},
};
use enforcer_common::{
    ban::{Ban, FOREVER},
    reason::{DropReason, PassReason},
    source::SourceKey,
};
use enforcer_tests::{kernel::plain, packets::*};

/// Many enough that some buckets overflow, whatever the seed.
const BANS: u32 = 20_000;

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xc612_0000 + number)
}

fn bans(numbers: impl Iterator<Item = u32>, until: u64) -> Vec<(SourceKey, Ban)> {
    numbers.map(|number| (SourceKey::v4(address(number).octets()), Ban { until })).collect()
}

/// How many packets, one from each source, were counted for a reason.
fn counted(kernel: &Kernel, reason: Reason) -> Result<u32> {
    let packets = |kernel: &Kernel| -> Result<u64> {
        let counters = kernel.view()?.counters()?;
        Ok(counters.iter().filter(|one| one.reason == reason).map(|one| one.counter.packets).sum())
    };
    let before = packets(kernel)?;
    for number in 0..BANS {
        kernel.test_run(&tcp_frame(address(number).into(), 80, ACK, b"data"), 1)?;
    }
    Ok((packets(kernel)? - before) as u32)
}

fn load() -> Result<Kernel> {
    let plain = plain();
    let limits = KernelLimits { max_sources: 1024, ..plain.limits.clone() };
    Kernel::load(&config::Kernel { limits, ..plain }, BANS)
}

#[test]
fn bans_by_the_thousand_hold_and_are_lifted() -> Result<()> {
    let slots = Sizes { bans: BANS, sources: 1024 }.source_buckets() * 4;
    assert!(BANS > slots / 4, "so few bans of {slots} slots would not overflow");
    let kernel = load()?;
    let mut lists = kernel.lists()?;
    lists.ban_many(&bans(0..BANS, FOREVER))?;
    assert_eq!(counted(&kernel, Reason::Drop(DropReason::Banned))?, BANS);
    // Once more is no second ban.
    lists.ban_many(&bans(0..BANS, FOREVER))?;
    for (source, _) in bans((0..BANS).step_by(2), FOREVER) {
        lists.unban(source)?;
    }
    assert_eq!(counted(&kernel, Reason::Drop(DropReason::Banned))?, BANS / 2);
    // Bans that are written anew find their way back, those that have ended do not hold.
    lists.ban_many(&bans((0..BANS).step_by(2), 1))?;
    assert_eq!(counted(&kernel, Reason::Pass(PassReason::Clean))?, BANS / 2);
    // Another writer over the same maps knows what has spilled over.
    let mut lists = kernel.lists()?;
    for (source, _) in bans(0..BANS, FOREVER) {
        lists.unban(source)?;
    }
    assert_eq!(counted(&kernel, Reason::Pass(PassReason::Clean))?, BANS);
    Ok(())
}
