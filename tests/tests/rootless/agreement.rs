//! The program's judgement on ClientHellos against that of rustls: on hellos of many makes, on damaged ones, and as the daemon counts
//! it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use anyhow::Result;
use enforcer::{
    agreement::{Opinion, TlsStack, compare},
    config::TlsVersion,
    kernel::{Reason, events::Sample},
    metrics::Metrics,
    policy::Policy,
};
use enforcer_common::reason::{DropReason, PassReason};
use enforcer_tests::{
    edge::Site,
    hellos::{self, plain},
    judges::{Comparison, Core, Meant, core, core_of, cut, frames, judge, syn_with},
    packets::*,
};
use proptest::prelude::*;
use tokio::sync::broadcast;

static STACK: LazyLock<TlsStack> = LazyLock::new(|| TlsStack::new().unwrap());

#[test]
fn the_core_agrees_with_rustls_on_hellos_of_every_make() -> Result<()> {
    let corpus = hellos::all()?;
    let (mut wrong, mut met, mut counts) = (Vec::new(), HashSet::new(), BTreeMap::new());
    for (name, bytes) in &corpus {
        // Each byte alone, where that is not too much; each record and message header apart.
        let places: Vec<usize> =
            if bytes.len() < 3_000 { (1..bytes.len()).collect() } else { vec![1, 5, 9, 700] };
        match judge(&STACK, bytes, &places) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(found) => {
                for (core, opinion, comparison) in found {
                    *counts.entry(format!("{core:?} {opinion:?}")).or_insert(0) += 1;
                    if let Comparison::Meant(meant) = comparison {
                        met.insert(meant);
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), corpus.len(), wrong.join("\n"));
    for agreement in [(Core::Accepted, Opinion::Taken), (Core::TooOld, Opinion::TooOld)] {
        let (core, opinion) = agreement;
        let count = counts.get(&format!("{core:?} {opinion:?}")).copied().unwrap_or_default();
        assert!(count > 50, "{core:?} and {opinion:?}: {counts:?}");
    }
    assert_eq!(met.len(), Meant::ALL.len(), "a difference that is meant does not occur: {met:?}");
    Ok(())
}

/// Clients that people have are taken, or refused for their versions, by both.
#[test]
fn real_clients_are_judged_by_their_versions() -> Result<()> {
    for (name, bytes) in hellos::openssl()?.into_iter().chain(hellos::rustls()?) {
        let found = judge(&STACK, &bytes, &[]).unwrap();
        // Without 1.2 it offers nothing above the gap.
        let old = ["-tls1 ", "-tls1_1 ", "-max_protocol TLSv1.1", "-no_tls1_2"];
        let expected =
            if old.iter().any(|words| name.contains(words)) { Core::TooOld } else { Core::Accepted };
        assert_eq!(found[0].0, expected, "{name}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Damage anywhere: bytes replaced, taken out, put in; and cut anywhere.
    #[test]
    fn the_core_agrees_with_rustls_on_damaged_hellos(
        index in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..4),
        end in proptest::option::of(any::<prop::sample::Index>()),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
            let short = |(_, bytes): hellos::Named| (10..3_000).contains(&bytes.len()).then_some(bytes);
            hellos::rustls().unwrap().into_iter().chain(hellos::made_up()).filter_map(short).collect()
        });
        let mut bytes = index.get(&CORPUS).clone();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        let places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        if let Err(error) = judge(&STACK, &bytes, &places) {
            prop_assert!(false, "{}: {:02x?}", error, bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// TCP Fast Open: any part of the stream comes with the SYN (RFC 7413), which the server may have ignored.
    #[test]
    fn what_comes_with_the_syn_is_judged_like_the_rest(
        index in any::<prop::sample::Index>(),
        early in any::<prop::sample::Index>(),
        repeated in any::<bool>(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        static STREAMS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
            let short = |(_, bytes): hellos::Named| (10..3_000).contains(&bytes.len()).then_some(bytes);
            hellos::made_up().into_iter().filter_map(short).collect()
        });
        let stream = index.get(&STREAMS);
        let early = early.index(stream.len() + 1);
        let begin = if repeated { 0 } else { early };
        let places: Vec<usize> = cuts.iter().map(|at| at.index(stream.len() + 1)).collect();
        let behind = cut(stream.len(), &places).into_iter().filter(|(_, end)| *end > begin);
        let segments: Vec<_> = behind.map(|(at, end)| (at.max(begin), end)).collect();
        let minimum = TlsVersion::Tls12;
        let mut sent = frames(stream, &segments);
        sent[0] = syn_with(&stream[..early]);
        let found = core_of(&sent, minimum);
        let whole = core(stream, minimum, &cut(stream.len(), &[]));
        prop_assert_eq!(found, whole, "{} bytes with the SYN, then {:?}: {:02x?}", early, segments, stream);
    }
}

fn sample(reason: Reason, data: &[u8], missing: usize) -> Arc<Sample> {
    let bytes = tcp_frame(SOURCE_V6.into(), 443, DATA, data);
    Arc::new(Sample {
        unix_ns: 0,
        interface: "eth0".to_owned(),
        cpu: 0,
        reason,
        length: bytes.len(),
        bytes: bytes[..bytes.len() - missing].to_vec(),
    })
}

/// What counts as a false drop is what rustls would have taken, whatever the program refused it for.
#[tokio::test]
async fn false_drops_are_counted_and_right_ones_are_not() -> Result<()> {
    let policy = Policy::load(&Site::new(SocketAddr::from(([127, 0, 0, 1], 9)))?.config)?.share();
    let (metrics, (sender, samples)) = (Metrics::new()?, broadcast::channel(64));
    let (good, old) = (plain(0x0303).bytes(), plain(0x0302).bytes());
    let refused = Reason::Drop(DropReason::TlsVersion);
    for (reason, data, missing) in [
        // Wrongly refused.
        (refused, &good, 0),
        (Reason::WouldDrop(DropReason::TlsVersion), &good, 0),
        (Reason::Drop(DropReason::MalformedHello), &good, 0),
        (Reason::Pass(PassReason::HelloPoisoned), &good, 0),
        // Rightly.
        (refused, &old, 0),
        (Reason::Drop(DropReason::NotHello), &b"GET / HTTP/1.1\r\n\r\n".to_vec(), 0),
        // Nothing can be said of these: cut off, unfinished, from the middle, refused for something else.
        (refused, &good, 1),
        (refused, &good[..good.len() - 1].to_vec(), 0),
        (refused, &good[9..].to_vec(), 0),
        (Reason::Drop(DropReason::HelloLimit), &good, 0),
        (Reason::Pass(PassReason::ServerReset), &good, 0),
    ] {
        sender.send(sample(reason, data, missing))?;
    }
    drop(sender);
    compare(samples, policy, metrics.clone()).await?;
    assert_eq!((metrics.false_drops.get(), metrics.hellos_compared.get()), (4, 6));
    Ok(())
}
