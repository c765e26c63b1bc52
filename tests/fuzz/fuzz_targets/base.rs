//! Any message and signature input: see `enforcer_tests::fuzz::base`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = enforcer_tests::fuzz::base::judge(input);
});
