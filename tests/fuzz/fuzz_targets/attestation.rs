//! Any bytes as an attestation object or an assertion: see `enforcer_tests::fuzz::apple`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = enforcer_tests::fuzz::apple::attestation(input);
});
