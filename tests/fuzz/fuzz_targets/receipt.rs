//! Any bytes as a receipt, and any fields of a signed one: see `enforcer_tests::fuzz::apple`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = enforcer_tests::fuzz::apple::receipt(input);
});
