//! `cargo xtask fuzz`: unpacks the corpus of `tests/fuzz`, lets libFuzzer look for new paths, and keeps the shortest inputs that show
//! them.
//!
//! Not part of the suite, which replays what is kept: it needs a nightly toolchain and cargo-fuzz, and it takes as long as it is given.

use anyhow::{Context, Result};

use crate::process::{cargo, program, root, run};

/// The targets, by their names in `tests/fuzz`.
pub(crate) const TARGETS: [&str; 10] = [
    "decide",
    "automaton",
    "token",
    "attestation",
    "auth_data",
    "receipt",
    "base",
    "play",
    "key_description",
    "sealed",
];

/// Bytes of an input at most: more than any frame.
const LONGEST: &str = "-max_len=4096";

/// Fuzzes one target, or all.
pub(crate) fn command(target: Option<&str>, seconds: u32) -> Result<()> {
    let corpus = root().join("target/fuzz/corpus");
    let corpus = |name: &str| corpus.join(name).display().to_string();
    let keep = |word: &str| {
        run(cargo()
            .args(["run", "--quiet", "-p", "enforcer-tests", "--bin", "corpus", "--", word])
            .arg(corpus("")))
    };
    keep("unpack")?;
    for name in TARGETS.iter().filter(|name| target.is_none_or(|target| target == **name)) {
        // The decisions are safe Rust: a sanitizer would find nothing, and be slow.
        let mut fuzz = fuzzer("run", name);
        fuzz.args([&corpus(name), "--", LONGEST, &format!("-max_total_time={seconds}")]);
        run(&mut fuzz)
            .context("it needs `rustup toolchain install nightly` and `cargo install cargo-fuzz`")?;
        run(fuzzer("cmin", name).args([&corpus(name), "--", LONGEST]))?;
    }
    keep("pack")
}

fn fuzzer(verb: &str, target: &str) -> std::process::Command {
    let mut fuzz = program("cargo");
    fuzz.args(["+nightly", "fuzz", verb, "--fuzz-dir", "tests/fuzz", "--sanitizer", "none", target]);
    fuzz
}
