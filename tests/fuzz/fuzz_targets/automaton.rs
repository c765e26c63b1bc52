//! Any stream, however it is cut, against rustls: see `enforcer_tests::fuzz::automaton`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    enforcer_tests::fuzz::automaton(input);
});
