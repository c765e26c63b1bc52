//! Any encrypted body: see `enforcer_tests::fuzz::sealed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = enforcer_tests::fuzz::sealed::judge(input);
});
