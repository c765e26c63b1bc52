//! The ledger at its bounds: what the kernel's tables have no room for is refused, and the rest goes on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{net::Ipv4Addr, time::Duration};

use enforcer::{
    bans::ledger::{BanRequest, End, Input, Ledger, Outcome, Refusal},
    clock::KernelTime,
    config::Bans,
    kernel::program::PREFIX_BANS,
    prefix::Prefix,
};

const NOW: KernelTime = KernelTime(1_000_000_000);

fn add(ledger: &mut Ledger, prefix: Prefix) -> Outcome {
    let request = BanRequest {
        prefix,
        end: End::Default,
        reason: String::new(),
        force: false,
        own_address: None,
        machine: Vec::new(),
    };
    ledger.handle(NOW, Input::BanAdd(request)).outcome
}

#[test]
fn bans_of_prefixes_have_a_bound_of_their_own_and_allowances_always_fit() {
    let mut ledger = Ledger::new(Bans {
        threshold: 20,
        window: Duration::from_secs(60),
        duration: Duration::from_secs(600),
        max_duration: Duration::from_secs(3600),
        max_entries: 1_000_000,
        dry_run: false,
        store: None,
    });
    let pair = |n: u32| Prefix::host(Ipv4Addr::from(0x0a00_0000 + 2 * n).into()).widened(31);
    for n in 0..PREFIX_BANS {
        assert!(matches!(add(&mut ledger, pair(n)), Outcome::BanAdded { .. }), "{n}");
    }
    assert_eq!(add(&mut ledger, pair(PREFIX_BANS)), Outcome::Refused(Refusal::FullPrefixes));
    assert!(matches!(add(&mut ledger, pair(0)), Outcome::BanAdded { replaced: Some(_), .. }));
    let single = "198.18.0.1".parse().unwrap();
    assert!(matches!(add(&mut ledger, single), Outcome::BanAdded { .. }), "a single source");
    let allow =
        Input::AllowAdd { prefix: "198.18.0.0/24".parse().unwrap(), reason: String::new(), force: false };
    assert!(matches!(ledger.handle(NOW, allow).outcome, Outcome::AllowAdded { .. }));
    ledger.handle(NOW, Input::BanDel(pair(7)));
    assert!(matches!(add(&mut ledger, pair(PREFIX_BANS)), Outcome::BanAdded { .. }));
}
