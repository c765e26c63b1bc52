//! The table of sources as the daemon writes it and the program reads it: bans by the thousand, and what becomes of those that find
//! no slot.

use std::net::Ipv4Addr;

use anyhow::Result;
use enforcer::{
    config::{self, KernelLimits},
    kernel::{Kernel, Reason, program::Sizes},
};
use enforcer_common::{
    ban::{Ban, FOREVER, Listing},
    reason::{DropReason, PassReason},
    source::SourceKey,
};
use enforcer_tests::{kernel::plain, packets::*};

/// Return value of XDP programs (linux/bpf.h).
const XDP_DROP: u32 = 1;

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
    let slots = Sizes::new(BANS, 1024).source_buckets() * 4;
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

/// Which of these sources are dropped as members of a banned prefix.
fn listed(kernel: &Kernel, sources: &[&str]) -> Result<Vec<bool>> {
    let dropped = |source: &&str| -> Result<bool> {
        Ok(kernel.test_run(&tcp_frame(source.parse()?, 80, ACK, b"data"), 1)?.action == XDP_DROP)
    };
    sources.iter().map(dropped).collect()
}

#[test]
fn a_prefix_of_any_length_holds_until_it_is_taken_off() -> Result<()> {
    let kernel = load()?;
    let mut lists = kernel.lists()?;
    // Next to each other, so that they share words and bits.
    let sources = [
        "198.18.0.7",
        "198.18.0.200",
        "198.18.1.7",
        "198.19.0.7",
        "2001:db8:1:2::7",
        "2001:db8:1:3::7",
        "2001:db8:2::7",
    ];
    let cases = [
        ("198.18.0.7/32", [true, false, false, false, false, false, false]),
        ("198.18.0.0/25", [true, false, false, false, false, false, false]),
        ("198.18.0.0/24", [true, true, false, false, false, false, false]),
        ("198.18.0.0/23", [true, true, true, false, false, false, false]),
        ("198.18.0.0/15", [true, true, true, true, false, false, false]),
        ("0.0.0.0/0", [true, true, true, true, false, false, false]),
        ("2001:db8:1:2::7/128", [false, false, false, false, true, false, false]),
        ("2001:db8:1::/63", [false, false, false, false, false, false, false]),
        ("2001:db8:1::/48", [false, false, false, false, true, true, false]),
        ("2001:db8::/47", [false, false, false, false, true, true, false]),
        ("2001:db8::/32", [false, false, false, false, true, true, true]),
        ("2001:d00::/24", [false, false, false, false, true, true, true]),
        ("::/0", [false, false, false, false, true, true, true]),
    ];
    let prefix = |text: &str| text.parse().map_err(anyhow::Error::msg);
    for (text, expected) in cases {
        lists.list(prefix(text)?, Listing::banned(FOREVER))?;
        assert_eq!(listed(&kernel, &sources)?, expected, "{text}");
        lists.unlist(prefix(text)?)?;
        assert_eq!(listed(&kernel, &sources)?, [false; 7], "{text} is gone");
    }
    // All of them, and one after the other gone: the widest first, so that the narrow ones show.
    for (text, _) in cases {
        lists.list(prefix(text)?, Listing::banned(FOREVER))?;
    }
    for at in (0..cases.len()).rev() {
        let left = &cases[..=at];
        let any = |source: usize| left.iter().any(|(_, expected)| expected[source]);
        assert_eq!(listed(&kernel, &sources)?, std::array::from_fn::<_, 7, _>(any), "{left:?}");
        lists.unlist(prefix(cases[at].0)?)?;
    }
    assert_eq!(listed(&kernel, &sources)?, [false; 7]);
    Ok(())
}
