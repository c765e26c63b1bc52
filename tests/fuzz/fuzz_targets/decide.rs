//! Any frames, under many settings: see `enforcer_tests::fuzz::decide`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    enforcer_tests::fuzz::decide(input);
});
