//! Any authenticator data, signed by the right keys: see `enforcer_tests::fuzz::apple`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = enforcer_tests::fuzz::apple::auth_data(input);
});
