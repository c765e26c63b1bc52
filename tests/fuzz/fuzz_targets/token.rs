//! Any token, whoever signed it: see `enforcer_tests::fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = enforcer_tests::fuzz::token::judge(input);
});
