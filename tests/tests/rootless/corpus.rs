//! The corpus of the fuzz targets, in plain memory. The system tests put it through the kernel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashSet;

use enforcer_tests::fuzz::{self, corpus};

#[test]
fn everything_that_fuzzing_has_kept_is_judged_as_it_must() {
    let verdicts: HashSet<_> = corpus::kept("decide").into_iter().flat_map(fuzz::decide).collect();
    let opinions: HashSet<_> = corpus::kept("automaton").into_iter().flat_map(fuzz::automaton).collect();
    let tokens: HashSet<_> = corpus::kept("token").into_iter().filter_map(fuzz::token::judge).collect();
    let bases: HashSet<_> = corpus::kept("base").into_iter().map(fuzz::base::judge).collect();
    let objects: HashSet<_> =
        corpus::kept("attestation").into_iter().filter_map(fuzz::apple::attestation).collect();
    let data: HashSet<_> = corpus::kept("auth_data").into_iter().filter_map(fuzz::apple::auth_data).collect();
    let receipts: HashSet<_> = corpus::kept("receipt").into_iter().filter_map(fuzz::apple::receipt).collect();
    let verdicts_of_play: HashSet<_> =
        corpus::kept("play").into_iter().filter_map(fuzz::google::play).collect();
    let descriptions: HashSet<_> =
        corpus::kept("key_description").into_iter().map(fuzz::google::key_description).collect();
    let sealed: HashSet<_> = corpus::kept("sealed").into_iter().map(fuzz::sealed::judge).collect();
    // An empty corpus would show nothing.
    assert!(verdicts.len() >= 30, "{verdicts:?}");
    assert!(opinions.len() >= 6, "{opinions:?}");
    assert!(bases.len() >= 5 && bases.contains(&None), "{bases:?}");
    assert!(tokens.len() >= 10 && tokens.contains(&Ok(())), "{tokens:?}");
    assert!(objects.len() >= 2, "{objects:?}");
    assert!(data.len() >= 8 && data.contains(&Ok(())), "{data:?}");
    assert!(receipts.len() == 2 && receipts.contains(&Ok(())), "{receipts:?}");
    assert!(verdicts_of_play.len() >= 7 && verdicts_of_play.contains(&Ok(())), "{verdicts_of_play:?}");
    assert!(descriptions.len() >= 5 && descriptions.iter().any(Result::is_ok), "{descriptions:?}");
    let forms: HashSet<_> = sealed.iter().flatten().map(|(form, _)| *form).collect();
    assert!(forms.len() == 3 && sealed.len() >= 5 && sealed.contains(&None), "{sealed:?}");
}

#[test]
fn what_is_kept_is_unpacked_with_the_seeds() {
    for target in corpus::TARGETS {
        let seeds = corpus::seeds(target);
        assert!(seeds.len() >= 10, "{target}: {}", seeds.len());
        let kept: HashSet<&[u8]> = corpus::kept(target).into_iter().collect();
        assert!(!kept.is_empty());
    }
    let folder = tempfile::tempdir().unwrap();
    corpus::unpack(folder.path()).unwrap();
    for target in corpus::TARGETS {
        let files = std::fs::read_dir(folder.path().join(target)).unwrap().count();
        assert!(files >= corpus::kept(target).len(), "{target}: {files}");
    }
}
