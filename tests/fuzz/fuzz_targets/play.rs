//! Any token or verdict of Play Integrity: see `enforcer_tests::fuzz::google`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = enforcer_tests::fuzz::google::play(input);
});
