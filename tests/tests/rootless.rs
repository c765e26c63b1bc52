//! Tests that need neither root nor the eBPF toolchain.

mod rootless {
    mod configs;
    mod refusals;
}
